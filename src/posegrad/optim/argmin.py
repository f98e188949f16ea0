"""A gradient for the answer of any solver."""

from collections.abc import Callable
from dataclasses import replace

import torch

from posegrad import _pytree
from posegrad.optim.adjoint import Implicit, attach_gradient
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, descend, finish
from posegrad.optim.problem import Args, Problem, Variable
from posegrad.optim.solution import Solution


def argmin_layer(
    solve: Callable[[Args], Variable],
    problem: Problem,
    *,
    adjoint: Implicit = Implicit(),  # noqa: B008 (frozen)
    polish: LevenbergMarquardt = LevenbergMarquardt(max_steps=20),  # noqa: B008 (frozen)
) -> Callable[[Args], Solution]:
    """Make a differentiable layer of a black-box solver of ``argmin_x f(x; args)``.

    The solver's answer is polished to stationarity by ``problem`` (implicit differentiation is right only
    there), then gets the implicit gradient. An item whose answer cannot be polished has ``ok`` False and a zero
    gradient.

    Args:
        solve: maps ``args`` (a pytree of tensors, detached) to the minimiser: a tensor or pytree with the batch
            as leading dimension. May leave torch (OpenCV, SciPy, ...).
        problem: the residual, retraction and dimension of what ``solve`` minimises.
        adjoint: the implicit gradient's settings.
        polish: settings of the polishing steps.

    Returns:
        A function from ``args`` to a :class:`Solution`.

    Reference: Gould et al., arXiv:1607.05447 (2016).
    """

    def layer(args: Args) -> Solution:
        constant = _pytree.tree_map(torch.Tensor.detach, args)
        with torch.no_grad():
            start = solve(constant)
            state = descend(problem, start, constant, polish, max_steps=polish.max_steps)
            solution = finish(problem, state, constant, polish)
        variable = attach_gradient(problem, adjoint, solution.variable, args, solution.ok)
        return replace(solution, variable=variable)

    return layer
