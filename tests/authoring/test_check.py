from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from posegrad import cli
from posegrad.data.check import check_dataset

from .damages import DAMAGES, Damage


@pytest.fixture
def copy(block_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(block_root, tmp_path / "set"))


def test_a_whole_dataset_has_no_problem(block_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(block_root)]) == 0
    printed = capsys.readouterr().out
    assert "2 scenes, 8 frames, 8 annotations, 8 pictures, 1 object, no problem" in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.name)
def test_damage_is_one_clear_line(damage: Damage, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage.hurt(copy)
    assert cli.main(["data", "check", str(copy)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 2, lines
    assert lines[0].startswith(str(damage.file))
    for words in damage.check:
        assert words in lines[0]
    assert lines[1].endswith("1 problem")


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d.train is not None], ids=lambda d: d.name)
def test_training_stops_with_one_line(
    damage: Damage, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.hurt(copy)
    words = [
        *("train", "--data", str(copy), "--out", str(tmp_path / "run"), "--steps", "1", "--batch-size", "6"),
        *("--image-size", "32", "--keypoints", "8", "--backbone", "test_efficientnet", "--pictures", "0"),
        *("--precision", "float32", "--threads", "1"),
    ]
    assert cli.main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("posegrad: ")]
    assert len(lines) == 1
    for part in damage.train or ():
        assert part in lines[0]


def test_junk_anywhere_is_a_finding_and_no_exception(copy: Path) -> None:
    """Random values at random places of the JSON files, random bytes in meshes and pictures."""
    rng = np.random.default_rng(5)
    junk = [None, True, [], {}, "x", -1, 10**400, float("inf"), [[1]], {"1": {}}, 3.7]
    files = sorted(p for p in copy.rglob("*") if p.suffix in (".json", ".ply", ".jpg", ".png"))
    for trial in range(120):
        file = files[trial % len(files)]
        whole = file.read_bytes()
        if file.suffix == ".json":
            content = json.loads(whole)
            place = content
            while True:  # down to a random depth
                key = (
                    list(place)[rng.integers(len(place))]
                    if isinstance(place, dict)
                    else rng.integers(len(place))
                )
                below = place[key]
                if not isinstance(below, dict | list) or not below or rng.random() < 0.3:
                    break
                place = below
            place[key] = junk[rng.integers(len(junk))]
            file.write_text(json.dumps(content))
        else:
            data = bytearray(whole)
            for _ in range(8):
                data[rng.integers(len(data))] = rng.integers(256)
            file.write_bytes(bytes(data))
        findings = check_dataset(copy)
        assert not [p for p in findings.problems if "cannot be checked" in p.what], file
        file.write_bytes(whole)
    assert not check_dataset(copy).problems


def test_missing_pictures_name_the_split_file_that_leaves_them_out(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for frame in (1, 4):
        (copy / f"train/000001/rgb/{frame:06d}.jpg").unlink()
    split = copy / "split.json"
    split.write_text(json.dumps({"train": [0, 2, 3], "test": [5]}))
    assert cli.main(["data", "check", str(copy)]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("train/000001/rgb, frames 1, 4: ")
    assert f"--split {split}" in line
    assert cli.main(["data", "check", str(copy), "--split", str(split)]) == 0
    split.write_text(json.dumps({"train": [0, 1, 2, 99], "test": [2, 2]}))
    assert cli.main(["data", "check", str(copy), "--split", str(split)]) == 1
    printed = capsys.readouterr().out
    for words in ("rgb, frame 1: ", "frame 2: in both lists", "1 ids are twice", "frame 99: no annotation"):
        assert words in printed


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("nowhere", "no such folder"),
        ("set/train", "pass the dataset's folder"),
        ("set/train/000001", "pass the dataset's folder"),
        ("set/models", "no folder has a scene"),
    ],
)
def test_another_folder(folder: str, words: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(copy.parent / folder)]) == 1
    assert words in capsys.readouterr().out


@pytest.mark.real
def test_lm_occlusion_lacks_a_quarter_of_its_pictures_and_nothing_else(lmo_root: Path) -> None:
    (missing,) = check_dataset(lmo_root, quick=True).problems
    assert len(missing.frames) == 50
    assert "split.json" in missing.fix
    assert not check_dataset(lmo_root, split=lmo_root / "split.json").problems
