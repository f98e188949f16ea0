"""Constrained problems: their Lagrangian is a problem like any other, whose stationary point is the answer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.optim.problem import (
    Args,
    Problem,
    Quadratic,
    Variable,
    gradient_and_hessian,
    value_and_jacobian,
)

Constraint = Callable[[Variable, Args], Float[Tensor, "B M"]]


class KKT(NamedTuple):
    """Variable of a :class:`Lagrangian`: a point, and the multipliers of the constraints, equalities first.

    ``active`` (B, M) is 1 for constraints that hold with equality and 0 for others. It goes with the point, not with
    the arguments, and is a constant: no gradient goes to it.
    """

    point: Any
    multipliers: Float[Tensor, "B M"]
    active: Float[Tensor, "B M"]


class Lagrangian(Problem):
    """``f(x) + sum_active m_i c_i(x) + 1/2 sum_inactive m_i^2`` over x and m, for ``min f(x), h(x) = 0, g(x) <= 0``.

    c is h, then g. Stationary in x: the gradient of f is balanced; in m: what is active is zero, and what is not has a
    zero multiplier. Its Hessian ``[[W, A^T], [A, 0]]`` is not positive definite, and need not be: implicit
    differentiation asks for a regular one.

    Args:
        problem: f, any problem with a cost.
        equality, inequality: h and g, of variable and args; None where there are none.

    Reference: Gould et al., arXiv:1607.05447 (2016); Gould, Hartley & Campbell, "Deep Declarative Networks", TPAMI
    2021.
    """

    def __init__(
        self, problem: Problem, equality: Constraint | None = None, inequality: Constraint | None = None
    ) -> None:
        self.problem, self.equality, self.inequality = problem, equality, inequality

    def constraints(self, point: Variable, args: Args) -> Float[Tensor, "B M"]:
        """h, then g."""
        parts = [part(point, args) for part in (self.equality, self.inequality) if part is not None]
        if parts:
            return torch.cat(parts, -1)
        return self.problem.zero(point)[:, :0]

    def is_inequality(self, point: Variable, args: Args) -> Bool[Tensor, "B M"]:
        """Which of the constraints are."""
        flags = [
            torch.full_like(part(point, args), number, dtype=torch.bool)
            for number, part in enumerate((self.equality, self.inequality))
            if part is not None
        ]
        return torch.cat(flags, -1) if flags else self.problem.zero(point)[:, :0].bool()

    def residual(self, variable: KKT, args: Args) -> Float[Tensor, "B M"]:
        """There is none."""
        raise NotImplementedError("a constrained problem has no residuals")

    def zero(self, variable: KKT) -> Float[Tensor, "B D"]:
        return torch.cat([self.problem.zero(variable.point), torch.zeros_like(variable.multipliers)], -1)

    def admit(self, variable: Variable) -> tuple[Variable, Bool[Tensor, " B"]]:
        """Of a point alone."""
        return self.problem.admit(variable)

    def retract(self, variable: KKT, delta: Float[Tensor, "B D"]) -> KKT:
        count = variable.multipliers.shape[1]
        split = delta.shape[1] - count
        moved = self.problem.retract(variable.point, delta[:, :split])
        return KKT(moved, variable.multipliers + delta[:, split:], variable.active)

    def cost(self, variable: KKT, args: Args) -> Float[Tensor, " B"]:
        point, m, active = variable
        held = torch.where(active > 0, self.constraints(point, args), 0.5 * m)
        return self.problem.cost(point, args) + (m * held).sum(-1)

    def feasible(self, variable: KKT, args: Args) -> Bool[Tensor, " B"]:
        return self.problem.feasible(variable.point, args)

    def quadratic(self, variable: KKT, args: Args, *, exact: bool = True) -> Quadratic:
        """Exact in any case."""
        point, m, active = variable
        zero = self.problem.zero(point)

        def lagrangian(delta: Tensor) -> Tensor:
            moved = self.problem.retract(point, delta)
            cost = self.problem.cost(moved, args)
            return (cost + (active * m * self.constraints(moved, args)).sum(-1)).sum()

        gradient, W = gradient_and_hessian(lagrangian, zero)
        value, J = value_and_jacobian(
            lambda delta: self.constraints(self.problem.retract(point, delta), args), zero
        )
        A = active[..., None] * J
        top = torch.cat([W, A.mT], -1)
        bottom = torch.cat([A, torch.diag_embed(1 - active)], -1)
        return Quadratic(
            cost=self.problem.cost(point, args),
            gradient=torch.cat([gradient, torch.where(active > 0, value, m)], -1),
            hessian=torch.cat([top, bottom], -2),
            feasible=self.feasible(variable, args),
        )

    def pullback(self, variable: KKT, cotangent: KKT) -> Float[Tensor, "B D"]:
        pulled = self.problem.pullback(variable.point, cotangent.point)
        return torch.cat([pulled, cotangent.multipliers.expand_as(variable.multipliers)], -1)
