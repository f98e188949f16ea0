"""Symmetric objects in losses: of all true poses that look the same, the one nearest to the prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from posegrad import so3
from posegrad.cameras import Camera
from posegrad.pose import Pose
from posegrad.projection import project_points

__all__ = ["nearest_symmetric_pose", "stack_symmetries"]


def stack_symmetries(sets: Sequence[Pose]) -> Pose:
    """The symmetries of O objects, (S_o,) each, as one (O, S): shorter sets repeat their first, the identity.

    A minimum over a set does not change when a member is repeated, so no mask is needed. The rotations are made
    orthogonal (files give them with six digits). Indexed by the objects of a batch, `stacked[objects]`, the result is
    what `nearest_symmetric_pose` takes.

    >>> stack_symmetries([Pose.identity(1), Pose.identity(3)]).shape
    torch.Size([2, 3])
    """
    most = max(len(one.t) for one in sets)
    index = [torch.arange(most).where(torch.arange(most) < len(one.t), 0).to(one.t.device) for one in sets]
    R = torch.stack([one.R[chosen] for one, chosen in zip(sets, index, strict=True)])
    t = torch.stack([one.t[chosen] for one, chosen in zip(sets, index, strict=True)])
    return Pose(so3.normalise(R), t)


def nearest_symmetric_pose(
    points2d: Tensor, points3d: Tensor, camera: Camera | Tensor, true: Pose, symmetries: Pose
) -> Pose:
    """Of the poses `T* S` that look like the true one, that whose keypoints are nearest to the predicted ones.

        argmin_S  mean_i |x_i - pi(T* S z_i)|

    A network cannot tell these poses apart; held to one of them it would learn their mean. With the nearest as the
    target of l_h and l_p it may answer with any. The choice is a constant to the gradient: a loss `min_S f(x, T* S)`
    has that of the least member wherever the least is unique. The choice is made once for both losses, so that they
    agree on the keypoints.

    Continuous symmetries are a fine set of turns (`posegrad.data.symmetry_transforms`): with BOP's 315 a keypoint on
    the rim is at most 0.005 diameters from the nearest.

    Args:
        points2d: (B, N, 2) predicted keypoints x, full-image pixels.
        points3d: (N, 3) or (B, N, 3) keypoints z on the object.
        camera: K (3, 3) or (B, 3, 3), or a pg camera, of the full image.
        true: the annotated poses T*, (B,).
        symmetries: (S,) of one object, or (B, S) item by item (see `stack_symmetries`), identity among them.

    Returns:
        (B,) poses, without gradient.

    Reference:
        Wang et al., "GDR-Net: Geometry-Guided Direct Regression Network for Monocular 6D Object Pose Estimation",
        CVPR 2021, which chooses the nearest of the true rotations.

    >>> import posegrad as pg
    >>> z = torch.tensor([[30.0, 0, 0], [0, 20, 0], [0, 0, 10], [10, 10, 10]])
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> half_a_turn = pg.Pose.from_rotvec(torch.tensor([[0.0, 0, 0], [0, 0, torch.pi]]), torch.zeros(2, 3))
    >>> true = pg.Pose.from_rotvec(torch.zeros(1, 3), torch.tensor([[0.0, 0, 500]]))
    >>> seen = pg.project_points(z, K, true @ half_a_turn[1])
    >>> nearest_symmetric_pose(seen, z, K, true, half_a_turn).R[0].diagonal().round()
    tensor([-1., -1.,  1.])
    """
    with torch.no_grad():
        x, z = points2d.to(true.t.dtype), points3d.to(true.t.dtype)
        moved = symmetries.act(z.unsqueeze(-3))  # (..., S, N, 3)
        # All symmetries as points of one item: so the camera, of whatever batch, is asked once.
        seen = project_points(moved.flatten(-3, -2), camera, true).unflatten(-2, moved.shape[-3:-1])
        best = (seen - x.unsqueeze(-3)).norm(dim=-1).mean(-1).argmin(-1)
        R = symmetries.R.expand(*best.shape, *symmetries.R.shape[-3:])
        t = symmetries.t.expand(*best.shape, *symmetries.t.shape[-2:])
        R = R.take_along_dim(best[..., None, None, None], -3).squeeze(-3)
        t = t.take_along_dim(best[..., None, None], -2).squeeze(-2)
        return true @ Pose(R, t)
