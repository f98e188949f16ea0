"""Calibrations of published images from their corners alone, beside published optima and OpenCV."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import posegrad as pg
from posegrad.calibration import CalibrateConfig, calibrate
from tests.real import readers
from tests.real.readers import Views

pytestmark = pytest.mark.real


def _calibrate(
    views: Views, model: str, *fixed: str, size: tuple[int, int] = (640, 480)
) -> pg.CalibrationSolution:
    solution = pg.calibrate_camera(views.points2d, views.points3d, model=model, fixed=fixed, image_size=size)
    assert bool(solution.ok), solution.describe()
    assert bool((solution.view_status == pg.Status.CONVERGED).all())
    return solution


def test_zhang(real_data: Path) -> None:
    views = readers.read_zhang(real_data / "calib" / "zhang1998")
    solution = _calibrate(views, "OPENCV", "p1", "p2")
    assert solution.rms.item() <= 0.336889083
    known = torch.tensor([832.206941, 832.242516, 304.068342, 206.372447, -0.228531167, 0.191010561]).double()
    found = solution.camera.params[:6]
    # stored to 1e-6; the optimum is flat: a hundredth of a standard deviation
    assert ((found - known) / solution.std[:6]).abs().max() < 0.01


@pytest.mark.parametrize(
    ("side", "model", "fixed", "calibration", "rms"),
    [
        ("left", "FULL_OPENCV", ("k4", "k5", "k6"), "calibrateCamera_default_5param", 0.408695),
        ("left", "OPENCV", ("p1", "p2"), "calibrateCamera_k1k2", 0.418195),
        ("left", "PINHOLE", (), "calibrateCamera_nodist", 1.555404),
        ("right", "FULL_OPENCV", ("k4", "k5", "k6"), "calibrateCamera_default_5param", 0.458636),
        ("right", "OPENCV", ("p1", "p2"), "calibrateCamera_k1k2", 0.460450),
        ("right", "PINHOLE", (), "calibrateCamera_nodist", 1.772923),
    ],
)
def test_opencv_chessboards(
    real_data: Path, side: str, model: str, fixed: tuple[str, ...], calibration: str, rms: float
) -> None:
    views = readers.read_chessboard(real_data / "calib" / "opencv_chessboard", side, calibration)
    solution = _calibrate(views, model, *fixed)
    assert solution.rms.item() == pytest.approx(rms, abs=1e-6)
    # no worse than OpenCV's minimum, at the same place
    camera = pg.cameras.from_opencv(views.K, torch.tensor(views.distortion, dtype=torch.float64))
    theirs = pg.solve_pnp(views.points2d, views.points3d, camera).cost.sum()
    assert solution.cost <= theirs * (1 + 1e-9)
    known = torch.cat([camera.params, torch.zeros(12).double()])[: len(solution.std)]
    free = solution.std > 0
    assert ((solution.camera.params - known)[free] / solution.std[free]).abs().max() < 1e-3


def test_standard_deviations_beside_opencv(real_data: Path) -> None:
    """OpenCV's come from J^T J, ours from the exact Hessian: half a percent apart at these residuals."""
    views = readers.read_chessboard(
        real_data / "calib" / "opencv_chessboard", "left", "calibrateCamera_default_5param"
    )
    solution = _calibrate(views, "FULL_OPENCV", "k4", "k5", "k6")
    points2d = list(views.points2d.numpy().astype(np.float32))
    points3d = [views.points3d.numpy().astype(np.float32)] * len(points2d)
    found = cv2.calibrateCameraExtended(points3d, points2d, (640, 480), None, None)  # type: ignore[call-overload]
    theirs = torch.from_numpy(found[5].ravel()[:9])
    torch.testing.assert_close(solution.std[:9], theirs, rtol=0.01, atol=0)
    translations = torch.from_numpy(found[6].reshape(13, 2, 3)[:, 1])
    own = solution.pose_covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    torch.testing.assert_close(own[:, 3:], translations, rtol=0.02, atol=0)


def test_fisheye_beyond_90_degrees(real_data: Path) -> None:
    views, _ = readers.read_fisheye(real_data / "calib" / "boofcv_fisheye_chessboard")
    solution = _calibrate(views, "OPENCV_FISHEYE", size=(640, 720))
    assert solution.rms.item() <= 0.31712408
    known = torch.tensor([190.2205, 190.0174, 318.8252, 319.6421]).double()
    torch.testing.assert_close(solution.camera.params[:4], known, rtol=0, atol=0.05)
    assert (solution.pose.act(views.points3d)[..., 2] < 0).any(), "the set has points beyond 90 degrees"


def test_poses_of_a_board_on_a_robot(real_data: Path) -> None:
    """Under the factory's calibration 0.30 to 0.69 pixels; its own calibration fits better and agrees with it."""
    views = readers.read_robot_board(real_data / "calib" / "visp_handeye_eye-in-hand")
    poses = pg.solve_pnp(views.points2d, views.points3d, views.K)
    rms = (2 * poses.cost / views.points2d.shape[1]).sqrt()
    assert rms.min().item() == pytest.approx(0.30, abs=0.01)
    assert rms.max().item() == pytest.approx(0.69, abs=0.01)
    solution = _calibrate(views, "PINHOLE")
    assert solution.cost < poses.cost.sum()
    K = views.K
    factory = torch.stack([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
    assert ((solution.camera.params - factory) / solution.std).abs().max() < 6


def test_the_command_finds_corners_and_calibrates(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "calib" / "opencv_chessboard"
    report = calibrate(
        CalibrateConfig(images=tuple(sorted(folder.glob("left*.jpg"))), square="25mm", out=tmp_path)
    )
    assert report.solution.pose.t.shape == (13, 3)
    # its windows stay clear of the neighbouring corners, which OpenCV's sample does not look after in left02
    assert report.solution.rms.item() < 0.35
    published = torch.tensor([536.0735, 536.0163, 342.3704, 235.5369]).double()
    torch.testing.assert_close(report.solution.camera.params[:4], published, rtol=0, atol=3.0)
    distance = report.solution.pose.t[0].norm().item()
    assert distance == pytest.approx(25 * 16.8, rel=0.02)
