"""Sums of problems and restrictions to a subspace: against closed forms, defaults and finite differences."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import so3
from posegrad.optim.compose import Confined, Restricted, Sum
from posegrad.optim.levenberg_marquardt import minimise
from posegrad.optim.problem import Problem
from posegrad.testing import central_difference, check_problem, relative_error


class Pull(Problem):
    """f(x) = sum_k w_k (x_k - a_k)^2 / 2; args (a, w). The sum of two has a weighted mean as its minimum."""

    dimension = 3

    def residual(self, variable: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        return (variable - args[0]) * args[1].sqrt()


class Sphere(Problem):
    """f(x) = (|x|^2 - r^2)^2 / 2: not quadratic; args r (B, 1)."""

    dimension = 3

    def residual(self, variable: Tensor, args: Tensor) -> Tensor:
        return variable.square().sum(-1, keepdim=True) - args.square()

    def feasible(self, variable: Tensor, args: Tensor) -> Tensor:
        return variable[:, 0] > -10


class Attitude(Problem):
    """Wahba's problem, the rotation of vectors a to b: f(R) = 1/2 sum_i |R a_i - b_i|^2; args (a, b) (B, N, 3)."""

    dimension = 3

    def residual(self, variable: Tensor, args: tuple[Tensor, Tensor]) -> Tensor:
        return (args[0] @ variable.mT - args[1]).flatten(1)

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return so3.cayley(delta) @ variable


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pulls(batch: int = 4) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    a, b = _random(batch, 3), _random(batch, 3, seed=1)
    u, v = 0.5 + _random(batch, 3, seed=2).square(), 0.5 + _random(1, 3, seed=3).square()
    return (a, u), (b, v)


def _vectors(batch: int = 3) -> tuple[Tensor, Tensor]:
    a = _random(batch, 5, 3)
    truth = so3.exp(_random(batch, 3, seed=1))
    return a, a @ truth.mT + 0.2 * _random(batch, 5, 3, seed=2)


def test_a_sum_is_the_sum_of_its_parts() -> None:
    problem = Sum(Pull(), Sphere(), Pull())
    first, second = _pulls()
    args = (first, torch.full((1, 1), 1.3, dtype=torch.float64), second)
    x = _random(4, 3, seed=5)
    check_problem(problem, x, args)
    parts = [p.cost(x, own) for p, own in zip(problem.problems, args, strict=True)]
    torch.testing.assert_close(problem.cost(x, args), parts[0] + parts[1] + parts[2])
    assert problem.residual(x, args).shape == (4, 7)
    x[2, 0] = -11
    assert problem.feasible(x, args).tolist() == [True, True, False, True]
    assert problem.quadratic(x, args, exact=True).feasible.tolist() == [True, True, False, True]


def test_the_minimum_of_two_pulls_is_their_weighted_mean() -> None:
    args = _pulls()
    (a, u), (b, v) = args
    problem = Sum(Pull(), Pull())
    solution = minimise(problem, torch.zeros_like(a), args, pg.LevenbergMarquardt())
    assert bool(solution.ok.all())
    torch.testing.assert_close(solution.variable, (u * a + v * b) / (u + v), rtol=0, atol=1e-13)
    torch.testing.assert_close(solution.hessian, torch.diag_embed(u + v))


def test_gradients_of_a_sum_reach_every_part() -> None:
    """Against the closed form, for arguments of every part, shared ones included."""
    leaves = [leaf.requires_grad_() for part in _pulls() for leaf in part]
    a, u, b, v = leaves
    layer = pg.argmin_layer(lambda args: torch.zeros_like(args[0][0]), Sum(Pull(), Pull()))
    weights = _random(4, 3, seed=7)
    got = torch.autograd.grad((layer(((a, u), (b, v))).variable * weights).sum(), leaves)
    expected = torch.autograd.grad(((u * a + v * b) / (u + v) * weights).sum(), leaves)
    for actual, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_a_nonlinear_sum_equals_re_solving() -> None:
    problem = Sum(Sphere(), Pull())
    r = torch.full((3, 1), 1.3, dtype=torch.float64)
    a, w = _random(3, 3), torch.ones(1, 3, dtype=torch.float64)
    v = _random(3, seed=4)

    def solve(r: Tensor, a: Tensor) -> Tensor:
        return minimise(problem, a, (r, (a, w)), pg.LevenbergMarquardt()).variable @ v

    r.requires_grad_()
    layer = pg.argmin_layer(lambda args: args[1][0], problem)
    solution = layer((r, (a, w)))
    assert bool(solution.ok.all())
    (gradient,) = torch.autograd.grad((solution.variable @ v).sum(), r)

    def resolve(values: Tensor) -> Tensor:  # (M, 1): M / 3 displaced copies of each item
        return solve(values, a.repeat_interleave(len(values) // 3, 0))

    expected = central_difference(resolve, r.detach(), 1e-3)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-8


def test_parts_that_do_not_match_are_named() -> None:
    class Plane(Pull):
        dimension = 2

    with pytest.raises(ValueError, match=r"parts of dimensions \[3, 2\]"):
        Sum(Pull(), Plane())
    with pytest.raises(ValueError, match="expected at least one"):
        Sum()
    with pytest.raises(TypeError, match="expected instances"):
        Sum(Pull)  # type: ignore[arg-type]


def test_a_restriction_to_everything_is_the_problem() -> None:
    args = _vectors()
    whole = Restricted(Attitude(), 3)
    R = so3.exp(_random(3, 3, seed=3))
    start = whole.start(R, torch.eye(3, dtype=torch.float64))
    for exact in (True, False):
        restricted = whole.quadratic(start, args, exact=exact)
        for got, wanted in zip(restricted, Attitude().quadratic(R, args, exact=exact), strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("columns", [1, 2])
def test_restricted_derivatives(columns: int) -> None:
    """Also along a basis that is neither orthonormal nor shared."""
    problem = Restricted(Attitude(), columns)
    R = so3.exp(_random(3, 3, seed=3))
    check_problem(problem, problem.start(R, _random(3, 3, columns, seed=4)), _vectors())
    check_problem(problem, problem.start(R, _random(1, 3, columns, seed=4)), _vectors())


def test_a_minimum_on_a_plane() -> None:
    """The nearest point of a plane through the start, in the metric of the weights."""
    (a, u), _ = _pulls()
    basis, origin = _random(4, 3, 2, seed=8), _random(4, 3, seed=9)
    problem = Restricted(Pull(), 2)
    solution = minimise(problem, problem.start(origin, basis), (a, u), pg.LevenbergMarquardt())
    assert bool(solution.ok.all())
    assert isinstance(solution.variable, Confined)
    W = torch.diag_embed(u)
    y = torch.linalg.solve(basis.mT @ W @ basis, basis.mT @ W @ (a - origin)[..., None])
    torch.testing.assert_close(solution.variable.point, origin + (basis @ y)[..., 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(solution.hessian, basis.mT @ W @ basis)


def _turned(a: Tensor, b: Tensor, axis: Tensor) -> Tensor:
    """The best angle about a fixed axis, in closed form: f = const - C cos(angle) - S sin(angle)."""
    along = axis * (a @ axis)[..., None]
    C = ((a - along) * b).sum((-1, -2))
    S = (torch.linalg.cross(axis.expand_as(a), a) * b).sum((-1, -2))
    return torch.atan2(S, C)


def test_a_rotation_about_one_axis_and_its_gradient() -> None:
    """Yaw only, from a start far off: the closed form, and its derivative at 1e-10."""
    a, b = _vectors()
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    problem = Restricted(Attitude(), 1)
    identity = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    a.requires_grad_()
    b.requires_grad_()

    def solve(args: tuple[Tensor, Tensor]) -> Confined:
        start = problem.start(so3.exp(0.5 * axis) @ identity, axis[:, None])
        return minimise(problem, start, args, pg.LevenbergMarquardt()).variable

    solution = pg.argmin_layer(solve, problem)((a, b))
    assert bool(solution.ok.all())
    R = solution.variable.point
    expected = so3.exp(_turned(a, b, axis)[:, None] * axis)
    torch.testing.assert_close(R, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(R @ axis, axis.expand(3, 3), rtol=0, atol=1e-12)
    v = _random(3, 3, 3, seed=5)
    got = torch.autograd.grad((R * v).sum(), (a, b))
    wanted = torch.autograd.grad((expected * v).sum(), (a, b))
    for actual, exact in zip(got, wanted, strict=True):
        torch.testing.assert_close(actual, exact, rtol=1e-10, atol=1e-11)


def test_a_restricted_sum_through_unrolling() -> None:
    """Composed both ways, and differentiated through the steps instead of at the minimum."""
    problem = Restricted(Sum(Pull(), Pull()), 2)
    basis = _random(3, 2, seed=8)
    (a, u), second = _pulls()
    a.requires_grad_()
    start = problem.start(torch.zeros(4, 3, dtype=torch.float64), basis)
    unrolled = minimise(problem, start, ((a, u), second), pg.LevenbergMarquardt()).variable.point
    layer = pg.argmin_layer(lambda args: start, problem)
    implicit = layer(((a, u), second)).variable.point
    v = _random(4, 3, seed=5)
    torch.testing.assert_close(
        torch.autograd.grad((unrolled * v).sum(), a)[0],
        torch.autograd.grad((implicit * v).sum(), a)[0],
        rtol=1e-10,
        atol=1e-12,
    )


def test_items_are_independent() -> None:
    """Poisoned neighbours change nothing, and an item is the same alone, with its own basis."""
    args = _vectors(5)
    basis = _random(5, 3, 1, seed=4)
    identity = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    problem = Restricted(Attitude(), 1)
    clean = minimise(problem, problem.start(identity, basis), args, pg.LevenbergMarquardt())
    poisoned = (args[0].clone(), args[1])
    poisoned[0][2] = float("nan")
    dirty = minimise(problem, problem.start(identity, basis), poisoned, pg.LevenbergMarquardt())
    others = [0, 1, 3, 4]
    torch.testing.assert_close(dirty.variable.point[others], clean.variable.point[others], rtol=0, atol=1e-12)
    assert clean.ok.all()
    assert dirty.ok.tolist() == [True, True, False, True, True]


def test_wrong_restrictions_are_named() -> None:
    with pytest.raises(ValueError, match=r"Restricted\.dimension: got 4, expected an integer in \[1, 3\]"):
        Restricted(Pull(), 4)
    with pytest.raises(TypeError, match=r"Restricted\.problem"):
        Restricted(Pull, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"basis: got shape \(2, 3\), expected \(\.\.\., 3, 2\)"):
        Restricted(Pull(), 2).start(torch.zeros(1, 3), torch.zeros(2, 3))
