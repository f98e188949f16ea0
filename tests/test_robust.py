"""Robust losses against SciPy, Barron's special cases, arbitrary precision, and automatic differentiation."""

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from posegrad._pytree import tree_flatten, tree_map
from posegrad.robust import (
    LOSSES,
    Barron,
    Cauchy,
    GemanMcClure,
    Huber,
    RobustLoss,
    SoftL1,
    Squared,
    Truncated,
    Tukey,
)

SCALED = [Huber, SoftL1, Cauchy, GemanMcClure, Tukey, Truncated]
ALPHAS = [-math.inf, -1e20, -1e9, -300.0, -2.0, -1e-3, -1e-12, 0.0, 1e-12, 0.5, 1.0, 1.7, 2.0, 2.4, 4.0]


def _losses() -> list[RobustLoss]:
    return [Squared(), *(kind(1.5) for kind in SCALED), *(Barron(1.5, alpha) for alpha in ALPHAS)]


def _label(loss: RobustLoss) -> str:
    return f"{loss.name} {loss.alpha:g}" if isinstance(loss, Barron) else loss.name


each_loss = pytest.mark.parametrize("loss", _losses(), ids=_label)


def _s() -> Tensor:
    """From zero to far outliers, never at a kink."""
    return torch.tensor([[0.0, 1e-12, 1e-3, 0.3, 2.0, 2.3, 5.0, 40.0, 1e4]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy"])
def test_equals_scipy(name: str) -> None:
    """With the residual itself as the variable, SciPy's gradient is ``rho' r`` and its squared Jacobian is
    ``rho' + 2 rho'' r^2``, where that is positive."""
    r = _s()[0].sqrt()
    fit = least_squares(lambda x: x, r.numpy(), lambda x: np.eye(len(x)), loss=name, f_scale=1.5, max_nfev=1)  # type: ignore[arg-type]
    rho = LOSSES[name](1.5).evaluate(r.square())  # type: ignore[call-arg]
    assert 0.5 * rho.value.sum().item() == pytest.approx(fit.cost, rel=1e-12)
    torch.testing.assert_close(rho.first * r, torch.from_numpy(fit.grad), rtol=1e-12, atol=0)
    curvature = rho.first + 2 * rho.second * r.square()
    expected = torch.from_numpy(fit.jac.diagonal() ** 2)
    positive = curvature > 1e-12
    assert positive.sum() > 4
    torch.testing.assert_close(curvature[positive], expected[positive], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["huber", "soft_l1", "cauchy"])
def test_cost_and_gradient_of_a_fit_equal_scipy(name: str) -> None:
    s = torch.linspace(-1, 1, 30, dtype=torch.float64)
    y = 2 * s + 0.1 * torch.sin(40 * s)
    y[::7] += 5

    def residual(p: Tensor) -> Tensor:
        return p[0] * s + p[1] - y

    fit = least_squares(
        lambda p: residual(torch.from_numpy(p)).numpy(), [0.0, 0.0], loss=name, f_scale=0.2, gtol=1e-12
    )
    p = torch.from_numpy(fit.x).requires_grad_()
    cost = 0.5 * LOSSES[name](0.2).evaluate(residual(p).square()).value.sum()  # type: ignore[call-arg]
    (gradient,) = torch.autograd.grad(cost, p)
    assert cost.item() == pytest.approx(fit.cost, rel=1e-12)
    assert gradient.norm().item() < 1e-4
    J = torch.stack([s, torch.ones_like(s)], -1)
    weights = LOSSES[name](0.2).evaluate(residual(p).square()).first  # type: ignore[call-arg]
    torch.testing.assert_close(gradient, J.T @ (weights * residual(p)).detach(), rtol=0, atol=1e-12)


@each_loss
def test_derivatives_are_those_of_the_value(loss: RobustLoss) -> None:
    s = _s().requires_grad_()
    rho = loss.evaluate(s)
    (first,) = torch.autograd.grad(rho.value.sum(), s, create_graph=True)
    torch.testing.assert_close(rho.first, first, rtol=1e-12, atol=1e-15)
    second = torch.zeros_like(s)
    if first.requires_grad and not isinstance(loss, Squared):
        (second,) = torch.autograd.grad(first.sum(), s, create_graph=True)
    torch.testing.assert_close(rho.second, second, rtol=1e-11, atol=1e-13)


@each_loss
def test_begins_as_least_squares(loss: RobustLoss) -> None:
    s = torch.tensor([0.0, 1e-9], dtype=torch.float64)
    rho = loss.evaluate(s)
    torch.testing.assert_close(rho.value, s, rtol=1e-8, atol=0)
    assert rho.first[0].item() == 1


@each_loss
def test_gradients_by_everything(loss: RobustLoss) -> None:
    if isinstance(loss, Squared) or (isinstance(loss, Barron) and loss.alpha.item() in (2.0, -math.inf)):
        return  # no parameter; no derivative by alpha
    s = torch.tensor([[0.01, 3.0], [1.3, 11.0]], dtype=torch.float64, requires_grad=True)
    leaves = [leaf.expand(2).clone().requires_grad_() for leaf in tree_flatten(loss)[0]]

    def values(s: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        rho = type(loss)(*parameters).evaluate(s)
        return tuple(value for value in rho if value.requires_grad)

    atol, rtol, step = 1e-8, 1e-6, 1e-6
    if isinstance(loss, Barron) and loss.alpha.item() < -100:
        leaves[1].requires_grad_(False)  # of order alpha^-2: nothing that a difference quotient would see
    assert gradcheck(values, (s, *leaves), eps=step, atol=atol, rtol=rtol)
    assert gradgradcheck(values, (s, *leaves), eps=step, atol=1e-6, rtol=1e-5)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e30], ids=str)
def test_nothing_is_nan(loss: RobustLoss, magnitude: float, dtype: torch.dtype) -> None:
    """Values, and their first two derivatives by everything, where s is zero or huge."""
    s = torch.full((1, 1), magnitude, dtype=dtype, requires_grad=True)
    loss = tree_map(lambda leaf: leaf.to(dtype).expand(1).clone().requires_grad_(), loss)
    if isinstance(loss, Barron) and loss.alpha.item() > 2.1 and magnitude > 1:
        return  # the value itself overflows in float32
    inputs = [s, *tree_flatten(loss)[0]]
    for value in loss.evaluate(s):
        assert bool(value.isfinite().all())
        if not value.requires_grad:
            continue
        gradients = torch.autograd.grad(value.sum(), inputs, create_graph=True, allow_unused=True)
        for gradient in gradients:
            assert gradient is None or bool(gradient.isfinite().all())
            if gradient is not None and gradient.requires_grad:
                for more in torch.autograd.grad(gradient.sum(), inputs, retain_graph=True, allow_unused=True):
                    assert more is None or bool(more.isfinite().all())


@pytest.mark.parametrize(
    ("kind", "at_kink"),
    [(Huber, (4.0, 1.0, 0.0)), (Tukey, (4 / 3, 0.0, 0.0)), (Truncated, (4.0, 1.0, 0.0))],
)
def test_a_kink_belongs_to_the_inliers(kind: type[RobustLoss], at_kink: tuple[float, ...]) -> None:
    s = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    rho = kind(2.0).evaluate(s)  # type: ignore[call-arg]
    assert tuple(value.item() for value in rho) == pytest.approx(at_kink)
    (gradient,) = torch.autograd.grad(rho.value.sum(), s)
    assert gradient.item() == pytest.approx(at_kink[1])
    beyond = kind(2.0).evaluate(torch.nextafter(s.detach(), torch.tensor(9.0, dtype=s.dtype)))  # type: ignore[call-arg]
    assert beyond.value.item() == pytest.approx(at_kink[0])


def test_tukey_and_truncated_are_bounded() -> None:
    s = torch.tensor([1e30], dtype=torch.float64)
    assert Tukey(3.0).evaluate(s).value.item() == pytest.approx(3)  # c^2 / 3
    assert Truncated(3.0).evaluate(s).value.item() == 9
    assert GemanMcClure(3.0).evaluate(s).value.item() == 9


@pytest.mark.parametrize(
    ("alpha", "same"),
    [
        (2.0, Squared()),
        (1.0, SoftL1(1.5)),
        (0.0, Cauchy(1.5 * math.sqrt(2))),
        (-2.0, GemanMcClure(3.0)),
    ],
)
def test_special_cases_of_barron(alpha: float, same: RobustLoss) -> None:
    for got, wanted in zip(Barron(1.5, alpha).evaluate(_s()), same.evaluate(_s()), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-15)


def test_barron_at_minus_infinity_is_welsch() -> None:
    half = _s() / (2 * 1.5**2)
    wanted = (-2 * 1.5**2 * (-half).expm1(), (-half).exp(), -0.5 / 1.5**2 * (-half).exp())
    for alpha in (-math.inf, -1e30):
        for got, limit in zip(Barron(1.5, alpha).evaluate(_s()), wanted, strict=True):
            torch.testing.assert_close(got, limit, rtol=1e-10, atol=1e-15)


def _exact_barron(u: float, alpha: float) -> tuple[float, ...]:
    """rho, rho', rho'' and the derivative of each by alpha, with 120 digits."""
    with mpmath.workdps(120):

        def rho(u: Any, alpha: Any) -> Any:
            if alpha == 0:
                return 2 * mpmath.log1p(u / 2)
            b = abs(alpha - 2)
            return 2 * b / alpha * ((1 + u / b) ** (alpha / 2) - 1)

        def first(u: Any, alpha: Any) -> Any:
            return (1 + u / abs(alpha - 2)) ** (alpha / 2 - 1)

        def second(u: Any, alpha: Any) -> Any:
            b = abs(alpha - 2)
            return (alpha / 2 - 1) / b * (1 + u / b) ** (alpha / 2 - 2)

        point, a = mpmath.mpf(u), mpmath.mpf(alpha)
        step = mpmath.mpf(10) ** -30
        values = [float(f(point, a)) for f in (rho, first, second)]
        slopes = [float((f(point, a + step) - f(point, a - step)) / (2 * step)) for f in (rho, first, second)]
        return (*values, *slopes)


@pytest.mark.parametrize(
    "alpha",
    [
        -1e6, -50.0, -2.0, -0.1, -1e-5, -1e-10, 0.0, 1e-16, 1e-10, 1e-5, 0.1, 0.6, 1 - 1e-9, 1.0, 1.5,
        2 - 1e-3, 2 - 1e-6, 2 - 1e-10, 2 - 1e-14, 2 + 1e-14, 2 + 1e-10, 2 + 1e-3, 3.0,
    ],
)  # fmt: skip
def test_barron_against_many_digits(alpha: float) -> None:
    """Also where alpha is close to, or at, its special values: values and derivatives by alpha."""
    points = [1e-9, 1e-3, 0.4, 1.0, 30.0, 1e5]
    u = torch.tensor(points, dtype=torch.float64)
    parameter = torch.full((6,), alpha, dtype=torch.float64, requires_grad=True)
    got = Barron.unit(u, parameter)
    slopes = [torch.autograd.grad(value.sum(), parameter, retain_graph=True)[0] for value in got]
    exact = torch.tensor([_exact_barron(point, alpha) for point in points], dtype=torch.float64)
    # subtracting 2 from alpha is exact, but alpha itself is only known to rounding: so is u / |alpha - 2|
    for value, wanted in zip(got, exact.T[:3], strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-10 if alpha < -1e4 else 1e-12, atol=1e-300)
    for slope, wanted in zip(slopes, exact.T[3:], strict=True):
        torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=1e-13)


def test_barron_by_alpha_at_two_is_finite() -> None:
    alpha = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    value = Barron(1.0, alpha).evaluate(_s()).value
    (slope,) = torch.autograd.grad(value[0, 4], alpha)
    expected = 0.5 * 2.0 * (math.log(2.0 / torch.finfo(torch.float64).eps) - 1)
    assert slope.item() == pytest.approx(expected, rel=1e-12)


def test_every_item_has_its_own_parameters() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    alpha = torch.tensor([1.0, -2.0], dtype=torch.float64)
    s = _s().expand(2, -1)
    both = Barron(scale, alpha).evaluate(s)
    for got, a, b in zip(both, SoftL1(0.5).evaluate(s[0]), GemanMcClure(4.0).evaluate(s[1]), strict=True):
        torch.testing.assert_close(got, torch.stack([a, b]), rtol=1e-12, atol=1e-15)
    shared = Huber(torch.tensor([2.0])).evaluate(s)
    assert shared.value.shape == s.shape
    assert shared.value.dtype == torch.float64


@each_loss
def test_units(loss: RobustLoss) -> None:
    factor = torch.tensor([3.0, 0.01], dtype=torch.float64)
    s = _s().expand(2, -1)
    square = factor.square()[:, None]
    rescaled = loss.in_units_of(factor).evaluate(s / square)
    expected = loss.evaluate(s)
    torch.testing.assert_close(rescaled.value * square, expected.value, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(rescaled.first, expected.first, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(rescaled.second / square, expected.second, rtol=1e-12, atol=1e-15)


def test_validity() -> None:
    bad = torch.tensor([1.0, 0.0, -1.0, math.nan, math.inf, 1e-200, 1e200], dtype=torch.float64)
    assert Huber(bad).invalid().tolist() == [False, True, True, True, True, True, True]
    alpha = torch.tensor([2.0, -math.inf, math.inf, math.nan], dtype=torch.float64)
    assert Barron(1.0, alpha).invalid().tolist() == [False, False, True, True]
    assert not Squared().invalid().any()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_pytrees(name: str) -> None:
    kind = LOSSES[name]
    assert kind.name == name
    count = {"squared": 0, "barron": 2}.get(name, 1)
    loss = kind(*[torch.ones(3)] * count)
    leaves, _ = tree_flatten(loss)
    assert len(leaves) == count
    doubled = tree_map(lambda leaf: 2 * leaf, loss)
    assert type(doubled) is kind
    assert all(bool((leaf == 2).all()) for leaf in tree_flatten(doubled)[0])


def test_vmap_over_the_parameters() -> None:
    s = _s()[0]
    scales = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    many = torch.func.vmap(lambda c: GemanMcClure(c).evaluate(s).value)(scales)
    torch.testing.assert_close(many, GemanMcClure(scales).evaluate(s.expand(3, -1)).value)


def test_wrong_calls_are_named() -> None:
    with pytest.raises(TypeError, match=r"Huber\.scale: got str"):
        Huber("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Huber\.scale: got dtype torch\.int64.*\.double"):
        Huber(torch.tensor([1]))
    with pytest.raises(TypeError, match=r"Cauchy\.scale: got bool"):
        Cauchy(True)
    with pytest.raises(ValueError, match=r"Cauchy\.scale: got -1\.0, expected a number > 0"):
        Cauchy(-1.0)
    with pytest.raises(ValueError, match=r"Barron\.alpha: got nan"):
        Barron(1.0, math.nan)
    with pytest.raises(TypeError, match=r"Barron\.alpha: got NoneType"):
        Barron(1.0, None)  # type: ignore[arg-type]
