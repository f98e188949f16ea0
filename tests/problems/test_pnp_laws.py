"""An item never depends on its neighbours; a bad one gets a status, a finite pose and a zero gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import Status
from posegrad.testing import random_scene

_BAD = 2
_WAYS: list[dict[str, Any]] = [{}, {"backend": "torch"}, {"adjoint": pg.Unrolled()}]
Inputs = dict[str, Tensor]


def _inputs(dtype: torch.dtype = torch.float64) -> Inputs:
    scene = random_scene(5, 8, noise=2.0, seed=1)
    return {
        "points2d": scene.points2d.to(dtype),
        "points3d": scene.points3d.to(dtype),
        "weights": scene.weights.to(dtype),
        "mask": torch.ones(5, 8, dtype=torch.bool),
        "camera": scene.K.expand(5, 3, 3).to(dtype).clone(),
        "R": scene.pose.R.to(dtype).clone(),
        "t": scene.pose.t.to(dtype).clone(),
    }


def _solve(inputs: Inputs, with_init: bool, **options: object) -> tuple[pg.PnPSolution, dict[str, Tensor]]:
    """The solution and the gradients of a loss that reads every item."""
    names = ("points2d", "points3d", "weights", "camera")
    leaves = {name: inputs[name].clone().requires_grad_() for name in names}
    init = pg.Pose(inputs["R"], inputs["t"]) if with_init else None
    solution = pg.solve_pnp(
        leaves["points2d"],
        leaves["points3d"],
        leaves["camera"],
        weights=leaves["weights"],
        mask=inputs["mask"],
        init=init,
        **options,  # type: ignore[arg-type]
    )
    loss = (solution.pose.R * torch.linspace(-1, 1, 9, dtype=leaves["camera"].dtype).view(3, 3)).sum()
    loss = loss + solution.pose.t.sum() + solution.pose.rotvec().sum()
    return solution, dict(zip(names, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def _set(name: str, value: object, where: tuple[object, ...] = ()) -> Callable[[Inputs], None]:
    def damage(inputs: Inputs) -> None:
        inputs[name][(_BAD, *where)] = value  # type: ignore[index]

    return damage


def _collinear(inputs: Inputs) -> None:
    inputs["points3d"][_BAD] = inputs["points3d"][_BAD, :1] * torch.linspace(-1, 2, 8)[:, None]


def _behind(inputs: Inputs) -> None:
    inputs["t"][_BAD, 2] = -6


_ALWAYS = [
    ("NaN pixel", _set("points2d", float("nan"), (3, 0)), Status.NOT_FINITE),
    ("infinite point", _set("points3d", float("inf"), (3, 0)), Status.NOT_FINITE),
    ("NaN camera", _set("camera", float("nan"), (0, 0)), Status.NOT_FINITE),
    ("NaN weight", _set("weights", float("nan"), (1,)), Status.NOT_FINITE),
    ("zero focal length", _set("camera", 0.0, (0, 0)), Status.BAD_CAMERA),
    ("two points", _set("mask", False, (slice(2, None),)), Status.TOO_FEW_POINTS),
    ("identical points", _set("points3d", 0.3), Status.DEGENERATE),
    ("collinear points", _collinear, Status.DEGENERATE),
    ("all weights zero", _set("weights", 0.0), Status.TOO_FEW_POINTS),
    ("negative weight", _set("weights", -0.1, (4,)), Status.BAD_WEIGHTS),
    ("everything masked", _set("mask", False), Status.TOO_FEW_POINTS),
]
_WITH_INIT = [
    ("all behind the camera", _behind, Status.INFEASIBLE),
    ("NaN init", _set("R", float("nan")), Status.NOT_FINITE),
    ("reflected init", _set("R", -torch.eye(3)), Status.BAD_INIT),
    ("overflowing init", _set("t", 1.7e308), Status.INFEASIBLE),
]


def _cases() -> list[object]:
    cases = [
        pytest.param(d, s, init, id=f"{n}, init={init}") for n, d, s in _ALWAYS for init in (False, True)
    ]
    return [*cases, *(pytest.param(d, s, True, id=n) for n, d, s in _WITH_INIT)]


@pytest.mark.parametrize("way", _WAYS, ids=["kernels", "torch", "unrolled"])
@pytest.mark.parametrize(("damage", "status", "with_init"), _cases())
def test_a_bad_item_is_contained(
    damage: Callable[[Inputs], None], status: Status, with_init: bool, way: dict[str, Any]
) -> None:
    clean, damaged = _inputs(), _inputs()
    damage(damaged)
    expected, expected_gradients = _solve(clean, with_init, **way)
    actual, gradients = _solve(damaged, with_init, **way)
    assert bool(expected.ok.all())
    assert actual.status[_BAD] == status
    assert not actual.ok[_BAD]
    others = [i for i in range(5) if i != _BAD]
    for field in ("cost", "decrement", "hessian"):
        assert bool(getattr(actual, field).isfinite().all())
    for got, wanted in ((actual.pose.R, expected.pose.R), (actual.pose.t, expected.pose.t)):
        assert bool(got.isfinite().all())
        torch.testing.assert_close(got[others], wanted[others], rtol=0, atol=1e-12)
    for name, gradient in gradients.items():
        assert bool((gradient[_BAD] == 0).all()), name
        torch.testing.assert_close(gradient[others], expected_gradients[name][others], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("status_case", _ALWAYS, ids=[name for name, *_ in _ALWAYS])
def test_float32_too(status_case: tuple[str, Callable[[Inputs], None], Status]) -> None:
    damaged = _inputs(torch.float32)
    status_case[1](damaged)
    solution, gradients = _solve(damaged, with_init=False)
    assert solution.status[_BAD] == status_case[2]
    assert int(solution.ok.sum()) == 4
    for name, gradient in gradients.items():
        assert bool(gradient.isfinite().all()), name
        assert bool((gradient[_BAD] == 0).all()), name


def test_a_bad_item_with_nan_in_the_loss_gradient_stays_zero() -> None:
    inputs = _inputs()
    inputs["points2d"][_BAD] = float("nan")
    x = inputs["points2d"].clone().requires_grad_()
    solution = pg.solve_pnp(x, inputs["points3d"], inputs["camera"])
    residual = pg.reprojection_residuals(x.detach(), inputs["points3d"], inputs["camera"], solution.pose)
    loss = pg.masked_mean(residual.square().sum((-1, -2)), solution.ok)
    loss.backward()
    assert bool(loss.isfinite())
    assert x.grad is not None
    assert bool((x.grad[_BAD] == 0).all())
    assert bool((x.grad[0] != 0).any())


@pytest.mark.parametrize("with_init", [False, True])
@pytest.mark.parametrize("way", _WAYS, ids=["kernels", "torch", "unrolled"])
def test_an_item_alone_equals_the_item_in_a_batch(way: dict[str, Any], with_init: bool) -> None:
    inputs = _inputs()
    together, all_gradients = _solve(inputs, with_init, **way)
    for i in range(5):
        alone, gradients = _solve(
            {name: value[i : i + 1] for name, value in inputs.items()}, with_init, **way
        )
        torch.testing.assert_close(alone.pose.R[0], together.pose.R[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.pose.t[0], together.pose.t[i], rtol=0, atol=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient[0], all_gradients[name][i], rtol=1e-10, atol=1e-12)


def test_contents_of_masked_points_change_nothing_bitwise() -> None:
    inputs = _inputs()
    inputs["mask"][:, 6:] = False
    reference, reference_gradients = _solve(inputs, with_init=False)
    for poison in (float("nan"), float("inf"), 1e30, 7.0):
        for name in ("points2d", "points3d", "weights"):
            inputs[name][:, 6:] = poison
        solution, gradients = _solve(inputs, with_init=False)
        assert torch.equal(solution.pose.R, reference.pose.R)
        assert torch.equal(solution.pose.t, reference.pose.t)
        for name, gradient in gradients.items():
            assert torch.equal(gradient, reference_gradients[name]), name


def test_padded_equals_unpadded() -> None:
    inputs = _inputs()
    inputs["mask"][:, 6:] = False
    padded, _ = _solve(inputs, with_init=False)
    short = {
        n: v[:, :6] if n in ("points2d", "points3d", "weights", "mask") else v for n, v in inputs.items()
    }
    unpadded, _ = _solve(short, with_init=False)
    torch.testing.assert_close(padded.pose.R, unpadded.pose.R, rtol=0, atol=1e-11)
    torch.testing.assert_close(padded.pose.t, unpadded.pose.t, rtol=0, atol=1e-11)


@pytest.mark.parametrize("with_init", [False, True])
@pytest.mark.parametrize("way", _WAYS, ids=["kernels", "torch", "unrolled"])
def test_an_overflowing_item_does_not_reach_what_the_batch_shares(
    way: dict[str, Any], with_init: bool
) -> None:
    inputs = _inputs()
    model, K, x = (inputs[name] for name in ("points3d", "camera", "points2d"))
    init = pg.Pose(inputs["R"], inputs["t"]) if with_init else None

    def gradients(x: Tensor, keep: list[int]) -> tuple[Tensor, ...]:
        leaves = model[0].clone().requires_grad_(), K[0].clone().requires_grad_()
        x = pg.project_points(model[0], K, pg.Pose(inputs["R"], inputs["t"])) + x
        start = None if init is None else init[keep]
        solution = pg.solve_pnp(x[keep], *leaves, init=start, **way)
        assert int(solution.ok.sum()) == 4
        assert bool(solution.pose.t.isfinite().all())
        return torch.autograd.grad(solution.pose.t.sum(), leaves)

    wild = torch.zeros_like(x)
    wild[_BAD] = 1e300 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).double()
    others = [i for i in range(5) if i != _BAD]
    for got, wanted in zip(gradients(wild, list(range(5))), gradients(wild, others), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_second_derivatives_of_failed_items_are_zero() -> None:
    inputs = _inputs()
    inputs["t"][_BAD] = 1.7e308
    leaves = [inputs[name].clone().requires_grad_() for name in ("points2d", "points3d", "camera")]
    solution = pg.solve_pnp(*leaves, init=pg.Pose(inputs["R"], inputs["t"]))
    first = torch.autograd.grad(solution.pose.t.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    for gradient in second:
        assert bool(gradient.isfinite().all())
        assert bool((gradient[_BAD] == 0).all())
        assert bool((gradient[0] != 0).any())


@pytest.mark.parametrize("way", [{}, {"backend": "torch"}])
@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("wide_pixels", [False, True])
def test_a_gradient_too_large_for_float16_saturates(
    way: dict[str, Any], count: int, wide_pixels: bool
) -> None:
    """By points of size 1e-6 a rotation has derivatives beyond 65504: the largest number then, of the right sign."""
    scene = random_scene(3, 6, noise=2.0, seed=3)
    x, z = scene.points2d[:, :count], (1e-6 * scene.points3d[:, :count]).half()
    mean = pg.Pose(scene.pose.R, 1e-6 * scene.pose.t)
    options: dict[str, Any] = (
        way if count > 3 else {"prior": pg.PosePrior(mean, torch.eye(6).double()), **way}
    )
    gradients = []
    for points in (z, z.double()):
        points2d, leaf = (x if wide_pixels else x.half()), points.clone().requires_grad_()
        solution = pg.solve_pnp(points2d, leaf, scene.K.to(points2d), **options)
        assert bool(solution.ok.all())
        gradients += torch.autograd.grad((1e3 * solution.pose.R).sum(), leaf)
    narrow, wide = gradients
    assert bool((wide.abs() > 65504).any()), "the case tests nothing"
    torch.testing.assert_close(narrow.double(), wide.clamp(-65504, 65504), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("name", ["points2d", "points3d"])
@pytest.mark.parametrize("loss", [None, pg.robust.Huber(2.0)])
@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Implicit(hessian="gauss_newton", max_gain=2.0)])
def test_a_point_of_weight_zero_may_lie_anywhere(
    way: dict[str, Any], name: str, loss: pg.robust.RobustLoss | None, adjoint: pg.Implicit
) -> None:
    """Where its square overflows, too: the others' gradients are as if it was near, its own is zero."""
    inputs, others = _inputs(), torch.arange(8) != 3
    inputs["weights"][_BAD, 3] = 0.0
    options = {"with_init": True, "loss": loss, "adjoint": adjoint, **way}
    near, expected = _solve(inputs, **options)
    assert bool(near.ok.all())
    for value in (1e308, -1e308, 1e160):
        inputs[name][_BAD, 3, 0] = value
        solution, gradients = _solve(inputs, **options)
        torch.testing.assert_close(solution.pose.R, near.pose.R, rtol=0, atol=1e-12)
        for leaf, gradient in gradients.items():
            assert bool(gradient.isfinite().all()), leaf
            kept = (
                (gradient, expected[leaf])
                if leaf == "camera"
                else (gradient[:, others], expected[leaf][:, others])
            )
            torch.testing.assert_close(*kept, rtol=1e-8, atol=1e-10)
        assert not bool(gradients["points3d"][_BAD, 3].any() | gradients["points2d"][_BAD, 3].any())
