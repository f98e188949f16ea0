"""The units in which a pose problem is solved: everything numerical depends on them and on no others.

Object points are centred and scaled to RMS radius 1, the image is measured in focal lengths, the largest weight
is 1. Centre and scales are constants of the change of units, which is valid for any values of them; so the
gradient through it is exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.reprojection import Correspondences


@_pytree.register
@dataclass(frozen=True)
class Units:
    """``z' = (z - centre) / size``, image lengths in units of ``focal``, weights in units of ``weight``."""

    centre: Float[Tensor, "B 3"]
    size: Float[Tensor, " B"]
    focal: Float[Tensor, " B"]
    weight: Float[Tensor, " B"]

    @classmethod
    def of(cls, data: Correspondences, *, centred: bool = True) -> "Units":
        """From the points of positive weight; 1 where a scale would be zero, 0 where the centre overflows.

        Not centred: the centre is 0, so that the translation is the user's but for its scale.
        """
        data = _pytree.tree_map(Tensor.detach, data)  # no_grad would leave forward-mode tangents
        strength = weighting.strength(data.weights)
        used = (strength > 0).to(data.points3d.dtype)
        count = used.sum(-1, keepdim=True).clamp(min=1)
        centre = (used[..., None] * data.points3d).sum(-2) / count
        centre = torch.where(centre.isfinite() & centred, centre, torch.zeros_like(centre))
        offset = torch.where(used[..., None] > 0, data.points3d - centre[:, None], 0.0)
        spread = offset.square().sum(-1)
        size = (spread.sum(-1) / count.squeeze(-1)).sqrt()
        weight = strength.amax(-1) if strength.shape[-1] else strength.sum(-1)
        return cls(centre, _or_one(size), _or_one(data.camera.focal_scale()), _or_one(weight))

    def condition(self, data: Correspondences) -> Correspondences:
        """The same problem in these units.

        Points of weight zero that are so far off that their squares might overflow get no gradient, nor do their
        weights: zero times infinity is NaN.
        """
        x = data.points2d / self.focal[:, None, None]
        z = (data.points3d - self.centre[:, None]) / self.size[:, None, None]
        farthest = torch.maximum(x.detach().abs().amax(-1), z.detach().abs().amax(-1))
        near = (farthest < torch.finfo(x.dtype).max ** (1 / 3)) | (
            weighting.strength(data.weights.detach()) != 0
        )
        return Correspondences(
            points2d=torch.where(near[..., None], x, 0.0),
            points3d=torch.where(near[..., None], z, 0.0),
            weights=weighting.keep(
                data.weights / self.weight.view(-1, *(1,) * (data.weights.ndim - 1)), near
            ),
            camera=data.camera.in_units_of(self.focal),
            loss=data.loss.in_units_of(self.cost.sqrt()),
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
        centre, size = self._centre_and_size(R)
        P = _lower_left(-so3.hat(centre) / size, 1 / size)
        return self.cost[:, None, None] * (P.mT @ hessian @ P)

    def restore_covariance(self, covariance: Float[Tensor, "B 6 6"], R: Tensor) -> Float[Tensor, "B 6 6"]:
        """Covariance in the user's tangent at rotation R; the noise that makes it is no matter of units here."""
        centre, size = self._centre_and_size(R)
        P = _lower_left(so3.hat(centre), size)
        return P @ covariance @ P.mT

    def _centre_and_size(self, R: Tensor) -> tuple[Tensor, Tensor]:
        centre = (R @ self.centre[..., None]).squeeze(-1)
        return centre.expand(R.shape[0], 3), self.size[:, None, None].expand(R.shape[0], 1, 1)


def squared_width(points3d: Float[Tensor, "B N 3"], used: Bool[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """How far the used points, in conditioned units, are off a line, squared: the second eigenvalue of their scatter,
    but for a factor between 1 and 2 (the sum of all is 1)."""
    share = used / used.sum(-1, keepdim=True).clamp(min=1)
    z = points3d - (share[..., None] * points3d).sum(-2, keepdim=True)
    scatter = (share[..., None] * z).mT @ z
    trace = scatter.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * (trace.square() - scatter.square().sum((-1, -2)))


def _lower_left(corner: Float[Tensor, "B 3 3"], scale: Float[Tensor, "B 1 1"]) -> Float[Tensor, "B 6 6"]:
    """``[[I, 0], [corner, scale I]]``."""
    eye = torch.eye(3, dtype=corner.dtype, device=corner.device).expand_as(corner)
    top = torch.cat([eye, torch.zeros_like(eye)], -1)
    return torch.cat([top, torch.cat([corner, scale * eye], -1)], -2)


def _or_one(scale: Tensor) -> Tensor:
    return torch.where((scale > 0) & scale.isfinite(), scale, torch.ones_like(scale))
