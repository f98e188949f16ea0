"""DLT: the pose from the projection matrix that fits six or more points best, linearly.

1. Scale the points to unit spread about their centroid, turn the camera so that the mean ray is the optical axis and
   scale the image to unit spread.
2. The projection matrix P is the least singular vector of ``v_i x (P (z_i, 1)) = 0``.
3. Undo the scaling of the image; the rotation nearest to the left block of P, times a number, is R; its sign puts the
   points in front.
4. The translation is the best in object space.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.minimal.candidates import Normalised, check_arguments, checked, finite
from posegrad.minimal.linear_map import linear_map
from posegrad.minimal.object_space import placed
from posegrad.pose import Pose

_LEAST_POINTS = 6


def dlt(
    bearings: Float[Tensor, "B N 3"], points3d: Float[Tensor, "#B N 3"], weights: Float[Tensor, "B N"]
) -> tuple[Pose, Bool[Tensor, "B 1"]]:
    """The pose nearest to the projection matrix P that minimises ``sum_i w_i |v_i x P (z_i, 1)|^2`` with |P| = 1.

    Direct linear transformation with normalised data (Hartley & Zisserman, "Multiple View Geometry in Computer Vision",
    2003, section 7.1), on viewing rays; the rotation is the nearest in Frobenius norm. Precondition: at least 6 points
    of positive weight, not in a plane, nor on a twisted cubic through the camera.

    Args:
        bearings: unit viewing rays (B, N, 3); any direction, also behind 90 degrees.
        points3d: (B, N, 3), in any unit. A leading 1 is shared.
        weights: (B, N) >= 0; scale does not matter.

    Returns:
        Poses (B, 1, ...) and (B, 1) valid: the data determine P, the centroid is in front. Poses that are not valid are
        the identity, one unit ahead.

    >>> z = torch.tensor([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 2], [2, 1, 4]]], dtype=torch.float64)
    >>> y = z + torch.tensor([0.5, 0.3, 6.0])
    >>> pose, valid = dlt(y / y.norm(dim=-1, keepdim=True), z, torch.ones(1, 6, dtype=torch.float64))
    >>> bool((pose.R - torch.eye(3)).abs().max() < 1e-9), valid.tolist()
    (True, [[True]])
    """
    check_arguments(bearings, points3d, weights)
    known = Normalised.of(points3d, weights)
    z, w = known.points3d, known.weights
    P, determined = linear_map(bearings, torch.cat([z, torch.ones_like(z[..., :1])], -1), w)
    R = _nearest_rotation(P[..., :3])[:, None]
    pose, in_front = placed(R, bearings, z, w)
    enough = (w > 0).sum(-1) >= _LEAST_POINTS
    return checked(known.restored(pose), in_front & (determined & enough)[:, None] & so3.is_rotation(R))


def _nearest_rotation(M: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3 3"]:
    """In Frobenius norm."""
    left, _, right = torch.linalg.svd(finite(M))
    sign = torch.linalg.det(left @ right).sign()[:, None, None]
    return torch.cat([left[..., :2], sign * left[..., 2:]], -1) @ right
