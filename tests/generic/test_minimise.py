"""Objectives with and without constraints: closed forms of Deep Declarative Networks, KKT gradients, verdicts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import posegrad as pg
from posegrad import Status
from posegrad.testing import central_difference, random_scene, relative_error

_V = torch.tensor([0.7, -0.4, 1.1, 0.3], dtype=torch.float64)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (x - y).square().sum(-1)


def _project(y: Tensor, **options: Any) -> pg.Solution:
    return pg.minimise(_distance, torch.full((1, 4), 0.25, dtype=torch.float64), y, **options)


def _simplex(y: Tensor, adjoint: Any) -> pg.Solution:
    return _project(
        y, adjoint=adjoint, equality=lambda x, y: x.sum(-1, keepdim=True) - 1, inequality=lambda x, y: -x
    )


def _onto_simplex(y: Tensor) -> Tensor:
    u = y.sort(-1, descending=True).values
    excess = (u.cumsum(-1) - 1) / torch.arange(1, 5)
    count = (u > excess).sum(-1, keepdim=True)
    return (y - excess.gather(-1, count - 1)).clamp(min=0)


def _l1(y: Tensor, adjoint: Any) -> pg.Solution:
    """As a difference of two positive parts, whose constraints stay independent at a vertex."""

    def distance(x: dict[str, Tensor], y: Tensor) -> Tensor:
        return _distance(x["plus"] - x["minus"], y)

    def inequality(x: dict[str, Tensor], y: Tensor) -> Tensor:
        total = (x["plus"] + x["minus"]).sum(-1, keepdim=True) - 1
        return torch.cat([total, -x["plus"], -x["minus"]], -1)

    start = torch.full((1, 4), 0.1, dtype=torch.float64)
    found = pg.minimise(distance, {"plus": start, "minus": start}, y, inequality=inequality, adjoint=adjoint)
    return replace(found, variable=found.variable["plus"] - found.variable["minus"])


def _norm(y: Tensor) -> Tensor:
    return y.square().sum(-1, keepdim=True).sqrt()


_PROJECTIONS: dict[str, tuple[Callable[..., pg.Solution], Callable[[Tensor], Tensor]]] = {
    "simplex": (_simplex, _onto_simplex),
    "l1_ball": (_l1, lambda y: y.sign() * _onto_simplex(y.abs())),
    "l2_ball": (
        lambda y, a: _project(y, adjoint=a, inequality=lambda x, y: x.square().sum(-1, keepdim=True) - 1),
        lambda y: y / _norm(y).clamp(min=1),
    ),
    "l2_sphere": (
        lambda y, a: _project(y, adjoint=a, equality=lambda x, y: x.square().sum(-1, keepdim=True) - 1),
        lambda y: y / _norm(y),
    ),
    "linf_ball": (
        lambda y, a: _project(y, adjoint=a, inequality=lambda x, y: torch.cat([x - 0.8, -0.8 - x], -1)),
        lambda y: y.clamp(-0.8, 0.8),
    ),
    "plane": (
        lambda y, a: _project(y, adjoint=a, equality=lambda x, y: (x * _V).sum(-1, keepdim=True) - 1),
        lambda y: y - ((y @ _V - 1) / _V.square().sum())[:, None] * _V,
    ),
}


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
@pytest.mark.parametrize("name", _PROJECTIONS)
def test_projections_and_their_gradients_have_closed_forms(name: str, adjoint: Any) -> None:
    layer, closed = _PROJECTIONS[name]
    y = (2 * _random(6, 4)).requires_grad_()
    solution = layer(y, adjoint)
    assert bool(solution.ok.all()), solution.describe()
    expected = closed(y)
    torch.testing.assert_close(solution.variable, expected, rtol=0, atol=1e-13)
    for k in range(4):
        (actual,) = torch.autograd.grad(solution.variable[:, k].sum(), y, retain_graph=True)
        (wanted,) = torch.autograd.grad(expected[:, k].sum(), y, retain_graph=True)
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)


def test_points_inside_the_ball_stay() -> None:
    y = torch.tensor([[0.1, 0.2, -0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    solution = _PROJECTIONS["l2_ball"][0](y, pg.Implicit())
    assert not bool(solution.active.any())  # type: ignore[attr-defined]
    torch.testing.assert_close(solution.variable, y, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(solution.variable.sum(), y)[0], torch.ones_like(y), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
@pytest.mark.parametrize("by", ["constraint", "manifold"])
def test_eigenvectors(by: str, adjoint: Any) -> None:
    """The largest eigenvalue's, of a symmetric matrix, with the gradient of perturbation theory."""
    A = _random(4, 5, 5, seed=1)
    A = (A + A.mT).requires_grad_()
    how: dict[str, Any] = (
        {"manifold": pg.manifolds.Sphere()}
        if by == "manifold"
        else {"equality": lambda x, A: x.square().sum(-1, keepdim=True) - 1}
    )
    start = torch.full((1, 5), 5**-0.5, dtype=torch.float64)
    solution = pg.minimise(
        lambda x, A: -(x[:, None] @ A @ x[..., None]).flatten(), start, A, adjoint=adjoint, **how
    )
    assert bool(solution.ok.all()), solution.describe()
    values, vectors = torch.linalg.eigh(A)
    torch.testing.assert_close(solution.cost, -values[:, -1].detach(), rtol=1e-12, atol=0)
    sign = (solution.variable * vectors[..., -1]).sum(-1, keepdim=True).detach().sign()
    for k in range(5):
        (actual,) = torch.autograd.grad(solution.variable[:, k].sum(), A, retain_graph=True)
        (wanted,) = torch.autograd.grad((sign * vectors[..., -1])[:, k].sum(), A, retain_graph=True)
        torch.testing.assert_close(actual + actual.mT, wanted + wanted.mT, rtol=1e-9, atol=1e-10)


def test_total_least_squares() -> None:
    """A line through points: its normal is the scatter's last eigenvector."""
    points = torch.cat([_random(3, 20, 1, seed=2), 0.1 * _random(3, 20, 1, seed=3)], -1) + 0.5
    points = (points @ pg.so3.exp(torch.tensor([0, 0, 0.4]).double())[:2, :2].mT).requires_grad_()

    def distances(line: dict[str, Tensor], points: Tensor) -> Tensor:
        return (points * line["normal"][:, None]).sum(-1) - line["offset"]

    start = {"normal": torch.tensor([[0.0, 1.0]]).double(), "offset": torch.zeros(1, 1).double()}
    solution = pg.least_squares(distances, start, points, manifold={"normal": pg.manifolds.Sphere()})
    centred = points - points.mean(1, keepdim=True)
    normal = torch.linalg.eigh(centred.mT @ centred)[1][..., 0]
    cosine = (normal * solution.variable["normal"]).sum(-1)
    torch.testing.assert_close(cosine.detach().abs(), torch.ones(3).double(), rtol=0, atol=1e-13)
    angle = solution.variable["normal"][:, 0] / solution.variable["normal"][:, 1]
    (actual,) = torch.autograd.grad(angle.sum(), points)
    (wanted,) = torch.autograd.grad((normal[:, 0] / normal[:, 1]).sum(), points)
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_robust_pooling(alpha: float) -> None:
    """The pseudo-Huber mean: ``sum_i phi'(y - x_i) = 0``, so ``dy/dx_i = phi''_i / sum phi''``."""
    x = _random(3, 9, seed=4).requires_grad_()
    a = torch.full((1, 1), alpha, dtype=torch.float64)

    def penalty(y: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        x, a = args
        return (a.square() * ((1 + ((y - x) / a).square()).sqrt() - 1)).sum(-1)

    solution = pg.minimise(penalty, x.detach().mean(-1, keepdim=True), (x, a))
    assert bool(solution.ok.all())
    (gradient,) = torch.autograd.grad(solution.variable.sum(), x)
    second = (1 + ((solution.variable - x) / alpha).square()) ** -1.5
    torch.testing.assert_close(gradient, second / second.sum(-1, keepdim=True), rtol=1e-9, atol=1e-12)


def test_optimal_transport_with_entropy_equals_sinkhorn() -> None:
    cost = _random(2, 4, 3, seed=5).abs().requires_grad_()
    r = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    c = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def objective(P: Tensor, cost: Tensor) -> Tensor:
        return (P * cost + 0.5 * P * (P.log() - 1)).sum((-1, -2))

    def marginals(P: Tensor, cost: Tensor) -> Tensor:
        return torch.cat([P.sum(-1) - r, (P.sum(-2) - c)[:, :-1]], -1)

    solution = pg.minimise(objective, (r[:, None] * c)[None], cost, equality=marginals)
    assert bool(solution.ok.all()), solution.describe()
    K, u, v = (-cost / 0.5).exp(), torch.ones(2, 4).double(), torch.ones(2, 3).double()
    for _ in range(300):
        u = r / (K @ v[..., None]).squeeze(-1)
        v = c / (K.mT @ u[..., None]).squeeze(-1)
    expected = u[..., None] * K * v[:, None]
    torch.testing.assert_close(solution.variable, expected, rtol=0, atol=1e-12)
    weights = _random(4, 3, seed=6)
    (actual,) = torch.autograd.grad((solution.variable * weights).sum(), cost)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), cost)
    torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-11)


def _program(args: tuple[Tensor, ...], **options: Any) -> pg.Solution:
    """A quadratic program: ``1/2 x Q x + p x, A x = b, G x <= h``."""
    return pg.minimise(
        lambda x, a: 0.5 * (x * (a[0] @ x[..., None]).squeeze(-1)).sum(-1) + (a[1] * x).sum(-1),
        torch.zeros(1, 4, dtype=torch.float64),
        args,
        equality=lambda x, a: (a[2] @ x[..., None]).squeeze(-1) - a[3],
        inequality=lambda x, a: (a[4] @ x[..., None]).squeeze(-1) - a[5],
        **options,
    )


def _program_data(batch: int = 1) -> tuple[Tensor, ...]:
    L = _random(batch, 4, 4, seed=7)
    return (
        L @ L.mT + 0.1 * torch.eye(4).double(),
        _random(batch, 4, seed=8),
        _random(batch, 1, 4, seed=9),
        0.3 * _random(batch, 1, seed=10),
        _random(batch, 5, 4, seed=11),
        _random(batch, 5, seed=12).abs() + 0.1,
    )


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
def test_gradients_of_a_quadratic_program_by_all_of_its_data(adjoint: Any) -> None:
    data = _program_data(2)
    leaves = [value.clone().requires_grad_() for value in data]
    solution = _program(tuple(leaves), adjoint=adjoint)
    assert bool(solution.ok.all()), solution.describe()
    assert 0 < int(solution.active.sum()) < 10  # type: ignore[attr-defined]

    def loss(solution: Any) -> Tensor:
        multipliers = solution.equality_multipliers.square().sum(-1) + solution.inequality_multipliers.sum(-1)
        return solution.variable @ _V + multipliers

    gradients = torch.autograd.grad(loss(solution).sum(), leaves)
    for number, gradient in enumerate(gradients):

        def resolved(value: Tensor, number: int = number) -> Tensor:
            copies = len(value) // 2
            args = [other.repeat_interleave(copies, 0) for other in data]
            args[number] = value
            return loss(_program(tuple(args)))

        expected = central_difference(resolved, data[number], 1e-4)
        assert relative_error(gradient, expected, 1e-3).max() < 1e-7, number


def test_second_derivatives_and_transforms_of_a_program() -> None:
    data = _program_data()
    leaves = tuple(value.clone().requires_grad_() for value in data)

    def layer(*args: Tensor) -> Tensor:
        return _program(args).variable

    assert gradcheck(layer, leaves, rtol=1e-6, atol=1e-8, fast_mode=True)
    assert gradgradcheck(layer, leaves, rtol=1e-5, atol=1e-7, fast_mode=True)
    rows = torch.func.jacrev(layer, argnums=1)(*data)
    torch.testing.assert_close(torch.func.jacfwd(layer, argnums=1)(*data), rows, rtol=1e-9, atol=1e-12)
    many = data[1] + 0.1 * _random(3, 1, 4)
    mapped = torch.func.vmap(lambda p: layer(data[0], p, *data[2:]))(many)
    for p, x in zip(many, mapped, strict=True):
        torch.testing.assert_close(x, layer(data[0], p, *data[2:]), rtol=1e-11, atol=1e-12)


def test_nonconvex_objective_with_a_nonlinear_constraint() -> None:
    """Where the Hessian of the objective is indefinite at the answer, and only its projection is not."""
    a = torch.tensor([[1.0, 0.3], [0.6, -0.2]], dtype=torch.float64)

    def solve(a: Tensor, adjoint: Any) -> Tensor:
        solution = pg.minimise(
            lambda x, a: a[:, 0] * x[:, 0] ** 2 - x[:, 1] ** 2 + a[:, 1] * x.prod(-1) + x[:, 0],
            torch.tensor([[0.3, 0.8]]).double(),
            a,
            equality=lambda x, a: x[:, :1] ** 2 + 2 * x[:, 1:] ** 2 - 1,
            adjoint=adjoint,
        )
        assert bool(solution.ok.all()), solution.describe()
        return solution.variable @ _V[:2]

    expected = central_difference(lambda a: solve(a, pg.Implicit()), a, 1e-3)
    for adjoint in (pg.Implicit(), pg.Unrolled()):
        leaf = a.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(solve(leaf, adjoint).sum(), leaf)
        assert relative_error(gradient, expected, 1e-3).max() < 1e-8


def test_a_pose_under_a_constraint() -> None:
    """The camera's distance from the origin is known: constraint and manifold together."""
    scene = random_scene(2, 6, noise=3.0)

    def solve(points2d: Tensor) -> pg.Solution:
        copies = len(points2d) // 2
        start = pg.Pose(scene.pose.R.repeat_interleave(copies, 0), scene.pose.t.repeat_interleave(copies, 0))
        return pg.minimise(
            lambda pose, a: pg.reprojection_residuals(a[0], a[1], scene.K, pose).square().sum((-1, -2)),
            start,
            (points2d, scene.points3d.repeat_interleave(copies, 0)),
            equality=lambda pose, a: pose.t.square().sum(-1, keepdim=True) - 49,
        )

    def loss(pose: pg.Pose) -> Tensor:
        return pose.t @ _V[:3] + pose.R[:, 0, 1] - pose.R[:, 2, 0]

    leaf = scene.points2d.clone().requires_grad_()
    solution = solve(leaf)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close(solution.variable.t.norm(dim=-1), torch.full((2,), 7.0).double())
    (gradient,) = torch.autograd.grad(loss(solution.variable).sum(), leaf)
    expected = central_difference(lambda x: loss(solve(x).variable), scene.points2d, 1e-2)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-7


def test_constraints_that_mislead_a_line_search() -> None:
    """Wächter & Biegler, "Failure of global convergence for a class of interior point methods" (2000): steps towards
    the linearised constraints end at a boundary, where these cannot be satisfied; the answer is (1, 0, 1/2)."""
    x = torch.tensor([[-2.0, 1, 1], [-4, 1, 1], [5, 1, 1], [-1000, 1, 1]], dtype=torch.float64)
    solution = pg.minimise(
        lambda x, _: x[:, 0],
        x,
        equality=lambda x, _: torch.stack([x[:, 0] ** 2 - x[:, 1] - 1, x[:, 0] - x[:, 2] - 0.5], -1),
        inequality=lambda x, _: -x[:, 1:],
    )
    assert bool(solution.ok.all()), solution.describe()
    expected = torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(solution.variable, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("far", [1.0, 1e2, 1e4, 1e6])
def test_starts_from_afar(far: float) -> None:
    """Hock & Schittkowski's problem 14, and the least of a quadratic under three constraints that are no lines."""
    start = far * torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    first = pg.minimise(
        lambda x, _: (x[:, 0] - 2) ** 2 + (x[:, 1] - 1) ** 2,
        start,
        equality=lambda x, _: x[:, :1] - 2 * x[:, 1:] + 1,
        inequality=lambda x, _: x[:, :1] ** 2 / 4 + x[:, 1:] ** 2 - 1,
    )
    root = 7**0.5
    expected = torch.tensor([[(root - 1) / 2, (root + 1) / 4]], dtype=torch.float64)
    assert bool(first.ok.all()), first.describe()
    torch.testing.assert_close(first.variable, expected, rtol=0, atol=1e-12)

    def limits(x: Tensor, _: Any) -> Tensor:
        a, b = x.unbind(-1)
        return torch.stack([a * a + b * b + a - 8, 2 * a * a + b * b - 10, a * b - 5], -1)

    near, afar = (
        pg.minimise(lambda x, _: x.square().sum(-1) - 5 * x[:, 0] - 7 * x[:, 1], x, inequality=limits)
        for x in (start / far, start)
    )
    assert bool((near.ok & afar.ok).all()), afar.describe()
    torch.testing.assert_close(afar.variable, near.variable, rtol=0, atol=1e-12)


def test_verdicts() -> None:
    y = torch.zeros(1, 4, dtype=torch.float64)
    nowhere = _project(y, inequality=lambda x, y: torch.cat([x - 1, 2 - x], -1))
    assert nowhere.status.item() == Status.NO_FEASIBLE_POINT
    assert nowhere.num_steps.item() < 50  # of 100: the violation no longer changes
    twice = _project(y, equality=lambda x, y: torch.cat([x[:, :1] - 1, 2 * x[:, :1] - 2], -1))
    assert twice.status.item() == Status.DEPENDENT_CONSTRAINTS
    weak = _project(y, inequality=lambda x, y: -x)
    assert weak.status.item() == Status.WEAKLY_ACTIVE
    flat = pg.minimise(lambda x, y: x[:, 0] ** 2, y, y, equality=lambda x, y: x[:, 1:2])
    assert flat.status.item() == Status.DEGENERATE
    early = pg.minimise(lambda x, y: (x - 3).cosh().sum(-1), y, y, solver=pg.Newton(max_steps=1))
    assert early.status.item() == Status.MAX_STEPS
    top = pg.minimise(
        lambda x, y: -(x[:, 0] ** 2) + x[:, 1] ** 2, y[:, :2], y, equality=lambda x, y: x[:, 1:]
    )
    assert top.status.item() == Status.SADDLE
    assert "multiplier" in weak.describe()


def test_a_bad_item_is_contained() -> None:
    y = 2 * _random(5, 4)
    clean = y.clone().requires_grad_()
    (expected,) = torch.autograd.grad(_simplex(clean, pg.Implicit()).variable[:, 0].sum(), clean)
    y[1, 2] = float("nan")
    y[3] = torch.tensor([1.0, 1.0, 0.0, 0.0]) / 2  # a multiplier of zero
    for adjoint in (pg.Implicit(), pg.Unrolled()):
        leaf = y.clone().requires_grad_()
        solution = _simplex(leaf, adjoint)
        assert solution.status.tolist() == [0, Status.NOT_FINITE, 0, Status.WEAKLY_ACTIVE, 0]
        assert bool(solution.variable.isfinite().all())
        (gradient,) = torch.autograd.grad(solution.variable[:, 0].sum(), leaf)
        assert bool((gradient[[1, 3]] == 0).all())
        torch.testing.assert_close(gradient[[0, 2, 4]], expected[[0, 2, 4]], rtol=0, atol=1e-12)
        for i in (0, 2, 4):
            alone = _simplex(y[i : i + 1], pg.Implicit())
            torch.testing.assert_close(alone.variable[0], solution.variable[i], rtol=0, atol=1e-13)


@pytest.mark.parametrize("solver", [pg.Newton(), pg.LBFGS()], ids=["newton", "lbfgs"])
@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
def test_objectives_that_are_not_convex(adjoint: Any, solver: Any) -> None:
    def wells(x: Tensor, a: Tensor) -> Tensor:
        return (x.square() - a[:, :1]).square().sum(-1) + a[:, 1] * x.sum(-1) - 7

    a = torch.tensor([[1.0, 0.1], [2.0, -0.3]], dtype=torch.float64)
    start = torch.tensor([[0.1, -0.2]], dtype=torch.float64)

    def solve(a: Tensor, adjoint: Any) -> Tensor:
        solution = pg.minimise(wells, start, a, adjoint=adjoint, solver=solver)
        assert bool(solution.ok.all()), solution.describe()
        return solution.variable @ _V[:2]

    leaf = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(solve(leaf, adjoint).sum(), leaf)
    expected = central_difference(lambda a: solve(a, pg.Implicit()), a, 1e-3)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-8


def test_newton_says_saddle_where_it_starts_on_one() -> None:
    solution = pg.minimise(lambda x, _: (x.square() - 1).square().sum(-1), torch.zeros(1, 2))
    assert solution.status.item() == Status.SADDLE


@pytest.mark.parametrize("solver", [pg.LBFGS(), pg.ConjugateGradients()], ids=["lbfgs", "cg"])
def test_other_solvers_equal_newton(solver: Any) -> None:
    """On a manifold, from afar; Rosenbrock's valley among the coordinates."""

    def objective(x: dict[str, Tensor], a: Tensor) -> Tensor:
        z = x["plane"]
        valley = 10 * (z[:, 1:] - z[:, :-1] ** 2).square().sum(-1) + (a - z[:, 0]).square()
        return valley + (x["axis"] @ _V[:3]) * a - 5

    start = {
        "plane": torch.tensor([[-1.0, 1.5, 0.5]], dtype=torch.float64),
        "axis": torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64),
    }
    a = torch.tensor([0.7, 1.2], dtype=torch.float64)
    results = []
    for used in (pg.Newton(), solver):
        leaf = a.clone().requires_grad_()
        solution = pg.minimise(objective, start, leaf, manifold={"axis": pg.manifolds.Sphere()}, solver=used)
        assert bool(solution.ok.all()), solution.describe()
        total = solution.variable["plane"].sum() + solution.variable["axis"][:, 0].sum()
        results.append((solution.variable, torch.autograd.grad(total, leaf)[0]))
    (expected, wanted), (actual, gradient) = results
    torch.testing.assert_close(actual["plane"], expected["plane"], rtol=0, atol=1e-9)
    torch.testing.assert_close(actual["axis"], -_V[None, :3] / _V[:3].norm().expand(2, 1), rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-9)
