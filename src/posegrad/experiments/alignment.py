"""Comparing structures that are known up to a similarity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Similarity", "align", "aligned_error"]


class Similarity(NamedTuple):
    """``y = scale * R x + t``; R may be a reflection where that was allowed."""

    scale: Tensor
    R: Float[Tensor, "3 3"]
    t: Float[Tensor, " 3"]

    def act(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Transform points (N, 3)."""
        return self.scale * points @ self.R.mT + self.t


def align(source: Float[Tensor, "N 3"], target: Float[Tensor, "N 3"], *, reflect: bool = False) -> Similarity:
    """The similarity with the least ``sum |scale R x_i + t - y_i|^2``; with ``reflect``, R in O(3).

    Reference: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.

    >>> x = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> torch.allclose(align(x, 2 * x + 1).act(x), 2 * x + 1, atol=1e-5)
    True
    """
    x, y = source - source.mean(0), target - target.mean(0)
    U, S, Vh = torch.linalg.svd(y.mT @ x)
    sign = torch.ones_like(S)
    if not reflect:
        sign[2] = torch.linalg.det(U @ Vh).sign()
    R = U * sign @ Vh
    scale = (S * sign).sum() / x.square().sum()
    return Similarity(scale, R, target.mean(0) - scale * R @ source.mean(0))


def aligned_error(
    structure: Float[Tensor, "N 3"], truth: Float[Tensor, "N 3"], *, reflect: bool = False
) -> float:
    """RMS distance after the best similarity, as a share of the RMS distance of the true points to their mean."""
    away = (align(structure, truth, reflect=reflect).act(structure) - truth).square().sum(-1).mean()
    return float((away / (truth - truth.mean(0)).square().sum(-1).mean()).sqrt())
