"""IPPE: both poses of a plane, from the derivative of its homography at the centroid.

1. Turn the object so that the plane of best fit is z = 0 and its centroid the origin.
2. The homography H of plane to rays is the least singular vector of ``v_i x (H p_i) = 0``, with plane and image of unit
   spread.
3. Turn the camera so that the ray H gives the centroid is the optical axis. The derivative J (2 x 2) of the image there
   is that of a plane turned by R: ``J = A / depth``, where A, the upper left block of R, has 1 as its larger singular
   value. That gives the depth; the two entries b of R below A follow from ``b b^T = I - A^T A`` up to one sign: two
   rotations.
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


def ippe(
    bearings: Float[Tensor, "B N 3"], points3d: Float[Tensor, "#B N 3"], weights: Float[Tensor, "B N"]
) -> tuple[Pose, Bool[Tensor, "B 2"]]:
    """The two poses of a plane whose image has the homography of the data at the centroid, up to first order.

    Collins & Bartoli, "Infinitesimal Plane-based Pose Estimation", IJCV 109 (2014), on viewing rays. Precondition: at
    least 4 points of positive weight, no three of four on a line, in a plane or near one: points off the plane of
    best fit are moved onto it, for the rotation. Exact data of a plane give the true pose as one of the two.

    Args:
        bearings: unit viewing rays (B, N, 3); any direction, also behind 90 degrees.
        points3d: (B, N, 3), in any unit and any plane. A leading 1 is shared.
        weights: (B, N) >= 0; scale does not matter.

    Returns:
        Poses (B, 2, ...) in no particular order, and (B, 2) valid: finite, with the centroid in front. Poses that are
        not valid are the identity, one unit ahead.

    >>> z = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 2, 0]]], dtype=torch.float64)
    >>> y = z + torch.tensor([0.5, 0.3, 6.0])
    >>> pose, valid = ippe(y / y.norm(dim=-1, keepdim=True), z, torch.ones(1, 4, dtype=torch.float64))
    >>> bool((pose.R - torch.eye(3)).abs().amax((-1, -2)).min() < 1e-9), valid.tolist()
    (True, [[True, True]])
    """
    check_arguments(bearings, points3d, weights)
    known = Normalised.of(points3d, weights)
    z, w = known.points3d, known.weights
    axes = torch.linalg.eigh(finite((w[..., None] * z).mT @ z))[1].mT.flip(1)
    axes = torch.cat(
        [axes[:, :2], torch.linalg.cross(axes[:, :1], axes[:, 1:2], dim=-1)], 1
    )  # the normal last
    plane = torch.cat([(z @ axes.mT)[..., :2], torch.ones_like(z[..., :1])], -1).expand_as(bearings)
    H, determined = linear_map(bearings, plane, w)
    turn = so3.between(H[..., 2], H.new_tensor([0.0, 0.0, 1.0]))
    H = turn @ H
    R = turn.mT[:, None] @ _rotations(H[:, :2, :2] / H[:, 2:, 2:]) @ axes[:, None]
    pose, in_front = placed(R, bearings, z, w)
    return checked(known.restored(pose), in_front & determined[:, None] & so3.is_rotation(R))


def _rotations(J: Float[Tensor, "B 2 2"]) -> Float[Tensor, "B 2 3 3"]:
    """Both rotations of a plane at the optical axis whose image has the derivative J at the origin."""
    tiny = torch.finfo(J.dtype).tiny
    G = J.mT @ J
    a, b, c = G[:, 0, 0], G[:, 0, 1], G[:, 1, 1]
    largest = 0.5 * (a + c + torch.hypot(a - c, 2 * b)).clamp(min=tiny)
    A = J / largest.sqrt()[:, None, None]
    left = torch.eye(2, dtype=J.dtype, device=J.device) - A.mT @ A
    square, index = left.diagonal(dim1=-2, dim2=-1).max(-1)
    column = left.gather(2, index[:, None, None].expand(-1, 2, 1)).squeeze(-1)
    below = column * torch.where(square > tiny, square, torch.inf).rsqrt()[:, None]
    below = torch.stack([below, -below], 1)[..., None, :]
    columns = torch.cat([A[:, None].expand(-1, 2, -1, -1), below], 2)
    normal = torch.linalg.cross(columns[..., 0], columns[..., 1], dim=-1)
    return torch.cat([columns, normal[..., None]], -1)
