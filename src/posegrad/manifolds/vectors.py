"""Numbers: free, positive, or of length 1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posegrad.manifolds.base import NEAR, Manifold, all_of, checked_tensor, flat


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Numbers without a constraint: (B, ...), tangent ``x <- x + delta`` in the order of ``flatten``.

    >>> Euclidean().retract(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    def dimension(self, variable: Tensor) -> int:
        return math.prod(checked_tensor(variable, self).shape[1:])

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return variable + delta.reshape(delta.shape[0], *variable.shape[1:])

    def contains(self, variable: Tensor) -> Tensor:
        return all_of(variable.isfinite())

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.zeros_like(variable)

    def size(self, variable: Tensor) -> Tensor:
        rows = flat(variable)
        root = rows.square().mean(-1, keepdim=True).sqrt()
        return torch.where(root > 0, root, torch.ones_like(root)).expand_as(rows)


@dataclass(frozen=True)
class Positive(Manifold):
    """Numbers > 0: (B, ...), tangent ``x <- x exp(delta)``.

    >>> Positive().retract(torch.ones(1, 1), torch.tensor([[0.0]]))
    tensor([[1.]])
    """

    def dimension(self, variable: Tensor) -> int:
        return math.prod(checked_tensor(variable, self).shape[1:])

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return variable * delta.exp().reshape(delta.shape[0], *variable.shape[1:])

    def contains(self, variable: Tensor) -> Tensor:
        return all_of((variable > 0) & variable.isfinite())

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.ones_like(variable)

    def size(self, variable: Tensor) -> Tensor:
        return torch.ones_like(flat(variable))


@dataclass(frozen=True)
class Sphere(Manifold):
    """Unit vectors: (B, ..., n), n >= 2, tangent ``x <- (x + Q delta) / |x + Q delta|``.

    The columns of Q are the n - 1 axes of ``I - 2 h h^T / |h|^2`` beside the last, with ``h = x + sign(x_n) e_n``.

    >>> Sphere().retract(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0.7071, 0.0000, 0.7071]])
    """

    def dimension(self, variable: Tensor) -> int:
        if checked_tensor(variable, self).ndim < 2 or variable.shape[-1] < 2:
            raise ValueError(f"Sphere: got shape {tuple(variable.shape)}, expected (B, ..., n), n >= 2")
        return math.prod(variable.shape[1:-1]) * (variable.shape[-1] - 1)

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        side = torch.where(variable[..., -1:] < 0, -1.0, 1.0).to(variable)
        h = torch.cat([variable[..., :-1], variable[..., -1:] + side], -1)
        step = delta.reshape(*variable.shape[:-1], variable.shape[-1] - 1)
        along = 2 * (h[..., :-1] * step).sum(-1, keepdim=True) / h.square().sum(-1, keepdim=True)
        moved = variable + torch.cat([step, torch.zeros_like(along)], -1) - along * h
        return moved / moved.square().sum(-1, keepdim=True).sqrt()

    def contains(self, variable: Tensor) -> Tensor:
        return all_of((variable.square().sum(-1).sqrt() - 1).abs() < NEAR)

    def project(self, variable: Tensor) -> Tensor:
        return variable / variable.square().sum(-1, keepdim=True).sqrt()

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.ones_like(variable) / math.sqrt(variable.shape[-1])

    def size(self, variable: Tensor) -> Tensor:
        return torch.ones_like(flat(variable[..., 1:]))
