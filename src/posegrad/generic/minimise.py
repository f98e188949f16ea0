"""Minimisation of any objective on a manifold, with constraints or without, as a differentiable function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import _pytree
from posegrad.generic.door import admit, check_function
from posegrad.generic.layer import Hints, check_adjoint, hand_back, judged, solve
from posegrad.generic.problems import Objective, checked
from posegrad.manifolds import Manifold
from posegrad.optim import batch
from posegrad.optim.adjoint import Adjoint, Implicit, Unrolled, harmless, unmoved
from posegrad.optim.compiling import uncompiled
from posegrad.optim.conjugate_gradients import ConjugateGradients
from posegrad.optim.constrained import Units, answer, unrolled
from posegrad.optim.interior_point import InteriorPoint
from posegrad.optim.lagrangian import Lagrangian
from posegrad.optim.lbfgs import LBFGS
from posegrad.optim.minimiser import minimiser
from posegrad.optim.newton import Newton
from posegrad.optim.problem import Args
from posegrad.optim.solution import Solution


@uncompiled
def minimise(
    objective: Callable[[Any, Any], Float[Tensor, " B"]],
    init: Any,
    args: Any = None,
    *,
    manifold: Manifold | Any = None,
    equality: Callable[[Any, Any], Float[Tensor, "B P"]] | None = None,
    inequality: Callable[[Any, Any], Float[Tensor, "B Q"]] | None = None,
    solver: Newton | LBFGS | ConjugateGradients | InteriorPoint | None = None,
    adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
) -> Solution:
    """Minimise a batch of objectives from a start, under constraints or not, with exact gradients for ``args``.

    ``argmin_x f(x; args)`` subject to ``h(x; args) = 0, g(x; args) <= 0``, x on a manifold

    A local minimum; with constraints one that satisfies the second-order sufficient conditions, with multipliers that
    are unique and, for active inequalities, positive: only there is the answer differentiable, and elsewhere the
    status says so. Gradients are those of the KKT conditions of the active constraints. All tensors have the batch in
    front; items are independent.

    Args:
        objective: ``objective(variable, args)`` -> (B,), twice differentiable. The rules for a residual in
            :func:`least_squares` hold for it, and for the constraints.
        init: start, as in :func:`least_squares`; it need not satisfy the constraints.
        args: what objective and constraints depend on: any pytree of tensors (B, ...), or (1, ...) where shared.
        manifold: where the variable lives, as in :func:`least_squares`. A manifold is better than a constraint that
            says the same.
        equality: h, ``equality(variable, args)`` -> (B, P), zero at the answer.
        inequality: g, ``inequality(variable, args)`` -> (B, Q), at most zero at the answer.
        solver: without constraints ``Newton()``, the default, ``LBFGS()``, or ``ConjugateGradients()``, which makes no
            matrix; with them ``InteriorPoint()``.
        adjoint: ``Implicit()`` or ``Unrolled()``. With constraints the latter unrolls two Newton steps on the
            conditions of the active set at the answer, which stay there and carry first and second derivatives; the
            interior-point steps before them are constants, as the active set is.

    Returns:
        A :class:`Solution` in the dtype of the init; with constraints a :class:`posegrad.ConstrainedSolution`.

    Raises:
        TypeError, ValueError: for a wrong call, naming the argument. Bad values of an item never raise.

    Reference: Gould et al., arXiv:1607.05447 (2016); Gould, Hartley & Campbell, "Deep Declarative Networks", TPAMI
    2021; Amos & Kolter, "OptNet", ICML 2017.

    >>> import posegrad as pg
    >>> def distance(x, y):                                  # projection onto the unit simplex
    ...     return 0.5 * (x - y).square().sum(-1)
    >>> y = torch.tensor([[0.9, 0.5, -1.0]], requires_grad=True)
    >>> solution = pg.minimise(
    ...     distance, torch.full((1, 3), 1 / 3), y,
    ...     equality=lambda x, y: x.sum(-1, keepdim=True) - 1, inequality=lambda x, y: -x,
    ... )
    >>> solution.variable.detach()
    tensor([[0.7000, 0.3000, 0.0000]])
    >>> torch.autograd.grad(solution.variable[0, 0], y)[0].round(decimals=6) + 0.0
    tensor([[ 0.5000, -0.5000,  0.0000]])
    """
    constrained = equality is not None or inequality is not None
    for name, function in (("objective", objective), ("equality", equality), ("inequality", inequality)):
        if function is not None or name == "objective":
            check_function(name, function)  # pyright: ignore[reportArgumentType]
    used = _usable(solver, adjoint, constrained=constrained)
    item = admit(init, args, manifold, None)
    problem = Objective(objective, item.manifold)
    if not isinstance(used, InteriorPoint):
        return solve(problem, item, item.data, used, adjoint)
    whole = Lagrangian(problem, checked(equality, "equality"), checked(inequality, "inequality"))
    hints = Hints(item.start, item.verdict)
    if isinstance(adjoint, Unrolled):
        found = _unrolled(whole, used, item.data, hints)
    else:
        found = minimiser(lambda a, h: _solve(whole, used, a, h), whole, adjoint, item.data, hints)
    return answer(whole, hand_back(found, item.dtype), item.start, item.data)


def _usable(
    solver: Newton | LBFGS | ConjugateGradients | InteriorPoint | None, adjoint: Any, *, constrained: bool
) -> Newton | LBFGS | ConjugateGradients | InteriorPoint:
    """The solver, or the default; raises for what does not fit."""
    fits = InteriorPoint if constrained else Newton | LBFGS | ConjugateGradients
    if solver is not None and not isinstance(solver, fits):
        wanted = (
            "pg.InteriorPoint(...) with"
            if constrained
            else "pg.Newton(...), pg.LBFGS(...) or another without"
        )
        raise TypeError(f"solver: got {solver!r}, expected {wanted} constraints")
    check_adjoint(adjoint)
    if isinstance(adjoint, Implicit) and (adjoint.hessian != "exact" or adjoint.max_gain is not None):
        raise ValueError(
            f"adjoint: got {adjoint!r}, expected pg.Implicit() or pg.Unrolled(): an objective that is no sum of "
            "squares has no Gauss-Newton matrix"
        )
    if solver is None:
        return InteriorPoint() if constrained else Newton()
    return solver


def _solve(problem: Lagrangian, solver: InteriorPoint, args: Args, hints: Hints) -> Solution:
    hints = hints.for_all(args)
    return judged(solver.minimise(problem, hints.start, args), args, hints)


def _unrolled(problem: Lagrangian, solver: InteriorPoint, args: Args, hints: Hints) -> Solution:
    with torch.no_grad():
        constants = _pytree.tree_map(Tensor.detach, args)
        solution = _solve(problem, solver, constants, hints)
        ok = solution.ok
        fine = len(ok) > 0 and bool(ok.any())
    if not fine:
        return replace(solution, variable=unmoved(solution.variable, args))
    with torch.no_grad():
        donor = ok.to(torch.uint8).argmax(0, keepdim=True)
        near = _pytree.tree_map(lambda leaf: harmless(leaf, ok, donor), solution.variable)
        units = Units.of(problem, near.point, constants)
    args = _pytree.tree_map(lambda leaf: harmless(leaf, ok, donor), args)
    again = unrolled(problem, near, args, units)
    return replace(solution, variable=batch.where(ok, again, solution.variable))
