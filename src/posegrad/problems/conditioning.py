"""The units in which a pose problem is solved: everything numerical depends on them and on no others.

Object points are centred and scaled to RMS radius 1, the image is measured in focal lengths, the largest weight
is 1. Centre and scales are constants of the change of units, which is valid for any values of them; so the
gradient through it is exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.pose import Pose
from posegrad.problems.reprojection import Correspondences


@dataclass(frozen=True)
class Units:
    """``z' = (z - centre) / size``, image lengths in units of ``focal``, weights in units of ``weight``."""

    centre: Float[Tensor, "B 3"]
    size: Float[Tensor, " B"]
    focal: Float[Tensor, " B"]
    weight: Float[Tensor, " B"]

    @classmethod
    def of(cls, data: Correspondences) -> "Units":
        """From the points of positive weight; 1 where a scale would be zero, 0 where the centre overflows."""
        data = _pytree.tree_map(Tensor.detach, data)  # no_grad would leave forward-mode tangents
        used = (data.weights > 0).to(data.points3d.dtype)
        count = used.sum(-1, keepdim=True).clamp(min=1)
        centre = (used[..., None] * data.points3d).sum(-2) / count
        centre = torch.where(centre.isfinite(), centre, torch.zeros_like(centre))
        spread = (used[..., None] * (data.points3d - centre[:, None]).square()).sum(-1)
        size = (spread.sum(-1) / count.squeeze(-1)).sqrt()
        weight = data.weights.amax(-1) if data.weights.shape[-1] else data.weights.sum(-1)
        return cls(centre, _or_one(size), _or_one(data.camera.focal_scale()), _or_one(weight))

    def condition(self, data: Correspondences) -> Correspondences:
        """The same problem in these units."""
        return Correspondences(
            points2d=data.points2d / self.focal[:, None, None],
            points3d=(data.points3d - self.centre[:, None]) / self.size[:, None, None],
            weights=data.weights / self.weight[:, None],
            camera=data.camera.in_units_of(self.focal),
        )

    def condition_pose(self, pose: Pose) -> Pose:
        """``R (size z' + centre) + t = size (R z' + t')``."""
        centre = (pose.R @ self.centre[..., None]).squeeze(-1)
        return Pose(pose.R, (centre + pose.t) / self.size[:, None])

    def restore_pose(self, pose: Pose) -> Pose:
        """The inverse of :meth:`condition_pose`."""
        centre = (pose.R @ self.centre[..., None]).squeeze(-1)
        return Pose(pose.R, self.size[:, None] * pose.t - centre)

    @property
    def cost(self) -> Float[Tensor, " B"]:
        """User's cost over conditioned cost."""
        return self.focal.square() * self.weight

    def restore_hessian(self, hessian: Float[Tensor, "B 6 6"], R: Tensor) -> Float[Tensor, "B 6 6"]:
        """Hessian of the user's cost in the user's tangent at rotation R."""
        # dt' = ([w]x R centre + dt) / size
        centre = (R @ self.centre[..., None]).squeeze(-1)
        batch = hessian.shape[0]
        eye = torch.eye(3, dtype=R.dtype, device=R.device).expand(batch, 3, 3)
        size = self.size[:, None, None].expand(batch, 1, 1)
        rotation = torch.cat([eye, torch.zeros_like(eye)], -1)
        translation = torch.cat([-so3.hat(centre.expand(batch, 3)) / size, eye / size], -1)
        P = torch.cat([rotation, translation], -2)
        return self.cost[:, None, None] * (P.mT @ hessian @ P)


def _or_one(scale: Tensor) -> Tensor:
    return torch.where((scale > 0) & scale.isfinite(), scale, torch.ones_like(scale))
