"""Small symmetric systems, a batch at a time, that never raise and never sync."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def equilibrate(
    H: Float[Tensor, "*batch D D"],
) -> tuple[Float[Tensor, "*batch D D"], Float[Tensor, "*batch D"]]:
    """Scale a symmetric matrix to unit diagonal: ``(S H S, S)`` with S = diag(s), s held constant.

    Makes everything that follows independent of the units of the parameters. A diagonal entry that is not
    positive is left as it is.
    """
    diagonal = H.detach().diagonal(dim1=-2, dim2=-1)
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
    return scale[..., :, None] * H * scale[..., None, :], scale


class Damped(NamedTuple):
    """``(H + damping |diag(H)|) delta = -g`` where that is positive definite; zero where it is not.

    ``scaled`` is ``|diag(H)|^(1/2) delta``, the step where the diagonal is one.
    """

    delta: Float[Tensor, "B D"]
    positive: Bool[Tensor, " B"]
    scaled: Float[Tensor, "B D"]
    factor: Float[Tensor, "B D D"]
    scale: Float[Tensor, "B D 1"]

    def squared(self, g: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """``g^T (H + damping |diag(H)|)^-1 g`` of another gradient, where positive."""
        g = self.scale * g[..., None]
        return (g * torch.cholesky_solve(g, self.factor)).sum((-1, -2))


def solve_damped(H: Float[Tensor, "B D D"], g: Float[Tensor, "B D"], damping: Float[Tensor, " B"]) -> Damped:
    """Solve ``(H + damping |diag(H)|) delta = -g`` by Cholesky."""
    limits = torch.finfo(H.dtype)
    with torch.no_grad():
        # an exact Hessian can have a diagonal entry <= 0: damp by its magnitude
        diagonal = H.diagonal(dim1=-2, dim2=-1).abs()
        diagonal = diagonal.clamp(min=limits.eps * diagonal.amax(-1, keepdim=True) + limits.tiny)
        scale = diagonal.rsqrt()[..., None]
        usable = diagonal.amin(-1) > limits.tiny**0.5  # NaN is not
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    scaled, rhs = torch.addcmul(scale * H * scale.mT, damping[:, None, None], eye), scale * g[..., None]
    factor, info = torch.linalg.cholesky_ex(scaled.detach())
    # a NaN anywhere goes on to the last pivot
    positive = usable & (info == 0) & (factor[:, -1, -1] > 0)
    where = positive[:, None, None]
    if scaled.requires_grad:  # no failed factorisation may enter the graph
        factor = torch.linalg.cholesky_ex(torch.where(where, scaled, eye))[0]
        rhs = torch.where(where, rhs, 0.0)
    step = torch.cholesky_solve(rhs, factor).neg()
    if not scaled.requires_grad:
        step = torch.where(where, step, 0.0)
    return Damped((scale * step).squeeze(-1), positive, step.squeeze(-1), factor, scale)


def solve_positive(
    H: Float[Tensor, "B D D"], b: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B D"], Bool[Tensor, " B"]]:
    """Solve ``H u = b`` for positive definite H by Cholesky; (zero, False) where it is not."""
    damped = solve_damped(H, -b, b.new_zeros(b.shape[0]))
    return damped.delta, damped.positive


def solve_symmetric(
    H: Float[Tensor, "B D D"], b: Float[Tensor, "B D"], ok: Bool[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    """Solve ``H u = b`` for symmetric, regular H, differentiable to any order; where not ok ``u = b``."""
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    scaled, scale = equilibrate(torch.where(ok[:, None, None], H, eye))
    # not linalg.solve, whose forward derivative holds its factors constant, so that it is wrong when differentiated
    # again; nor lu_solve, which is wrong under two vmaps (torch 2.14)
    return scale * (torch.linalg.inv_ex(scaled)[0] @ (scale * b)[..., None]).squeeze(-1)


def inverse_positive(
    H: Float[Tensor, "*batch D D"],
) -> tuple[Float[Tensor, "*batch D D"], Bool[Tensor, "*batch"]]:
    """Inverse of a positive definite matrix by Cholesky, differentiable; (identity, False) where it is not one.

    Singular up to rounding, after scaling to unit diagonal, counts as not positive definite; a NaN does too.
    """
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    finite = H.detach().isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], H, -eye)
    scaled, scale = equilibrate(safe)
    factor, info = torch.linalg.cholesky_ex(scaled.detach())
    # the smallest pivot bounds the smallest eigenvalue from above
    pivot = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    positive = finite & (info == 0) & (pivot > 64 * torch.finfo(H.dtype).eps)
    # factor again, so that no failed factorisation enters the graph
    factor = torch.linalg.cholesky_ex(torch.where(positive[..., None, None], scaled, eye))[0]
    inverse = scale[..., :, None] * torch.cholesky_inverse(factor) * scale[..., None, :]
    return torch.where(positive[..., None, None], inverse, eye), positive
