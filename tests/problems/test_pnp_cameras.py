"""solve_pnp with every camera model: exact poses without an init, gradients against re-solving."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import so3
from posegrad.cameras import MODELS, Camera
from posegrad.testing import central_difference, relative_error
from tests.cameras.samples import camera

_BOUND = 1e-6
_VIEWS = [(name, "ahead") for name in MODELS] + [(n, "beside") for n, m in MODELS.items() if m.wide]


@dataclass(frozen=True)
class _View:
    """Points in a cube of half side 1, in the field; beside: around 90 degrees from the axis, half of them behind."""

    camera: Camera
    points2d: Tensor
    points3d: Tensor
    pose: pg.Pose


def _view(name: str, where: str, batch: int, points: int, noise: float, seed: int = 0) -> _View:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    model = camera(name)
    z = uniform(batch, points, 3)
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    z[:, :4] = corners * (0.3 + 0.7 * z[:, :4].abs())
    if where == "ahead":
        t = torch.cat([0.5 * uniform(batch, 2), 4 + uniform(batch, 1)], -1)
    else:
        turn, distance = torch.pi * uniform(batch), 9 + uniform(batch)
        t = distance[:, None] * torch.stack([turn.cos(), turn.sin(), 0.02 * uniform(batch)], -1)
    pose = pg.Pose(so3.exp(3 * uniform(batch, 3)), t)
    projected = model.project(pose.act(z))
    assert bool(projected.valid.all())
    jitter = torch.randn(batch, points, 2, generator=generator, dtype=torch.float64)
    return _View(model, projected.points2d + noise * jitter, z, pose)


@pytest.mark.parametrize(("name", "where"), _VIEWS)
def test_exact_poses_without_an_init(name: str, where: str) -> None:
    view = _view(name, where, 20, 10, 0.0)
    behind = (view.pose.act(view.points3d)[..., 2] < 0).any(-1)
    assert bool(behind.all()) == (where == "beside")
    solution = pg.solve_pnp(view.points2d, view.points3d, view.camera)
    assert bool(solution.ok.all()), solution.describe()
    assert so3.log(solution.pose.R @ view.pose.R.mT).norm(dim=-1).max() < 1e-10
    assert (solution.pose.t - view.pose.t).norm(dim=-1).max() < 1e-10
    noisy = _view(name, where, 20, 10, 1.0)
    solution = pg.solve_pnp(noisy.points2d, noisy.points3d, noisy.camera)
    assert bool(solution.ok.all()), solution.describe()
    at_truth = pg.reprojection_residuals(noisy.points2d, noisy.points3d, noisy.camera, noisy.pose)
    assert bool((solution.cost <= 0.5 * at_truth.square().sum((-1, -2))).all())


def _readout(pose: pg.Pose) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    G_R, G_t = torch.randn(3, 3, generator=generator).double(), torch.randn(3, generator=generator).double()
    return (pose.R * G_R).sum((-1, -2)) + (pose.t * G_t).sum(-1)


@pytest.mark.parametrize(("name", "where"), [view for view in _VIEWS if view[1] == "beside"])
def test_implicit_gradient_equals_re_solving(name: str, where: str) -> None:
    """Beside the axis; ahead of the camera see test_pnp_costs.py."""
    batch = 4
    view = _view(name, where, batch, 8, 2.0, seed=1)
    params = view.camera.params.expand(batch, -1)
    inputs = {"points2d": view.points2d, "points3d": view.points3d, "params": params}

    def solve(values: dict[str, Tensor], init: pg.Pose) -> pg.Pose:
        model = type(view.camera)(values["params"])
        solution = pg.solve_pnp(values["points2d"], values["points3d"], model, init=init)
        assert bool(solution.ok.all()), solution.describe()
        return solution.pose

    leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    base = solve(leaves, view.pose)
    gradients = torch.autograd.grad(_readout(base).sum(), list(leaves.values()))
    for (key, value), actual in zip(inputs.items(), gradients, strict=True):
        # steps of a thousandth: of a pixel, of the object's size, of 1 % of distortion
        pixel = torch.arange(params.shape[-1]) < view.camera.num_pixel_params
        scale = {
            "points2d": torch.tensor(1.0),
            "points3d": torch.tensor(1.0),
            "params": torch.where(pixel, 1.0, 0.01),
        }[key].double()

        def function(scaled: Tensor, key: str = key, scale: Tensor = scale) -> Tensor:
            copies = len(scaled) // batch
            repeated = {k: v.repeat_interleave(copies, 0) for k, v in inputs.items()} | {key: scaled * scale}
            start = pg.Pose(*(leaf.detach().repeat_interleave(copies, 0) for leaf in (base.R, base.t)))
            return _readout(solve(repeated, start)).detach()

        expected = central_difference(function, value / scale, 1e-3)
        error = relative_error(actual * scale, expected, floor=1e-3)
        assert error.max() < _BOUND, f"{key}: {error.max():.1e}"


def test_pixels_that_have_no_ray_do_not_take_part_in_the_start() -> None:
    """Outliers beyond the image of the field: the start comes from the others."""
    view = _view("SIMPLE_RADIAL", "ahead", 4, 12, 0.0)
    strong = MODELS["SIMPLE_RADIAL"](torch.tensor([500.0, 320, 240, -0.3], dtype=torch.float64))
    points2d = strong.project(view.pose.act(view.points3d)).points2d
    points2d[:, -1] = torch.tensor([3000.0, 3000.0])
    weights = torch.ones(4, 12, dtype=torch.float64)
    weights[:, -1] = 1e-20
    assert not strong.unproject(points2d).valid[:, -1].any()
    solution = pg.solve_pnp(points2d, view.points3d, strong, weights=weights)
    assert bool(solution.ok.all()), solution.describe()
    assert (solution.pose.t - view.pose.t).norm(dim=-1).max() < 1e-9


def test_points_beyond_the_fold_make_a_pose_infeasible() -> None:
    view = _view("SIMPLE_RADIAL", "ahead", 2, 8, 0.0)
    strong = MODELS["SIMPLE_RADIAL"](torch.tensor([500.0, 320, 240, -3.0], dtype=torch.float64))
    near = pg.Pose(view.pose.R, view.pose.t * torch.tensor([1.0, 1.0, 0.3], dtype=torch.float64))
    solution = pg.solve_pnp(view.points2d, view.points3d, strong, init=near)
    assert not solution.ok.any()
    assert set(solution.status.tolist()) == {pg.Status.INFEASIBLE}
    assert bool(solution.pose.t.isfinite().all())
