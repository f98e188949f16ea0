"""Problems made of problems: the sum of several costs, a cost in other units, and one on a subspace of its tangent."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.optim.problem import Args, Problem, Quadratic, Variable


class Sum(Problem):
    """``f(x; args) = f_1(x; args_1) + f_2(x; args_2) + ...``: ``args`` is the tuple of the parts' own.

    All parts have the same variable and dimension, and retractions that agree up to second order at zero (that of the
    first is used). Where any part is infeasible the sum is.

    Args:
        problems: the parts, at least one.

    >>> class Mean(Problem):
    ...     dimension = 1
    ...     def residual(self, variable, args):
    ...         return variable - args
    >>> both = Sum(Mean(), Mean())
    >>> both.cost(torch.tensor([[1.0]]), (torch.tensor([[0.0]]), torch.tensor([[3.0]])))
    tensor([2.5000])
    """

    def __init__(self, *problems: Problem) -> None:
        for problem in problems:
            if not isinstance(problem, Problem):
                raise TypeError(f"Sum: got {problem!r}, expected instances of pg.Problem")
        dimensions = [problem.dimension for problem in problems]
        if len(set(dimensions)) != 1:
            raise ValueError(
                f"Sum: got parts of dimensions {dimensions}, expected at least one, all the same"
            )
        self.problems = problems
        self.dimension = dimensions[0]

    def _parts(self, args: Args) -> "zip[tuple[Problem, Args]]":
        return zip(self.problems, args, strict=True)

    def residual(self, variable: Variable, args: Args) -> Float[Tensor, "B M"]:
        """The parts' residuals, one after the other."""
        return torch.cat([problem.residual(variable, own) for problem, own in self._parts(args)], -1)

    def retract(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        return self.problems[0].retract(variable, delta)

    def admit(self, variable: Variable) -> tuple[Variable, Bool[Tensor, " B"]]:
        return self.problems[0].admit(variable)

    def cost(self, variable: Variable, args: Args) -> Float[Tensor, " B"]:
        return _total(problem.cost(variable, own) for problem, own in self._parts(args))

    def feasible(self, variable: Variable, args: Args) -> Bool[Tensor, " B"]:
        return _all(problem.feasible(variable, own) for problem, own in self._parts(args))

    def quadratic(self, variable: Variable, args: Args, *, exact: bool) -> Quadratic:
        models = [problem.quadratic(variable, own, exact=exact) for problem, own in self._parts(args)]
        return Quadratic(
            cost=_total(model.cost for model in models),
            gradient=_total(model.gradient for model in models),
            hessian=_total(model.hessian for model in models),
            feasible=_all(model.feasible for model in models),
        )

    def slope(self, variable: Variable, args: Args, direction: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        return _total(problem.slope(variable, own, direction) for problem, own in self._parts(args))

    def pullback(self, variable: Variable, cotangent: Variable) -> Float[Tensor, "B D"]:
        return self.problems[0].pullback(variable, cotangent)


class Scaled(Problem):
    """``factor f(x; args)``: the arguments are ``(args, factor)``, with factors (B,) > 0. The same minimiser.

    Args:
        problem: f.
        known: a variable, and what ``problem.quadratic(..., exact=False)`` has said of it: it is not asked again.

    >>> class Mean(Problem):
    ...     dimension = 1
    ...     def residual(self, variable, args):
    ...         return variable - args
    >>> Scaled(Mean()).cost(torch.tensor([[1.0]]), (torch.tensor([[0.0]]), torch.tensor([4.0])))
    tensor([2.])
    """

    def __init__(self, problem: Problem, known: tuple[Variable, Quadratic] | None = None) -> None:
        self.problem, self.known = problem, known

    def zero(self, variable: Variable) -> Float[Tensor, "B D"]:
        return self.problem.zero(variable)

    def residual(self, variable: Variable, args: Args) -> Float[Tensor, "B M"]:
        """The original's, times the root of the factor."""
        return args[1].sqrt()[:, None] * self.problem.residual(variable, args[0])

    def retract(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        return self.problem.retract(variable, delta)

    def admit(self, variable: Variable) -> tuple[Variable, Bool[Tensor, " B"]]:
        return self.problem.admit(variable)

    def cost(self, variable: Variable, args: Args) -> Float[Tensor, " B"]:
        return args[1] * self.problem.cost(variable, args[0])

    def feasible(self, variable: Variable, args: Args) -> Bool[Tensor, " B"]:
        return self.problem.feasible(variable, args[0])

    def quadratic(self, variable: Variable, args: Args, *, exact: bool) -> Quadratic:
        factor = args[1]
        if self.known is not None and variable is self.known[0] and not exact:
            model = self.known[1]
        else:
            model = self.problem.quadratic(variable, args[0], exact=exact)
        return Quadratic(
            factor * model.cost,
            factor[:, None] * model.gradient,
            factor[:, None, None] * model.hessian,
            model.feasible,
        )

    def slope(self, variable: Variable, args: Args, direction: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        return args[1] * self.problem.slope(variable, args[0], direction)

    def pullback(self, variable: Variable, cotangent: Variable) -> Float[Tensor, "B D"]:
        return self.problem.pullback(variable, cotangent)


class Confined(NamedTuple):
    """Variable of a :class:`Restricted` problem: a point, and the directions in which it may move.

    The basis (B, D, K) goes with the point, not with the arguments, because moving needs it. It is a constant: no
    gradient goes to it.
    """

    point: Any
    basis: Float[Tensor, "B D K"]


class Restricted(Problem):
    """A problem on the subspace ``delta = basis @ y`` of its tangent, with y of dimension K: some freedoms are fixed.

    Hard constraints, since every step obeys them: what the start satisfies the answer does. The variable is a
    :class:`Confined` (made by :meth:`start`), the arguments are the original problem's. Derivatives are the original's
    closed forms between basis and basis^T, exact because the retraction is composed with a linear map.

    The same basis holds at every point. So the steps stay on one surface only if such moves close up: translations, or
    rotations about one axis, do; rotations about two axes do not (they reach all of them), and the answer depends on
    the path then.

    Args:
        problem: the original problem.
        dimension: K >= 1, the number of columns of the basis.

    >>> class Mean(Problem):
    ...     dimension = 2
    ...     def residual(self, variable, args):
    ...         return variable - args
    >>> first_only = Restricted(Mean(), 1)
    >>> start = first_only.start(torch.zeros(1, 2), torch.tensor([[1.0], [0.0]]))
    >>> first_only.retract(start, torch.tensor([[3.0]])).point
    tensor([[3., 0.]])
    """

    def __init__(self, problem: Problem, dimension: int) -> None:
        if not isinstance(problem, Problem):
            raise TypeError(f"Restricted.problem: got {problem!r}, expected an instance of pg.Problem")
        if not isinstance(dimension, int) or not 1 <= dimension <= problem.dimension:
            raise ValueError(
                f"Restricted.dimension: got {dimension!r}, expected an integer in [1, {problem.dimension}]"
            )
        self.problem = problem
        self.dimension = dimension

    def start(self, point: Variable, basis: Float[Tensor, "*batch D K"]) -> Confined:
        """The variable at a point of the original problem, with a basis (D, K), (1, D, K) or (B, D, K)."""
        size = (self.problem.dimension, self.dimension)
        if tuple(basis.shape[-2:]) != size:
            raise ValueError(f"basis: got shape {tuple(basis.shape)}, expected (..., {size[0]}, {size[1]})")
        batch = _pytree.tree_flatten(point)[0][0].shape[0]
        return Confined(point, basis.expand(batch, *size))

    def residual(self, variable: Confined, args: Args) -> Float[Tensor, "B M"]:
        """The original's."""
        return self.problem.residual(variable.point, args)

    def retract(self, variable: Confined, delta: Float[Tensor, "B K"]) -> Confined:
        moved = self.problem.retract(variable.point, _times(variable.basis, delta))
        return Confined(moved, variable.basis)

    def admit(self, variable: Confined) -> tuple[Confined, Bool[Tensor, " B"]]:
        point, close = self.problem.admit(variable.point)
        return Confined(point, variable.basis), close

    def cost(self, variable: Confined, args: Args) -> Float[Tensor, " B"]:
        return self.problem.cost(variable.point, args)

    def feasible(self, variable: Confined, args: Args) -> Bool[Tensor, " B"]:
        return self.problem.feasible(variable.point, args)

    def quadratic(self, variable: Confined, args: Args, *, exact: bool) -> Quadratic:
        model = self.problem.quadratic(variable.point, args, exact=exact)
        basis = variable.basis
        return model._replace(
            gradient=_times(basis.mT, model.gradient), hessian=basis.mT @ model.hessian @ basis
        )

    def slope(self, variable: Confined, args: Args, direction: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        return self.problem.slope(variable.point, args, _times(variable.basis, direction))

    def pullback(self, variable: Confined, cotangent: Confined) -> Float[Tensor, "B K"]:
        return _times(variable.basis.mT, self.problem.pullback(variable.point, cotangent.point))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)


def _total(values: Any) -> Tensor:
    first, *rest = values
    for value in rest:
        first = first + value
    return first


def _all(flags: Any) -> Tensor:
    first, *rest = flags
    for flag in rest:
        first = first & flag
    return first
