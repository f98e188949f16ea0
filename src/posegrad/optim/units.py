"""Solving in units in which the cost is about 1, so that tolerances do not depend on the user's."""

from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.compose import Scaled
from posegrad.optim.conjugate_gradients import FALLEN, ROUNDS, MatrixFree
from posegrad.optim.problem import Args, Problem, Variable
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status


class Solver(Protocol):
    """Settings of a solver, which know how to use it."""

    @property
    def max_steps(self) -> int:
        """Of an item, from one start."""
        ...

    def minimise(self, problem: Problem, init: Variable, args: Args) -> Solution:
        """Every item from its start."""
        ...


def unit_of(
    cost: Float[Tensor, " B"], hessian: Float[Tensor, "B D D"], size: Float[Tensor, "B D"]
) -> Float[Tensor, " B"]:
    """How large a cost is: its value, and what its curvature makes of steps as long as the variable.

    The second part is for points that fit exactly, where the value is rounding.
    """
    with torch.no_grad():
        unit = cost.abs() + (hessian.diagonal(dim1=-2, dim2=-1).abs() * size.square()).sum(-1)
        tiny = torch.finfo(unit.dtype).tiny ** 0.5
        return torch.where(unit.isfinite() & (unit > tiny), unit, torch.ones_like(unit))


def minimise_in_units(problem: Problem, start: Variable, args: Args, solver: Solver) -> Solution:
    """What the solver makes of the problem measured in :func:`unit_of` the start; the answer in the user's units.

    From far away that unit is large, and a tolerance in it loose: where the cost at the answer turns out to be small
    beside it, the answer is a new start. What goes on falling has no minimum.
    """
    if isinstance(problem, MatrixFree):  # it has units of its own, made without a matrix
        return solver.minimise(problem, start, args)
    with torch.no_grad():
        size = problem.size(start)
    return _minimise(problem, start, args, solver, size, ROUNDS)


def _minimise(
    problem: Problem, start: Variable, args: Args, solver: Solver, size: Tensor, rounds: int
) -> Solution:
    model = problem.quadratic(start, args, exact=False)
    unit = unit_of(model.cost, model.hessian, size)
    found = solver.minimise(Scaled(problem, known=(start, model)), start, (args, 1 / unit))
    found = replace(
        found,
        cost=found.cost * unit,
        decrement=found.decrement * unit.sqrt(),
        hessian=found.hessian * unit.view(-1, *(1,) * (found.hessian.ndim - 1)),
    )
    with torch.no_grad():
        status = found.status
        ended = (status == int(Status.CONVERGED)) | (status == int(Status.SADDLE))
        ended = ended | ((status == int(Status.MAX_STEPS)) & (found.num_steps < solver.max_steps))
        fallen = ended & (unit_of(found.cost, found.hessian, size) < FALLEN * unit)
        if not bool(fallen.any()):
            return found
        if rounds == 1:
            return replace(found, status=status.masked_fill(fallen, int(Status.MAX_STEPS)))
        members = batch.indices(fallen)
    part = batch.take(found, members)
    size, args = batch.take((size, args), members)
    further = _minimise(problem, part.variable, args, solver, size, rounds - 1)
    further = replace(further, num_steps=further.num_steps + part.num_steps)
    return batch.put(found, members, further)
