from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posegrad import cli
from posegrad.data.check import check_dataset

from .damages import DAMAGES, GT, Damage


@pytest.fixture
def copy(block_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(block_root, tmp_path / "set"))


def test_a_whole_dataset_has_no_problem(block_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(block_root)]) == 0
    printed = capsys.readouterr().out
    assert "2 scenes, 8 frames, 8 annotations, 1 objects, no problem" in printed
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
