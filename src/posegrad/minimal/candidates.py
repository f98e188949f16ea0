"""What every solver here takes and returns: rays and points; some poses an item, and which of them are any good."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.pose import Pose


class Normalised(NamedTuple):
    """Points about their centroid with unit spread, and weights of sum 1; nothing is divided by zero."""

    points3d: Float[Tensor, "B N 3"]
    weights: Float[Tensor, "B N"]
    centre: Float[Tensor, "B 1 3"]
    size: Float[Tensor, "B 1 1"]

    @classmethod
    def of(cls, points3d: Float[Tensor, "B N 3"], weights: Float[Tensor, "B N"]) -> "Normalised":
        tiny = torch.finfo(points3d.dtype).tiny
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=tiny)
        centre = (weights[..., None] * points3d).sum(-2, keepdim=True)
        centred = points3d - centre
        size = (weights[..., None] * centred.square()).sum((-1, -2), keepdim=True).clamp(min=tiny).sqrt()
        return cls(centred / size, weights, centre, size)

    def restored(self, pose: Pose) -> Pose:
        """Poses (B, C, ...) of the points as they were given."""
        return Pose(
            pose.R, self.size.squeeze(-1)[:, None] * pose.t - (pose.R @ self.centre.mT[:, None]).squeeze(-1)
        )


def checked(pose: Pose, valid: Bool[Tensor, "B C"]) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """Poses that are not valid, or not finite, replaced by the identity one unit ahead, and which are left."""
    valid = valid & pose.R.isfinite().all(-1).all(-1) & pose.t.isfinite().all(-1)
    eye = torch.eye(3, dtype=pose.R.dtype, device=pose.R.device)
    return Pose(
        torch.where(valid[..., None, None], pose.R, eye), torch.where(valid[..., None], pose.t, eye[2])
    ), valid


def finite(value: Float[Tensor, "B *rest"]) -> Float[Tensor, "B *rest"]:
    """Zero in place of an item that is not finite: decompositions raise for it."""
    fine = value.isfinite().flatten(1).all(-1)
    return torch.where(fine.view(-1, *(1,) * (value.ndim - 1)), value, 0.0)
