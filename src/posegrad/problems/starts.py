"""Where the search for a pose starts: candidates for every item."""

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from posegrad.minimal.sqpnp import sqpnp
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.reprojection import Correspondences

# How many minima of the object-space cost are starts.
_NUM_MINIMA = 4


def first_starts(data: Correspondences, likely: Pose | None) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """The same number of poses (B, C, ...) for every item, and which of them are any good."""
    bearings, seen = data.camera.unproject(data.points2d)
    strength = torch.where(seen, weighting.strength(data.weights), 0.0)
    pose, valid = sqpnp(bearings, data.points3d, strength, _NUM_MINIMA)
    if likely is not None:
        pose = Pose(torch.cat([pose.R, likely.R[:, None]], 1), torch.cat([pose.t, likely.t[:, None]], 1))
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], 1)
    return pose, valid


def pushed_forward(pose: Pose, data: Correspondences) -> Pose:
    """Noise can leave a point of a good candidate behind the camera: move the object along z until none is."""
    if data.camera.wide:
        return pose
    depth = torch.where(weighting.strength(data.weights) > 0, pose.act(data.points3d)[..., 2], torch.inf)
    nearest = depth.amin(-1) if depth.shape[-1] else depth.sum(-1) + torch.inf
    shift = torch.where(nearest <= 1e-3, 0.1 - nearest, torch.zeros_like(nearest))
    return replace(pose, t=pose.t + shift[:, None] * pose.t.new_tensor([0.0, 0.0, 1.0]))
