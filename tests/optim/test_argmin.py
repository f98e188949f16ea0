"""The generic layer: any solver's answer gets the gradient of the re-solved problem."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor
from torch.autograd import gradgradcheck

import posegrad as pg
from posegrad.optim.levenberg_marquardt import minimise
from posegrad.optim.minimiser import minimiser
from posegrad.testing import central_difference, relative_error

from .test_levenberg_marquardt import Exponential, _data


def _scipy(args: Tensor) -> Tensor:
    answers = []
    for item in args:
        fit = least_squares(
            lambda p, y=item: Exponential().residual(torch.from_numpy(p)[None], y[None])[0].numpy(),
            np.ones(2),
        )
        answers.append(torch.from_numpy(fit.x))
    return torch.stack(answers)


_V = torch.tensor([0.3, -0.7], dtype=torch.float64)


def _resolved(y: Tensor) -> Tensor:
    start = torch.ones(len(y), 2, dtype=torch.float64)
    return minimise(Exponential(), start, y, pg.LevenbergMarquardt()).variable @ _V


def test_gradient_of_a_black_box_equals_re_solving() -> None:
    y = _data().requires_grad_()
    solution = pg.argmin_layer(_scipy, Exponential())(y)
    assert bool(solution.ok.all())
    (gradient,) = torch.autograd.grad((solution.variable @ _V).sum(), y)
    expected = central_difference(_resolved, y.detach(), 1e-3)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-8


def test_gauss_newton_matches_its_definition_and_differs_from_the_exact() -> None:
    y = _data(noise=0.3).requires_grad_()
    layer = pg.argmin_layer(_scipy, Exponential(), adjoint=pg.Implicit(hessian="gauss_newton"))
    solution = layer(y)
    (gradient,) = torch.autograd.grad((solution.variable @ _V).sum(), y)
    J = torch.func.vmap(torch.func.jacrev(lambda p, t: Exponential().residual(p[None], t[None])[0]))(
        solution.variable.detach(), y.detach()
    )
    expected = (J @ torch.linalg.solve(J.mT @ J, _V.expand(6, 2))[..., None]).squeeze(-1)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-12
    exact = central_difference(_resolved, y.detach(), 1e-3)
    assert relative_error(gradient, exact, 1e-3).max() > 1e-3


def test_unrolled_equals_re_solving() -> None:
    y = _data().requires_grad_()
    (gradient,) = torch.autograd.grad(_resolved(y).sum(), y)
    expected = central_difference(_resolved, y.detach(), 1e-3)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-8


def test_second_derivatives() -> None:
    y = _data()[:2, ::4].clone().requires_grad_()
    layer = pg.argmin_layer(lambda y: torch.ones(len(y), 2, dtype=y.dtype), Exponential())
    assert gradgradcheck(lambda y: layer(y).variable, y, rtol=1e-5, atol=1e-6)


def test_an_answer_that_cannot_be_polished_is_flagged_with_zero_gradient() -> None:
    y = _data().requires_grad_()

    def wild(args: Tensor) -> Tensor:
        start = torch.ones(len(args), 2, dtype=args.dtype)
        start[1] = 1e9
        return start

    solution = pg.argmin_layer(wild, Exponential())(y)
    assert solution.ok.tolist() == [True, False, True, True, True, True]
    (gradient,) = torch.autograd.grad(solution.variable.sum(), y)
    assert bool((gradient[1] == 0).all())
    assert bool(gradient.isfinite().all())


def test_gain_is_bounded_as_documented() -> None:
    y = _data(noise=1.0)
    start = torch.ones(6, 2, dtype=torch.float64)
    solution = minimise(Exponential(), start, y, pg.LevenbergMarquardt())

    def gradient(max_gain: float | None) -> Tensor:
        z = y.clone().requires_grad_()
        x = minimiser(lambda *_: solution, Exponential(), pg.Implicit(max_gain=max_gain), z).variable
        return torch.autograd.grad((x @ _V).sum(), z)[0]

    problem, ok = Exponential(), solution.ok
    v, H = _V.expand(6, 2), problem.quadratic(solution.variable, y, exact=True).hessian
    A = problem.quadratic(solution.variable, y, exact=False).hessian
    u = torch.linalg.solve(H, v)
    gain = ((u * (A @ u[..., None])[..., 0]).sum(-1) / (v * torch.linalg.solve(A, v)).sum(-1)).sqrt()
    bound = gain.sort().values[2:4].mean().item()  # half of the items are above it
    free, bounded = gradient(None), gradient(bound)
    assert bool(ok.all())
    assert gain.max() > 1.02 * bound > 1.02 * gain.min()
    torch.testing.assert_close(bounded, (bound / gain).clamp(max=1)[:, None] * free)


def test_arguments_that_are_not_finite_are_contained() -> None:
    y = _data()
    y[1] = float("nan")
    y.requires_grad_()

    def honest(args: Tensor) -> Tensor:
        return torch.where(
            args.isfinite().all(-1, keepdim=True), torch.ones(len(args), 2).double(), torch.nan
        )

    solution = pg.argmin_layer(honest, Exponential())(y)
    assert solution.status.tolist() == [0, pg.Status.NOT_FINITE, 0, 0, 0, 0]
    assert bool(solution.variable.isfinite().all())
    (gradient,) = torch.autograd.grad(solution.variable.sum(), y)
    assert bool((gradient[1] == 0).all())
    assert bool(gradient.isfinite().all())


def test_a_wrong_solver_is_named() -> None:
    y = _data()
    with pytest.raises(TypeError, match="solve: returned ndarray"):
        pg.argmin_layer(lambda y: np.ones((6, 2)), Exponential())(y)
    with pytest.raises(TypeError, match=r"solve: returned dtype torch\.int64"):
        pg.argmin_layer(lambda y: torch.ones(6, 2, dtype=torch.int64), Exponential())(y)
    with pytest.raises(ValueError, match=r"solve: returned shape \(1, 2\) for a batch of 6"):
        pg.argmin_layer(lambda y: torch.ones(1, 2), Exponential())(y)
    with pytest.raises(TypeError, match="args: got a float"):
        pg.argmin_layer(lambda y: y, Exponential())({"y": y, "scale": 1.0})
    with pytest.raises(TypeError, match="a black box cannot be unrolled"):
        pg.argmin_layer(lambda y: y, Exponential(), adjoint=pg.Unrolled())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an instance"):
        pg.argmin_layer(lambda y: y, Exponential)  # type: ignore[arg-type]


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Implicit(hessian="gauss_newton", max_gain=0.5)])
def test_gradients_can_be_batched(adjoint: pg.Implicit) -> None:
    """Through vmap over the backward pass, as vectorised Jacobians do."""
    y = _data()[:2, ::4].clone().requires_grad_()
    layer = pg.argmin_layer(lambda y: torch.ones(len(y), 2, dtype=y.dtype), Exponential(), adjoint=adjoint)
    x = layer(y).variable
    cotangents = torch.eye(4, dtype=y.dtype).view(4, 2, 2)
    (batched,) = torch.autograd.grad(x, y, cotangents, retain_graph=True, is_grads_batched=True)
    for cotangent, row in zip(cotangents, batched, strict=True):
        torch.testing.assert_close(row, torch.autograd.grad(x, y, cotangent, retain_graph=True)[0])


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Implicit\.hessian: got 'gn'"):
        pg.Implicit(hessian="gn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Implicit\.max_gain: got 0"):
        pg.Implicit(max_gain=0)


class _Flat(pg.Problem):
    """``x^2 + y``, y > 0: at its minimum x = 0 the exact Hessian is 2 y, and J is zero."""

    dimension = 1

    def residual(self, variable: Tensor, args: Tensor) -> Tensor:
        return variable.square() + args


@pytest.mark.parametrize("adjoint", [pg.Implicit(max_gain=2.0), pg.Implicit(hessian="gauss_newton")])
def test_a_singular_gauss_newton_matrix_makes_no_nan(adjoint: pg.Implicit) -> None:
    y = torch.tensor([[2.0], [3.0]], dtype=torch.float64, requires_grad=True)
    solution = pg.argmin_layer(torch.zeros_like, _Flat(), adjoint=adjoint)(y)
    assert bool(solution.ok.all())
    # the second item has a cotangent of zero, which an infinite inverse would make NaN of
    assert torch.autograd.grad(solution.variable[0].sum(), y)[0].tolist() == [[0.0], [0.0]]


class _Valley(pg.Problem):
    """``x - a + 0.3 y`` and ``1 + b + y^2``: at y = 0 J has rank one but for 1e-9 c y, the exact Hessian rank two."""

    dimension = 2

    def residual(self, variable: Tensor, args: Tensor) -> Tensor:
        (x, y), (a, b, c) = variable.unbind(-1), args.unbind(-1)
        along = x - a + 0.3 * y
        return torch.stack([along, 1 + b + y.square(), 2 * along, 1e-9 * c * y], -1)


def _valley(adjoint: pg.Implicit, c: float) -> tuple[Tensor, Tensor]:
    """The gradient of x + 2 y by a, b, c, and that of its sum."""
    args = torch.tensor([[1.0, 0.5, c]], dtype=torch.float64, requires_grad=True)
    solve = pg.argmin_layer(
        lambda args: torch.stack([args[:, 0], 0 * args[:, 0]], -1), _Valley(), adjoint=adjoint
    )
    solution = solve(args)
    assert bool(solution.ok.all())
    value = (solution.variable * torch.tensor([1.0, 2.0])).sum()
    (gradient,) = torch.autograd.grad(value, args, create_graph=True)
    return gradient.detach(), torch.autograd.grad(gradient.sum(), args)[0]


@pytest.mark.parametrize("c", [0.0, 1.0, 10.0])
def test_nearly_singular_gauss_newton_matrices(c: float) -> None:
    """Whose inverse, and the bound with it, may come out negative from rounding."""
    bounded, second = _valley(pg.Implicit(max_gain=2.0), c)
    torch.testing.assert_close(bounded, torch.tensor([[1.0, 0.0, 0.0]]).double(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(second, torch.zeros(1, 3).double(), rtol=0, atol=1e-12)
    for max_gain in (None, 2.0):
        first, second = _valley(pg.Implicit(hessian="gauss_newton", max_gain=max_gain), c)
        assert first.tolist() == second.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("max_gain", [1e-200, 1e200, float("inf")])
def test_bounds_that_bound_nothing_or_all(max_gain: float) -> None:
    y = _data(noise=1.0).requires_grad_()
    start = torch.ones(6, 2, dtype=torch.float64)
    x, free = (
        pg.argmin_layer(lambda _: start, Exponential(), adjoint=pg.Implicit(max_gain=bound))(y).variable
        for bound in (max_gain, None)
    )
    gradient, wanted = (torch.autograd.grad(variable[0].sum(), y)[0] for variable in (x, free))
    expected = wanted if max_gain > 1 else torch.zeros_like(wanted)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-150)
