"""Limited-memory BFGS: minimisation from gradients."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, finish
from posegrad.optim.levenberg_marquardt import State as Finishing
from posegrad.optim.loop import iterate
from posegrad.optim.problem import Args, Problem, Variable
from posegrad.optim.settings import check_count, check_positive
from posegrad.optim.solution import Solution


@dataclass(frozen=True, kw_only=True)
class LBFGS:
    """Steps from the last gradients, with a backtracking line search for each item; then Newton steps at the end.

    Cheaper than :class:`posegrad.Newton` on the way, where the Hessian is expensive and the start is far. Close to the
    minimum the exact Hessian is needed once or twice: for the last digits, the verdict and the gradient.

    Args:
        max_steps: most steps of an item, >= 1.
        memory: number of gradients that are remembered, >= 1.
        tolerance: as in :class:`posegrad.LevenbergMarquardt`.

    Reference: Liu & Nocedal, Math. Programming 45 (1989).

    >>> import posegrad as pg
    >>> def valley(x, _):
    ...     return (100 * (x[:, 1:] - x[:, :-1] ** 2).square() + (1 - x[:, :-1]).square()).sum(-1)
    >>> pg.minimise(valley, torch.zeros(1, 5), solver=pg.LBFGS()).variable
    tensor([[1., 1., 1., 1., 1.]])
    """

    max_steps: int = 300
    memory: int = 10
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_count("LBFGS.max_steps", self.max_steps)
        check_count("LBFGS.memory", self.memory)
        check_positive("LBFGS.tolerance", self.tolerance, optional=True)

    def minimise(self, problem: Problem, init: Variable, args: Args) -> Solution:
        """Every item from its start. Differentiable by unrolling when grad mode is on."""
        cost, gradient = _slope(problem, init, args)
        flat = cost.detach()
        done = ~(problem.feasible(init, args) & flat.isfinite())
        empty = gradient.new_zeros(*gradient.shape[:1], self.memory, *gradient.shape[1:])
        # the first step is as long as the variable
        length = problem.size(init) / gradient.detach().abs().clamp(min=torch.finfo(flat.dtype).tiny ** 0.5)
        scale = length.amin(-1)
        state = _State(init, cost, gradient, empty, empty, scale, flat * 0 + 1, done.long() * 0, done)
        state = iterate(lambda s, a: self._step(problem, s, a), state, args, max_steps=self.max_steps)
        zero = torch.zeros_like(flat)
        settings = LevenbergMarquardt(max_steps=self.max_steps + 30, tolerance=self.tolerance)
        model = problem.quadratic(state.variable, args, exact=True)
        return finish(
            problem, Finishing(state.variable, model, zero, zero, state.steps, done), args, settings
        )

    def _step(self, problem: Problem, state: "_State", args: Args) -> "_State":
        direction = _two_loops(state)
        along = (state.gradient * direction).sum(-1)
        uphill = ~(along < 0)
        direction = torch.where(uphill[:, None], -state.scale[:, None] * state.gradient, direction)
        along = torch.where(uphill, -state.scale * state.gradient.square().sum(-1), along)
        delta = state.part[:, None] * direction
        trial = problem.retract(state.variable, delta)
        cost, gradient = _slope(problem, trial, args)
        with torch.no_grad():
            eps, size = torch.finfo(cost.dtype).eps, state.cost.abs()
            noise = 64 * eps * (size + size.sqrt() + eps)
            fine = problem.feasible(trial, args) & cost.isfinite()
            accepted = fine & (cost <= state.cost + 1e-4 * state.part * along + noise) & ~state.done
            change = gradient - state.gradient
            curved = (delta * change).sum(-1)
            remember = accepted & (curved > 1e-12 * (-along * state.part).clamp(min=0) + eps * eps)
            part = torch.where(accepted, 1.0, 0.25 * state.part)
            small = (-along).clamp(min=0).sqrt() <= 1e-6 * (1 + (2 * size).sqrt())
            steps = state.steps + (~state.done).to(state.steps)
            done = state.done | (accepted & small) | (part < 1e-12) | (steps >= self.max_steps)
        scale = torch.where(remember, curved / change.square().sum(-1).clamp(min=1e-300), state.scale)
        kept = remember[:, None, None]
        return _State(
            batch.where(accepted, trial, state.variable),
            torch.where(accepted, cost, state.cost),
            torch.where(accepted[:, None], gradient, state.gradient),
            torch.where(kept, torch.cat([state.moves[:, 1:], delta[:, None]], 1), state.moves),
            torch.where(kept, torch.cat([state.changes[:, 1:], change[:, None]], 1), state.changes),
            scale,
            part,
            steps,
            done,
        )


class _State(NamedTuple):
    variable: Variable
    cost: Float[Tensor, " B"]
    gradient: Float[Tensor, "B D"]
    moves: Float[Tensor, "B K D"]  # the last moves and changes of the gradient, the newest last; zero: none
    changes: Float[Tensor, "B K D"]
    scale: Float[Tensor, " B"]  # of the inverse Hessian
    part: Float[Tensor, " B"]  # of the step that is tried
    steps: Int[Tensor, " B"]
    done: Bool[Tensor, " B"]


def _slope(problem: Problem, variable: Variable, args: Args) -> tuple[Tensor, Tensor]:
    """Cost and gradient in the tangent."""

    def total(delta: Tensor) -> tuple[Tensor, Tensor]:
        cost = problem.cost(problem.retract(variable, delta), args)
        return cost.sum(), cost

    gradient, cost = torch.func.grad(total, has_aux=True)(problem.zero(variable))
    return cost, gradient


def _two_loops(state: _State) -> Float[Tensor, "B D"]:
    """Minus the inverse Hessian, as the memory has it, times the gradient."""
    products = (state.moves * state.changes).sum(-1)
    inverse = torch.where(products > 0, 1 / torch.where(products > 0, products, 1.0), 0.0)
    q, weights = state.gradient, []
    for k in reversed(range(state.moves.shape[1])):
        weight = inverse[:, k] * (state.moves[:, k] * q).sum(-1)
        weights.append(weight)
        q = q - weight[:, None] * state.changes[:, k]
    r = state.scale[:, None] * q
    for k, weight in zip(range(state.moves.shape[1]), reversed(weights), strict=True):
        back = inverse[:, k] * (state.changes[:, k] * r).sum(-1)
        r = r + (weight - back)[:, None] * state.moves[:, k]
    return -r
