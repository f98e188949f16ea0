"""The solver on problems that are not poses: a curve fit against SciPy, and its verdicts."""

import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, minimise
from posegrad.optim.problem import Problem
from posegrad.optim.solution import Solution, masked_mean
from posegrad.optim.status import Status


class Exponential(Problem):
    """y = a exp(b s), variable (a, b), args y at fixed s."""

    dimension = 2

    def residual(self, variable: Tensor, args: Tensor) -> Tensor:
        s = torch.linspace(0, 1, args.shape[-1], dtype=args.dtype)
        return variable[:, :1] * (variable[:, 1:] * s).exp() - args


class DoubleWell(Problem):
    """f(x) = (x^2 - a)^2 / 2: a maximum at 0, minima at +-sqrt(a)."""

    dimension = 1

    def residual(self, variable: Tensor, args: Tensor) -> Tensor:
        return variable**2 - args


def _data(noise: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    s = torch.linspace(0, 1, 20, dtype=torch.float64)
    a, b = (
        1 + torch.rand(6, 1, generator=generator).double(),
        2 * torch.rand(6, 1, generator=generator).double(),
    )
    return a * (b * s).exp() + noise * torch.randn(6, 20, generator=generator).double()


def _solve(args: Tensor, **settings: float) -> Solution:
    start = torch.ones(args.shape[0], 2, dtype=args.dtype)
    return minimise(Exponential(), start, args, LevenbergMarquardt(**settings))  # type: ignore[arg-type]


def test_equals_scipy() -> None:
    y = _data()
    solution = _solve(y)
    assert bool(solution.ok.all())
    for item, found in zip(y, solution.variable, strict=True):
        reference = least_squares(
            lambda p, item=item: Exponential().residual(torch.from_numpy(p)[None], item[None])[0].numpy(),
            [1.0, 1.0],
            method="lm",
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        torch.testing.assert_close(found, torch.from_numpy(reference.x), rtol=0, atol=1e-7)
        cost = Exponential().cost(found[None], item[None]).item()
        assert cost <= reference.cost * (1 + 1e-12)


def test_an_item_is_the_same_alone_and_in_a_batch() -> None:
    y = _data()
    together = _solve(y)
    for i in range(len(y)):
        alone = _solve(y[i : i + 1])
        torch.testing.assert_close(alone.variable[0], together.variable[i], rtol=0, atol=1e-13)
        assert alone.num_steps[0] == together.num_steps[i]


def test_too_few_steps_is_a_status() -> None:
    solution = _solve(_data(), max_steps=1)
    assert set(solution.status.tolist()) == {Status.MAX_STEPS}
    assert "max_steps" in solution.describe()


def test_infeasible_start_is_a_status_and_leaves_the_others() -> None:
    y = _data()
    start = torch.ones(6, 2, dtype=torch.float64)
    start[2, 1] = 1e6  # exp overflows
    solution = minimise(Exponential(), start, y, LevenbergMarquardt())
    assert solution.status.tolist() == [0, 0, Status.INFEASIBLE, 0, 0, 0]
    torch.testing.assert_close(solution.variable[3], _solve(y).variable[3], rtol=0, atol=1e-13)


def test_a_stationary_point_that_is_no_minimum_is_a_saddle() -> None:
    a = torch.ones(1, 1, dtype=torch.float64)
    at_top = minimise(DoubleWell(), torch.zeros(1, 1, dtype=torch.float64), a, LevenbergMarquardt())
    assert at_top.status.item() == Status.SADDLE
    aside = minimise(DoubleWell(), torch.full((1, 1), 0.7, dtype=torch.float64), a, LevenbergMarquardt())
    assert aside.ok.item()
    assert aside.variable.item() == pytest.approx(1.0, abs=1e-12)


def test_a_flat_direction_is_degenerate() -> None:
    class Sum(Problem):
        dimension = 2

        def residual(self, variable: Tensor, args: Tensor) -> Tensor:
            return variable.sum(-1, keepdim=True) - args

    solution = minimise(Sum(), torch.zeros(2, 2).double(), torch.ones(2, 1).double(), LevenbergMarquardt())
    assert set(solution.status.tolist()) == {Status.DEGENERATE}


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="max_steps: got 0"):
        LevenbergMarquardt(max_steps=0)
    with pytest.raises(ValueError, match="initial_damping: got -1"):
        LevenbergMarquardt(initial_damping=-1)
    with pytest.raises(TypeError, match="max_iter"):
        LevenbergMarquardt(max_iter=5)  # type: ignore[call-arg]


def test_masked_mean() -> None:
    values = torch.tensor([1.0, float("nan"), 3.0], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 2
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0, 0.5]
    nothing = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, values)[0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="same shape"):
        masked_mean(torch.zeros(3, 2), torch.ones(3, dtype=torch.bool))
