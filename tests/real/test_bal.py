"""Resection of every camera of a published bundle-adjustment problem, with radial distortion, from scratch."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import posegrad as pg
from tests.real import oracles, readers

pytestmark = pytest.mark.real


def test_resect_ladybug(real_data: Path) -> None:
    cameras = list(readers.read_bal(real_data / "bal" / "problem-49-7776-pre.txt.bz2"))
    assert len(cameras) == 49
    assert sum(len(camera.points2d) for camera in cameras) == 31843
    # published: axes and distortion are read as meant
    assert sum(map(_stored_cost, cameras)) == pytest.approx(850912.4607, rel=1e-9)
    cameras = [_in_front(camera) for camera in cameras]
    assert sum(len(camera.points2d) for camera in cameras) == 31812

    points2d, points3d, mask = _padded(cameras)
    params = torch.from_numpy(np.stack([camera.params for camera in cameras]))
    solution = pg.solve_pnp(points2d, points3d, pg.cameras.Radial(params), mask=mask)
    assert bool(solution.ok.all()), solution.describe()
    for i, camera in enumerate(cameras):
        ours = _cost(camera, (solution.pose.R[i].numpy(), solution.pose.t[i].numpy()))
        assert solution.cost[i].item() == pytest.approx(ours, rel=1e-9)
        theirs = [_cost(camera, pose) for pose in _rivals(camera)]
        assert np.isfinite(theirs).sum() >= 3
        assert ours <= min(theirs) * (1 + 1e-9), f"camera {i}"


def _stored_cost(camera: readers.Resection) -> float:
    """At the stored pose, by the formula of the data set; it also counts the 31 points behind the cameras."""
    in_camera = camera.points3d @ camera.R.T + camera.t
    p = in_camera[:, :2] / in_camera[:, 2:]
    f, _, _, k1, k2 = camera.params
    square = np.square(p).sum(1, keepdims=True)
    return 0.5 * float(np.square(f * (1 + k1 * square + k2 * square**2) * p - camera.points2d).sum())


def _in_front(camera: readers.Resection) -> readers.Resection:
    """Without the points that lie behind the stored camera: no camera can have seen them there."""
    kept = camera.points3d @ camera.R[2] + camera.t[2] > 0
    return replace(camera, points2d=camera.points2d[kept], points3d=camera.points3d[kept])


def _padded(cameras: list[readers.Resection]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    most = max(len(camera.points2d) for camera in cameras)
    points2d = torch.full((len(cameras), most, 2), torch.nan).double()
    points3d = torch.full((len(cameras), most, 3), torch.nan).double()
    for i, camera in enumerate(cameras):
        points2d[i, : len(camera.points2d)] = torch.from_numpy(camera.points2d)
        points3d[i, : len(camera.points3d)] = torch.from_numpy(camera.points3d)
    return points2d, points3d, points2d.isfinite().all(-1)


def _intrinsics(camera: readers.Resection) -> tuple[np.ndarray, np.ndarray]:
    f, cx, cy, k1, k2 = camera.params
    return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]]), np.array([k1, k2, 0, 0])


def _cost(camera: readers.Resection, pose: oracles.Pose) -> float:
    return oracles.cost(camera.points2d, camera.points3d, *_intrinsics(camera), pose)


def _rivals(camera: readers.Resection) -> list[oracles.Pose]:
    """From OpenCV's SQPNP and EPNP, and from the stored pose, each refined by OpenCV and by PoseLib."""
    x, z = camera.points2d, camera.points3d
    K, distortion = _intrinsics(camera)
    starts = [(camera.R, camera.t)]
    for flag in (cv2.SOLVEPNP_SQPNP, cv2.SOLVEPNP_EPNP):
        _, rotvec, t = cv2.solvePnP(z, x, K, distortion, flags=flag)
        starts.append((cv2.Rodrigues(rotvec)[0], t[:, 0]))
    refined = [oracles.opencv_refined(x, z, K, distortion, start) for start in starts]
    return refined + [oracles.poselib_refined(x, z, "RADIAL", camera.params, start) for start in starts]
