from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from posegrad import cli
from posegrad.data import load_image


def test_a_sheet_of_annotations(block_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "deep" / "sheet.png"
    assert (
        cli.main(["data", "show", str(block_root), "--out", str(sheet), "--frames", "3", "--folder", "train"])
        == 0
    )
    assert "3 of 6 annotated frames" in capsys.readouterr().out
    image = load_image(sheet)
    assert image.shape[1] == 3 * (192 + 4) + 4
    green = (np.abs(image.astype(int) - (60, 220, 70)).max(-1) < 60).sum()
    assert green > 300  # outlines


def test_a_folder_of_pictures_with_outlines_on_the_object(block_root: Path, tmp_path: Path) -> None:
    assert (
        cli.main(["data", "show", str(block_root), "--out", str(tmp_path / "out"), "--keypoints", "0"]) == 0
    )
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names[0] == "test_000001_000000.jpg"
    assert len(names) == 8
    plain = load_image(block_root / "train/000001/rgb/000003.jpg").astype(int)
    drawn = load_image(tmp_path / "out" / "train_000001_000003.jpg").astype(int)
    mask = load_image(block_root / "train/000001/mask_visib/000003_000000.png")[..., 0] > 0
    changed = np.abs(plain - drawn).max(-1) > 80
    rows, columns = np.nonzero(mask)
    far = changed.copy()
    far[rows.min() - 6 : rows.max() + 7, columns.min() - 6 : columns.max() + 7] = False
    assert changed.sum() > 100
    assert far.sum() < 10


def test_frames_without_a_picture_are_counted(
    block_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(block_root, tmp_path / "set"))
    (root / "train/000001/rgb/000003.jpg").unlink()
    assert cli.main(["data", "show", str(root), "--out", str(tmp_path / "sheet.jpg"), "--object", "1"]) == 0
    assert "1 annotated frames have no picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--object", "7"], "--object: got 7, test, train have [1]"),
        (["--out", "sheet.gif"], "--out: got sheet.gif, expected a .jpg, a .png or a folder"),
        (["--frames", "0"], "--frames: got 0"),
        (["--folder", "val"], "No folder 'val'"),
    ],
)
def test_what_cannot_be_shown(
    words: list[str], expected: str, block_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "show", str(block_root), *words]) == 2
    assert expected in capsys.readouterr().err
    assert cli.main(["data", "show", "nowhere"]) == 2
    assert "No dataset folder nowhere" in capsys.readouterr().err
