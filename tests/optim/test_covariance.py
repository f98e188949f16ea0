"""Covariances: coverage on synthetic noise, closed forms, derivatives, and what failed items get."""

import math

import pytest
import torch
from scipy.stats import chi2, f
from torch import Tensor
from torch.autograd import gradcheck

import posegrad as pg
from posegrad.optim.covariance import (
    datum_gradients,
    inverse_hessian_covariance,
    noise_variance,
    sandwich_covariance,
)
from posegrad.optim.levenberg_marquardt import minimise
from posegrad.optim.solution import Solution
from posegrad.testing import central_difference, relative_error

from .test_levenberg_marquardt import Exponential

_LEVELS = (0.5, 0.9, 0.95)
_TRUTH = torch.tensor([1.3, 1.1], dtype=torch.float64)
_SIGMA = 0.05


def _fit(noise: Tensor) -> tuple[Tensor, Solution]:
    """Curves a exp(b s) with noise (B, N), fitted; the data and the solution."""
    s = torch.linspace(0, 1, noise.shape[-1], dtype=torch.float64)
    y = _TRUTH[0] * (_TRUTH[1] * s).exp() + noise
    solution = minimise(Exponential(), _TRUTH.expand(len(y), 2), y, pg.LevenbergMarquardt())
    assert bool(solution.ok.all())
    return y, solution


def _noise(batch: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, generator=generator, dtype=torch.float64)


def _nees(solution: Solution, covariance: Tensor) -> Tensor:
    """Normalised estimation error squared: e^T C^-1 e."""
    error = (solution.variable - _TRUTH)[..., None]
    return (error.mT @ torch.linalg.solve(covariance, error)).flatten()


def _coverage(nees: Tensor, quantiles: list[float]) -> list[float]:
    return [(nees <= q).double().mean().item() for q in quantiles]


def test_coverage_with_known_noise() -> None:
    _, solution = _fit(_SIGMA * _noise(6000, 20))
    covariance = inverse_hessian_covariance(solution.hessian, _SIGMA**2)
    assert bool(covariance.ok.all())
    covered = _coverage(_nees(solution, covariance.matrix), [chi2.ppf(level, 2) for level in _LEVELS])
    assert covered == pytest.approx(_LEVELS, abs=0.02)


def test_coverage_with_estimated_noise() -> None:
    """The error over the estimated covariance follows D times Fisher's F(D, M - D)."""
    _, solution = _fit(_SIGMA * _noise(6000, 8, seed=1))
    sigma2, ok = noise_variance(solution.cost, 8, 2)
    assert bool(ok.all())
    assert sigma2.mean().item() == pytest.approx(_SIGMA**2, rel=0.02)
    covariance = inverse_hessian_covariance(solution.hessian, sigma2).matrix
    covered = _coverage(_nees(solution, covariance), [2 * f.ppf(level, 2, 6) for level in _LEVELS])
    assert covered == pytest.approx(_LEVELS, abs=0.02)


def test_coverage_of_the_sandwich_under_unequal_noise() -> None:
    """Noise that grows fourfold along the curve: the sandwich covers, the inverse Hessian does not."""
    size = torch.linspace(0.25, 1, 200, dtype=torch.float64) ** 2
    y, solution = _fit(2 * _SIGMA * size * _noise(4000, 200, seed=2))
    gradients = datum_gradients(Exponential(), solution.variable, y)
    covariance = sandwich_covariance(solution.hessian, gradients, correction=200 / 198)
    quantiles = [chi2.ppf(level, 2) for level in _LEVELS]
    assert _coverage(_nees(solution, covariance.matrix), quantiles) == pytest.approx(_LEVELS, abs=0.02)
    sigma2 = noise_variance(solution.cost, 200, 2).value
    naive = inverse_hessian_covariance(solution.hessian, sigma2).matrix
    assert _coverage(_nees(solution, naive), quantiles)[-1] < 0.9


def test_gradients_of_the_data_add_up_to_that_of_the_cost() -> None:
    y, solution = _fit(_SIGMA * _noise(3, 20))
    x = solution.variable + 0.1
    gradients = datum_gradients(Exponential(), x, y)
    J = torch.func.vmap(torch.func.jacrev(lambda p, t: Exponential().residual(p[None], t[None])[0]))(x, y)
    torch.testing.assert_close(gradients, J * Exponential().residual(x, y)[..., None])
    torch.testing.assert_close(gradients.sum(1), Exponential().quadratic(x, y, exact=True).gradient)


def _spd(batch: int) -> Tensor:
    A = _noise(batch, 9).view(batch, 3, 3)
    return A @ A.mT + 0.1 * torch.eye(3, dtype=A.dtype)


def test_closed_forms() -> None:
    H, g = _spd(4), _noise(4, 21, seed=1).view(4, 7, 3)
    inverse = torch.linalg.inv(H)
    variance = torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(
        inverse_hessian_covariance(H, variance).matrix, variance[:, None, None] * inverse
    )
    torch.testing.assert_close(sandwich_covariance(H, g).matrix, inverse @ (g.mT @ g) @ inverse)
    torch.testing.assert_close(
        inverse_hessian_covariance(H[0]).matrix, inverse[0], msg="without a batch dimension"
    )


def test_units_do_not_matter() -> None:
    """Parameters in units 1e8 apart: the scaled system decides, not the raw one."""
    H, scale = _spd(3), torch.tensor([1e-8, 1.0, 1e8], dtype=torch.float64)
    far = inverse_hessian_covariance(scale[:, None] * H * scale)
    assert bool(far.ok.all())
    torch.testing.assert_close(scale[:, None] * far.matrix * scale, torch.linalg.inv(H), rtol=1e-9, atol=1e-9)


def test_derivatives() -> None:
    H, g = _spd(2).requires_grad_(), _noise(2, 9, seed=1).view(2, 3, 3).requires_grad_()
    variance = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    correction = torch.tensor([1.1, 1.2], dtype=torch.float64, requires_grad=True)

    def symmetric(H: Tensor) -> Tensor:
        return (H + H.mT) / 2

    assert gradcheck(lambda H, v: inverse_hessian_covariance(symmetric(H), v).matrix, (H, variance))
    assert gradcheck(
        lambda H, g, c: sandwich_covariance(symmetric(H), g, correction=c).matrix, (H, g, correction)
    )


def test_the_whole_derivative_by_the_data_equals_re_solving() -> None:
    """Data move the minimiser, the minimiser the Hessian, the Hessian the covariance, beside the noise estimate."""
    y, _ = _fit(0.3 * _noise(3, 12))
    y.requires_grad_()
    problem = Exponential()

    def covariance(y: Tensor, variable: Tensor) -> Tensor:
        model = problem.quadratic(variable, y, exact=True)
        sigma2 = noise_variance(model.cost, 12, 2).value
        return inverse_hessian_covariance(model.hessian, sigma2).matrix[:, 0, 1] * 1e3

    def resolved(y: Tensor) -> Tensor:
        start = _TRUTH.expand(len(y), 2)
        return covariance(y, minimise(problem, start, y, pg.LevenbergMarquardt()).variable)

    layer = pg.argmin_layer(lambda y: _TRUTH.expand(len(y), 2), problem)
    (gradient,) = torch.autograd.grad(covariance(y, layer(y).variable).sum(), y)
    with torch.no_grad():
        expected = central_difference(resolved, y.detach(), 1e-3)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-8


_BAD = [
    torch.zeros(3, 3),
    -torch.eye(3),
    torch.full((3, 3), math.nan),
    torch.ones(3, 3),
    torch.full((3, 3), math.inf),
]


@pytest.mark.parametrize("bad", _BAD, ids=["zero", "negative", "nan", "singular", "infinite"])
def test_a_failed_item_knows_nothing_and_gets_no_gradient(bad: Tensor) -> None:
    H = _spd(3)
    H[1] = bad.double()
    H.requires_grad_()
    g = _noise(3, 12).view(3, 4, 3).requires_grad_()
    alone = inverse_hessian_covariance(H[:1].detach()).matrix[0]
    for covariance in (inverse_hessian_covariance(H, 2.0), sandwich_covariance(H, g)):
        assert covariance.ok.tolist() == [True, False, True]
        assert torch.equal(covariance.matrix[1].detach(), torch.full((3,), math.inf).double().diag())
        kept = torch.where(covariance.ok[:, None, None], covariance.matrix, 0.0)
        for gradient in torch.autograd.grad(kept.sum(), (H, g), allow_unused=True):
            assert gradient is None or bool(gradient.isfinite().all())
            assert gradient is None or bool((gradient[1] == 0).all())
    assert torch.equal(inverse_hessian_covariance(H).matrix[0], alone)


def test_bad_noise_and_bad_gradients_are_contained() -> None:
    variance = torch.tensor([1.0, -1.0, math.nan, math.inf], dtype=torch.float64, requires_grad=True)
    covariance = inverse_hessian_covariance(_spd(4), variance)
    assert covariance.ok.tolist() == [True, False, False, False]
    (gradient,) = torch.autograd.grad(covariance.matrix[:, 0, 0].clamp(max=1e9).sum(), variance)
    assert bool(gradient.isfinite().all())
    g = _noise(2, 6).view(2, 2, 3)
    g[0, 0, 0] = math.nan
    assert sandwich_covariance(_spd(2), g).ok.tolist() == [False, True]


def test_the_noise_of_too_few_data_is_unknown() -> None:
    cost = torch.tensor([4.0, 4.0, 4.0, math.inf], dtype=torch.float64, requires_grad=True)
    value, ok = noise_variance(cost, torch.tensor([10, 6, 3, 10]), 6)
    assert ok.tolist() == [True, False, False, False]
    assert value.tolist() == [2.0, math.inf, math.inf, math.inf]
    (gradient,) = torch.autograd.grad(torch.where(ok, value, 0.0).sum(), cost)
    assert gradient.tolist() == [0.5, 0, 0, 0]
    unknown = inverse_hessian_covariance(_spd(4), value)
    assert unknown.ok.tolist() == [True, False, False, False]


def test_float32() -> None:
    H = _spd(4)
    single = inverse_hessian_covariance(H.float(), 2.0)
    assert single.matrix.dtype == torch.float32
    torch.testing.assert_close(
        single.matrix.double(), inverse_hessian_covariance(H, 2.0).matrix, rtol=1e-3, atol=1e-3
    )
