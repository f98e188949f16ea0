"""Gradients of a calibration, float64, against calibrating anew under central differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradgradcheck

import posegrad as pg
from posegrad.testing import central_difference
from tests.problems.calibration_scenes import SIZE, board, views

_BOUND, _DIRECTIONS = 1e-6, 2
# pixels, parts of a square, shares: below the kinks and the curvature of robust losses
_STEPS = {"points2d": 1e-4, "points3d": 1e-5, "weights": 1e-4, "scale": 1e-4}
_TARGET = board(4, 3, 1.6)


def _readout(solution: pg.CalibrationSolution) -> Tensor:
    """A fixed linear function of camera and poses, one number a calibration; a pixel weighs as much as the rest."""
    generator = torch.Generator().manual_seed(7)
    params, R, t = solution.camera.params, solution.pose.R, solution.pose.t
    total = torch.zeros(params.shape[:-1], dtype=params.dtype)
    scale = torch.ones(params.shape[-1]).double()
    scale[: solution.camera.num_pixel_params] = 0.01
    for value, dims in ((params * scale, 1), (R, 3), (t, 2)):
        weights = torch.randn(value.shape[-dims:], generator=generator).double()
        total = total + (value * weights).flatten(value.ndim - dims).sum(-1)
    return total


def _check(
    model: str,
    solve: Callable[[dict[str, Tensor], pg.cameras.Camera | None], pg.CalibrationSolution],
    inputs: dict[str, Tensor],
) -> None:
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    solution = solve(leaves, None)
    assert bool(solution.ok.all()), solution.describe()
    gradients = torch.autograd.grad(_readout(solution).sum(), list(leaves.values()))
    base = solution.camera.detach()
    generator = torch.Generator().manual_seed(11)
    for (name, value), actual in zip(inputs.items(), gradients, strict=True):
        directions = torch.randn(_DIRECTIONS, *value.shape, generator=generator, dtype=torch.float64)

        def function(
            along: Tensor, name: str = name, value: Tensor = value, d: Tensor = directions
        ) -> Tensor:
            copies = len(along) // _DIRECTIONS
            moved = value + along.view(-1, *(1,) * value.ndim) * d.repeat_interleave(copies, 0)
            repeated = {k: v.expand(len(along), *v.shape) for k, v in inputs.items() if k != name}
            again = solve(repeated | {name: moved}, base)
            assert bool(again.ok.all()), again.describe()
            return _readout(again).detach()

        expected = central_difference(function, torch.zeros(_DIRECTIONS, 1).double(), _STEPS[name])
        wanted = (directions * actual).reshape(_DIRECTIONS, -1).sum(-1, keepdim=True)
        size = actual.norm().clamp(min=1e-9)  # a direction across the gradient has a small derivative
        error = (wanted - expected).abs().max() / size
        assert error < _BOUND, f"{model}, {name}: {error:.1e}"


def _inputs(model: str, num_views: int = 4, seed: int = 0) -> dict[str, Tensor]:
    scene = views(model, num_views=num_views, target=_TARGET, noise=0.3, tilt=0.7, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    bent = scene.points3d + 0.02 * torch.randn(scene.points3d.shape, generator=generator).double()
    weights = 0.5 + torch.rand(scene.points2d.shape[:-1], generator=generator, dtype=torch.float64)
    return {"points2d": scene.points2d, "points3d": bent, "weights": weights}


def _solver(
    model: str,
    fixed: tuple[str, ...] = (),
    *,
    loss: type[pg.robust.RobustLoss] | None = None,
    adjoint: pg.Implicit | pg.Unrolled = pg.Implicit(),  # noqa: B008 (frozen)
    start: pg.cameras.Camera | None = None,
) -> Callable[[dict[str, Tensor], pg.cameras.Camera | None], pg.CalibrationSolution]:
    def solve(inputs: dict[str, Tensor], init: pg.cameras.Camera | None) -> pg.CalibrationSolution:
        points3d, scale = inputs["points3d"], inputs.get("scale")
        robust = None
        if loss is not None:
            assert scale is not None
            robust = loss(scale if scale.ndim == 0 else scale[:, None])  # type: ignore[call-arg]
        return pg.calibrate_camera(
            inputs["points2d"],
            points3d if points3d.ndim == 2 else points3d[:, None],
            weights=inputs["weights"],
            loss=robust,
            model=model,
            fixed=fixed,
            image_size=SIZE,
            init=start if init is None else init,
            adjoint=adjoint if init is None else pg.Implicit(),
        )

    return solve


@pytest.mark.parametrize(
    ("model", "fixed"),
    [
        ("SIMPLE_PINHOLE", ()),
        ("PINHOLE", ("fy",)),
        ("RADIAL", ("k2",)),
        ("OPENCV", ("k2", "p1", "p2")),
        ("OPENCV_FISHEYE", ("k2", "k3", "k4")),
        pytest.param("SIMPLE_DIVISION", (), marks=pytest.mark.exhaustive),
    ],
)
def test_implicit_gradient_equals_calibrating_anew(model: str, fixed: tuple[str, ...]) -> None:
    start = views(model, num_views=1).camera if "fy" in fixed else None
    _check(model, _solver(model, fixed, start=start), _inputs(model))


@pytest.mark.parametrize(
    ("loss", "adjoint"),
    [
        (None, pg.Unrolled()),
        (pg.robust.Huber, pg.Implicit()),
        (pg.robust.SoftL1, pg.Unrolled()),
        (pg.robust.Cauchy, pg.Implicit()),
        (pg.robust.Tukey, pg.Unrolled()),
        pytest.param(pg.robust.Huber, pg.Unrolled(), marks=pytest.mark.exhaustive),
        pytest.param(pg.robust.SoftL1, pg.Implicit(), marks=pytest.mark.exhaustive),
        pytest.param(pg.robust.Cauchy, pg.Unrolled(), marks=pytest.mark.exhaustive),
        pytest.param(pg.robust.Tukey, pg.Implicit(), marks=pytest.mark.exhaustive),
        pytest.param(pg.robust.GemanMcClure, pg.Implicit(), marks=pytest.mark.exhaustive),
        pytest.param(pg.robust.GemanMcClure, pg.Unrolled(), marks=pytest.mark.exhaustive),
    ],
)
def test_losses_and_adjoints(
    loss: type[pg.robust.RobustLoss] | None, adjoint: pg.Implicit | pg.Unrolled
) -> None:
    inputs = _inputs("SIMPLE_PINHOLE", num_views=3, seed=1)
    if loss is not None:
        wide = 3.0 if loss in (pg.robust.Tukey, pg.robust.GemanMcClure) else 0.6
        inputs["scale"] = torch.tensor(wide, dtype=torch.float64)
    start = views("SIMPLE_PINHOLE", num_views=1).camera
    solve = _solver("SIMPLE_PINHOLE", loss=loss, adjoint=adjoint, start=start)
    _check("SIMPLE_PINHOLE", solve, inputs)


@pytest.mark.parametrize("kind", [2, 3], ids=["per axis", "matrices"])
def test_other_weights(kind: int) -> None:
    inputs = _inputs("SIMPLE_PINHOLE", num_views=3, seed=2)
    generator = torch.Generator().manual_seed(0)
    root = 0.5 + torch.rand(*inputs["points2d"].shape, generator=generator, dtype=torch.float64)
    if kind == 3:
        root = torch.diag_embed(root) + 0.2
    inputs["weights"] = root
    _check("SIMPLE_PINHOLE", _solver("SIMPLE_PINHOLE"), inputs)


def test_second_derivatives() -> None:
    scene = views("SIMPLE_PINHOLE", num_views=2, target=board(3, 2, 3.0), noise=0.3, tilt=0.7, seed=3)

    def function(points2d: Tensor) -> Tensor:
        solution = pg.calibrate_camera(
            points2d,
            scene.points3d,
            model="SIMPLE_PINHOLE",
            fixed=("cx", "cy"),
            image_size=SIZE,
            init=scene.camera,
        )
        return solution.camera.params[:1]

    points2d = scene.points2d.clone().requires_grad_()
    assert gradgradcheck(function, points2d, eps=1e-3, rtol=1e-4, atol=1e-7, fast_mode=True)


def test_transforms_see_through() -> None:
    """Reverse and forward mode, mapped and nested, agree."""
    scene = views("SIMPLE_PINHOLE", num_views=3, target=board(3, 2, 3.0), noise=0.3, tilt=0.7, seed=3)

    def focal(points2d: Tensor) -> Tensor:
        solution = pg.calibrate_camera(points2d, scene.points3d, model="SIMPLE_PINHOLE", image_size=SIZE)
        return solution.camera.params[..., 0]

    reverse = torch.func.jacrev(focal)(scene.points2d)
    torch.testing.assert_close(torch.func.jacfwd(focal)(scene.points2d), reverse, rtol=1e-9, atol=1e-10)
    both = torch.stack([scene.points2d, scene.points2d + 0.1])
    mapped = torch.func.vmap(torch.func.grad(focal))(both)
    torch.testing.assert_close(mapped[0], reverse, rtol=1e-9, atol=1e-10)


def test_a_camera_of_each_view_and_a_focal_length_are_calibrations_of_one_view() -> None:
    scene = views("SIMPLE_PINHOLE", num_views=3, noise=0.3, tilt=0.7, seed=4)
    points2d = scene.points2d.clone().requires_grad_()
    own = pg.calibrate_camera(
        points2d, scene.points3d, model="SIMPLE_PINHOLE", fixed=("cx", "cy"), shared=False, image_size=SIZE
    )
    single = pg.estimate_focal(points2d, scene.points3d, image_size=SIZE)
    assert own.camera.params.shape == (3, 3)
    assert own.pose.t.shape == (3, 1, 3)
    assert single.pose.t.shape == (3, 3)
    torch.testing.assert_close(own.camera.params[:, 0], single.focal, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(f.sum(), points2d)[0] for f in (own.camera.params[:, 0], single.focal)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    for i in range(3):
        one = pg.calibrate_camera(
            scene.points2d[i : i + 1],
            scene.points3d,
            model="SIMPLE_PINHOLE",
            fixed=("cx", "cy"),
            image_size=SIZE,
        )
        torch.testing.assert_close(one.camera.params[0], single.focal[i], rtol=1e-10, atol=0)


def test_an_empty_batch_unrolled_has_an_empty_gradient() -> None:
    x, z = torch.zeros(0, 3, 48, 2, requires_grad=True), torch.rand(48, 3)
    solution = pg.calibrate_camera(x, z, image_size=SIZE, adjoint=pg.Unrolled())
    assert torch.autograd.grad(solution.camera.params.sum(), x)[0].shape == x.shape
    x = x.flatten(0, 1).detach().requires_grad_()
    for pose in (
        pg.solve_pnp(x, z, torch.eye(3), adjoint=pg.Unrolled()).pose,
        pg.estimate_focal(x, z, image_size=SIZE, adjoint=pg.Unrolled()).pose,
    ):
        assert torch.autograd.grad(pose.t.sum(), x)[0].shape == x.shape
