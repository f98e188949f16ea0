"""Systems of many small unknowns that meet in a few shared ones: solved by eliminating the small ones (Schur).

The matrix is ``[[corner, cross], [cross^T, diag(blocks)]]``: F shared unknowns (a camera's parameters) and V blocks of
K unknowns (the poses), which are coupled to the shared ones alone. Work and memory grow linearly with V.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.optim.linear import equilibrate


class Arrow(NamedTuple):
    """The matrix, per item of the batch."""

    corner: Float[Tensor, "B F F"]
    cross: Float[Tensor, "B V F K"]
    blocks: Float[Tensor, "B V K K"]

    def diagonal(self) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B V K"]]:
        """Its diagonal: that of the corner, those of the blocks."""
        return self.corner.diagonal(dim1=-2, dim2=-1), self.blocks.diagonal(dim1=-2, dim2=-1)

    def plus_diagonal(self, corner: Float[Tensor, "B F"], blocks: Float[Tensor, "B V K"]) -> "Arrow":
        """With numbers added to the diagonal."""
        return Arrow(
            self.corner + torch.diag_embed(corner), self.cross, self.blocks + torch.diag_embed(blocks)
        )

    def packed(self) -> Float[Tensor, "B F+VK F+K"]:
        """In one tensor, of a size linear in V: the corner and zeros, then each block's ``[cross^T, block]``."""
        top = torch.nn.functional.pad(self.corner, (0, self.cross.shape[-1]))
        return torch.cat([top, torch.cat([self.cross.mT, self.blocks], -1).flatten(1, 2)], 1)

    @classmethod
    def unpacked(cls, packed: Float[Tensor, "B F+VK F+K"], K: int) -> "Arrow":
        """The inverse of :meth:`packed`."""
        F = packed.shape[-1] - K
        below = packed[:, F:].unflatten(1, (-1, K))
        return cls(packed[:, :F, :F], below[..., :F].mT, below[..., F:])

    def dense(self) -> Float[Tensor, "B D D"]:
        """All of it, ``D = F + V K``."""
        size, V, F, K = self.cross.shape
        across = self.cross.permute(0, 2, 1, 3).reshape(size, F, V * K)
        spread = torch.eye(V, dtype=across.dtype, device=across.device)[:, None, :, None]
        below = (self.blocks[:, :, :, None] * spread).reshape(size, V * K, V * K)
        return torch.cat([torch.cat([self.corner, across], -1), torch.cat([across.mT, below], -1)], -2)


class Elimination(NamedTuple):
    """An :class:`Arrow` whose blocks are eliminated, with a right-hand side.

    ``schur = corner - sum_v cross_v blocks_v^-1 cross_v^T`` is the matrix of the shared unknowns alone, ``right`` its
    right-hand side; both mean nothing where not ``positive`` (a block is not positive definite).
    """

    schur: Float[Tensor, "B F F"]
    right: Float[Tensor, "B F"]
    positive: Bool[Tensor, " B"]
    factors: Float[Tensor, "B V K K"]
    columns: Float[Tensor, "B V K F+1"]


def eliminate(
    matrix: Arrow, right_corner: Float[Tensor, "B F"], right_blocks: Float[Tensor, "B V K"]
) -> Elimination:
    """Eliminate the blocks by Cholesky; never raises."""
    factors, fine = _factor(matrix.blocks)
    positive = fine.all(-1)
    columns = torch.cat([matrix.cross.mT, right_blocks[..., None]], -1)
    columns = torch.where(positive[:, None, None, None], columns, 0.0)
    columns = torch.linalg.solve_triangular(factors, columns, upper=False)
    stacked = columns.flatten(1, 2)
    product = stacked.mT @ stacked[..., :-1]
    return Elimination(
        matrix.corner - product[:, :-1], right_corner - product[:, -1], positive, factors, columns
    )


def solve(
    matrix: Arrow, right_corner: Float[Tensor, "B F"], right_blocks: Float[Tensor, "B V K"]
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B V K"], Bool[Tensor, " B"]]:
    """Solve for a positive definite matrix; (zeros, False) where it is not."""
    eliminated = eliminate(matrix, right_corner, right_blocks)
    factor, fine = _factor(eliminated.schur)
    positive = fine & eliminated.positive
    right = torch.where(positive[:, None], eliminated.right, 0.0)
    corner = torch.cholesky_solve(right[..., None], factor)
    left = eliminated.columns[..., -1:] - eliminated.columns[..., :-1] @ corner[:, None]
    left = torch.where(positive[:, None, None, None], left, 0.0)
    blocks = torch.linalg.solve_triangular(eliminated.factors.mT, left, upper=True)
    return corner.squeeze(-1), blocks.squeeze(-1), positive


def definiteness(matrix: Arrow, schur: Float[Tensor, "B F F"]) -> Float[Tensor, " B"]:
    """The smallest eigenvalue of the blocks and of the Schur complement, scaled: a number in (-inf, 1].

    Positive where the whole is positive definite (Haynsworth); independent of the units of the unknowns. The blocks are
    scaled to unit diagonal, the complement by the corner's diagonal: so it tells which part of what is known of a
    shared unknown is left once the blocks are unknown.
    """
    scale = matrix.corner.detach().diagonal(dim1=-2, dim2=-1)
    scale = torch.where(scale > 0, scale, 1.0).rsqrt()
    own = _smallest(scale[..., :, None] * schur * scale[..., None, :])
    of_blocks = _smallest(equilibrate(matrix.blocks)[0])
    return torch.minimum(own, of_blocks.amin(-1) if of_blocks.shape[-1] else own)


def covariances(
    matrix: Arrow,
) -> tuple[Float[Tensor, "B F F"], Float[Tensor, "B V K K"], Bool[Tensor, " B"]]:
    """The corner and the diagonal blocks of the inverse, and where it is positive definite (else zero)."""
    zero = matrix.corner.new_zeros(())
    eliminated = eliminate(
        matrix,
        zero.expand(matrix.corner.shape[:-1]),
        zero.expand(matrix.cross.shape[:2] + matrix.cross.shape[3:]),
    )
    factor, fine = _factor(eliminated.schur)
    positive = fine & eliminated.positive
    corner = torch.cholesky_inverse(factor)
    own = torch.cholesky_inverse(eliminated.factors)
    slope = torch.linalg.solve_triangular(eliminated.factors.mT, eliminated.columns[..., :-1], upper=True)
    blocks = own + slope @ corner[:, None] @ slope.mT
    return (
        torch.where(positive[:, None, None], corner, 0.0),
        torch.where(positive[:, None, None, None], blocks, 0.0),
        positive,
    )


def _factor(H: Float[Tensor, "*batch K K"]) -> tuple[Float[Tensor, "*batch K K"], Bool[Tensor, "*batch"]]:
    """Cholesky factors; the identity, False where there is none."""
    factor, info = torch.linalg.cholesky_ex(H.detach())
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    fine = (info == 0) & ((pivots > 0) & pivots.isfinite()).all(-1)
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    if H.requires_grad:  # factor again, so that no failed factorisation enters the graph
        factor = torch.linalg.cholesky_ex(torch.where(fine[..., None, None], H, eye))[0]
    return torch.where(fine[..., None, None], factor, eye), fine


def _smallest(H: Float[Tensor, "*batch K K"]) -> Float[Tensor, "*batch"]:
    finite = H.isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], H, 0.0)
    return torch.where(finite, torch.linalg.eigvalsh(safe)[..., 0], -torch.inf)
