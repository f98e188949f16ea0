"""A gradient for the answer of any solver."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import torch

from posegrad import _pytree
from posegrad.optim import batch
from posegrad.optim.adjoint import Implicit
from posegrad.optim.compiling import uncompiled
from posegrad.optim.constrained import answer, polished
from posegrad.optim.lagrangian import Lagrangian
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.minimiser import minimiser
from posegrad.optim.problem import Args, Problem, Variable
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.optim.units import minimise_in_units


def argmin_layer(
    solve: Callable[[Args], Variable],
    problem: Problem,
    *,
    adjoint: Implicit = Implicit(),  # noqa: B008 (frozen)
    polish: LevenbergMarquardt = LevenbergMarquardt(max_steps=20),  # noqa: B008 (frozen)
) -> Callable[[Args], Solution]:
    """Make a differentiable layer of a black-box solver of ``argmin_x f(x; args)``.

    The solver's answer is polished to stationarity by ``problem`` (implicit differentiation is right only
    there), then gets the implicit gradient. An item whose answer cannot be polished, or is not close to the problem's
    manifold (a matrix that is no rotation), has ``ok`` False and a zero gradient.

    Args:
        solve: maps ``args`` (a pytree of tensors, detached) to the minimiser: a tensor or pytree with the batch
            as leading dimension. May leave torch (OpenCV, SciPy, ...). Reads nothing that is differentiated or
            mapped but from ``args``; under ``torch.func.vmap`` it gets all mapped items as one larger batch.
        problem: what ``solve`` minimises: made of functions by :func:`posegrad.residual_problem` or, constraints
            included, by :func:`posegrad.objective_problem`; :class:`posegrad.ReprojectionProblem`; or your own.
        adjoint: the implicit gradient's settings.
        polish: settings of the polishing steps.

    Returns:
        A function from ``args`` to a :class:`Solution`; under constraints to a :class:`ConstrainedSolution`.

    Reference: Gould et al., arXiv:1607.05447 (2016).

    >>> class Mean(Problem):  # argmin_m 1/2 |m - x|^2
    ...     dimension = 1
    ...     def residual(self, variable, args):
    ...         return variable - args
    >>> layer = argmin_layer(lambda x: x.mean(-1, keepdim=True), Mean())
    >>> x = torch.tensor([[1.0, 2.0, 4.0, 5.0]], requires_grad=True)
    >>> layer(x).variable.sum().backward()
    >>> x.grad
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    if not callable(solve):
        raise TypeError(f"solve: got {type(solve).__name__}, expected a function of args")
    if not isinstance(polish, LevenbergMarquardt):
        raise TypeError(f"polish: got {polish!r}, expected pg.LevenbergMarquardt(...)")
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: got {problem!r}, expected an instance of a pg.Problem")
    if not isinstance(adjoint, Implicit):
        raise TypeError(
            f"adjoint: got {adjoint!r}, expected pg.Implicit(...): a black box cannot be unrolled"
        )

    def solved(args: Args, _: None) -> Solution:
        start, finite = _checked(solve(args), args)
        start, fits = problem.admit(start)
        if isinstance(problem, Lagrangian):
            solution = polished(problem, start, args, max_steps=polish.max_steps)
        else:
            solution = minimise_in_units(problem, start, args, polish)
        status = torch.where(fits, solution.status, int(Status.BAD_INIT))
        return replace(solution, status=torch.where(finite, status, int(Status.NOT_FINITE)))

    @uncompiled
    def layer(args: Args) -> Solution:
        leaves = _pytree.tree_flatten(args)[0]
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise TypeError(f"args: got a {type(leaf).__name__} in it, expected a pytree of tensors")
            if leaf.ndim == 0:
                raise ValueError(
                    "args: got a tensor without dimensions in it, expected the batch (or 1) in front"
                )
        if not leaves:
            raise ValueError(f"args: got {args!r}, expected a pytree with at least one tensor")
        found = minimiser(solved, problem, adjoint, args)
        return (
            answer(problem, found, found.variable.point, args) if isinstance(problem, Lagrangian) else found
        )

    return layer


def _checked(answer: Variable, args: Args) -> tuple[Variable, torch.Tensor]:
    """The solver's answer with zeros for items that are not finite, and which are.

    In one dtype, no narrower than the arguments or float32.
    """
    finite: torch.Tensor | None = None
    given = _pytree.flatten(args)[0]
    size = next((len(leaf) for leaf in given if len(leaf) != 1), None)
    for leaf in _pytree.tree_flatten(answer)[0]:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point() or leaf.ndim == 0:
            got = f"dtype {leaf.dtype}" if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            raise TypeError(f"solve: returned {got}, expected floating-point tensors with the batch in front")
        if size is None:  # all share the arguments
            size = len(leaf)
        if len(leaf) != size:
            raise ValueError(
                f"solve: returned shape {tuple(leaf.shape)} for a batch of {size}, expected ({size}, ...)"
            )
        good = leaf.isfinite().flatten(1).all(-1) if leaf.ndim > 1 else leaf.isfinite()
        finite = good if finite is None else finite & good
    if finite is None:
        raise TypeError(f"solve: returned {type(answer).__name__} without a tensor, expected the minimiser")
    dtypes = [leaf.dtype for leaf in (*given, *_pytree.flatten(answer)[0]) if leaf.is_floating_point()]
    dtype = reduce(torch.promote_types, dtypes, torch.float32)
    answer = _pytree.tree_map(lambda leaf: leaf.to(dtype), answer)
    return batch.where(finite, answer, _pytree.tree_map(torch.zeros_like, answer)), finite
