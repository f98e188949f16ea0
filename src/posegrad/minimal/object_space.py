"""The object-space error: the distance of the points from their viewing rays."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.pose import Pose


class ObjectSpace(NamedTuple):
    """``min_t sum_i w_i |(I - v_i v_i^T) (R z_i + t)|^2 / sum_i w_i`` as ``r^T omega r`` with r = vec(R) row by row,
    and its minimiser ``t = -shift r``."""

    omega: Float[Tensor, "B 9 9"]
    shift: Float[Tensor, "B 3 9"]

    @classmethod
    def of(
        cls,
        bearings: Float[Tensor, "B N 3"],
        points3d: Float[Tensor, "#B N 3"],
        weights: Float[Tensor, "B N"],
    ) -> "ObjectSpace":
        """From unit rays, points and weights >= 0."""
        batch = bearings.shape[0]
        eye = torch.eye(3, dtype=bearings.dtype, device=bearings.device)
        V = eye - bearings[..., :, None] * bearings[..., None, :]
        tiny = torch.finfo(weights.dtype).tiny
        weighted = (weights / weights.sum(-1, keepdim=True).clamp(min=tiny))[..., None] * V.flatten(-2)
        Q = weighted.sum(-2).unflatten(-1, (3, 3))
        # row j, column (k, l) of sum_i w V_jk z_l: the gradient of the linear term
        T = (weighted.mT @ points3d).reshape(batch, 3, 9)
        zz = (points3d[..., :, None] * points3d[..., None, :]).flatten(-2)
        M = (weighted.mT @ zz).view(batch, 3, 3, 3, 3).transpose(2, 3).reshape(batch, 9, 9)
        shift = torch.linalg.solve_ex(Q, T)[0]
        omega = M - T.mT @ shift
        return cls(0.5 * (omega + omega.mT), shift)

    def translation(self, R: Float[Tensor, "B C 3 3"]) -> Float[Tensor, "B C 3"]:
        """The best translations of some rotations."""
        return -(self.shift[:, None] @ R.flatten(-2)[..., None]).squeeze(-1)


def placed(
    R: Float[Tensor, "B C 3 3"],
    bearings: Float[Tensor, "B N 3"],
    points3d: Float[Tensor, "#B N 3"],
    weights: Float[Tensor, "B N"],
) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """Rotations with their best translations, and whether these put the origin, the points' centroid, in front."""
    t = ObjectSpace.of(bearings, points3d, weights).translation(R)
    return Pose(R, t), ((weights[..., None] * bearings).sum(-2)[:, None] * t).sum(-1) > 0
