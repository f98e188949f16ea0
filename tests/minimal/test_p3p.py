"""P3P against the scenes it is to find, and against PoseLib and OpenCV."""

import cv2
import numpy as np
import poselib
import pytest
import torch
from torch import Tensor

from posegrad import so3
from posegrad.minimal.p3p import p3p
from posegrad.pose import Pose

KINDS = ["general", "needle", "far", "close", "around", "flat", "isosceles", "frontal", "beside the axis"]


def _triangles(kind: str, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Pose]:
    """Rays, points and true poses."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    z = uniform(count, 3, 3)
    R = so3.exp(torch.pi * uniform(count, 3))
    t = torch.cat([uniform(count, 2), 6 + 2 * uniform(count, 1)], -1)
    if kind == "needle":
        z = z * torch.tensor([0.01, 0.01, 1])
    elif kind == "far":
        t = 1e3 * t
    elif kind == "close":
        t = 0.2 * t
    elif kind == "around":  # the camera is among the points: rays behind 90 degrees
        t = 0.3 * uniform(count, 3)
    elif kind == "flat":  # seen from nearly within the triangle's plane
        z[..., 2] *= 1e-4
        R = so3.exp(torch.tensor([np.pi / 2, 0, 0])).double() @ so3.exp(
            torch.tensor([0, 0, np.pi]) * uniform(count, 1)
        )
    elif kind == "isosceles":
        z = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).double() * (2 + uniform(count, 1, 1))
        R = torch.eye(3).double().expand(count, 3, 3)
        t = (5 + uniform(count, 1)).expand(count, 3)
    elif kind == "frontal":  # four answers, three of which are alike
        z = (
            torch.tensor([[1.0, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]])
            .double()
            .expand(count, 3, 3)
        )
        R, t = so3.exp(torch.tensor([0.0, 0, np.pi]) * uniform(count, 1)), t * torch.tensor([0.0, 0, 1])
    elif kind == "beside the axis":  # the optical centre near the cylinder of danger: answers nearly coincide
        z[..., 2] = 0
        centre = _circumcentre(z)
        eye = centre + torch.cat([1e-7 * uniform(count, 2), 5 + uniform(count, 1)], -1)
        eye[:, :2] += (z[:, 0] - centre)[:, :2]
        R = torch.diag(torch.tensor([1.0, -1, -1])).double().expand(count, 3, 3)
        t = -(R @ eye[..., None]).squeeze(-1)
    y = z @ R.mT + t[:, None]
    return y / y.norm(dim=-1, keepdim=True), z, Pose(R, t)


def _circumcentre(z: Tensor) -> Tensor:
    sides = z[:, 1:, :2] - z[:, :1, :2]
    offset = torch.linalg.solve(sides, 0.5 * sides.square().sum(-1))
    return torch.cat([z[:, 0, :2] + offset, torch.zeros(len(z), 1).double()], -1)


def _off_the_rays(pose: Pose, z: Tensor, v: Tensor) -> Tensor:
    """The largest angle between a ray and its point, (B, C)."""
    y = z[:, None] @ pose.R.mT + pose.t[:, :, None]
    return (y / y.norm(dim=-1, keepdim=True) - v[:, None]).norm(dim=-1).amax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_pose_is_among_the_answers_and_all_of_them_fit(kind: str) -> None:
    v, z, truth = _triangles(kind, 3000)
    pose, valid = p3p(v, z)
    assert float(_off_the_rays(pose, z, v)[valid].max()) < 1e-11
    turn = so3.log(pose.R @ truth.R[:, None].mT).norm(dim=-1)
    nearest = torch.where(valid, turn, torch.inf).amin(-1)
    # two answers that nearly coincide are known to the root of the rounding only
    median, most = {"beside the axis": (1e-5, 1e-2), "flat": (1e-7, 1e-4)}.get(kind, (1e-10, 1e-6))
    assert float(nearest.median()) < median
    assert float(nearest.max()) < most
    identity = pose.R @ pose.R.mT - torch.eye(3).double()
    assert float(identity.abs().max()) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_float32_finds_the_true_pose_as_far_as_its_rays_tell(kind: str) -> None:
    v, z, _ = _triangles(kind, 3000)
    pose, valid = p3p(v.float(), z.float())
    assert pose.R.dtype == torch.float32
    assert float(valid.any(-1).double().mean()) > 0.995
    off = _off_the_rays(Pose(pose.R.double(), pose.t.double()), z, v)
    assert float(off[valid].median()) < 3e-6
    assert float(off[valid].max()) < 3e-3


def _poselib(v: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    return [np.column_stack([p.R, p.t]) for p in poselib.p3p(list(v), list(z))]


def _opencv(v: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    _, rotvecs, ts = cv2.solveP3P(z, v[:, :2] / v[:, 2:], np.eye(3), None, cv2.SOLVEPNP_P3P)
    return [np.column_stack([cv2.Rodrigues(r)[0], t]) for r, t in zip(rotvecs, ts, strict=True)]


@pytest.mark.parametrize("solve", [_poselib, _opencv])
@pytest.mark.parametrize("kind", ["general", "needle", "far", "close", "isosceles", "frontal"])
def test_every_answer_of_others_is_found(kind: str, solve) -> None:
    v, z, _ = _triangles(kind, 700, seed=1)
    seen = (v[..., 2] > 0.05).all(-1)
    v, z = v[seen], z[seen]
    pose, valid = p3p(v, z)
    checked = 0
    for i in range(len(v)):
        for theirs in solve(v[i].numpy(), z[i].numpy()):
            R, t = torch.from_numpy(theirs[:, :3]), torch.from_numpy(theirs[:, 3])
            y = z[i] @ R.mT + t
            off = (y / y.norm(dim=-1, keepdim=True) - v[i]).abs().max()
            size = (z[i] - z[i].mean(0)).norm() / t.norm()
            if not bool(off < 1e-9 * size):
                continue  # theirs is none, or not exact
            checked += 1
            apart = (pose.R[i] - R).abs().amax((-1, -2)) + (pose.t[i] - t).norm(dim=-1) / t.norm()
            assert bool((valid[i] & (apart < 1e-4)).any()), (i, apart, valid[i])
    assert checked > 100


def test_without_an_answer_the_nearest_is_near_what_fits_best() -> None:
    v, z, _ = _triangles("beside the axis", 500)
    generator = torch.Generator().manual_seed(0)
    v = v + 1e-3 * torch.randn(v.shape, generator=generator, dtype=torch.float64)
    v = v / v.norm(dim=-1, keepdim=True)
    exact = p3p(v, z)[1].any(-1)
    pose, valid = p3p(v, z, nearest=True)
    off = torch.where(valid, _off_the_rays(pose, z, v), torch.inf).amin(-1)
    assert 20 < int((~exact).sum()) < 480
    assert float(off[~exact].max()) < 0.02
