"""Back to where the constraints hold, from where a solver for constrained problems got stuck."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.constrained import VIOLATED, Units
from posegrad.optim.lagrangian import Lagrangian
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, descend
from posegrad.optim.problem import Args, Problem, Quadratic, Variable, value_and_jacobian

# Constraints determine fewer unknowns than there are: of all steps the (nearly) shortest, in units of steps, by this
# part of the matrix.
_RIDGE = 1e-10


def restored(
    problem: Lagrangian, point: Variable, args: Args, units: Units
) -> tuple[Variable, Bool[Tensor, " B"]]:
    """The violation ``1/2 |h|^2 + 1/2 |max(g, 0)|^2`` minimised from a point, and where none is left.

    Where some is left it has a minimum of its own there, or the point was no start; that point is kept.

    Reference: Wächter & Biegler, "On the implementation of an interior-point filter line-search algorithm" (2006),
    section 3.3.
    """
    state = descend(_Violation(problem), point, (args, units), LevenbergMarquardt(), max_steps=100)
    fine = state.quadratic.feasible & (2 * state.quadratic.cost < VIOLATED**2)
    return batch.where(fine, state.variable, point), fine


class _Violation(Problem):
    """Of the constraints of a problem, in units that go with its arguments."""

    def __init__(self, problem: Lagrangian) -> None:
        self.problem = problem

    def zero(self, variable: Variable) -> Float[Tensor, "B D"]:
        return self.problem.problem.zero(variable)

    def residual(self, variable: Variable, args: tuple[Args, Units]) -> Float[Tensor, "B M"]:
        """Of equalities their value, of inequalities what is above zero."""
        c = self.problem.constraints(variable, args[0]) / args[1].constraints
        return torch.where(self.problem.is_inequality(variable, args[0]), c.clamp(min=0), c)

    def retract(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        return self.problem.problem.retract(variable, delta)

    def near(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        return self.problem.problem.near(variable, delta)

    def feasible(self, variable: Variable, args: tuple[Args, Units]) -> Bool[Tensor, " B"]:
        return self.problem.problem.feasible(variable, args[0])

    def quadratic(self, variable: Variable, args: tuple[Args, Units], *, exact: bool) -> Quadratic:
        """With Gauss-Newton's matrix in any case, made regular."""
        residual, J = value_and_jacobian(
            lambda d: self.residual(self.near(variable, d), args), self.zero(variable)
        )
        A, square = J.mT @ J, args[1].steps.square()
        largest = (A.diagonal(dim1=-2, dim2=-1) * square).amax(-1, keepdim=True).clamp(min=1e-30)
        gradient = (J.mT @ residual[..., None]).squeeze(-1)
        cost = 0.5 * residual.square().sum(-1)
        feasible = self.feasible(variable, args) & cost.isfinite()
        return Quadratic(cost, gradient, A + torch.diag_embed(_RIDGE * largest / square), feasible)
