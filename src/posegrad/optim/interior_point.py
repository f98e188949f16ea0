"""A primal-dual interior-point method for constrained problems, batched."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.conjugate_gradients import ROUNDS
from posegrad.optim.constrained import VIOLATED, Units, polish
from posegrad.optim.lagrangian import KKT, Lagrangian
from posegrad.optim.loop import iterate
from posegrad.optim.problem import Args, Variable, gradient_and_hessian, value_and_jacobian
from posegrad.optim.restoration import restored
from posegrad.optim.settings import check_count, check_positive
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status


@dataclass(frozen=True, kw_only=True)
class InteriorPoint:
    """Settings of the solver for constrained problems.

    Newton steps on the barrier problem ``min f(x) - tau sum log s, h(x) = 0, g(x) + s = 0`` for tau towards zero, with
    a line search on an l1 merit function; with equalities alone this is sequential quadratic programming. It ends close
    to the answer: which inequalities are active is read off there, and Newton steps on their conditions alone go to
    the dtype's limit.

    Args:
        max_steps: most interior-point steps of an item from one start, >= 1; up to 20 Newton steps follow.
        tolerance: on the residual of the conditions, in units in which costs, constraints and steps are about 1, > 0.
            None: 64 machine epsilons. One Newton step is taken beyond.

    Reference: Nocedal & Wright, "Numerical Optimization" (2006), chapters 18 and 19; Wächter & Biegler, "On the
    implementation of an interior-point filter line-search algorithm" (2006).

    >>> import posegrad as pg
    >>> solution = pg.minimise(                          # the lowest point of a disc, from outside of it
    ...     lambda x, _: x[:, 1], torch.tensor([[3.0, 2.0]]), solver=pg.InteriorPoint(max_steps=50),
    ...     inequality=lambda x, _: x.square().sum(-1, keepdim=True) - 1,
    ... )
    >>> solution.variable.round(decimals=6) + 0.0
    tensor([[ 0., -1.]])
    """

    max_steps: int = 100
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_count("InteriorPoint.max_steps", self.max_steps)
        check_positive("InteriorPoint.tolerance", self.tolerance, optional=True)

    def minimise(self, problem: Lagrangian, init: Variable, args: Args) -> Solution:
        """Every item from its start; the answer's variable is a :class:`KKT`.

        Items that get stuck start again, once: from where they are, or, if that violates constraints, from where the
        violation's minimum leads, where there is none left. What still does not converge keeps its first verdict.
        """
        found = self._from(problem, init, args)
        with torch.no_grad():
            stuck = torch.stack([found.status == int(status) for status in _STUCK]).any(0)
            if not bool(stuck.any()):
                return found
            members = batch.indices(stuck)
            point, own = batch.take((found.variable.point, args), members)
            start, fine = restored(problem, point, own, Units.of(problem, point, own))
            further = self._from(problem, start, own)
            before = batch.take(found, members)
            further = replace(further, num_steps=further.num_steps + before.num_steps)
            better = fine & (further.status == int(Status.CONVERGED))
            return batch.put(found, members, batch.where(better, further, before))

    def _from(self, problem: Lagrangian, init: Variable, args: Args) -> Solution:
        with torch.no_grad():
            state = self._descend(problem, _start(problem, init, args, Units.of(problem, init, args)), args)
            for _ in range(ROUNDS):
                again, fallen = _measured_again(problem, state, args)
                if not bool(fallen.any()):
                    break
                further = self._descend(problem, again, args)
                further = further._replace(steps=further.steps + state.steps)
                state = batch.where(fallen, further, state)
            units = state.units
            active = torch.where(state.inequality, (state.m > state.s).to(state.m), 1.0)
            near = KKT(state.point, active * state.m * units.multipliers, active)
        found = polish(problem, near, args, units, max_steps=20, tolerance=self.tolerance)
        return replace(found, num_steps=found.num_steps + state.steps)

    def _descend(self, problem: Lagrangian, state: "_State", args: Args) -> "_State":
        return iterate(
            lambda s, a: _step(problem, s, a, self.max_steps), state, args, max_steps=self.max_steps
        )


# In units in which costs, constraints and steps are about 1
_FIRST_BARRIER, _LAST_BARRIER, _CLOSE_ENOUGH = 0.1, 1e-11, 1e-9
_TO_THE_BOUNDARY, _HALVINGS = 0.995, 30
# What an item may be called that got stuck on its way.
_STUCK = Status.MAX_STEPS, Status.NO_FEASIBLE_POINT, Status.DEPENDENT_CONSTRAINTS
# Constraints whose violation has stayed the same for so many steps cannot be satisfied from here.
_PATIENCE = 10


class _Model(NamedTuple):
    f: Float[Tensor, " B"]
    c: Float[Tensor, "B M"]
    g: Float[Tensor, "B D"]  # of f
    J: Float[Tensor, "B M D"]  # of c
    W: Float[Tensor, "B D D"]  # of the Lagrangian


class _State(NamedTuple):
    """Slacks are zero, and stay it, for equalities."""

    point: Any
    m: Float[Tensor, "B M"]
    s: Float[Tensor, "B M"]
    model: _Model
    barrier: Float[Tensor, " B"]
    penalty: Float[Tensor, " B"]
    units: Units
    inequality: Bool[Tensor, "B M"]
    steps: Int[Tensor, " B"]
    stuck: Int[Tensor, " B"]  # steps in a row that have left the constraints violated as they were
    done: Bool[Tensor, " B"]


def _start(problem: Lagrangian, point: Variable, args: Args, units: Units) -> _State:
    inequality = problem.is_inequality(point, args)
    c = problem.constraints(point, args) / units.constraints
    s = torch.where(inequality, (-c).clamp(min=0.1), 0.0)
    m = torch.where(inequality, _FIRST_BARRIER / s.clamp(min=0.1), 0.0)
    model = _evaluate(problem, point, m, args, units)
    size = torch.ones_like(units.cost)
    steps = torch.zeros_like(size, dtype=torch.int64)
    done = ~(problem.problem.feasible(point, args) & model.f.isfinite() & c.isfinite().all(-1))
    return _State(point, m, s, model, _FIRST_BARRIER * size, size, units, inequality, steps, steps, done)


def _measured_again(problem: Lagrangian, state: _State, args: Args) -> tuple[_State, Bool[Tensor, " B"]]:
    """A start where the iterations have ended, in the units of there, and which items are to take it: those whose
    units have become small, so that what was asked for in the old ones is not much."""
    old = state.units
    new = Units.of(problem, state.point, args, old.steps)
    again = _start(problem, state.point, args, new)
    fallen = new.fallen(old) & ~again.done
    return again._replace(done=~fallen), fallen


def _evaluate(problem: Lagrangian, point: Variable, m: Tensor, args: Args, units: Units) -> _Model:
    inner, zero = problem.problem, problem.problem.zero(point)

    def moved(y: Tensor) -> Variable:
        return inner.retract(point, units.steps * y)

    def constraints(y: Tensor) -> Tensor:
        return problem.constraints(moved(y), args) / units.constraints

    def lagrangian(y: Tensor) -> Tensor:
        return (inner.cost(moved(y), args) / units.cost + (m * constraints(y)).sum(-1)).sum()

    gradient, W = gradient_and_hessian(lagrangian, zero)
    c, J = value_and_jacobian(constraints, zero)
    return _Model(inner.cost(point, args) / units.cost, c, gradient - _times(J.mT, m), J, W)


def _step(problem: Lagrangian, state: _State, args: Args, max_steps: int) -> _State:
    """One step of every item, as long as the line search allows."""
    point, m, s, model, barrier, _, units, inequality, *_ = state
    dx, dm, ds = _direction(state)
    violation = model.c + s
    tiny = torch.finfo(s.dtype).tiny
    # how far until a slack, or a multiplier of an inequality, is nearly zero
    longest = _until_zero(s, ds, inequality)
    longest_m = _until_zero(m, dm, inequality)
    along = (model.g * dx).sum(-1) - barrier * torch.where(inequality, ds / s.clamp(min=tiny), 0.0).sum(-1)
    infeasibility = violation.abs().sum(-1)
    curvature = (dx * _times(model.W, dx)).sum(-1).clamp(min=0)
    wanted = (along + 0.5 * curvature) / (0.9 * infeasibility).clamp(min=1e-12)
    penalty = torch.where((infeasibility > 1e-12) & (wanted > state.penalty), 2 * wanted, state.penalty)
    penalty = penalty.clamp(max=1e12)
    slope = along - penalty * infeasibility
    old = _merit(model.f, model.c, s, barrier, penalty, inequality)
    noise = 64 * torch.finfo(s.dtype).eps * (1 + old.abs() + penalty * infeasibility)
    part, trial, trial_s, taken = longest, point, s, torch.zeros_like(state.done)
    every = 1 if batch.questions_are_cheap(s.device) else 4
    for number in range(_HALVINGS):
        trial = problem.problem.retract(point, units.steps * part[:, None] * dx)
        trial_s = s + part[:, None] * ds
        f = problem.problem.cost(trial, args) / units.cost
        c = problem.constraints(trial, args) / units.constraints
        # a slack may always be as large as the constraint allows
        trial_s = torch.where(inequality, torch.maximum(trial_s, -c), 0.0)
        new = _merit(f, c, trial_s, barrier, penalty, inequality)
        good = problem.problem.feasible(trial, args) & (new <= old + 1e-4 * part * slope + noise)
        taken = good
        if number % every == 0 and bool((good | state.done).all()):
            break
        part = torch.where(good, part, 0.5 * part)
    accepted = taken & ~state.done
    point = batch.where(accepted, trial, point)
    s = torch.where(accepted[:, None], trial_s, s)
    m = torch.where(accepted[:, None], m + torch.where(inequality, longest_m[:, None], part[:, None]) * dm, m)
    # multipliers of inequalities stay near barrier / s
    low, high = barrier[:, None] / (1e10 * s.clamp(min=tiny)), 1e10 * barrier[:, None] / s.clamp(min=tiny)
    m = torch.where(inequality, m.clamp(min=low, max=high), m)
    model = _evaluate(problem, point, m, args, units)
    error, close = _errors(model, m, s, barrier, inequality)
    barrier = torch.where(
        close <= 10 * barrier, torch.minimum(0.2 * barrier, barrier**1.5).clamp(min=_LAST_BARRIER), barrier
    )
    steps = state.steps + (~state.done).to(state.steps)
    left = (model.c + s).abs().sum(-1)
    same = (left > VIOLATED) & ((left - infeasibility).abs() < 1e-6 * left)
    stuck = torch.where(same, state.stuck + 1, 0)
    done = state.done | (error <= _CLOSE_ENOUGH) | ~accepted | (stuck >= _PATIENCE) | (steps >= max_steps)
    return _State(point, m, s, model, barrier, penalty, units, inequality, steps, stuck, done)


def _direction(state: _State) -> tuple[Tensor, Tensor, Tensor]:
    """Of point, multipliers and slacks: Newton's, of a system whose matrix is made to descend."""
    _, m, s, model, barrier, _, _, inequality, *_ = state
    size = model.g.shape[1]
    tiny = torch.finfo(s.dtype).tiny ** 0.5
    ratio = torch.where(inequality, m / s.clamp(min=tiny), 0.0)
    violation = model.c + s
    # s m = barrier, linearised and solved for the multipliers of the inequalities
    target = torch.where(inequality, barrier[:, None] / s.clamp(min=tiny) + ratio * violation, m)
    J = torch.where(inequality[..., None], 0.0, model.J)
    G = torch.where(inequality[..., None], model.J, 0.0)
    H = model.W + G.mT @ (ratio[..., None] * G)
    rhs = torch.cat([-(model.g + _times(model.J.mT, target)), torch.where(inequality, 0.0, -violation)], -1)
    eye = torch.eye(rhs.shape[1], dtype=s.dtype, device=s.device)
    # a row of its own for what is no equality; dependent equalities need a little regularity
    corner = torch.diag_embed(torch.where(inequality, 1.0, -1e-10))

    def system(H: Tensor) -> Tensor:
        K = torch.cat([torch.cat([H, J.mT], -1), torch.cat([J, corner], -1)], -2)
        return torch.where(K.isfinite().flatten(1).all(-1)[:, None, None], K, eye)

    H = torch.where(H.isfinite().flatten(1).all(-1)[:, None, None], H, eye[:size, :size])
    negative = (torch.linalg.eigvalsh(system(H)) < 0).sum(-1)
    values, vectors = torch.linalg.eigh(H)
    floor = 1e-8 * values.abs().amax(-1, keepdim=True).clamp(min=1e-8)
    lifted = (vectors * torch.maximum(values.abs(), floor)[:, None]) @ vectors.mT
    fine = negative == (~inequality).sum(-1)
    solved = torch.linalg.solve_ex(system(torch.where(fine[:, None, None], H, lifted)), rhs)[0]
    dx = solved[:, :size]
    ds = torch.where(inequality, -violation - _times(model.J, dx), 0.0)
    # complementarity, solved for the multiplier: target + ratio J dx is where the step leads
    dm = torch.where(inequality, target + ratio * _times(model.J, dx) - m, solved[:, size:])
    return dx, dm, ds


def _until_zero(value: Tensor, change: Tensor, counts: Tensor) -> Float[Tensor, " B"]:
    part = torch.where(counts & (change < 0), -_TO_THE_BOUNDARY * value / change.clamp(max=-1e-300), 1.0)
    return part.amin(-1).clamp(max=1.0) if part.shape[-1] else torch.ones_like(part[..., 0:1].sum(-1) + 1)


def _merit(
    f: Tensor, c: Tensor, s: Tensor, barrier: Tensor, penalty: Tensor, inequality: Tensor
) -> Float[Tensor, " B"]:
    logs = torch.where(inequality, s, 1.0).log().sum(-1)
    return f - barrier * logs + penalty * (c + s).abs().sum(-1)


def _errors(
    model: _Model, m: Tensor, s: Tensor, barrier: Tensor, inequality: Tensor
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """How far the conditions are from holding, and those of the barrier problem."""
    balance = (model.g + _times(model.J.mT, m)).abs().amax(-1)
    size = 1 + m.abs().mean(-1) if m.shape[1] else torch.ones_like(balance)
    violation = (model.c + s).abs().sum(-1)
    off = torch.where(inequality, s * m, 0.0)
    gap = torch.where(inequality, (s * m - barrier[:, None]).abs(), 0.0)
    return (
        torch.stack([balance / size, violation, off.sum(-1)]).amax(0),
        torch.stack([balance / size, violation, gap.sum(-1)]).amax(0),
    )


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)
