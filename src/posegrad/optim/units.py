"""Solving in units in which the cost is about 1, so that tolerances do not depend on the user's."""

from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.optim.compose import Scaled
from posegrad.optim.conjugate_gradients import MatrixFree
from posegrad.optim.problem import Args, Problem, Quadratic, Variable
from posegrad.optim.solution import Solution


class Solver(Protocol):
    """Settings of a solver, which know how to use it."""

    def minimise(self, problem: Problem, init: Variable, args: Args) -> Solution:
        """Every item from its start."""
        ...


def unit_of(problem: Problem, variable: Variable, model: Quadratic) -> Float[Tensor, " B"]:
    """How large the cost is: its value, and what its curvature makes of steps as long as the variable.

    The second part is for points that fit exactly, where the value is rounding.
    """
    with torch.no_grad():
        curvature = model.hessian.diagonal(dim1=-2, dim2=-1).abs()
        unit = model.cost.abs() + (curvature * problem.size(variable).square()).sum(-1)
        tiny = torch.finfo(unit.dtype).tiny ** 0.5
        return torch.where(unit.isfinite() & (unit > tiny), unit, torch.ones_like(unit))


def minimise_in_units(problem: Problem, start: Variable, args: Args, solver: Solver) -> Solution:
    """What the solver makes of the problem measured in :func:`unit_of` the start; the answer in the user's units."""
    if isinstance(problem, MatrixFree):  # it has units of its own, made without a matrix
        return solver.minimise(problem, start, args)
    model = problem.quadratic(start, args, exact=False)
    unit = unit_of(problem, start, model)
    found = solver.minimise(Scaled(problem, known=(start, model)), start, (args, 1 / unit))
    return replace(
        found,
        cost=found.cost * unit,
        decrement=found.decrement * unit.sqrt(),
        hessian=found.hessian * unit.view(-1, *(1,) * (found.hessian.ndim - 1)),
    )
