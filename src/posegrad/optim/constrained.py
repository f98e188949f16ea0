"""The end of every constrained solve: Newton's method on the conditions of the active constraints, and the verdict."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.optim import batch
from posegrad.optim.conjugate_gradients import FALLEN, ROUNDS
from posegrad.optim.lagrangian import KKT, Lagrangian
from posegrad.optim.loop import iterate
from posegrad.optim.problem import Args, Quadratic, Variable, gradient_and_hessian, value_and_jacobian
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status

# In units in which costs, constraints and steps are about 1: a constraint this close, with a multiplier this small, is
# weakly active; violated by more than this is infeasible.
_WEAK, VIOLATED = 1e-7, 1e-6
# A black box's answer is on a constraint where it is this close.
_CLOSE = 1e-4


class Units(NamedTuple):
    """How large cost, constraints and steps are; all that is numerical is measured in them."""

    cost: Float[Tensor, " B"]
    constraints: Float[Tensor, "B M"]
    steps: Float[Tensor, "B D"]

    @classmethod
    def of(
        cls, problem: Lagrangian, point: Variable, args: Args, steps: Float[Tensor, "B D"] | None = None
    ) -> "Units":
        """At a point, constants; the size of steps may be given."""
        with torch.no_grad():
            steps, zero = problem.problem.size(point) if steps is None else steps, problem.problem.zero(point)
            gradient, W = gradient_and_hessian(
                lambda y: problem.problem.cost(problem.problem.retract(point, steps * y), args).sum(), zero
            )
            J = value_and_jacobian(
                lambda y: problem.constraints(problem.problem.retract(point, steps * y), args), zero
            )[1]
            cost = problem.problem.cost(point, args).abs() + gradient.abs().sum(-1)
            cost = cost + W.diagonal(dim1=-2, dim2=-1).abs().sum(-1)
            return cls(_or_one(cost), _or_one(J.square().sum(-1).sqrt()), steps)

    def fallen(self, before: "Units") -> Bool[Tensor, " B"]:
        """Whether these are so much smaller that what was small in the former ones may be large."""
        constraints = (self.constraints < FALLEN * before.constraints).any(-1)
        return (self.cost < FALLEN * before.cost) | constraints

    @property
    def multipliers(self) -> Float[Tensor, "B M"]:
        """User's multipliers over those in these units."""
        return self.cost[:, None] / self.constraints

    @property
    def system(self) -> Float[Tensor, "B D+M"]:
        """Of a step of point and multipliers."""
        return torch.cat([self.steps, self.multipliers], -1)


def _or_one(value: Tensor) -> Tensor:
    tiny = torch.finfo(value.dtype).tiny ** 0.5
    return torch.where(value.isfinite() & (value > tiny), value, torch.ones_like(value))


@_pytree.register
@dataclass(frozen=True, eq=False)
class ConstrainedSolution(Solution):
    """Answer of a constrained problem; ``variable`` and the multipliers carry gradients.

    The multipliers are those of ``f + <equality, h> + <inequality, g>``, ``active`` says which inequalities hold with
    equality. ``hessian`` is the Lagrangian's in the tangent, not projected on the constraints; ``decrement`` is
    ``sqrt|F^T K^-1 F|`` with F the residual of the KKT conditions and K its derivative.

    >>> import posegrad as pg
    >>> nearest = pg.minimise(
    ...     lambda x, y: 0.5 * (x - y).square().sum(-1), torch.zeros(1, 2), torch.tensor([[3.0, -1.0]]),
    ...     inequality=lambda x, y: x - 1,
    ... )
    >>> nearest.variable, nearest.active, nearest.inequality_multipliers
    (tensor([[ 1., -1.]]), tensor([[ True, False]]), tensor([[2., 0.]]))
    """

    equality_multipliers: Float[Tensor, "B P"]
    inequality_multipliers: Float[Tensor, "B Q"]
    active: Bool[Tensor, "B Q"]


class _State(NamedTuple):
    variable: KKT
    model: Quadratic
    error: Float[Tensor, " B"]
    scale: Float[Tensor, "B D+M"]
    cost: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    done: Bool[Tensor, " B"]


def polish(
    problem: Lagrangian, variable: KKT, args: Args, units: Units, *, max_steps: int, tolerance: float | None
) -> Solution:
    """From close to a solution, with its active set known, to the dtype's limit; and what has become of each item."""
    model = problem.quadratic(variable, args)
    scale = units.system
    state = _State(
        variable,
        model,
        _error(model, scale, units.cost),
        scale,
        units.cost,
        torch.zeros(len(scale), dtype=torch.int64, device=scale.device),
        ~(model.feasible & model.gradient.detach().isfinite().all(-1)),
    )
    eps = torch.finfo(scale.dtype).eps
    limit = 64 * eps if tolerance is None else tolerance

    def step(state: _State, args: Args) -> _State:
        delta = _newton(state.model, state.scale, state.cost)
        trial = problem.retract(state.variable, delta)
        new = problem.quadratic(trial, args)
        error = _error(new, state.scale, state.cost)
        with torch.no_grad():
            # one step more than the limit asks for; as many as bring something
            better = (error < 0.5 * state.error) & new.feasible & ~state.done
            accepted = better | ((error <= limit) & ~state.done)
            steps = state.steps + (~state.done).to(state.steps)
            done = state.done | ~better | (state.error <= limit) | (steps >= max_steps)
        return _State(
            batch.where(accepted, trial, state.variable),
            batch.where(accepted, new, state.model),
            torch.where(accepted, error, state.error),
            state.scale,
            state.cost,
            steps,
            done,
        )

    state = iterate(step, state, args, max_steps=max_steps)
    with torch.no_grad():
        return _judge(problem, state, args, units, 1e3 * limit)


def unrolled(problem: Lagrangian, variable: KKT, args: Args, units: Units, count: int = 2) -> KKT:
    """Newton steps at a solution, with a graph: they stay where they are, and carry the derivatives."""
    for _ in range(count):
        delta = _newton(problem.quadratic(variable, args), units.system, units.cost)
        variable = problem.retract(variable, delta)
    return variable


def from_point(problem: Lagrangian, point: Variable, args: Args, units: Units) -> KKT:
    """A black box's answer with multipliers: those that balance the gradient best, for what is close to active."""
    value = problem.constraints(point, args)
    inequality = problem.is_inequality(point, args)
    active = ~inequality | (value / units.constraints > -_CLOSE)
    m = zero = torch.zeros_like(value)
    for _ in range(2):
        start = KKT(point, zero, active.to(value))
        model = problem.quadratic(start, args)
        count = zero.shape[1]
        split = model.gradient.shape[1] - count
        A = model.hessian[:, split:, :split] * units.steps[:, None] / units.constraints[..., None]
        g = model.gradient[:, :split] * units.steps / units.cost[:, None]
        gram = A @ A.mT + 1e-12 * torch.eye(count, dtype=A.dtype, device=A.device)
        m = -torch.linalg.solve_ex(gram, (A @ g[..., None]).squeeze(-1))[0]
        active = active & (~inequality | (m > 0))
    return KKT(point, torch.where(active, m * units.multipliers, zero), active.to(value))


def polished(problem: Lagrangian, point: Variable, args: Args, *, max_steps: int) -> Solution:
    """A black box's answer made stationary, and what has become of each item.

    Far from the solution units are large, and what is small in them need not be small: where they turn out to have
    fallen on the way, the answer is taken up anew, in those of where it has come to.
    """
    units = Units.of(problem, point, args)
    near = from_point(problem, point, args, units)
    found = polish(problem, near, args, units, max_steps=max_steps, tolerance=None)
    for _ in range(ROUNDS):
        with torch.no_grad():
            new = Units.of(problem, found.variable.point, args, units.steps)
            fallen = new.fallen(units)
            if not bool(fallen.any()):
                break
        near = from_point(problem, found.variable.point, args, new)
        further = polish(problem, near, args, new, max_steps=max_steps, tolerance=None)
        further = replace(further, num_steps=further.num_steps + found.num_steps)
        found, units = batch.where(fallen, further, found), batch.where(fallen, new, units)
    return found


def answer(problem: Lagrangian, found: Solution, point: Variable, args: Args) -> ConstrainedSolution:
    """A solution whose variable is a :class:`KKT`, for the user; the point and args are any, for their shapes."""
    kkt: KKT = found.variable
    count = 0 if problem.equality is None else kkt.multipliers.shape[1]
    if problem.equality is not None and problem.inequality is not None:
        with torch.no_grad():
            count = problem.equality(point, args).shape[1]
    return ConstrainedSolution(
        variable=kkt.point,
        status=found.status,
        cost=found.cost,
        num_steps=found.num_steps,
        decrement=found.decrement,
        hessian=found.hessian,
        equality_multipliers=kkt.multipliers[:, :count],
        inequality_multipliers=kkt.multipliers[:, count:],
        active=kkt.active[:, count:].detach() > 0,
    )


def _error(model: Quadratic, scale: Tensor, cost: Tensor) -> Float[Tensor, " B"]:
    return (model.gradient.detach() * scale / cost[:, None]).abs().amax(-1)


def _newton(model: Quadratic, scale: Tensor, cost: Tensor) -> Tensor:
    K = scale[..., :, None] * model.hessian * scale[..., None, :] / cost[:, None, None]
    F = scale * model.gradient / cost[:, None]
    return -scale * (torch.linalg.inv_ex(K)[0] @ F[..., None]).squeeze(-1)


def _judge(problem: Lagrangian, state: _State, args: Args, units: Units, limit: float) -> Solution:
    """Stationary, feasible, a minimum along the constraints, and with multipliers that are determined?"""
    model, (point, multipliers, active) = state.model, state.variable
    scale, count = state.scale, multipliers.shape[1]
    split = scale.shape[1] - count
    finite = model.feasible & model.hessian.isfinite().flatten(1).all(-1)
    eye = torch.eye(scale.shape[1], dtype=scale.dtype, device=scale.device)
    K = scale[..., :, None] * model.hessian * scale[..., None, :] / state.cost[:, None, None]
    # what is not active keeps its unit diagonal
    free = torch.cat([torch.zeros_like(scale[:, :split]), 1 - active], -1)
    K = torch.where(torch.diag_embed(free) > 0, 1.0, K)
    values = torch.linalg.eigvalsh(torch.where(finite[:, None, None], K, eye))
    eps = torch.finfo(scale.dtype).eps
    level = values.abs().amax(-1, keepdim=True)
    # on the constraints the cost curves upwards exactly where as many eigenvalues are negative as constraints active
    negative = (values < 0).sum(-1)
    flat = (values.abs() < 64 * eps * level).any(-1)
    A = torch.where(finite[:, None, None], K[:, split:, :split], 0.0)
    A = A / _or_one(A.square().sum(-1).sqrt())[..., None]
    gram = A @ A.mT + torch.diag_embed(1 - active)
    dependent = finite & (torch.linalg.eigvalsh(gram)[..., :1] < 64 * eps).any(-1)
    c = problem.constraints(point, args) / units.constraints
    m = multipliers / units.multipliers
    inequality = problem.is_inequality(point, args)
    violation = torch.where(inequality, c, c.abs())
    weak = (inequality & (c.abs() < _WEAK) & (m.abs() < _WEAK)).any(-1)
    wrong = (inequality & ((m < -_WEAK) | (c > _WEAK))).any(-1)
    stationary = state.error <= limit
    status = torch.full_like(state.steps, int(Status.MAX_STEPS))
    for where, value in (
        (stationary & ~wrong, Status.CONVERGED),
        (stationary & (negative > active.sum(-1)), Status.SADDLE),
        (stationary & flat, Status.DEGENERATE),
        (weak, Status.WEAKLY_ACTIVE),
        (dependent, Status.DEPENDENT_CONSTRAINTS),
        (violation.amax(-1) > VIOLATED if count else ~finite, Status.NO_FEASIBLE_POINT),
        (~finite, Status.INFEASIBLE),
    ):
        status = torch.where(where, int(value), status)
    ok, step = status == int(Status.CONVERGED), _newton(model, scale, state.cost)
    decrement = (model.gradient * step).sum(-1).abs().sqrt()
    hessian = model.hessian[:, :split, :split]
    return Solution(
        variable=state.variable,
        status=status,
        cost=torch.where(finite, model.cost, 0.0),
        num_steps=state.steps,
        decrement=torch.where(ok, decrement, 0.0),
        hessian=torch.where(ok[:, None, None], hessian, 0.0),
    )
