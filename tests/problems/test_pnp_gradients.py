"""Gradients of solve_pnp, float64, against re-solving from the base pose under fourth-order central differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import posegrad as pg
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.testing import Scene, central_difference, random_scene, relative_error

_SCENES = 20
_BOUND = 1e-6
_UPPER = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)


def _readout(solution: pg.PnPSolution) -> Tensor:
    """A fixed linear function of R and t, one number an item."""
    generator = torch.Generator().manual_seed(7)
    G_R, G_t = torch.randn(3, 3, generator=generator).double(), torch.randn(3, generator=generator).double()
    return (solution.pose.R * G_R).sum((-1, -2)) + (solution.pose.t * G_t).sum(-1)


def _inputs(scene: Scene) -> dict[str, Tensor]:
    return {
        "points2d": scene.points2d,
        "points3d": scene.points3d,
        "weights": scene.weights,
        "camera": scene.K.expand(len(scene.weights), 3, 3),
    }


def _solve(inputs: dict[str, Tensor], init: pg.Pose, adjoint: pg.Implicit | pg.Unrolled) -> pg.PnPSolution:
    return pg.solve_pnp(
        inputs["points2d"],
        inputs["points3d"],
        inputs["camera"],
        weights=inputs["weights"],
        init=init,
        adjoint=adjoint,
    )


def _analytic(scene: Scene, adjoint: pg.Implicit | pg.Unrolled) -> tuple[dict[str, Tensor], pg.Pose]:
    leaves = {name: value.detach().clone().requires_grad_() for name, value in _inputs(scene).items()}
    solution = _solve(leaves, scene.pose, adjoint)
    assert bool(solution.ok.all()), solution.describe()
    gradients = torch.autograd.grad(_readout(solution).sum(), list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True)), solution.pose.detach()


def _resolved(scene: Scene, name: str, base: pg.Pose, step: float) -> Tensor:
    inputs = _inputs(scene)

    def function(value: Tensor) -> Tensor:
        copies = len(value) // len(scene.weights)
        repeated = {key: v.repeat_interleave(copies, 0) for key, v in inputs.items()} | {name: value}
        start = pg.Pose(base.R.repeat_interleave(copies, 0), base.t.repeat_interleave(copies, 0))
        solution = _solve(repeated, start, pg.Implicit())
        assert bool(solution.ok.all()), solution.describe()
        return _readout(solution).detach()

    return central_difference(function, inputs[name], step)


def _check(scene: Scene, adjoint: pg.Implicit | pg.Unrolled) -> None:
    pixel = scene.K[0, 0].item() / 600
    gradients, base = _analytic(scene, adjoint)
    for name, actual in gradients.items():
        # steps are 1e-3 of the input's scale: pixels in units of f / 600, object and weights of size 1
        scale = pixel if name in ("points2d", "camera") else 1.0
        expected = _resolved(scene, name, base, 1e-3 * scale)
        error = relative_error(actual * scale, expected * scale, floor=1e-3)
        assert error.max() < _BOUND, f"{name}: {error.max():.1e}"
        if name == "camera":
            assert bool((actual * (1 - _UPPER) == 0).all()), "entries of K that do not count got a gradient"


@pytest.mark.parametrize("planar", [False, True], ids=["general", "planar"])
@pytest.mark.parametrize("noise", [0.0, 2.0, 10.0])
@pytest.mark.parametrize("points", [4, 8, 50])
def test_implicit_gradient_equals_re_solving(points: int, noise: float, planar: bool) -> None:
    scenes = _SCENES if points < 50 else 6  # of 309 numbers each, every one displaced four times
    _check(random_scene(scenes, points, noise=noise, planar=planar, seed=points), pg.Implicit())


@pytest.mark.parametrize("planar", [False, True], ids=["general", "planar"])
def test_unrolled_gradient_equals_re_solving(planar: bool) -> None:
    _check(random_scene(5, 8, noise=5.0, planar=planar, seed=3), pg.Unrolled())


def test_metric_image_units_pass_the_same() -> None:
    _check(random_scene(_SCENES, 8, noise=2.0, focal=5e-4, seed=4), pg.Implicit())


def test_thin_object_near_the_camera_where_a_depth_weighted_adjoint_fails() -> None:
    scene = random_scene(_SCENES, 12, noise=2.0, seed=5)
    near = pg.Pose(scene.pose.R, scene.pose.t * torch.tensor([1.0, 1.0, 0.45], dtype=torch.float64))
    keep = scene.points3d * torch.tensor([1.0, 1.0, 0.4], dtype=torch.float64)
    noise = scene.points2d - pg.project_points(scene.points3d, scene.K, scene.pose)
    points2d = pg.project_points(keep, scene.K, near) + noise
    _check(Scene(points2d, keep, scene.weights, scene.K, near), pg.Implicit())


def test_gauss_newton_matches_its_definition() -> None:
    """u = (J^T W J)^-1 v with the residual's Jacobian by automatic differentiation; exact at zero residual."""
    scene = random_scene(5, 8, noise=5.0, seed=6)
    gradients, base = _analytic(scene, pg.Implicit(hessian="gauss_newton"))
    for i in range(5):
        z, w, R, t = scene.points3d[i], scene.weights[i], base.R[i], base.t[i]

        def readout(delta: Tensor, R: Tensor = R, t: Tensor = t) -> Tensor:
            pose = pg.Pose(R, t).retract(delta)
            return _readout(pg.PnPSolution(pose, *(torch.zeros(()),) * 5))

        def projection(delta: Tensor, R: Tensor = R, t: Tensor = t, z: Tensor = z) -> Tensor:
            return pg.project_points(z, scene.K, pg.Pose(R, t).retract(delta))

        zero = torch.zeros(6, dtype=torch.float64)
        v, J = torch.func.grad(readout)(zero), torch.func.jacrev(projection)(zero)
        A = torch.einsum("nai,n,naj->ij", J, w, J)
        u = torch.linalg.solve(A, v)
        torch.testing.assert_close(gradients["points2d"][i], w[:, None] * (J @ u), rtol=1e-9, atol=1e-12)
    exact, _ = _analytic(scene, pg.Implicit())
    assert relative_error(gradients["points2d"], exact["points2d"], 1e-9).max() > 1e-4


def test_what_is_left_of_a_difference_in_an_ill_conditioned_scene_is_truncation() -> None:
    """A nearly frontal plane of 4 points turns by degrees a pixel: there the differences, of order h^4, are wrong."""
    scene = random_scene(1, 4, planar=True, seed=2)
    frontal = pg.Pose.from_rotvec(
        torch.tensor([[0.1, 0.0, 0.4]]).double(), torch.tensor([[0.0, 0.0, 7.0]]).double()
    )
    scene = Scene(
        pg.project_points(scene.points3d, scene.K, frontal), scene.points3d, scene.weights, scene.K, frontal
    )
    gradients, base = _analytic(scene, pg.Implicit())
    coarse, fine = (
        relative_error(gradients["points3d"], _resolved(scene, "points3d", base, h), 1e-3).item()
        for h in (2e-3, 5e-4)
    )
    assert coarse > _BOUND
    assert 0.8 < coarse / fine / 4**4 < 1.25


def _as_function(
    scene: Scene, which: str, adjoint: pg.Implicit
) -> tuple[Callable[..., tuple[Tensor, Tensor]], Tensor]:
    inputs = _inputs(scene)

    def function(value: Tensor) -> tuple[Tensor, Tensor]:
        solution = _solve(inputs | {which: value}, scene.pose, adjoint)
        return solution.pose.rotvec(), solution.pose.t

    return function, inputs[which].clone().requires_grad_()


@pytest.mark.parametrize("which", ["points2d", "points3d", "weights"])
def test_gradcheck_and_second_derivatives(which: str) -> None:
    function, value = _as_function(random_scene(1, 5, noise=2.0, seed=8), which, pg.Implicit())
    solver_step = 1e-4 if which != "points2d" else 1e-2
    assert gradcheck(function, value, eps=solver_step, rtol=1e-5, atol=1e-7)
    assert gradgradcheck(function, value, eps=solver_step, rtol=1e-4, atol=1e-7)


def test_second_derivatives_by_camera() -> None:
    scene = random_scene(1, 5, noise=2.0, seed=9)
    params = torch.tensor([[600.0, 612.0, 320.0, 240.0]], dtype=torch.float64, requires_grad=True)

    def function(params: Tensor) -> tuple[Tensor, Tensor]:
        solution = pg.solve_pnp(scene.points2d, scene.points3d, pg.cameras.Pinhole(params), init=scene.pose)
        return solution.pose.rotvec(), solution.pose.t

    assert gradcheck(function, params, eps=1e-2, rtol=1e-5, atol=1e-8)
    assert gradgradcheck(function, params, eps=1e-2, rtol=1e-4, atol=1e-9)


def test_float32_gradients_are_close_to_those_of_float64_on_the_same_inputs() -> None:
    scene = random_scene(_SCENES, 8, noise=2.0, seed=10)
    narrow = {name: value.float() for name, value in _inputs(scene).items()}
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = {name: value.to(dtype).requires_grad_() for name, value in narrow.items()}
        solution = _solve(leaves, scene.pose.to(dtype), pg.Implicit())
        assert solution.pose.R.dtype == dtype
        assert bool(solution.ok.all())
        readout = _readout(pg.PnPSolution(solution.pose.to(torch.float64), *(solution.cost,) * 5))
        results.append(torch.autograd.grad(readout.sum(), list(leaves.values())))
    for low, high in zip(*results, strict=True):
        assert low.dtype == torch.float32
        assert relative_error(low.double(), high, 1e-6).max() < 1e-3


def test_shared_inputs_get_the_sum_of_the_items() -> None:
    scene = random_scene(4, 8, noise=2.0, seed=11)
    z = scene.points3d[0].clone().requires_grad_()
    K = scene.K.clone().requires_grad_()
    w = torch.ones(8, dtype=torch.float64, requires_grad=True)
    x = pg.project_points(z, K, scene.pose).detach() + 0.5
    x = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    shared = torch.autograd.grad(_readout(pg.solve_pnp(x, z, K, weights=w)).sum(), (z, K, w))
    single = [
        torch.autograd.grad(_readout(pg.solve_pnp(x[i], z, K, weights=w)).sum(), (z, K, w)) for i in range(4)
    ]
    for i, total in enumerate(shared):
        torch.testing.assert_close(total, torch.stack([g[i] for g in single]).sum(0), rtol=1e-10, atol=1e-12)


def test_gradient_is_the_projector_for_a_perfect_fit() -> None:
    """d pi(y(x)) / d x is an orthogonal projector of rank 6 where residuals vanish."""
    scene = random_scene(1, 8, seed=12)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: pg.project_points(
            scene.points3d[0],
            scene.K,
            pg.solve_pnp(x, scene.points3d[0], scene.K, solver=LevenbergMarquardt()).pose,
        ),
        scene.points2d[0],
    ).reshape(16, 16)
    torch.testing.assert_close(jacobian @ jacobian, jacobian, rtol=0, atol=1e-9)
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=0, atol=1e-9)
    assert jacobian.trace().item() == pytest.approx(6, abs=1e-9)
