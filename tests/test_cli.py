import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from posegrad import cli
from posegrad.data import DatasetError, RenderConfig, render_dataset


@pytest.fixture(scope="module")
def dataset(shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    small = RenderConfig(train_frames=6, test_frames=3, width=96, height=80, focal=168.0, samples=1)
    return shared_folder("cli", lambda root: render_dataset(root, small, workers=1, progress=False))


@pytest.fixture
def words(dataset: Path, tmp_path: Path) -> list[str]:
    shutil.copytree(dataset, tmp_path / "toy")
    return [
        *("train", "--data", str(tmp_path / "toy"), "--out", str(tmp_path / "run"), "--steps", "2"),
        *("--batch-size", "3", "--image-size", "64", "--keypoints", "8", "--backbone", "test_efficientnet"),
        *("--pictures", "1", "--precision", "float32", "--threads", "1"),
    ]


def fails_with_one_line(words: list[str], capsys: pytest.CaptureFixture[str], *expected: str) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    message = [line for line in captured.err.splitlines() if line.startswith("posegrad: ")]
    assert len(message) == 1
    assert "Traceback" not in captured.err
    for part in expected:
        assert part in message[0]


def test_train_then_eval(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "ADD-0.1d" in printed
    assert "mean pose" in printed
    assert cli.main(["eval", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == printed


def test_a_split_names_the_only_frames_that_are_read(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "toy" / "train" / "000001" / "rgb"
    for path in images.iterdir():
        if int(path.stem) == 5:
            path.unlink()
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [0, 1, 2], "test": [3, 4]}))
    assert cli.main([*words, "--split", str(split)]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["training"]["images"], metrics["test"]["posegrad"]["count"]) == (3, 2)
    split.write_text(json.dumps({"train": [0, 5], "test": [3]}))
    fails_with_one_line([*words, "--split", str(split)], capsys, "missing", "000005")


def test_an_image_is_missing(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((tmp_path / "toy" / "test" / "000001" / "rgb").iterdir()).unlink()
    fails_with_one_line(words, capsys, "missing")


def test_an_image_is_truncated(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "toy" / "train" / "000001" / "rgb").iterdir():
        path.write_bytes(path.read_bytes()[:400])
    fails_with_one_line(words, capsys, "truncated")


def test_an_error_of_a_worker_process_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            raise DatasetError("a.png is truncated: copy it again.")

    with pytest.raises(DatasetError) as wrapped:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    assert "Traceback" in str(wrapped.value)
    assert cli._fail(str(wrapped.value)) == 2
    assert capsys.readouterr().err == "posegrad: a.png is truncated: copy it again.\n"


def test_absent_object(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails_with_one_line([*words, "--object", "7"], capsys, "No object 7", "[1]")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--image-size", "100"), ("--image-size", "0"), ("--padding", "0"), ("--keypoints", "3")),
        *(("--min-visibility", "2"), ("--augment", "-1"), ("--shift", "nan"), ("--scale", "-1")),
        *(("--rotation", "400"), ("--workers", "-1"), ("--width", "0"), ("--sharpness", "0")),
        *(("--beta", "-1"), ("--reprojection", "inf"), ("--robust", "-1"), ("--beta-start", "2")),
        *(("--beta-full", "0.1"), ("--sigma", "0"), ("--coordinate", "-1"), ("--max-gain", "-1")),
        *(("--epochs", "0"), ("--steps", "0"), ("--max-minutes", "0"), ("--batch-size", "0")),
        *(("--lr", "0"), ("--lr", "inf"), ("--backbone-lr", "-1"), ("--weight-decay", "-1")),
        *(("--warm-up", "2"), ("--clip", "0"), ("--seed", "-1"), ("--seed", str(2**63))),
        *(("--log-every", "0"), ("--pictures", "-1")),
    ],
)
def test_a_value_out_of_range(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    fails_with_one_line(["train", "--out", str(out), option, value], capsys, f"{option}: got ", "expected ")
    assert not out.exists()


def test_a_value_out_of_range_for_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails_with_one_line(["eval", str(tmp_path), "--pictures", "-1"], capsys, "--pictures: got -1")


def test_missing_mesh(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "toy").glob("models*/*.ply"):
        path.unlink()
    fails_with_one_line(words, capsys, "obj_000001.ply")


def test_missing_dataset(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tmp_path / "toy")
    fails_with_one_line(words, capsys, "No dataset folder")


def test_unknown_backbone(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails_with_one_line([*words, "--backbone", "resnet81"], capsys, "'resnet81'", "resnet18")


def test_weights_of_another_network(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pth").write_text("?")
    fails_with_one_line([*words, "--weights", str(tmp_path / "w.pth")], capsys, "cannot read", "w.pth")


def test_unwritable_output(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    fails_with_one_line([*words, "--out", str(tmp_path / "file" / "run")], capsys, "--out", "cannot write")


def test_eval_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails_with_one_line(["eval", str(tmp_path)], capsys, "config.json")


@pytest.fixture
def without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the test, with no published data in sight."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("POSEGRAD_DATA", raising=False)


@pytest.mark.parametrize(
    ("experiment", "options", "printed"),
    [
        ("pose", (), "VGG-11, lambda = 0"),
        ("sfm", ("--points", "20", "--views", "6"), "similarity"),
        ("calibration", (), "true"),
    ],
)
def test_demo(
    experiment: str,
    options: tuple[str, ...],
    printed: str,
    without_data: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["demo", experiment, *options, "--steps", "2"]) == 0
    assert printed in capsys.readouterr().out
    folder = Path("runs", experiment)
    assert json.loads((folder / f"{experiment}.json").read_text())["settings"]["steps"] == 2
    assert (folder / f"{experiment}.png").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pose", "--lr", "0"], "--lr: got 0.0, expected a finite number > 0"),
        (["sfm", "--points", "1000000"], "--points: got 1000000, expected at most"),
        (["calibration", "--out", "file/run"], "--out: cannot write"),
        (["calibration", "--data", "nowhere"], "--data: no folder nowhere"),
        (["chessboards"], "set POSEGRAD_DATA or --data"),
    ],
)
def test_a_demo_that_cannot_run(
    words: list[str],
    expected: str,
    without_data: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("file").write_text("")
    fails_with_one_line(["demo", *words], capsys, expected)


def test_help_states_defaults_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["train", "--help"])
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "--data",
        "--object",
        "--split",
        "--weights",
        "--loss {heatmap,pose,mixed,regression}",
        "--out",
        "--seed",
    ):
        assert part in text
    assert "Side of the crops, pixels, a multiple of 32. (default: 128)" in text


def test_a_reader_that_has_enough_hears_nothing_more() -> None:
    command = f"{sys.executable} -m posegrad.cli train --help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_without_the_extra_one_line_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'posegrad[train]'")


def test_importing_the_command_line_needs_no_extra() -> None:
    extras = {"tyro", "timm", "cv2", "trimesh", "accelerate"}
    code = f"import sys, posegrad.cli; sys.exit(bool({extras} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
