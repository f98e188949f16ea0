"""True poses of LM-Occlusion, points of its models and noise: from scratch, beside OpenCV and the truth refined."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import posegrad as pg
from posegrad.data.mesh import load_mesh
from tests.real import oracles

pytestmark = pytest.mark.real

_METHODS = (cv2.SOLVEPNP_SQPNP, cv2.SOLVEPNP_EPNP)
_NO_DISTORTION = np.zeros(4)


def _true_poses(root: Path, object_id: int) -> tuple[pg.Pose, torch.Tensor]:
    """Every annotated pose of an object (millimetres), and K of the frame it was seen in."""
    scene = root / "test" / "000002"
    frames = json.loads((scene / "scene_gt.json").read_text())
    cameras = json.loads((scene / "scene_camera.json").read_text())
    found = [(entry, cameras[f]) for f in frames for entry in frames[f] if entry["obj_id"] == object_id]
    R = torch.tensor([entry["cam_R_m2c"] for entry, _ in found], dtype=torch.float64).view(-1, 3, 3)
    t = torch.tensor([entry["cam_t_m2c"] for entry, _ in found], dtype=torch.float64)
    K = torch.tensor([camera["cam_K"] for _, camera in found], dtype=torch.float64).view(-1, 3, 3)
    return pg.Pose(pg.so3.normalise(R), t), K


@pytest.mark.parametrize("count", [8, 100])
@pytest.mark.parametrize("object_id", [1, 5, 6, 8, 9, 10, 11, 12])
def test_true_poses_with_noise(lmo_root: Path, object_id: int, count: int) -> None:
    truth, K = _true_poses(lmo_root, object_id)
    assert len(truth.t) >= 150
    generator = torch.Generator().manual_seed(object_id)
    vertices = torch.from_numpy(load_mesh(lmo_root / "models_eval" / f"obj_{object_id:06d}.ply").vertices)
    chosen = torch.rand(len(truth.t), len(vertices), generator=generator).argsort(-1)[:, :count]
    points = vertices.double()[chosen]
    exact = pg.project_points(points, K, truth)

    solution = pg.solve_pnp(exact, points, K)
    assert bool(solution.ok.all()), solution.describe()
    assert pg.so3.log(solution.pose.R @ truth.R.mT).norm(dim=-1).max() < 1e-8
    assert ((solution.pose.t - truth.t).norm(dim=-1) / truth.t.norm(dim=-1)).max() < 1e-9

    sigma = 1 + torch.rand(len(exact), 1, 1, generator=generator).double()
    noisy = exact + sigma * torch.randn(exact.shape, generator=generator).double()
    solution = pg.solve_pnp(noisy, points, K)
    assert bool(solution.ok.all()), solution.describe()
    from_truth = pg.solve_pnp(noisy, points, K, init=truth)
    assert bool(from_truth.ok.all())
    assert (solution.cost <= from_truth.cost * (1 + 1e-9)).all()
    for i in range(0, len(noisy), 5):
        x, z, k = noisy[i].numpy(), points[i].numpy(), K[i].numpy()
        ours = oracles.cost(x, z, k, _NO_DISTORTION, (solution.pose.R[i].numpy(), solution.pose.t[i].numpy()))
        theirs = oracles.opencv_poses(x, z, k, _NO_DISTORTION, _METHODS)
        assert ours <= min(oracles.cost(x, z, k, _NO_DISTORTION, pose) for pose in theirs) * (1 + 1e-9)
