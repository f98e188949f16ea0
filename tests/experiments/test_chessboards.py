"""A camera learned from views of a board, a few at a time."""

import json
from pathlib import Path

import pytest
import torch

import posegrad as pg
from posegrad.experiments import chessboards
from posegrad.train.errors import RunError

_TRUTH = torch.tensor([550.0, 540, 330, 230, -0.2, 0.05, 1e-3, -1e-3, 0.0]).double()


def _views(noise: float = 0.0) -> chessboards.Views:
    """Ten views of a 7 x 6 board by a known camera."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    board = torch.stack([x, y, 0 * x], -1).reshape(-1, 3).double()
    rotvec = torch.cat(
        [torch.randn(10, 2, generator=generator) * 0.4, torch.randn(10, 1, generator=generator)], 1
    )
    R = pg.so3.exp(rotvec.double())
    centre = torch.rand(10, 3, generator=generator).double() * torch.tensor([4.0, 3, 4]) + torch.tensor(
        [-2, -1.5, 8]
    )
    pose = pg.Pose(R, centre - (R @ board.mean(0)))
    pixels = pg.project_points(board, chessboards._camera(_TRUTH), pose)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=generator).double()
    return chessboards.Views(pixels, board, _TRUTH, noise)


@pytest.mark.parametrize("hold_out", [0.0, 0.3])
def test_a_known_camera_is_learned(hold_out: float) -> None:
    config = chessboards.ChessboardConfig(steps=150, lr=0.02, hold_out=hold_out)
    run = chessboards.learn_camera(config, _views())
    assert run.first_rms > 1
    assert run.rms < 0.2
    assert (run.values[-1][:4] - _TRUTH[:4]).abs().max() < 10


def test_no_photographs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"needs the corners of real photographs.*POSEGRAD_DATA"):
        chessboards.read_views(None, "left")
    folder = tmp_path / "calib" / "opencv_chessboard"
    folder.mkdir(parents=True)
    (folder / "corners_and_golden.json").write_text(json.dumps({"left": {}}))
    with pytest.raises(RunError, match="damaged"):
        chessboards.read_views(tmp_path, "left")


def test_calls_that_cannot_work() -> None:
    with pytest.raises(RunError, match="--hold-out"):
        chessboards.ChessboardConfig(hold_out=0.9)
    with pytest.raises(RunError, match="--batch: got 11, expected at most 10"):
        chessboards.learn_camera(chessboards.ChessboardConfig(batch=11), _views())


@pytest.mark.real
@pytest.mark.parametrize(("camera", "rms"), [("left", 0.408695), ("right", 0.458636)])
def test_a_real_camera(real_data: Path, camera: str, rms: float) -> None:
    """300 steps come within 1 % of the RMS that OpenCV's calibration has, and cannot come below it."""
    config = chessboards.ChessboardConfig(quick=True, data=real_data, camera=camera).settled()  # pyright: ignore
    run = chessboards.learn_camera(config, chessboards.read_views(real_data, camera))
    assert run.first_rms > 1.5
    assert rms * (1 - 1e-6) < run.rms < 1.01 * rms
