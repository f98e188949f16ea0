"""Kernels and torch operations give the same answers, statuses and gradients."""

import itertools

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import Status
from posegrad.cameras import Camera
from posegrad.kernels.families import MODELS
from posegrad.robust import LOSSES, RobustLoss
from posegrad.testing import random_scene
from tests.cameras.samples import PARAMS, STRONG, camera, points_in_field

_ITEMS, _POINTS = 9, 11


class Scene:
    """Noisy images of points in the camera's field, and a start nearby."""

    def __init__(self, model: Camera, noise: float = 0.5, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        seen = points_in_field(model, _ITEMS * _POINTS, within=0.7, seed=seed).view(_ITEMS, _POINTS, 3)
        pose = pg.Pose.from_rotvec(
            torch.randn(_ITEMS, 3, generator=generator, dtype=torch.float64),
            torch.randn(_ITEMS, 3, generator=generator, dtype=torch.float64),
        )
        self.camera = model
        self.points3d = pose.inverse().act(seen)
        jitter = torch.randn(_ITEMS, _POINTS, 2, generator=generator, dtype=torch.float64)
        self.points2d = model.project(seen).points2d + noise * jitter
        delta = 0.02 * torch.randn(_ITEMS, 6, generator=generator, dtype=torch.float64)
        self.init = pose.retract(delta)
        self.mask = torch.rand(_ITEMS, _POINTS, generator=generator) < 0.85
        self.generator = generator

    def weights(self, kind: str) -> Tensor | None:
        u = torch.rand(_ITEMS, _POINTS, 2, generator=self.generator, dtype=torch.float64) + 0.1
        if kind == "none":
            return None
        u[1, 2] = 0.0
        if kind == "matrix":
            a = torch.randn(_ITEMS, _POINTS, 2, 2, generator=self.generator, dtype=torch.float64)
            return a @ a.mT + torch.diag_embed(0.1 * u)
        return u if kind == "axis" else u[..., 0]


def both(
    scene: Scene, names: tuple[str, ...] = ("points2d", "points3d", "weights", "camera"), **options: object
) -> None:
    """Solve and differentiate both ways, and compare."""
    results = []
    weights = options.pop("weights", None)
    matrix = options.pop("matrix", None)
    adjoint = options.pop("adjoint", pg.Implicit())
    for backend in ("torch", "kernels"):
        values = {
            "points2d": scene.points2d,
            "points3d": scene.points3d,
            "weights": weights,
            "camera": scene.camera.params if matrix is None else matrix,
        }
        leaves = {
            name: value.clone().requires_grad_(name in names)
            for name, value in values.items()
            if value is not None
        }
        model = leaves["camera"] if matrix is not None else type(scene.camera)(leaves["camera"])
        solution = pg.solve_pnp(
            leaves["points2d"],
            leaves["points3d"],
            model,  # type: ignore[arg-type]
            weights=leaves.get("weights"),
            backend=backend,  # type: ignore[arg-type]
            adjoint=adjoint,  # type: ignore[arg-type]
            **{"init": scene.init, **options},  # type: ignore[arg-type]
        )
        slope = torch.linspace(-1, 1, 9, dtype=solution.pose.R.dtype).view(3, 3)
        loss = (solution.pose.R * slope).sum() + (solution.pose.t**2).sum()
        wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
        results.append((solution, torch.autograd.grad(loss, wanted)))
    (expected, gradients), (actual, kernel_gradients) = results
    assert actual.status.tolist() == expected.status.tolist()
    assert actual.status.dtype == expected.status.dtype
    assert actual.pose.R.dtype == expected.pose.R.dtype
    tight = 1e-9 if actual.pose.R.dtype == torch.float64 else 2e-5
    for part in ("R", "t"):
        torch.testing.assert_close(
            getattr(actual.pose, part), getattr(expected.pose, part), rtol=tight, atol=tight
        )
    ok = expected.ok
    assert bool(ok.any())
    torch.testing.assert_close(actual.cost[ok], expected.cost[ok], rtol=tight, atol=1e-12)
    close(actual.hessian, expected.hessian, 10 * tight)
    assert bool((actual.decrement[ok] <= 1e-6).all())
    for got, exact in zip(kernel_gradients, gradients, strict=True):
        assert got.dtype == exact.dtype
        assert got.shape == exact.shape
        close(got, exact, 100 * tight)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the largest entry; but where all residuals vanish, rounding is all there is."""
    scale = expected.abs().max().clamp(min=1e-6)
    torch.testing.assert_close(actual / scale, expected / scale, rtol=0, atol=tolerance)


_STRONG = [(name, params) for name, params in STRONG if type(camera(name, params)) in MODELS]
_CAMERAS = [
    *((name, None) for name in PARAMS if type(camera(name)) in MODELS),
    *_STRONG,
]


@pytest.mark.parametrize(("name", "params"), _CAMERAS)
def test_every_camera(name: str, params: list[float] | None) -> None:
    scene = Scene(camera(name, params))
    # near a fold rounding alone moves the cost by more than the default tolerance
    solver = pg.LevenbergMarquardt(tolerance=None if params is None else 1e-10)
    both(scene, weights=scene.weights("matrix"), mask=scene.mask, loss=pg.robust.Cauchy(2.0), solver=solver)
    both(scene, solver=solver)


# losses whose influence ends want a scale beyond the residuals at the start, of some 10 pixels
_SCALE = {"tukey": 60.0, "truncated": 60.0}
_ROBUST = [loss(_SCALE.get(n, 2.0)) for n, loss in LOSSES.items() if n not in ("squared", "barron")]
_ROBUST += [pg.robust.Barron(1.5, alpha) for alpha in (2.0, 1.0, 0.0, -2.0, float("-inf"), 1.7, 3.0)]


@pytest.mark.parametrize("loss", _ROBUST, ids=lambda loss: f"{loss.name} {getattr(loss, 'alpha', 0):.1f}")
def test_every_loss(loss: RobustLoss) -> None:
    scene = Scene(camera("PINHOLE"), noise=1.0)
    both(scene, weights=scene.weights("number"), loss=loss)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("kind", ["none", "number", "axis", "matrix"])
def test_every_kind_of_weights(kind: str, robust: bool, masked: bool) -> None:
    scene = Scene(camera("PINHOLE"))
    loss = pg.robust.Huber(0.7) if robust else None
    both(scene, weights=scene.weights(kind), mask=scene.mask if masked else None, loss=loss)


@pytest.mark.parametrize("adjoint", [pg.Implicit(hessian="gauss_newton"), pg.Implicit(max_gain=0.9)])
def test_other_adjoints(adjoint: pg.Implicit) -> None:
    scene = Scene(camera("PINHOLE"), noise=3.0)
    both(scene, weights=scene.weights("number"), adjoint=adjoint)
    both(scene, weights=scene.weights("matrix"), adjoint=adjoint, loss=pg.robust.SoftL1(2.0))


def test_what_the_batch_shares() -> None:
    """Each of the tensors in turn is shared by the batch, with and without a dimension of 1."""
    for dimension, chosen in itertools.product((False, True), range(4)):
        scene = Scene(camera("PINHOLE"), noise=1.0)
        weights = scene.weights("number")
        assert weights is not None
        matrix = torch.tensor([[500.0, 2, 320], [7, 520, 240], [0, 0, 1]]).double().repeat(_ITEMS, 1, 1)

        def first(value: Tensor, dimension: bool = dimension) -> Tensor:
            return value[:1] if dimension else value[0]

        if chosen == 0:
            scene.points2d, scene.init = first(scene.points2d), scene.init[torch.zeros(_ITEMS).long()]
            scene.points3d = scene.points3d[:1] + 1e-3 * scene.points3d
        elif chosen == 1:
            scene.points3d = first(scene.points3d)
            pixels = pg.project_points(scene.points3d, matrix, scene.init)
            scene.points2d = pixels + torch.randn(_ITEMS, _POINTS, 2).double()
        elif chosen == 2:
            matrix = first(matrix)
        else:
            weights = first(weights) + 0.1
        both(scene, weights=weights, matrix=matrix)
        both(scene, weights=weights, matrix=matrix, loss=pg.robust.Huber(2.0), mask=scene.mask[0])


def test_layouts_and_dtypes() -> None:
    """Strided tensors, several batch dimensions, mixed and half precision."""
    scene = Scene(camera("PINHOLE"), noise=1.0)
    scene.points2d = scene.points2d.mT.contiguous().mT
    scene.points3d = torch.stack([scene.points3d, scene.points3d], -1)[..., 0]
    both(scene)
    scene.points2d = scene.points2d.float()
    both(scene)
    scene.points3d, scene.init = scene.points3d.float(), scene.init.to(torch.float32)
    both(scene)
    scene.camera = scene.camera.to(torch.float32)
    both(scene, weights=scene.weights("axis"))
    scene.points2d = scene.points2d.half()
    both(scene, names=("points3d",))
    scene = Scene(camera("OPENCV"), noise=1.0)
    scene.points2d = scene.points2d.view(3, 3, _POINTS, 2)
    scene.points3d = scene.points3d.view(3, 3, _POINTS, 3)
    scene.init = pg.Pose(scene.init.R.view(3, 3, 3, 3), scene.init.t.view(3, 3, 3))
    scene.camera = type(scene.camera)(scene.camera.params.repeat(3, 1))
    both(scene, loss=pg.robust.Huber(torch.tensor([[1.0], [2.0], [3.0]])), mask=scene.mask.view(3, 3, -1))


def test_one_item_without_a_batch_dimension() -> None:
    scene = Scene(camera("PINHOLE"), noise=1.0)
    scene.points2d, scene.points3d, scene.init = scene.points2d[0], scene.points3d[0], scene.init[0]
    both(scene)
    assert pg.solve_pnp(scene.points2d, scene.points3d, scene.camera, init=scene.init).status.shape == ()


@pytest.mark.parametrize("seed", range(12))
def test_random_calls_with_bad_items(seed: int) -> None:
    """Far starts, few points, bad numbers anywhere: the same status and the same answer."""
    generator = torch.Generator().manual_seed(seed)

    def chance(p: float) -> bool:
        return bool(torch.rand((), generator=generator) < p)

    count = int(torch.randint(3, 20, (), generator=generator))
    scene = random_scene(24, count, noise=3.0, planar=chance(0.3), seed=seed)
    weights = scene.weights.clone()
    mask = torch.rand(24, count, generator=generator) < 0.9
    points2d, points3d = scene.points2d.clone(), scene.points3d.clone()
    pose = scene.pose.retract(0.3 * torch.randn(24, 6, generator=generator).double())
    points2d[0, 1], points3d[1, 0, 2] = torch.nan, torch.inf
    weights[2, 0], weights[3] = -1.0, 0.0
    points3d[4] = points3d[4, :1] * torch.linspace(-1, 2, count)[:, None]
    R, t = pose.R.clone(), pose.t.clone()
    R[5], R[6], t[7], t[8, 2] = -R[5], 3 * R[6], torch.nan, -6.0
    weights[9, 1:] = 1e-200
    points2d[10] *= 1e200
    points3d[11] = points3d[11, :1]
    results = []
    for backend in ("torch", "kernels"):
        leaves = [value.clone().requires_grad_() for value in (points2d, points3d, scene.K, weights)]
        solution = pg.solve_pnp(
            *leaves[:3],
            weights=leaves[3],
            mask=mask,
            init=pg.Pose(R, t),
            backend=backend,  # type: ignore[arg-type]
        )
        results.append((solution, torch.autograd.grad(solution.pose.R.sum() + solution.pose.t.sum(), leaves)))
    (expected, gradients), (actual, kernel_gradients) = results
    assert actual.status.tolist() == expected.status.tolist()
    assert len(set(actual.status.tolist())) >= 5
    assert Status.NOT_FINITE in actual.status
    ok = actual.ok
    torch.testing.assert_close(actual.pose.R, expected.pose.R, rtol=0, atol=1e-8)
    torch.testing.assert_close(actual.pose.t[ok], expected.pose.t[ok], rtol=1e-8, atol=1e-8)
    assert bool(actual.pose.t.isfinite().all())
    for i, (got, exact) in enumerate(zip(kernel_gradients, gradients, strict=True)):
        if i == 2:
            close(got, exact, 1e-6)
            continue
        for item in range(24):
            close(got[item], exact[item], 1e-6)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("count", "noise"), [(3, 0.5), (4, 5.0), (6, 0.0), (12, 2.0), (40, 20.0)])
def test_without_a_start(count: int, noise: float, planar: bool) -> None:
    """The same minimum, or one as good; more starts for very noisy items and those of three points."""
    scene = random_scene(20, count, noise=noise, planar=planar, seed=count)
    points2d = scene.points2d.clone()
    points2d[3, 0, 0] = torch.nan
    expected, actual = (
        pg.solve_pnp(points2d, scene.points3d, scene.K, weights=scene.weights, backend=backend)
        for backend in ("torch", "kernels")
    )
    assert actual.status.tolist() == expected.status.tolist()
    ok = expected.ok
    torch.testing.assert_close(actual.cost[ok], expected.cost[ok], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(actual.pose.t[ok], expected.pose.t[ok], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["OPENCV", "OPENCV_FISHEYE", "RADIAL", "SIMPLE_FISHEYE"])
def test_without_a_start_through_a_distorting_lens(name: str) -> None:
    scene = Scene(camera(name))
    both(scene, init=None)
    both(scene, init=None, weights=scene.weights("matrix"), mask=scene.mask, loss=pg.robust.Huber(3.0))
