"""Small symmetric systems, a batch at a time, that never raise and never sync."""

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


def solve_positive(
    H: Float[Tensor, "B D D"], b: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B D"], Bool[Tensor, " B"]]:
    """Solve ``H u = b`` for positive definite H by Cholesky; (zero, False) where it is not."""
    scaled, scale = equilibrate(H)
    factor, info = torch.linalg.cholesky_ex(scaled.detach())
    usable = H.detach().diagonal(dim1=-2, dim2=-1) > torch.finfo(H.dtype).tiny ** 0.5  # NaN is not
    positive = (info == 0) & usable.all(-1) & factor.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    if scaled.requires_grad:  # factor again, so that no failed factorisation enters the graph
        factor = torch.linalg.cholesky_ex(torch.where(positive[..., None, None], scaled, eye))[0]
    else:
        factor = torch.where(positive[..., None, None], factor, eye)
    rhs = torch.where(positive[..., None], b * scale, torch.zeros_like(b))
    return scale * torch.cholesky_solve(rhs[..., None], factor).squeeze(-1), positive


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
