"""Large systems: Newton's method whose systems are solved by conjugate gradients, from products with vectors alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.optim import batch
from posegrad.optim.loop import iterate
from posegrad.optim.problem import Args, Problem, Quadratic, Variable
from posegrad.optim.settings import check_count, check_positive
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status

# A cost that has fallen by more than this is measured again, and minimised on; so many times.
FALLEN, ROUNDS = 1e-4, 5

Product = Callable[[Float[Tensor, "B D"]], Float[Tensor, "B D"]]


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients:
    """Settings of the solver for variables of many dimensions: nothing of size D x D is ever made.

    Levenberg-Marquardt steps ``(J^T J + damping s I) delta = -g``, then Newton steps with the exact Hessian, each
    solved by conjugate gradients from Jacobian-vector products; the implicit gradient's system likewise. A minimum is
    told from a saddle point only along the directions that the iterations take. The solution's ``hessian`` is empty,
    (B, 0, 0); its gradient can be taken in reverse mode, once. It is as exact as the iterations allow: ill-conditioned
    systems take many times their dimension. It is zero where they meet a direction that the data leave open; a loss
    that does not change along such directions never leads there.

    Args:
        max_steps: most steps of an item from one start, >= 1.
        max_iterations: most iterations for one system, >= 1; they end before where the residual is rounding.
        tolerance: on the decrement, relative to the size of the cost's root at the start, > 0. None: 4096 machine
            epsilons.

    Reference: Nocedal & Wright, "Numerical Optimization" (2006), section 7.1; Steihaug, SIAM J. Numer. Anal. 20 (1983).

    >>> import posegrad as pg
    >>> def smooth(x, y):                                # a matrix would have 10^8 numbers
    ...     return torch.cat([x - y, 3 * (x[:, 1:] - x[:, :-1])], -1)
    >>> y = torch.ones(1, 10_000, dtype=torch.float64)
    >>> solution = pg.least_squares(smooth, torch.zeros_like(y), y, solver=pg.ConjugateGradients())
    >>> solution.ok, torch.allclose(solution.variable, y)
    (tensor([True]), True)
    """

    max_steps: int = 100
    max_iterations: int = 1000
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check_count("ConjugateGradients.max_steps", self.max_steps)
        check_count("ConjugateGradients.max_iterations", self.max_iterations)
        check_positive("ConjugateGradients.tolerance", self.tolerance, optional=True)

    def minimise(self, problem: Problem, init: Variable, args: Args) -> Solution:
        """Every item from its start."""
        with torch.no_grad():
            size = problem.size(init)
            state = self._descend(problem, _start(problem, init, args, size), args)
            for left in reversed(range(ROUNDS)):
                # what has become small is measured, and minimised, again: a tolerance in the old unit is not much
                again = _start(problem, state.variable, args, size)
                fallen = (again.unit < FALLEN * state.unit) & ~again.done
                if not bool(fallen.any()):
                    break
                if not left:  # it goes on falling
                    worst = torch.where(fallen, again.decrement, state.decrement)
                    state = state._replace(decrement=worst)
                    break
                further = self._descend(problem, again._replace(done=~fallen), args)
                further = further._replace(steps=further.steps + state.steps)
                state = batch.where(fallen, further, state)
            return self._judge(state)

    def _descend(self, problem: Problem, state: "_State", args: Args) -> "_State":
        start = state.done
        for exact in (False, True):
            if not exact and not _squares(problem):
                continue
            damping = 0 * state.damping if exact else state.damping
            state = state._replace(done=start, damping=damping)
            state = iterate(
                lambda s, a, exact=exact: self._step(problem, s, a, exact=exact),
                state,
                args,
                max_steps=self.max_steps,
            )
        return state

    def _step(self, problem: Problem, state: "_State", args: Args, *, exact: bool) -> "_State":
        old = state.cost
        gradient, apply = linearised(problem, state.variable, args, exact=exact)
        square = gradient.square().sum(-1)
        tiny = torch.finfo(old.dtype).tiny
        curvature = (gradient * apply(gradient)).sum(-1).abs() / square.clamp(min=tiny)
        shift = (state.damping * curvature)[:, None]
        delta, convex = solve_by_cg(
            lambda u: apply(u) + shift * u,
            -gradient,
            self.max_iterations,
            1e-13 if exact else 1e-3,
            unit=state.unit,
        )
        trial = problem.retract(state.variable, delta)
        new = problem.cost(trial, args)
        eps = torch.finfo(old.dtype).eps
        size = old.abs() + state.unit
        along = (-(gradient * delta).sum(-1)).clamp(min=0)
        accepted = problem.feasible(trial, args) & (new <= old + 64 * eps * size) & ~state.done
        decrement = along.sqrt()
        small = decrement <= self._limit(state)
        if exact:
            finished = small & convex & (state.damping == 0)
            damping = torch.where(accepted, state.damping / 10, (10 * state.damping).clamp(min=1e-4))
            damping = torch.where(damping < 1e-5, 0.0, damping)
        else:
            finished = (accepted & (old - new < 1e-2 * old)) | (decrement <= 1e-6 * size.sqrt())
            damping = torch.where(accepted, state.damping / 10, 10 * state.damping).clamp(min=1e-8)
        steps = state.steps + (~state.done).to(state.steps)
        done = state.done | finished | (damping > 1e10) | (steps >= self.max_steps)
        return _State(
            batch.where(accepted, trial, state.variable),
            torch.where(accepted, new, old),
            torch.where(done & ~state.done, decrement, state.decrement),
            torch.where(done & ~state.done, convex & exact, state.convex),
            torch.where(done, state.damping, damping),
            state.unit,
            steps,
            done,
            state.failed,
        )

    def _limit(self, state: "_State") -> Tensor:
        relative = 4096 * torch.finfo(state.cost.dtype).eps if self.tolerance is None else self.tolerance
        return relative * (state.unit + state.cost.abs()).sqrt()

    def _judge(self, state: "_State") -> Solution:
        stationary = state.decrement <= self._limit(state)
        status = torch.where(stationary, int(Status.SADDLE), int(Status.MAX_STEPS))
        status = torch.where(stationary & state.convex, int(Status.CONVERGED), status)
        status = torch.where(state.failed, int(Status.INFEASIBLE), status)
        cost = torch.where(state.failed, 0.0, state.cost)
        return Solution(
            state.variable, status, cost, state.steps, state.decrement, cost.new_zeros(len(cost), 0, 0)
        )


class MatrixFree(Problem):
    """A problem whose implicit gradient takes no matrix either: ``H u = v`` by conjugate gradients.

    Args:
        problem: any.
        settings: of the iterations.
        squares: whether it has residuals, for Gauss-Newton steps.
    """

    def __init__(self, problem: Problem, settings: ConjugateGradients, *, squares: bool) -> None:
        self.problem, self.settings, self.squares = problem, settings, squares

    def residual(self, variable: Variable, args: Args) -> Float[Tensor, "B M"]:
        """The original's, as is everything else."""
        return self.problem.residual(variable, args)

    def zero(self, variable: Variable) -> Float[Tensor, "B D"]:
        return self.problem.zero(variable)

    def size(self, variable: Variable) -> Float[Tensor, "B D"]:
        return self.problem.size(variable)

    def retract(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        return self.problem.retract(variable, delta)

    def cost(self, variable: Variable, args: Args) -> Float[Tensor, " B"]:
        return self.problem.cost(variable, args)

    def feasible(self, variable: Variable, args: Args) -> Bool[Tensor, " B"]:
        return self.problem.feasible(variable, args)

    def quadratic(self, variable: Variable, args: Args, *, exact: bool) -> Quadratic:
        raise NotImplementedError("a matrix-free problem has no Hessian matrix")

    def solve_hessian(
        self,
        variable: Variable,
        args: Args,
        rhs: Float[Tensor, "B D"],
        ok: Bool[Tensor, " B"],
        *,
        exact: bool,
    ) -> Float[Tensor, "B D"]:
        with torch.no_grad():
            _, apply = linearised(self.problem, variable, args, exact=exact)
            flat = 8 * torch.finfo(rhs.dtype).eps
            rhs_of_ok = torch.where(ok[:, None], rhs, 0.0)
            u, regular = solve_by_cg(apply, rhs_of_ok, self.settings.max_iterations, 1e-14, flat=flat)
            # along a direction that the data leave open the response is rounding, divided by rounding
            u = torch.where(regular[:, None], u, 0.0)
        return _Once.apply(u, rhs, *_pytree.flatten((variable, args))[0])


class _Once(torch.autograd.Function):
    """A constant that says so when it is differentiated."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise NotImplementedError(
            "solver: pg.ConjugateGradients() gives first derivatives; for second ones use a solver with matrices"
        )


def linearised(problem: Problem, variable: Variable, args: Args, *, exact: bool) -> tuple[Tensor, Product]:
    """The gradient in the tangent, and the product of the Hessian (or Gauss-Newton's matrix) with a vector."""
    zero = problem.zero(variable)

    def total(delta: Tensor) -> Tensor:
        return problem.cost(problem.retract(variable, delta), args).sum()

    if exact:
        gradient, pull, *_ = torch.func.vjp(torch.func.grad(total), zero)
        return gradient, lambda u: pull(u)[0]
    gradient = torch.func.grad(total)(zero)
    value, pull, *_ = torch.func.vjp(lambda d: problem.residual(problem.retract(variable, d), args), zero)
    push = torch.func.vjp(lambda cotangent: pull(cotangent)[0], torch.zeros_like(value))[1]
    return gradient, lambda u: pull(push(u)[0])[0]


def solve_by_cg(
    apply: Product,
    rhs: Float[Tensor, "B D"],
    max_iterations: int,
    tolerance: float,
    *,
    flat: float = 0.0,
    unit: Float[Tensor, " B"] | float = 0.0,
) -> tuple[Float[Tensor, "B D"], Bool[Tensor, " B"]]:
    """Conjugate gradients for a batch of positive definite systems, to a relative residual, or one that is rounding.

    Past that the iterations would leave along directions that the system leaves open, a gauge say: what rounding puts
    into the residual there no step takes away. It comes of the products, and of the right-hand side if this is the
    gradient of a cost of size ``unit``.

    An item that meets a direction of negative curvature, or of less than ``flat`` times the largest, ends before it,
    with what it has (or the right-hand side itself); the second answer says which have met none.
    """
    u, residual, direction = torch.zeros_like(rhs), rhs, rhs
    square = residual.square().sum(-1)
    goal, convex = tolerance**2 * square, torch.ones_like(square, dtype=torch.bool)
    tiny = torch.finfo(rhs.dtype).tiny
    eps = torch.finfo(rhs.dtype).eps
    live, largest = square > goal.clamp(min=tiny), torch.zeros_like(square)
    for number in range(max_iterations):
        if number % 8 == 0 and not bool(live.any()):
            break
        product = apply(direction)
        curvature = (direction * product).sum(-1)
        length = direction.square().sum(-1)
        largest = torch.maximum(largest, curvature / length.clamp(min=tiny))
        bent = live & ~(curvature > flat * largest * length)
        convex = convex & ~bent
        if number == 0:
            u = torch.where(bent[:, None], rhs, u)
        live = live & ~bent
        part = torch.where(live, square / torch.where(live, curvature, 1.0), 0.0)[:, None]
        u, residual = u + part * direction, residual - part * product
        new = residual.square().sum(-1)
        ratio = torch.where(live, new / square.clamp(min=tiny), 0.0)[:, None]
        direction = torch.where(live[:, None], residual + ratio * direction, direction)
        square = torch.where(live, new, square)
        lost = eps**2 * largest * (64 * largest * u.square().sum(-1) + unit)
        live = live & (square > torch.maximum(goal, lost).clamp(min=tiny))
    return u, convex


def _squares(problem: Problem) -> bool:
    return isinstance(problem, MatrixFree) and problem.squares


class _State(NamedTuple):
    variable: Variable
    cost: Float[Tensor, " B"]
    decrement: Float[Tensor, " B"]
    convex: Bool[Tensor, " B"]
    damping: Float[Tensor, " B"]
    unit: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    done: Bool[Tensor, " B"]
    failed: Bool[Tensor, " B"]


def _start(problem: Problem, init: Variable, args: Args, size: Tensor) -> _State:
    cost = problem.cost(init, args)
    failed = ~(problem.feasible(init, args) & cost.isfinite())
    # how large the cost is: its value, and what its curvature makes of a step as long as the variable, signs in turn
    probe = size * (1 - 2 * (torch.arange(size.shape[1], device=size.device) % 2)).to(size)
    apply = linearised(problem, init, args, exact=not _squares(problem))[1]
    unit = cost.abs() + (probe * apply(probe)).sum(-1).abs()
    unit = torch.where(unit.isfinite() & (unit > torch.finfo(unit.dtype).tiny ** 0.5), unit, 1.0)
    steps = torch.zeros_like(failed, dtype=torch.int64)
    worst = torch.full_like(cost, torch.finfo(cost.dtype).max ** 0.5)
    return _State(init, cost, worst, failed & False, torch.full_like(cost, 1e-3), unit, steps, failed, failed)
