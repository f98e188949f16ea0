"""Every view of published calibration targets from scratch, beside OpenCV and beside the published residuals."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import posegrad as pg
from tests.real import oracles, readers
from tests.real.readers import Views

pytestmark = pytest.mark.real

_METHODS = (cv2.SOLVEPNP_SQPNP, cv2.SOLVEPNP_IPPE, cv2.SOLVEPNP_ITERATIVE)


def _check_against_opencv(views: Views) -> float:
    """Our cost of no view is above OpenCV's best by more than 1e-9 of it; RMS over all views, pixels."""
    camera = pg.cameras.from_opencv(views.K, torch.tensor(views.distortion, dtype=torch.float64))
    solution = pg.solve_pnp(views.points2d, views.points3d, camera)
    assert bool(solution.ok.all()), solution.describe()
    z, K, distortion = views.points3d.numpy(), views.K.numpy(), np.array(views.distortion)
    total = 0.0
    for i, x in enumerate(views.points2d.numpy()):
        ours = oracles.cost(x, z, K, distortion, (solution.pose.R[i].numpy(), solution.pose.t[i].numpy()))
        theirs = oracles.opencv_poses(x, z, K, distortion, _METHODS)
        assert len(theirs) >= 4
        best = min(oracles.cost(x, z, K, distortion, pose) for pose in theirs)
        assert ours <= best * (1 + 1e-9), f"view {i}"
        assert solution.cost[i].item() == pytest.approx(ours, rel=1e-9)
        total += ours
    return (2 * total / views.points2d[..., 0].numel()) ** 0.5


def test_zhang(real_data: Path) -> None:
    views = readers.read_zhang(real_data / "calib" / "zhang1998")
    assert views.points2d.shape == (5, 256, 2)
    # at the calibration's optimum its poses are the views' own optima
    assert _check_against_opencv(views) == pytest.approx(0.336889083, rel=1e-6)


@pytest.mark.parametrize(
    ("side", "calibration", "rms"),
    [
        ("left", "calibrateCamera_default_5param", 0.4086947658872133),
        ("right", "calibrateCamera_default_5param", 0.458636338594292),
        ("left", "calibrateCamera_k1k2", 0.4181954168642205),
        ("right", "calibrateCamera_k1k2", 0.46045021623517907),
        ("left", "calibrateCamera_nodist", 1.5554037772034779),
        ("right", "calibrateCamera_nodist", 1.7729233950217511),
    ],
)
def test_opencv_chessboards(real_data: Path, side: str, calibration: str, rms: float) -> None:
    views = readers.read_chessboard(real_data / "calib" / "opencv_chessboard", side, calibration)
    assert views.points2d.shape == (13, 54, 2)
    assert _check_against_opencv(views) == pytest.approx(
        rms, rel=1e-6
    )  # as far as OpenCV's calibration converged


def test_board_on_a_robot(real_data: Path) -> None:
    views = readers.read_robot_board(real_data / "calib" / "visp_handeye_eye-in-hand")
    assert views.points2d.shape == (8, 54, 2)
    assert 0.30 < _check_against_opencv(views) < 0.69  # its views range over this


def test_fisheye_beyond_90_degrees(real_data: Path) -> None:
    """OpenCV fails on this set: compared with many starts, and with the residual of its calibration."""
    views, known = readers.read_fisheye(real_data / "calib" / "boofcv_fisheye_chessboard")
    camera = pg.cameras.from_opencv_fisheye(views.K, torch.tensor(views.distortion, dtype=torch.float64))
    solution = pg.solve_pnp(views.points2d, views.points3d, camera)
    assert bool(solution.ok.all()), solution.describe()
    assert (solution.pose.act(views.points3d)[..., 2] < 0).any(), "the set has points beyond 90 degrees"
    generator = torch.Generator().manual_seed(0)
    turns = torch.randn(40, len(known), 3, generator=generator).double()
    turns[0] = 0
    known_pose = pg.Pose.from_rotvec(known[:, :3], known[:, 3:])
    # the board stays where it is and turns about its centre
    centre = views.points3d.mean(0)
    R = pg.so3.exp(turns) @ known_pose.R
    t = known_pose.act(centre[None])[:, 0] - (R @ centre[:, None]).squeeze(-1)
    others = pg.solve_pnp(views.points2d, views.points3d, camera, init=pg.Pose(R, t))
    assert others.ok.double().mean() > 0.5
    best = torch.where(others.ok, others.cost, torch.inf).amin(0)
    assert (solution.cost <= best * (1 + 1e-9)).all()
    rms = (2 * solution.cost.sum() / views.points2d[..., 0].numel()).sqrt().item()
    assert rms == pytest.approx(0.3171240760411928, rel=1e-7)
