"""The drop-in on the point sets and poses of the paper's public demos, and on published exact matches."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import loadmat

import posegrad as pg
from posegrad.compat import BPnP, batch_project

pytestmark = pytest.mark.real

_K = torch.tensor([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("model", ["cube", "cat_mesh", "driller_mesh", "duck_mesh"])
def test_drop_in_agrees_with_opencv_on_the_papers_points(real_data: Path, model: str, noise: float) -> None:
    folder = real_data / "pose6d" / "bpnp_demo"
    points = torch.from_numpy(loadmat(folder / f"{model}.mat")["pts3d"].astype(np.float64))
    points = points / points.std() * 5  # the demos scale each model to their poses, some ten units away
    poses = torch.from_numpy(loadmat(folder / "poses.mat")["poses"].astype(np.float64))
    in_front = (pg.Pose.from_rotvec(poses[:, :3], poses[:, 3:]).act(points)[..., 2] > 1).all(-1)
    poses = poses[in_front]
    assert len(poses) >= 25
    pixels = batch_project(poses, points, _K)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).double()
    answer = BPnP.apply(pixels, points, _K)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-15)
    for truth, ours, x in zip(poses.numpy(), answer, pixels.numpy(), strict=True):
        start = truth[:3, None].copy(), truth[3:, None].copy()
        _, rotvec, t = cv2.solvePnP(points.numpy(), x, _K.numpy(), None, *start, True, cv2.SOLVEPNP_ITERATIVE)
        rotvec, t = cv2.solvePnPRefineLM(points.numpy(), x, _K.numpy(), None, rotvec, t, criteria)
        expected = torch.from_numpy(np.hstack([rotvec[:, 0], t[:, 0]]))
        R, R_expected = pg.so3.exp(ours[:3]), pg.so3.exp(expected[:3])
        assert pg.so3.log(R @ R_expected.mT).norm() < 1e-6
        assert (ours[3:] - expected[3:]).norm() < 1e-6 * expected[3:].norm()


def test_exact_matches_of_a_published_scene(real_data: Path) -> None:
    """95 noise-free matches with their pose, stored to 1e-6 rad and 1e-7 of the distance."""
    folder = real_data / "pnp_ransac" / "gcransac_pose6dscene"
    matches = torch.from_numpy(np.loadtxt(folder / "pose6dscene_points.txt", skiprows=1))
    truth = torch.from_numpy(np.loadtxt(folder / "pose6dscene_gt.txt"))[:3]
    K = torch.from_numpy(np.loadtxt(folder / "pose6dscene.K"))
    solution = pg.solve_pnp(matches[:, :2].contiguous(), matches[:, 2:5].contiguous(), K)
    assert bool(solution.ok)
    assert pg.so3.log(solution.pose.R @ truth[:, :3].mT).norm() < 1e-6
    assert (solution.pose.t - truth[:, 3]).norm() < 1e-7 * truth[:, 3].norm()
