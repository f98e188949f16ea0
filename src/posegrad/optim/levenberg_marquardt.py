"""Batched Levenberg-Marquardt with a Newton finish; every item has its own damping, acceptance and end."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.linear import equilibrate, solve_damped
from posegrad.optim.loop import iterate
from posegrad.optim.problem import Args, Problem, Quadratic, Variable
from posegrad.optim.settings import check_count, check_positive
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt:
    """Settings of the solver.

    Steps ``(A + damping diag(A)) delta = -g``: first with the Gauss-Newton matrix ``A = J^T J``, then, close to
    the minimum, undamped with the exact Hessian. Converged means: Newton decrement ``sqrt(g^T H^-1 g)`` at most
    ``tolerance * (1 + sqrt(2 cost))`` in the conditioned problem, and H positive definite.

    Args:
        max_steps: most steps of an item, Newton steps included; >= 1.
        initial_damping: > 0, relative to the diagonal of A.
        tolerance: on the decrement, > 0. None: 4096 machine epsilons of the dtype computed in, 9e-13 in float64.
            The answer is at least 16 times better than that.
        singular_below: an item whose Hessian, scaled to unit diagonal, has an eigenvalue below this (> 0) in
            magnitude is degenerate. None: 64 machine epsilons.

    Reference: Marquardt, SIAM J. Appl. Math. 11 (1963); Nielsen, IMM-REP-1999-05 (the damping's schedule).

    >>> LevenbergMarquardt(max_steps=20).initial_damping
    0.0001
    """

    max_steps: int = 100
    initial_damping: float = 1e-4
    tolerance: float | None = None
    singular_below: float | None = None

    def __post_init__(self) -> None:
        check_count("LevenbergMarquardt.max_steps", self.max_steps)
        check_positive("LevenbergMarquardt.initial_damping", self.initial_damping)
        check_positive("LevenbergMarquardt.tolerance", self.tolerance, optional=True)
        check_positive("LevenbergMarquardt.singular_below", self.singular_below, optional=True)

    def minimise(self, problem: Problem, init: Variable, args: Args) -> Solution:
        """See :func:`minimise`."""
        return minimise(problem, init, args, self)


class State(NamedTuple):
    """A batch of iterates; every tensor has the batch as its leading dimension."""

    variable: Variable
    quadratic: Quadratic
    damping: Tensor
    growth: Tensor
    steps: Tensor
    done: Tensor


# Gauss-Newton ends when an accepted step lowers the cost by less than this part, or the decrement is this small.
_SMALL_DECREASE, _SMALL_DECREMENT = 1e-2, 1e-6
_MAX_DAMPING = 1e12
_FIRST_NEWTON_DAMPING = 1e-6
# By how much an answer is to be better than the tolerance asks.
_MARGIN = 16


def minimise(problem: Problem, init: Variable, args: Args, settings: LevenbergMarquardt) -> Solution:
    """Minimise every item from its start, a variable with the full batch as leading dimension.

    Differentiable by unrolling when grad mode is on: decisions are constants, steps are not.
    """
    state = descend(problem, init, args, settings, max_steps=settings.max_steps)
    return finish(problem, state, args, settings)


def descend(
    problem: Problem, init: Variable, args: Args, settings: LevenbergMarquardt, *, max_steps: int
) -> State:
    """The Gauss-Newton phase alone: close to a minimum, not at it."""
    quadratic = problem.quadratic(init, args, exact=False)
    damping = torch.full_like(quadratic.cost.detach(), settings.initial_damping)
    state = State(
        variable=init,
        quadratic=quadratic,
        damping=damping,
        growth=torch.full_like(damping, 2.0),
        steps=torch.zeros_like(damping, dtype=torch.int64),
        done=_hopeless(quadratic),
    )
    return descend_on(problem, state, args, settings, max_steps=max_steps)


def descend_on(
    problem: Problem, state: State, args: Args, settings: LevenbergMarquardt, *, max_steps: int
) -> State:
    """More steps of the Gauss-Newton phase, for the items that are not done."""
    return _iterate(problem, state, args, settings, exact=False, max_steps=max_steps)


def finish(problem: Problem, state: State, args: Args, settings: LevenbergMarquardt) -> Solution:
    """The Newton phase, and the verdict on every item."""
    quadratic = problem.quadratic(state.variable, args, exact=True)
    zero = torch.zeros_like(state.damping)
    state = state._replace(quadratic=quadratic, damping=zero, growth=zero + 10.0)
    state = state._replace(done=_hopeless(quadratic) | (state.steps >= settings.max_steps))
    state = _iterate(problem, state, args, settings, exact=True, max_steps=settings.max_steps)
    with torch.no_grad():
        return _judge(state, settings)


def _hopeless(quadratic: Quadratic) -> Tensor:
    return ~(quadratic.feasible & quadratic.cost.detach().isfinite())


def _iterate(
    problem: Problem, state: State, args: Args, settings: LevenbergMarquardt, *, exact: bool, max_steps: int
) -> State:
    def step(state: State, args: Args) -> State:
        return _step(problem, state, args, settings, exact=exact)

    return iterate(step, state, args, max_steps=max_steps)


def _step(problem: Problem, state: State, args: Args, settings: LevenbergMarquardt, *, exact: bool) -> State:
    """One trial step of every item that is not done."""
    old, active = state.quadratic, ~state.done
    solved = solve_damped(old.hessian, old.gradient, state.damping)
    delta, positive = solved.delta, solved.positive
    trial = problem.retract(state.variable, delta)
    new = problem.quadratic(trial, args, exact=exact)
    with torch.no_grad():
        eps, tiny = torch.finfo(old.cost.dtype).eps, torch.finfo(old.cost.dtype).tiny
        squared = (old.gradient * delta).sum(-1).neg().clamp(min=0)
        # an objective that is no sum of squares may be negative
        decrement, root = squared.sqrt(), old.cost.abs().sqrt()
        drop = old.cost - new.cost
        noise = 64 * eps * (root * (root + 1) + eps)
        # to a cost that is no finite number there is no drop that compares
        accepted = active & positive & new.feasible & (drop >= -noise) & (drop < torch.inf)
        tolerance = _tolerance(settings, root)
        if exact:
            undamped = state.damping == 0
            # already there, or there now: by the gradient that was found, a step ahead of the next factorisation
            left = solved.squared(new.gradient)
            arrived = accepted & (left <= (tolerance / _MARGIN).square())
            done = undamped & (arrived | (positive & (decrement <= tolerance)))
            smaller = (0.1 * state.damping).masked_fill(state.damping <= _FIRST_NEWTON_DAMPING, 0.0)
            growth = state.growth
            larger = (state.damping * 10).clamp(min=_FIRST_NEWTON_DAMPING)
        else:
            # a step that damping cut short says nothing about how close the minimum is
            slow = accepted & (drop < _SMALL_DECREASE * old.cost) & (state.damping < 1)
            done = slow | (positive & (decrement <= _SMALL_DECREMENT * (1 + 2**0.5 * root)))
            predicted = 0.5 * (squared + state.damping * solved.scaled.square().sum(-1)).clamp(min=tiny)
            smaller = state.damping * (1 - (2 * drop / predicted - 1) ** 3).clamp(min=0.1, max=2.0)
            growth = (2 * state.growth).masked_fill(accepted, 2.0)
            larger = state.damping * state.growth
        damping = torch.where(active, torch.where(accepted, smaller, larger), state.damping)
        steps = state.steps + active
        done = state.done | done | (damping > _MAX_DAMPING) | (steps >= settings.max_steps)
    return State(
        variable=batch.where(accepted, trial, state.variable),
        quadratic=batch.where(accepted, new, old),
        damping=damping,
        growth=growth,
        steps=steps,
        done=done,
    )


def _tolerance(settings: LevenbergMarquardt, root: Tensor) -> Tensor:
    """On the decrement, from the root of the cost."""
    tolerance = 4096 * torch.finfo(root.dtype).eps if settings.tolerance is None else settings.tolerance
    return tolerance * (1 + 2**0.5 * root)


def _judge(state: State, settings: LevenbergMarquardt) -> Solution:
    cost, gradient, hessian, _ = state.quadratic
    hopeless = _hopeless(state.quadratic)
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    finite = hessian.isfinite().all(-1).all(-1) & ~hopeless
    hessian = torch.where(finite[:, None, None], hessian, eye)
    scaled, scale = equilibrate(hessian)
    eigenvalues, vectors = torch.linalg.eigh(scaled)
    eps = torch.finfo(cost.dtype).eps
    singular = 64 * eps if settings.singular_below is None else settings.singular_below
    # |H| in place of H, so that a point that is no minimum has a decrement too
    along = (vectors.mT @ (scale * gradient)[..., None]).squeeze(-1)
    size = eigenvalues.abs()
    decrement = (along.square() / size.clamp(min=eps)).sum(-1).sqrt()
    # rounding may leave the last Newton step's decrement a little above what the loop asked for
    stationary = decrement <= 4 * _tolerance(settings, cost.abs().sqrt())
    flat = (size.amin(-1) < singular) | (hessian.diagonal(dim1=-2, dim2=-1) == 0).any(-1)
    status = torch.full_like(state.steps, Status.MAX_STEPS)
    for where, value in (
        (stationary, Status.CONVERGED),
        (stationary & (eigenvalues[:, 0] < 0), Status.SADDLE),
        (flat, Status.DEGENERATE),
        (hopeless, Status.INFEASIBLE),
    ):
        status = status.masked_fill(where, int(value))
    ok = status == Status.CONVERGED
    return Solution(
        variable=state.variable,
        status=status,
        cost=cost.masked_fill(hopeless, 0.0),
        num_steps=state.steps,
        decrement=decrement.masked_fill(~finite, 0.0),
        hessian=hessian.masked_fill(~ok[:, None, None], 0.0),
    )
