"""Levenberg-Marquardt and a Newton finish for calibrations: the steps of :mod:`posegrad.optim.levenberg_marquardt`,
with the poses eliminated from every system, so that the work grows linearly with the number of views."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.optim import arrow, batch
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.problems import weighting
from posegrad.problems.calibration_problem import ArrowQuadratic, Calibrated, Calibration, Observations

# When Gauss-Newton ends: later than in the engine of one block, as a Newton step costs twice as much here, and the many
# residuals of a calibration are small; the range of the damping.
SMALL_DECREASE, SMALL_DECREMENT = 1e-3, 1e-6
MAX_DAMPING, FIRST_NEWTON_DAMPING = 1e12, 1e-6
# Rounding of a Schur complement, relative to the corner it is left of, in machine epsilons.
_SINGULAR = 1024
# A focal length is not determined where it is not this many of its standard deviations from zero, or is longer than
# this many image sides, or shorter than that part of one.
SIGMAS, LONGEST = 2.0, 20.0
# Steps that have not ended where the matrix is this near to singular went along a valley without a lowest point.
_VALLEY = 1e-5


class State(NamedTuple):
    """A batch of iterates."""

    variable: Calibrated
    model: ArrowQuadratic
    damping: Float[Tensor, " B"]
    growth: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    done: Bool[Tensor, " B"]


def begin(
    problem: Calibration, variable: Calibrated, args: Observations, settings: LevenbergMarquardt
) -> State:
    """The state at a start."""
    model = problem.arrow_quadratic(variable, args, exact=False)
    damping = torch.full_like(model.cost.detach(), settings.initial_damping)
    steps = torch.zeros_like(damping, dtype=torch.int64)
    return State(variable, model, damping, torch.full_like(damping, 2.0), steps, _hopeless(model))


def descend(
    problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt, max_steps: int
) -> State:
    """Gauss-Newton steps: close to a minimum, not at it."""
    return _iterate(problem, state, args, settings, exact=False, max_steps=max_steps)


def finish(problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt) -> State:
    """Newton steps with the exact Hessian, to the limit of the dtype."""
    model = problem.arrow_quadratic(state.variable, args, exact=True)
    zero = torch.zeros_like(state.damping)
    done = _hopeless(model) | (state.steps >= settings.max_steps)
    state = state._replace(model=model, damping=zero, growth=zero + 10.0, done=done)
    return _iterate(problem, state, args, settings, exact=True, max_steps=settings.max_steps)


def _hopeless(model: ArrowQuadratic) -> Bool[Tensor, " B"]:
    return ~(model.feasible & model.cost.detach().isfinite())


def _iterate(
    problem: Calibration,
    state: State,
    args: Observations,
    settings: LevenbergMarquardt,
    *,
    exact: bool,
    max_steps: int,
) -> State:
    every = 1 if batch.questions_are_cheap(state.done.device) else 4
    for step in range(max_steps):
        if step % every == 0 and bool(state.done.all()):
            break
        state = _step(problem, state, args, settings, exact=exact)
    return state


def _step(
    problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt, *, exact: bool
) -> State:
    """One trial step of every item that is not done."""
    old = state.model
    old_cost = old.cost
    with torch.no_grad():
        eps, tiny = torch.finfo(old_cost.dtype).eps, torch.finfo(old_cost.dtype).tiny
        # an exact Hessian can have a diagonal entry <= 0: damp by its magnitude
        damping = [
            state.damping.view(-1, *(1,) * (d.ndim - 1))
            * d.abs().clamp(min=eps * d.abs().amax(-1, keepdim=True) + tiny)
            for d in old.hessian.diagonal()
        ]
    matrix = old.hessian.plus_diagonal(damping[0], damping[1])
    by_params, by_poses, positive = arrow.solve(matrix, -old.by_params, -old.by_poses)
    trial = problem.moved(state.variable, by_params, by_poses)
    with torch.no_grad():
        squared = -(old.by_params * by_params).sum(-1) - (old.by_poses * by_poses).sum((-1, -2))
        squared = squared.clamp(min=0)
        tolerance = _tolerance(settings, old_cost)
        last = positive & (squared.sqrt() <= tolerance) & (state.damping == 0) & ~state.done
        ends = exact and batch.questions_are_cheap(last.device) and bool((last | state.done).all())
    if ends:
        # steps below the tolerance, for all that is left: what is known at the old point holds at the new one
        variable = batch.where(last, trial, state.variable)
        return state._replace(
            variable=variable, steps=state.steps + last.to(state.steps), done=state.done | last
        )
    new = problem.arrow_quadratic(trial, args, exact=exact)
    with torch.no_grad():
        drop = old_cost - new.cost
        noise = 64 * eps * (old_cost + old_cost.sqrt() + eps)
        accepted = positive & new.feasible & (drop >= -noise) & ~state.done
        if exact:
            done = last
            smaller = torch.where(state.damping > FIRST_NEWTON_DAMPING, state.damping / 10, 0.0)
            growth = state.growth
            larger = (state.damping * 10).clamp(min=FIRST_NEWTON_DAMPING)
        else:
            slow = accepted & (drop < SMALL_DECREASE * old_cost)
            done = slow | (positive & (squared.sqrt() <= SMALL_DECREMENT * (1 + (2 * old_cost).sqrt())))
            held = (damping[0] * by_params.square()).sum(-1) + (damping[1] * by_poses.square()).sum((-1, -2))
            gain = drop / (0.5 * (squared + held)).clamp(min=tiny)
            smaller = state.damping * (1 - (2 * gain - 1) ** 3).clamp(min=0.1, max=2.0)
            growth = torch.where(accepted, 2.0, state.growth * 2)
            larger = state.damping * state.growth
        next_damping = torch.where(accepted, smaller, larger)
        steps = state.steps + (~state.done).to(state.steps)
        done = state.done | done | (next_damping > MAX_DAMPING) | (steps >= settings.max_steps)
        next_damping = torch.where(state.done, state.damping, next_damping)
    return State(
        variable=batch.where(accepted, trial, state.variable),
        model=batch.where(accepted, new, old),
        damping=next_damping,
        growth=growth,
        steps=steps,
        done=done,
    )


def relative_tolerance(settings: LevenbergMarquardt, dtype: torch.dtype) -> float:
    """Of the decrement, beside ``1 + sqrt(2 cost)``."""
    return 4096 * torch.finfo(dtype).eps if settings.tolerance is None else settings.tolerance


def singular_below(settings: LevenbergMarquardt, dtype: torch.dtype) -> float:
    """Smallest magnitude of an eigenvalue that counts as one."""
    return _SINGULAR * torch.finfo(dtype).eps if settings.singular_below is None else settings.singular_below


def _tolerance(settings: LevenbergMarquardt, cost: Tensor) -> Tensor:
    return relative_tolerance(settings, cost.dtype) * (1 + (2 * cost).sqrt())


def judge(problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt) -> Solution:
    """The verdict on every item after :func:`finish`; the Hessian is packed, see :meth:`Arrow.packed`."""
    model, variable = state.model, state.variable
    cost = model.cost
    hopeless = _hopeless(model)
    gone = arrow.eliminate(model.hessian, -model.by_params, -model.by_poses)
    smallest = arrow.definiteness(model.hessian, gone.schur)
    inverse, _ = torch.linalg.inv_ex(
        torch.where((smallest > 0)[:, None, None], gone.schur, _eye_like(gone.schur))
    )
    # of the blocks, then of what they leave
    squared = gone.columns[..., -1].square().sum((-1, -2))
    squared = squared + (gone.right * (inverse @ gone.right[..., None]).squeeze(-1)).sum(-1)
    # no Newton step where the matrix is not positive definite: what the diagonal makes of the gradient
    pairs = zip((model.by_params, model.by_poses), model.hessian.diagonal(), strict=True)
    parts = [(g.square() / d.abs().clamp(min=1e-300)).flatten(1).sum(-1) for g, d in pairs]
    decrement = torch.where(smallest > 0, squared, parts[0] + parts[1]).clamp(min=0).sqrt()
    singular = singular_below(settings, cost.dtype)
    stationary = decrement <= 4 * _tolerance(settings, cost)
    flat = (smallest.abs() < singular) | (~stationary & (smallest < _VALLEY))
    flat = flat | _focal_unknown(problem, variable, args, cost, inverse)
    status = torch.full_like(state.steps, int(Status.MAX_STEPS))
    for where, value in (
        (stationary, Status.CONVERGED),
        (stationary & (smallest < 0), Status.SADDLE),
        (flat, Status.DEGENERATE),
        (hopeless, Status.INFEASIBLE),
    ):
        status = torch.where(where, int(value), status)
    return Solution(
        variable=variable,
        status=status,
        cost=torch.where(hopeless, 0.0, cost),
        num_steps=state.steps,
        decrement=torch.where(hopeless, 0.0, decrement).nan_to_num(),
        hessian=model.hessian.packed(),
    )


def _eye_like(matrix: Float[Tensor, "B F F"]) -> Float[Tensor, "F F"]:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def noise_freedom(variable: Calibrated, weights: Tensor, num_free: int) -> tuple[Tensor, Tensor]:
    """How many residuals of positive weight there are, and how many unknowns (B,)."""
    used = variable.used > 0
    strength = weighting.strength(weights.flatten(0, 1)).view(*used.shape, weights.shape[2])
    residuals = 2 * ((strength > 0) & used[..., None]).sum((-1, -2))
    return residuals, num_free + 6 * used.sum(-1)


def _focal_unknown(
    problem: Calibration, variable: Calibrated, args: Observations, cost: Tensor, covariance: Tensor
) -> Bool[Tensor, " B"]:
    """Where noise decides a free focal length: it is within two standard deviations of zero, or nearly infinite."""
    residuals, unknowns = noise_freedom(variable, args.weights, len(problem.free))
    variance = 2 * cost / (residuals - unknowns).clamp(min=1)
    unknown = residuals < unknowns
    for at, parameter in enumerate(problem.free):
        if parameter < problem.model.num_focal:
            deviation = variance * covariance[:, at, at]
            square = variable.params[:, parameter].square()
            beyond = (square > LONGEST**2) | (square < LONGEST**-2)
            unknown = unknown | (SIGMAS**2 * deviation > square) | beyond
    return unknown
