"""Items that the usual starts do not serve: much noise for their width, points at the edge of the camera's field."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import so3
from posegrad.optim import batch
from posegrad.testing import random_scene


def _needles(count: int, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels with 5 px of noise, points in a box of 1 : 1 : 50, calibration."""
    scene = random_scene(count, points, seed=1)
    z = scene.points3d * torch.tensor([0.02, 0.02, 1.0]).double()
    generator = torch.Generator().manual_seed(0)
    x = pg.project_points(z, scene.K, scene.pose)
    return x + 5 * torch.randn(x.shape, generator=generator, dtype=torch.float64), z, scene.K


@pytest.mark.parametrize("points", [4, 6])
def test_no_random_start_finds_a_better_pose_of_a_noisy_needle(points: int) -> None:
    x, z, K = _needles(60, points)
    solution = pg.solve_pnp(x, z, K)
    assert float(solution.ok.double().mean()) > 0.95
    generator = torch.Generator().manual_seed(1)
    turn = torch.randn(20, 60, 4, generator=generator).double()
    depth = 3 + 9 * torch.rand(20, 60, generator=generator).double()
    ahead = torch.cat([(x.mean(1) - K[:2, 2]) / 600, torch.ones(60, 1).double()], -1)
    other = pg.solve_pnp(x, z, K, init=pg.Pose.from_quat_wxyz(turn, depth[..., None] * ahead))
    best = torch.where(other.ok, other.cost, torch.inf).amin(0)
    ours = torch.where(solution.ok, solution.cost, torch.inf)
    assert float(best.isfinite().double().mean()) > 0.9
    assert bool((ours <= best * (1 + 1e-6) + 1e-9).all())


@pytest.mark.parametrize("dear", [False, True])
def test_who_needs_more_starts_changes_nothing_for_the_others(
    dear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needles, triangles and ordinary items in one batch, as each alone; also where questions are dear."""
    monkeypatch.setattr(batch, "questions_are_cheap", lambda device: not dear)
    x, z, K = _needles(6, 6)
    easy = random_scene(6, 6, noise=1.0, seed=3)
    x, z = torch.where(torch.arange(6)[:, None, None] % 2 == 0, easy.points2d, x), z.clone()
    z[::2] = easy.points3d[::2]
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[4, :3] = mask[5, 1:4] = False
    together = pg.solve_pnp(x, z, K, mask=mask)
    assert bool(together.ok.all()), together.describe()
    for i in range(6):
        alone = pg.solve_pnp(x[i], z[i], K, mask=mask[i])
        torch.testing.assert_close(alone.pose.R, together.pose.R[i], rtol=0, atol=1e-9)
        torch.testing.assert_close(alone.pose.t, together.pose.t[i], rtol=0, atol=1e-8)
        padded = pg.solve_pnp(x[i, mask[i]], z[i, mask[i]], K)
        torch.testing.assert_close(padded.pose.t, together.pose.t[i], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "camera",
    [
        pg.cameras.OpenCV(torch.tensor([500.0, 500, 320, 240, -0.4, 0.02, 1e-3, -1e-3]).double()),
        pg.cameras.OpenCVFisheye(torch.tensor([200.0, 200, 320, 240, -0.1, 0, 0, 0]).double()),
    ],
    ids=["OPENCV", "OPENCV_FISHEYE"],
)
def test_points_at_the_edge_of_the_field_are_no_obstacle(camera: pg.cameras.Camera) -> None:
    """Noise throws starts out of the field; all are solved that refinement from the true pose solves."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.linspace(0, 3.1, 3000).double()
    axis = torch.stack([angles.sin(), 0 * angles, angles.cos()], -1)
    edge = angles[camera.project(axis).valid].max()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).double()

    off_axis = edge * (0.5 + 0.48 * uniform(100, 8))
    off_axis[:, :3] = edge * (0.97 + 0.02 * uniform(100, 3))
    azimuth = 2 * torch.pi * uniform(100, 8)
    side = off_axis.sin()
    rays = torch.stack([side * azimuth.cos(), side * azimuth.sin(), off_axis.cos()], -1)
    y = (1 + 2 * uniform(100, 8, 1)) * rays
    truth = pg.Pose(so3.exp(3 * torch.randn(100, 3, generator=generator).double()), y.mean(1))
    z = truth.inverse().act(y)
    x = camera.project(y).points2d + 2 * torch.randn(100, 8, 2, generator=generator).double()
    solution = pg.solve_pnp(x, z, camera)
    from_truth = pg.solve_pnp(x, z, camera, init=truth)
    assert float(from_truth.ok.double().mean()) > 0.6
    assert not bool((solution.status == int(pg.Status.INFEASIBLE)).any())
    missed = from_truth.ok & ~(solution.ok & (solution.cost <= from_truth.cost * (1 + 1e-6) + 1e-9))
    assert not bool(missed.any())
