"""A problem, a start and a solver, as a layer: units, verdicts, gradients, and the way back to the user's dtype."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from posegrad import _pytree
from posegrad.generic.door import Batch, finite_items
from posegrad.generic.problems import Fit
from posegrad.optim import batch
from posegrad.optim.adjoint import Adjoint, Implicit, Unrolled, harmless, unmoved
from posegrad.optim.conjugate_gradients import ConjugateGradients, MatrixFree
from posegrad.optim.minimiser import minimiser
from posegrad.optim.problem import Args, Problem
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.optim.units import Solver, minimise_in_units


class Hints(NamedTuple):
    """What a solve reads beside the arguments."""

    start: Any
    verdict: Int[Tensor, " B"]

    def for_all(self, args: Args) -> "Hints":
        """Of as many items as there are: under vmap arguments, or a part of the hints, have more than the call had."""
        size = max(len(leaf) for leaf in _pytree.flatten((args, self))[0])
        return _pytree.tree_map(
            lambda leaf: leaf.expand(size, *leaf.shape[1:]) if len(leaf) == 1 else leaf, self
        )


def check_adjoint(adjoint: Any) -> None:
    """Raise for what is no adjoint."""
    if not isinstance(adjoint, Implicit | Unrolled):
        raise TypeError(f"adjoint: got {type(adjoint).__name__}, expected pg.Implicit(...) or pg.Unrolled()")


def solve(problem: Problem, item: Batch, args: Args, solver: Solver, adjoint: Adjoint) -> Solution:
    """The minima, with gradients for ``args``, in the user's dtype."""
    hints = Hints(item.start, item.verdict)
    matrix_free = isinstance(solver, ConjugateGradients)
    if matrix_free:
        if isinstance(adjoint, Unrolled) or adjoint.max_gain is not None:
            raise ValueError(
                f"adjoint: got {adjoint!r} with pg.ConjugateGradients(), expected pg.Implicit() without max_gain"
            )
        problem = MatrixFree(problem, solver, squares=isinstance(problem, Fit))
    if isinstance(adjoint, Unrolled):
        solution = _unrolled(problem, solver, args, hints)
    else:
        # every other solver ends with the exact Hessian
        solution = minimiser(
            lambda a, h: _solve(problem, solver, a, h),
            problem,
            adjoint,
            args,
            hints,
            keep_hessian=not matrix_free,
        )
    return hand_back(solution, item.dtype)


def hand_back(solution: Solution, dtype: torch.dtype) -> Solution:
    """In the user's dtype; a number that it cannot hold becomes its largest."""
    return replace(
        solution,
        variable=_pytree.tree_map(lambda leaf: leaf.to(dtype), solution.variable),
        cost=solution.cost.to(dtype).nan_to_num(),
        decrement=solution.decrement.to(dtype).nan_to_num(),
        hessian=solution.hessian.to(dtype).nan_to_num(),
    )


def _solve(problem: Problem, solver: Solver, args: Args, hints: Hints) -> Solution:
    hints = hints.for_all(args)
    return judged(minimise_in_units(problem, hints.start, args, solver), args, hints)


def judged(solution: Solution, args: Args, hints: Hints) -> Solution:
    """With what the door found, and the reason why an item could not even start."""
    status = solution.status
    no_start = status == int(Status.INFEASIBLE)
    status = torch.where(no_start & ~finite_items(args, status.shape[0]), int(Status.NOT_FINITE), status)
    status = torch.where(hints.verdict == int(Status.CONVERGED), status, hints.verdict)
    return replace(solution, status=status)


def _unrolled(problem: Problem, solver: Solver, args: Args, hints: Hints) -> Solution:
    """Found without a graph first, then again, by the items that are fine, with one."""
    with torch.no_grad():
        constants = _pytree.tree_map(Tensor.detach, args)
        solution = _solve(problem, solver, constants, hints)
        ok = solution.ok
        donor = ok.to(torch.uint8).argmax(0, keepdim=True) if len(ok) else ok
        fine = len(ok) > 0 and bool(ok.any())
    if not fine:
        return replace(solution, variable=unmoved(solution.variable, args))
    # what failed may be infinite: it must not enter the graph, where zero times infinity is NaN
    args, start = (
        _pytree.tree_map(lambda leaf: harmless(leaf, ok, donor), tree) for tree in (args, hints.start)
    )
    again = minimise_in_units(problem, start, args, solver)
    return replace(solution, variable=batch.where(ok, again.variable, solution.variable))
