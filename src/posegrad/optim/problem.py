"""What a solver and an adjoint need to know of a problem."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import forward_ad

from posegrad import _pytree
from posegrad.optim.linear import inverse_positive, solve_symmetric

Variable = Any  # a tensor or pytree of tensors whose leading dimension is the batch
Args = Any  # likewise; a leading dimension of 1 is shared by the batch


class Quadratic(NamedTuple):
    """Second-order model of the cost along the tangent at a point, per item."""

    cost: Float[Tensor, " B"]
    gradient: Float[Tensor, "B D"]
    hessian: Float[Tensor, "B D D"]
    feasible: Bool[Tensor, " B"]


class Problem(ABC):
    """A batch of independent problems ``argmin_x f(x; args)`` on a manifold of dimension D.

    A subclass gives the dimension, the residual and the retraction; everything else has a default made from
    those by automatic differentiation, and may be overridden by closed forms. Items must not influence each
    other. All functions are made of differentiable torch operations and hold no tensors of their own: what the
    answer depends on is in ``args``.

    >>> class Mean(Problem):
    ...     dimension = 1
    ...     def residual(self, variable, args):
    ...         return variable - args
    """

    dimension: int

    @abstractmethod
    def residual(self, variable: Variable, args: Args) -> Float[Tensor, "B M"]:
        """Residuals; the default cost is half their squared norm."""

    def retract(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        """Move along the tangent; must be twice differentiable at zero. Default: addition."""
        return variable + delta

    def near(self, variable: Variable, delta: Float[Tensor, "B D"]) -> Variable:
        """The same up to the second order at zero, for derivatives there, if that takes fewer operations."""
        return self.retract(variable, delta)

    def cost(self, variable: Variable, args: Args) -> Float[Tensor, " B"]:
        """The minimised cost."""
        return 0.5 * self.residual(variable, args).square().sum(-1)

    def zero(self, variable: Variable) -> Float[Tensor, "B D"]:
        """The tangent at which :meth:`retract` stays."""
        first = _pytree.flatten(variable)[0][0]
        return first.new_zeros(first.shape[0], self.dimension)

    def size(self, variable: Variable) -> Float[Tensor, "B D"]:
        """How far is far, along each axis of the tangent; only the unit of a black box's answer depends on it."""
        return torch.ones_like(self.zero(variable))

    def admit(self, variable: Variable) -> tuple[Variable, Bool[Tensor, " B"]]:
        """Some finite variable, put where variables are, and which items were close to there. Default: all are."""
        return variable, torch.ones_like(self.zero(variable)[:, 0], dtype=torch.bool)

    def feasible(self, variable: Variable, args: Args) -> Bool[Tensor, " B"]:
        """Where the residual is defined. The solver never steps out of it."""
        return self.cost(variable, args).isfinite()

    def quadratic(self, variable: Variable, args: Args, *, exact: bool) -> Quadratic:
        """Cost, gradient and Hessian at ``variable``: the exact Hessian, or Gauss-Newton's ``J^T J``."""

        def cost_sum(delta: Tensor) -> Tensor:
            return self.cost(self.near(variable, delta), args).sum()

        zero = self.zero(variable)
        if exact:
            gradient, hessian = gradient_and_hessian(cost_sum, zero)
        else:
            jacobian = self.jacobian(variable, args)
            gradient, hessian = torch.func.grad(cost_sum)(zero), jacobian.mT @ jacobian
        return Quadratic(self.cost(variable, args), gradient, hessian, self.feasible(variable, args))

    def solve_hessian(
        self,
        variable: Variable,
        args: Args,
        rhs: Float[Tensor, "B D"],
        ok: Bool[Tensor, " B"],
        *,
        exact: bool,
    ) -> Float[Tensor, "B D"]:
        """Solve ``H u = rhs`` at a minimum, differentiable; of what is not ok anything finite will do.

        Where only the exact Hessian is regular, u by Gauss-Newton's is zero.
        """
        H = self.quadratic(variable, args, exact=exact).hessian
        if not exact:
            ok = ok & inverse_positive(H.detach())[1]
            rhs = torch.where(ok[:, None], rhs, torch.zeros_like(rhs))
        return solve_symmetric(H, rhs, ok)

    def jacobian(self, variable: Variable, args: Args) -> Float[Tensor, "B M D"]:
        """Derivative of the residuals along the tangent, at ``variable``."""

        def residual_at(delta: Tensor) -> Tensor:
            return self.residual(self.near(variable, delta), args)

        return value_and_jacobian(residual_at, self.zero(variable))[1]

    def slope(self, variable: Variable, args: Args, direction: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Derivative of the cost along a tangent direction: ``<direction, gradient>``.

        The implicit gradient is minus its derivative by ``args``.
        """

        def cost_sum(delta: Tensor) -> Tensor:
            return self.cost(self.near(variable, delta), args).sum()

        return (torch.func.grad(cost_sum)(self.zero(variable)) * direction).sum(-1)

    def pullback(self, variable: Variable, cotangent: Variable) -> Float[Tensor, "B D"]:
        """Gradient with respect to the variable's tensors -> gradient in the tangent."""
        zero = self.zero(variable)
        leaves = _pytree.tree_flatten(cotangent)[0]

        def tensors(delta: Tensor) -> tuple[Tensor, ...]:
            return tuple(_pytree.tree_flatten(self.near(variable, delta))[0])

        pull = torch.func.vjp(tensors, zero)[1]
        moved = _pytree.tree_flatten(variable)[0]
        return pull(tuple(leaf.expand_as(m) for leaf, m in zip(leaves, moved, strict=True)))[0]


# Forward mode would be the natural way; reverse mode twice takes a fifth of the time (torch 2.14, small tensors). Where
# nothing records what is done here, the engine's own graphs do the same with less overhead than torch.func's.


def recorded() -> bool:
    """Whether a graph is being built, or a transform is at work: then derivatives have to be differentiable."""
    transforms = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return (
        torch.is_grad_enabled()
        or torch.is_inference_mode_enabled()  # which has no graphs
        or transforms.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def value_and_jacobian(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B *M"], Float[Tensor, "B *M D"]]:
    """Value and derivative of a function (B, D) -> (B, ...) of independent items."""
    if recorded():
        value, pull, *_ = torch.func.vjp(function, x)
        push = torch.func.vjp(lambda cotangent: pull(cotangent)[0], torch.zeros_like(value))[1]
        return value, _every_axis(lambda axis: push(axis)[0], x)
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        value = function(at)
        cotangent = torch.zeros_like(value).requires_grad_()
        pulled = _gradient(value, at, cotangent)
    return value.detach(), _rows(pulled, cotangent, x)


def gradient_and_hessian(
    total: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D D"]]:
    """Derivatives of a sum of independent items' values."""
    return second_order(total, x)[1:]


def second_order(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"]
) -> tuple[Tensor, Float[Tensor, "B D"], Float[Tensor, "B D D"]]:
    """Values (B,) of independent items, or their sum, and its derivatives; the function is called once."""

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        value = function(x)
        return value.sum(), value

    if recorded():
        gradient, pull, value = torch.func.vjp(torch.func.grad(total, has_aux=True), x, has_aux=True)  # pyright: ignore[reportAssignmentType]
        return value, gradient, _every_axis(lambda axis: pull(axis)[0], x)
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        scalar, value = total(at)
        gradient = _gradient(scalar, at)
    return value.detach(), gradient.detach(), _rows(gradient, at, x)


def _gradient(value: Tensor, at: Tensor, cotangent: Tensor | None = None) -> Tensor:
    """With a graph; zeros where the value does not depend on the point."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(value, at, cotangent, create_graph=True, materialize_grads=True)[0]


def _rows(outputs: Tensor, inputs: Tensor, x: Float[Tensor, "B D"]) -> Tensor:
    """Derivative (B, ..., D) by the inputs (B, ...) of each of the D outputs of an item."""
    if not outputs.requires_grad:
        return inputs.new_zeros(*inputs.shape, x.shape[-1])

    def pull(axis: Tensor) -> Tensor:
        return torch.autograd.grad(outputs, inputs, axis, materialize_grads=True)[0]

    return _every_axis(pull, x)


def _every_axis(pull: Callable[[Tensor], Tensor], x: Float[Tensor, "B D"]) -> Tensor:
    """The pulls of every unit vector, stacked last."""
    axes = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[:, None].expand(-1, *x.shape)
    return torch.func.vmap(pull, out_dims=-1)(axes)
