"""How gradients pass through a minimisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.optim import batch
from posegrad.optim.linear import inverse_positive, solve_symmetric
from posegrad.optim.problem import Args, Problem, Variable, recorded
from posegrad.optim.settings import check_positive


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """Implicit differentiation at the minimum: exact, at the cost of one solve and one pass over the data.

    With tangent gradient v of the loss: solve ``H u = v``; then ``dL/dargs = -d<u, g>/dargs``, where g is the
    gradient of the cost and u is held constant. Higher derivatives work.

    Args:
        hessian: ``"exact"``, or ``"gauss_newton"`` for ``J^T J`` (wrong by the curvature times the residual; never
            indefinite; where it is singular, the gradient is zero).
        max_gain: None, or a bound > 0 on ``sqrt((u^T A u) / (v^T A^-1 v))`` with A the Gauss-Newton matrix; u is
            scaled down where it is above. It is 1 for a perfect fit, and grows without bound where the exact
            Hessian turns singular: a bound of 2 to 10 keeps near-degenerate items from ruling a training step.
            Where A is singular, nothing is bounded.
            Second derivatives hold the scaling constant. In reverse mode only: a forward derivative has no loss
            whose gradient could be bounded, and is refused.

    Reference: Gould et al., arXiv:1607.05447 (2016); Chen et al., BPnP, CVPR 2020.

    >>> Implicit(hessian="gauss_newton", max_gain=4.0)
    Implicit(hessian='gauss_newton', max_gain=4.0)
    """

    hessian: Literal["exact", "gauss_newton"] = "exact"
    max_gain: float | None = None

    def __post_init__(self) -> None:
        if self.hessian not in ("exact", "gauss_newton"):
            raise ValueError(f"Implicit.hessian: got {self.hessian!r}, expected 'exact' or 'gauss_newton'")
        check_positive("Implicit.max_gain", self.max_gain, optional=True)


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """Differentiate through the solver's steps, from the (constant) start that won.

    Run to convergence it agrees with :class:`Implicit`; memory grows with the number of steps.

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(1, 6, noise=1.0)
    >>> x = scene.points2d.requires_grad_()
    >>> t = [pg.solve_pnp(x, scene.points3d, scene.K, adjoint=a()).pose.t.sum() for a in (Implicit, Unrolled)]
    >>> torch.allclose(*(torch.autograd.grad(value, x)[0] for value in t))
    True
    """


Adjoint = Implicit | Unrolled


def implicit_gradient(
    problem: Problem,
    adjoint: Implicit,
    variable: Variable,
    cotangent: Variable,
    arg_leaves: list[Tensor],
    arg_structure: Any,
    needed: list[bool],
    ok: Bool[Tensor, " B"],
    hessian: Float[Tensor, "B D D"] | None = None,
) -> list[Tensor | None]:
    """Gradients of the arguments that need one, None for the others; zero, to any order, where not ok.

    Linear in the cotangent (but for ``max_gain``) and differentiable in the cotangent, the arguments and the
    variable.

    Args:
        hessian: the exact Hessian at the minimum, if it is known: saves a pass over the data, where nothing is to be
            differentiated again.
    """
    size = ok.shape[0]
    chosen = [i for i, wanted in enumerate(needed) if wanted]
    once = _differentiated_once(_pytree.flatten(cotangent)[0])
    # what failed may be infinite, and zero times infinity is NaN: it is replaced before it is computed with, and what
    # comes out is masked. Item by item also for shared arguments, which get a gradient from the others.
    leaves = [
        leaf.expand(size, *leaf.shape[1:]) if wanted else leaf
        for leaf, wanted in zip(arg_leaves, needed, strict=True)
    ]
    fine = once and batch.questions_are_cheap(ok.device) and bool(ok.all())
    if size and not fine:
        donor = ok.to(torch.uint8).argmax(0, keepdim=True)
        leaves = [harmless(leaf, ok, donor) for leaf in leaves]
        variable = _pytree.tree_map(lambda leaf: harmless(leaf, ok, donor), variable)
        cotangent = batch.where(ok, cotangent, _pytree.tree_map(torch.zeros_like, cotangent))
    v = problem.pullback(variable, cotangent)
    args = _pytree.unflatten(arg_structure, leaves)
    u = tangent_response(problem, adjoint, variable, args, v, ok, hessian if once else None)

    def slope(*values: Tensor) -> Tensor:
        varied = list(leaves)
        for i, value in zip(chosen, values, strict=True):
            varied[i] = value
        return problem.slope(variable, _pytree.unflatten(arg_structure, varied), u).sum()

    gradients: list[Tensor | None] = [None] * len(arg_leaves)
    minus = v.new_full((), -1.0)
    for i, gradient in zip(chosen, _pulled(slope, [leaves[i] for i in chosen], minus, once), strict=True):
        kept = gradient if fine else batch.where(ok, gradient, torch.zeros_like(gradient))
        gradients[i] = kept if arg_leaves[i].shape[0] == size else kept.sum(0, keepdim=True)
    return gradients


def _differentiated_once(cotangents: list[Tensor]) -> bool:
    """Whether nothing records what is done, and no cotangent is a batch (``is_grads_batched``)."""
    transforms = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return not recorded() and not any(transforms.is_legacy_batchedtensor(value) for value in cotangents)


def _pulled(
    function: Callable[..., Tensor], values: list[Tensor], cotangent: Tensor, once: bool
) -> tuple[Tensor, ...]:
    """Vector-Jacobian product of a function; if only once by the engine, without the wrappers of torch.func."""
    if not once:
        return torch.func.vjp(function, *values)[1](cotangent)
    with torch.enable_grad():
        inputs = [value.detach().requires_grad_() for value in values]
        value = function(*inputs)
        if not value.requires_grad:  # it depends on none of them
            return tuple(torch.zeros_like(given) for given in values)
        return torch.autograd.grad(value, inputs, cotangent, materialize_grads=True)


def harmless(leaf: Tensor, ok: Bool[Tensor, " B"], donor: Tensor) -> Tensor:
    """Failed items replaced by a constant copy of the ``donor``, one that is fine; what is shared is kept."""
    if leaf.shape[0] != ok.shape[0]:
        return leaf
    return batch.where(ok, leaf, leaf.detach().index_select(0, donor))


def unmoved(variable: Variable, args: Args) -> Variable:
    """What failed, joined to the graph of the arguments: their gradient is zero, not missing."""
    parts = [leaf.sum() for leaf in _pytree.flatten(args)[0] if leaf.is_floating_point()]
    if not parts:
        return variable
    total = torch.stack(parts).sum()  # NaN, where an argument is
    return _pytree.tree_map(lambda leaf: torch.where(torch.zeros_like(leaf) > 0, total, leaf), variable)


def tangent_response(
    problem: Problem,
    adjoint: Implicit,
    variable: Variable,
    args: Args,
    v: Float[Tensor, "B D"],
    ok: Bool[Tensor, " B"],
    hessian: Float[Tensor, "B D D"] | None = None,
) -> Float[Tensor, "B D"]:
    """Solve ``H u = v`` at the minimum; u = 0 where not ok, whatever v is there. The exact H may be given."""
    exact = adjoint.hessian == "exact"
    v = torch.where(ok[:, None], v, torch.zeros_like(v))
    if exact and hessian is not None:
        u = solve_symmetric(hessian, v, ok)
    else:
        u = problem.solve_hessian(variable, args, v, ok, exact=exact)
    if adjoint.max_gain is None:
        return u
    with torch.no_grad():  # not detach, which a batch of cotangents cannot
        A = problem.quadratic(variable, args, exact=False).hessian
        inverse, regular = inverse_positive(A)
        response = (u * (A @ u[..., None]).squeeze(-1)).sum(-1)
        reference = (v * (inverse @ v[..., None]).squeeze(-1)).sum(-1)
        excess = (response / reference.clamp(min=torch.finfo(v.dtype).tiny)).sqrt() / adjoint.max_gain
        # beside a singular A every response is small
        excess = torch.where(regular & (excess > 1), excess, torch.ones_like(excess))
    return u / excess[:, None]
