"""Where the search for a pose starts: candidates for every item, and more for those that need them."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.minimal.p3p import p3p
from posegrad.minimal.sqpnp import sqpnp
from posegrad.optim import batch
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.conditioning import squared_width
from posegrad.problems.reprojection import Correspondences

# How many minima of the object-space cost are starts, and how many of the angular one for items that need more.
_NUM_MINIMA, _NUM_OTHER_MINIMA = 4, 8
# Items need more starts where noise is above this part of the object's width.
_NOISY = 0.125
# A start with points outside of the camera's field is moved ahead by the first of these parts of its distance (and as
# many of the object's size) that will do.
_PUSHES = tuple(0.005 * 2**k for k in range(9))


def first_starts(data: Correspondences, likely: Pose | None) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """The same number of poses (B, C, ...) for every item, and which of them are any good."""
    bearings, seen = data.camera.unproject(data.points2d)
    strength = torch.where(seen, weighting.strength(data.weights), 0.0)
    pose, valid = sqpnp(bearings, data.points3d, strength, _NUM_MINIMA)
    if likely is not None:
        pose = Pose(torch.cat([pose.R, likely.R[:, None]], 1), torch.cat([pose.t, likely.t[:, None]], 1))
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], 1)
    return pose, valid


def need_more(data: Correspondences, pose: Pose, cost: Float[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Items whose best pose so far may not be the best there is: three points; no pose that is feasible (an infinite
    cost); noise that, carried to the object's distance, is not small against the object's width."""
    strength = weighting.strength(data.weights)
    used = strength > 0
    count = used.sum(-1)
    centroid = (used[..., None] * data.points3d).sum(-2) / count.clamp(min=1)[:, None]
    distance = pose.act(centroid[:, None]).squeeze(1).square().sum(-1)  # squared, as all that follows
    # of 2 N numbers the fit takes 6
    spread = strength.sum(-1) * (count - 3).clamp(min=0.5) / count.clamp(min=1)
    noise = 2 * cost * distance / spread.clamp(min=torch.finfo(cost.dtype).tiny)
    return (count == 3) | cost.isinf() | (noise > _NOISY**2 * squared_width(data.points3d, used))


def more_starts(
    data: Correspondences, first: Pose, valid: Bool[Tensor, "B C"]
) -> tuple[Pose, Bool[Tensor, "B D"]]:
    """For items that need more: their first starts, minima of another cost, and what fits three points."""
    bearings, seen = data.camera.unproject(data.points2d)
    strength = weighting.strength(data.weights)
    used = strength > 0
    other, other_valid = sqpnp(
        bearings, data.points3d, torch.where(seen, strength, 0.0), _NUM_OTHER_MINIMA, by_angle=True
    )
    parts = [(first, valid), (other, other_valid)]
    if used.shape[1] >= 3:
        three = first_used(used, 3)[..., None].expand(-1, -1, 3)
        pose, fits = p3p(bearings.gather(1, three), data.points3d.gather(1, three), nearest=True)
        triangle = (used.sum(-1) == 3) & (seen | ~used).all(-1)
        parts.append((pose, fits & triangle[:, None]))
    poses, good = zip(*parts, strict=True)
    R, t = torch.cat([pose.R for pose in poses], 1), torch.cat([pose.t for pose in poses], 1)
    return Pose(R, t), torch.cat(good, 1)


def first_used(used: Bool[Tensor, "B N"], count: int) -> Int[Tensor, "B count"]:
    """The indices of the first points that are used (then of others, where there are fewer), in order."""
    return used.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)[:, :count]


def pushed_forward(pose: Pose, data: Correspondences) -> Pose:
    """Noise can leave a point of a good candidate behind the camera: move the object along z until none is."""
    if data.camera.wide:
        return pose
    depth = torch.where(weighting.strength(data.weights) > 0, pose.act(data.points3d)[..., 2], torch.inf)
    nearest = depth.amin(-1) if depth.shape[-1] else depth.sum(-1) + torch.inf
    return _moved_ahead(pose, torch.where(nearest <= 1e-3, 0.1 - nearest, torch.zeros_like(nearest)))


def pushed_into_the_field(pose: Pose, data: Correspondences) -> Pose:
    """Likewise for the field of the camera's model: what moves along z comes nearer to the optical axis, from behind
    90 degrees too."""
    unused = weighting.strength(data.weights) == 0

    def feasible(pose: Pose) -> Tensor:
        return (data.camera.project(pose.act(data.points3d)).valid | unused).all(-1)

    found, there = pose, feasible(pose)
    distance = 1 + pose.t.square().sum(-1).sqrt()
    for part in _PUSHES:
        trial = _moved_ahead(pose, part * distance)
        found = batch.where(there, found, trial)
        there = there | feasible(trial)
    return found


def _moved_ahead(pose: Pose, shift: Float[Tensor, " B"]) -> Pose:
    return replace(pose, t=pose.t + shift[:, None] * pose.t.new_tensor([0.0, 0.0, 1.0]))
