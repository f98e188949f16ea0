"""Weights of the residuals: a number, a number per axis, or an information matrix for each point.

They multiply the *squared* residual: ``s_i = r_i^T W_i r_i``. Here they have shape (B, N), (B, N, 2) or
(B, N, 2, 2), and what they multiply has its coordinates before the points: (B, 2, ..., N).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Weights = Float[Tensor, "B N *kind"]


class Limits(NamedTuple):
    """What counts as a weight.

    ``smallest``: below it the inverse, which the gradient has, overflows the answer's dtype. ``rounding``: of a
    matrix's entries; never finer than float32's, since float64 weights are often float32 ones made wide.
    """

    smallest: float
    rounding: float

    @classmethod
    def of(cls, points: torch.dtype, weights: torch.dtype) -> "Limits":
        """For points and weights given in these dtypes; answers to half precision are float32."""
        answer = torch.promote_types(points, torch.float32)
        rounding = max(torch.finfo(weights).eps, torch.finfo(torch.float32).eps)
        return cls(torch.finfo(answer).tiny ** 0.5, rounding)


def trailing_dims(shape: torch.Size, count: int) -> int:
    """How many dimensions of user's weights belong to a point: N alone, (N, 2) or (N, 2, 2); 0: none fits.

    For two points, where a batch of scalars looks the same, weights are scalars.
    """
    for tail in ((count,), (count, 2), (count, 2, 2)):
        if tuple(shape[-len(tail) :]) == tail:
            return len(tail)
    return 0


def symmetric(weights: Weights) -> Weights:
    """The symmetric part of matrices, which is all that counts; other kinds as they are."""
    return 0.5 * (weights + weights.mT) if weights.ndim == 4 else weights


def strength(weights: Weights) -> Float[Tensor, "B N"]:
    """One number per point: the mean of W's eigenvalues. Zero only where W is."""
    if weights.ndim == 2:
        return weights
    return weights.mean(-1) if weights.ndim == 3 else 0.5 * weights.diagonal(dim1=-2, dim2=-1).sum(-1)


def apply(weights: Weights, x: Float[Tensor, "B 2 *rest N"]) -> Float[Tensor, "B 2 *rest N"]:
    """``W x``, point by point."""
    rows = (1,) * (x.ndim - 3)
    if weights.ndim == 2:
        return weights.view(weights.shape[0], 1, *rows, weights.shape[1]) * x
    if weights.ndim == 3:
        return weights.mT.unflatten(1, (2, *rows)) * x
    W = weights.permute(0, 2, 3, 1).unflatten(2, (2, *rows))  # (B, 2, 2, ..., N)
    return (W * x[:, None]).sum(2)


def root(weights: Weights) -> Weights:
    """``W^(1/2)``; its derivative at zero is infinite, so it serves no gradient by W."""
    if weights.ndim < 4:
        return weights.sqrt()
    a, b, c = weights[..., 0, 0], weights[..., 0, 1], weights[..., 1, 1]
    d = (a * c - b * b).clamp(min=0).sqrt()
    size = (a + c + 2 * d).clamp(min=torch.finfo(a.dtype).tiny).sqrt()
    eye = torch.eye(2, dtype=a.dtype, device=a.device)
    return (weights + d[..., None, None] * eye) / size[..., None, None]


def keep(weights: Weights, kept: Bool[Tensor, "B N"]) -> Weights:
    """Zero where not kept."""
    return torch.where(kept.view(*kept.shape, *(1,) * (weights.ndim - 2)), weights, 0.0)


def invalid(weights: Weights, rounding: float) -> Bool[Tensor, " B"]:
    """Items with a negative weight or eigenvalue, beyond the rounding of a matrix's entries."""
    if weights.ndim < 4:
        return (weights < 0).flatten(1).any(-1)
    a, b, c = weights[..., 0, 0], weights[..., 0, 1], weights[..., 1, 1]
    bad = (a < 0) | (c < 0) | (a * c - b * b < -4 * rounding * (a + c).square())
    return bad.any(-1)
