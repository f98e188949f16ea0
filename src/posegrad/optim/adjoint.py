"""How gradients pass through a minimisation."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.optim.linear import equilibrate
from posegrad.optim.problem import Args, Problem, Variable


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """Implicit differentiation at the minimum: exact, at the cost of one solve and one pass over the data.

    With tangent gradient v of the loss: solve ``H u = v``; then ``dL/dargs = -d<u, g>/dargs``, where g is the
    gradient of the cost and u is held constant. Higher derivatives work.

    Args:
        hessian: ``"exact"``, or ``"gauss_newton"`` for ``J^T J`` (wrong by the curvature times the residual;
            always positive definite).
        max_gain: None, or a bound > 0 on ``sqrt((u^T A u) / (v^T A^-1 v))`` with A the Gauss-Newton matrix; u is
            scaled down where it is above. It is 1 for a perfect fit, and grows without bound where the exact
            Hessian turns singular: a bound of 2 to 10 keeps near-degenerate items from ruling a training step.
            Second derivatives hold the scaling constant.

    Reference: Gould et al., arXiv:1607.05447 (2016); Chen et al., BPnP, CVPR 2020.
    """

    hessian: Literal["exact", "gauss_newton"] = "exact"
    max_gain: float | None = None

    def __post_init__(self) -> None:
        if self.hessian not in ("exact", "gauss_newton"):
            raise ValueError(f"Implicit.hessian: got {self.hessian!r}, expected 'exact' or 'gauss_newton'")
        if self.max_gain is not None and not self.max_gain > 0:
            raise ValueError(f"Implicit.max_gain: got {self.max_gain!r}, expected None or a number > 0")


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """Differentiate through the solver's steps, from the (constant) start that won.

    Run to convergence it agrees with :class:`Implicit`; memory grows with the number of steps.
    """


Adjoint = Implicit | Unrolled


def attach_gradient(
    problem: Problem, adjoint: Implicit, variable: Variable, args: Args, ok: Bool[Tensor, " B"]
) -> Variable:
    """The minimiser ``variable`` (a constant so far) with its gradient by ``args``; zero where not ``ok``."""
    variable_leaves, variable_spec = _pytree.tree_flatten(variable)
    arg_leaves, arg_spec = _pytree.tree_flatten(args)
    context = _Context(problem, adjoint, variable_spec, arg_spec)
    leaves = _Minimiser.apply(context, ok, len(variable_leaves), *variable_leaves, *arg_leaves)
    return _pytree.tree_unflatten(leaves, variable_spec)


@dataclass(frozen=True)
class _Context:
    problem: Problem
    adjoint: Implicit
    variable_spec: Any
    arg_spec: Any


class _Minimiser(torch.autograd.Function):
    """Identity on the minimiser; the backward is the implicit gradient, written in differentiable operations of
    (cotangent, minimiser, args), so that differentiating it again is right too."""

    @staticmethod
    def forward(context: _Context, ok: Tensor, count: int, *leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf.clone() for leaf in leaves[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        context, ok, count, *leaves = inputs
        ctx.context, ctx.count = context, count
        ctx.needed = tuple(ctx.needs_input_grad[3 + count :])
        ctx.save_for_backward(ok, *output, *leaves[count:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        ok, *saved = ctx.saved_tensors
        context: _Context = ctx.context
        variable = _pytree.tree_unflatten(saved[: ctx.count], context.variable_spec)
        cotangent = _pytree.tree_unflatten(cotangents, context.variable_spec)
        arg_leaves = saved[ctx.count :]
        gradients = implicit_gradient(context, variable, cotangent, arg_leaves, ctx.needed, ok)
        return (None, None, None, *(None,) * ctx.count, *gradients)


def implicit_gradient(
    context: _Context,
    variable: Variable,
    cotangent: Variable,
    arg_leaves: list[Tensor],
    needed: tuple[bool, ...],
    ok: Bool[Tensor, " B"],
) -> list[Tensor | None]:
    """Gradients of the arguments that need one, None for the others."""
    problem = context.problem
    args = _pytree.tree_unflatten(arg_leaves, context.arg_spec)
    v = problem.pullback(variable, cotangent)
    u = tangent_response(problem, context.adjoint, variable, args, v, ok)
    chosen = [i for i, wanted in enumerate(needed) if wanted]
    size = len(ok)

    def slope(*values: Tensor) -> Tensor:
        leaves = list(arg_leaves)
        for i, value in zip(chosen, values, strict=True):
            leaves[i] = value
        return problem.slope(variable, _pytree.tree_unflatten(leaves, context.arg_spec), u).sum()

    # item by item also for shared arguments, so that a failed item (which may be infinite) can be left out
    pull = torch.func.vjp(slope, *(arg_leaves[i].expand(size, *arg_leaves[i].shape[1:]) for i in chosen))[1]
    gradients: list[Tensor | None] = [None] * len(arg_leaves)
    for i, gradient in zip(chosen, pull(torch.tensor(-1.0, dtype=v.dtype, device=v.device)), strict=True):
        kept = torch.where(ok.view(-1, *(1,) * (gradient.ndim - 1)), gradient, torch.zeros_like(gradient))
        gradients[i] = kept if arg_leaves[i].shape[0] == size else kept.sum(0, keepdim=True)
    return gradients


def tangent_response(
    problem: Problem,
    adjoint: Implicit,
    variable: Variable,
    args: Args,
    v: Float[Tensor, "B D"],
    ok: Bool[Tensor, " B"],
) -> Float[Tensor, "B D"]:
    """Solve ``H u = v`` at the minimum; u = 0 where not ok, whatever v is there."""
    exact = adjoint.hessian == "exact"
    H = problem.quadratic(variable, args, exact=exact).hessian
    v = torch.where(ok[:, None], v, torch.zeros_like(v))
    u = _solve(H, v, ok)
    if adjoint.max_gain is None:
        return u
    A = problem.quadratic(variable, args, exact=False).hessian if exact else H
    response = (u * (A @ u[..., None]).squeeze(-1)).sum(-1)
    reference = (v * _solve(A, v, ok)).sum(-1)
    excess = (response / (adjoint.max_gain**2 * reference).clamp(min=torch.finfo(v.dtype).tiny)).detach()
    return u * excess.clamp(min=1).rsqrt()[:, None]


def _solve(H: Tensor, v: Tensor, ok: Tensor) -> Tensor:
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    scaled, scale = equilibrate(torch.where(ok[:, None, None], H, eye))
    return scale * torch.linalg.solve_ex(scaled, (scale * v)[..., None])[0].squeeze(-1)
