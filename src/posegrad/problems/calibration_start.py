"""Where a calibration starts: a camera without distortion and the poses of the views, from the points alone.

Planes before a perspective camera: homographies, Zhang's closed form for the focal length. Everything else: several
focal lengths (and strengths of distortion, where a model has no start at zero), the poses of all views under each by
:func:`posegrad.minimal.sqpnp.sqpnp`, and the hypotheses of the lowest cost.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.minimal.homography import (
    Plane,
    focal_from_homographies,
    homography,
    plane_of,
    pose_from_homography,
)
from posegrad.minimal.sqpnp import sqpnp
from posegrad.optim import batch
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.calibration_problem import Calibrated, Calibration, Observations

# Focal lengths tried, in units of the image's longer side: fields of view from 120 to 5 degrees, and for fisheyes whose
# image fills that side from 350 to 15 degrees.
_PERSPECTIVE = (0.3, 0.45, 0.7, 1.0, 1.5, 2.4, 4.0, 10.0)
_WIDE = (0.16, 0.22, 0.3, 0.4, 0.55, 0.8, 1.2, 2.0)
_BESIDE_THE_CLOSED_FORM = (0.5, 1.0, 2.5)
# Distortions tried with each: where the derivative by the parameter is zero at none, or the field of view too narrow.
_DISTORTIONS = {
    "FOV": ("omega", (0.3, 1.0)),
    "DIVISION": ("k", (0.0, -0.3)),
    "SIMPLE_DIVISION": ("k", (0.0, -0.3)),
}
# A view that fits worse than this, in units of the image's longer side, counts as one that does not fit.
_HOPELESS = 0.1
# A target that is thinner than this part of its size is a plane.
_THIN = 1e-2


class Known(NamedTuple):
    """What the start reads beside the observations: parameters with their held or neutral values, and the views."""

    params: Float[Tensor, "B P"]
    admitted: Float[Tensor, "B V"]


def closed_form_suits(problem: Calibration) -> bool:
    """Whether the model is a perspective one that can start without distortion."""
    return not problem.model.wide and problem.model.name not in _DISTORTIONS


def planes_of(args: Observations) -> Plane:
    """The planes of the targets, (B, V)."""
    plane = plane_of(args.points3d.flatten(0, 1), weighting.strength(args.weights.flatten(0, 1)))
    return Plane(*(value.unflatten(0, args.points3d.shape[:2]) for value in plane))


def are_planes(planes: Plane, admitted: Float[Tensor, "B V"]) -> Bool[Tensor, ""]:
    """Whether all targets of all calibrations are planes."""
    return ((planes.thickness < _THIN) | (admitted == 0)).all()


def mirrored(pose: Pose, planes: Plane) -> Pose:
    """Poses (B, V) with the targets' planes mirrored about the lines of sight: from afar they look the same."""
    frame = planes.frame
    sight = pose.t / pose.t.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-300)
    axes = pose.R @ frame.mT
    axes = axes - 2 * sight[..., :, None] * (sight[..., None, :] @ axes)
    # a reflection has the wrong hand: the normal points the other way
    return Pose(axes @ (frame * frame.new_tensor([1.0, 1.0, -1.0])[:, None]), pose.t)


def from_planes(problem: Calibration, args: Observations, known: Known, planes: Plane) -> Calibrated:
    """Zhang's start, for planes before a perspective camera: one for each calibration."""
    size, views = known.admitted.shape
    points2d, points3d = args.points2d.flatten(0, 1), args.points3d.flatten(0, 1)
    weights = weighting.strength(args.weights.flatten(0, 1))
    frame = planes.frame.flatten(0, 1)
    H = homography(points2d, (points3d @ frame.mT)[..., :2], weights).view(size, views, 3, 3)
    n = problem.model.num_focal
    centre = known.params[:, n : n + 2]
    H = torch.cat([H[..., :2, :] - centre[:, None, :, None] * H[..., 2:, :], H[..., 2:, :]], -2)
    focal, found = focal_from_homographies(H, known.admitted)
    tried = focal.new_tensor(_BESIDE_THE_CLOSED_FORM)
    likely = torch.where(found, focal.clamp(0.1 * tried[0], 10 * tried[-1]), 1.0)
    params = _with_focal(problem, known.params, torch.cat([likely[:, None], tried.expand(size, -1)], 1))
    both = params[..., :2] if n == 2 else params[..., :1].expand(-1, -1, 2)
    pose = pose_from_homography(H[:, None], both[:, :, None], frame.view(size, 1, views, 3, 3))
    return _best(problem, args, known, params, pose, keep=1)[0]


def from_hypotheses(
    problem: Calibration, args: Observations, known: Known, keep: int
) -> tuple[Calibrated, Float[Tensor, "B K"]]:
    """The ``keep`` best starts of each calibration, one after the other, and a lower bound of the cost of each's views
    that had no pose."""
    size, views = known.admitted.shape
    params = _hypotheses(problem, known.params)
    count = params.shape[1]
    many = batch.repeat(args, count)
    flat: Observations = _pytree.tree_map(lambda leaf: leaf.flatten(0, 1), many)
    camera = batch.repeat(problem.model(params.flatten(0, 1)), views)
    bearings, seen = camera.unproject(flat.points2d)
    strength = torch.where(seen, weighting.strength(flat.weights), 0.0)
    pose, valid = sqpnp(bearings, flat.points3d, strength, 2)
    poses = [_pytree.tree_map(lambda leaf, i=i: leaf[:, i], pose) for i in range(2)]
    costs = []
    for i, candidate in enumerate(poses):
        candidate = batch.where(valid[:, i], candidate, _ahead(candidate))
        poses[i] = _pytree.tree_map(lambda leaf: leaf.unflatten(0, (-1, views)), candidate)
        variable = Calibrated(params.flatten(0, 1), poses[i], batch.repeat(known.admitted, count))
        cost, feasible = problem.view_costs(variable, many)
        fine = feasible & valid[:, i].view(-1, views) & cost.isfinite()
        costs.append(torch.where(fine, cost, torch.inf))
    second = (costs[1] < costs[0]).flatten()
    chosen = batch.where(second, *(_pytree.tree_map(lambda v: v.flatten(0, 1), p) for p in reversed(poses)))
    chosen = _pytree.tree_map(lambda leaf: leaf.unflatten(0, (size, count, views)), chosen)
    return _best(problem, args, known, params, chosen, keep)


def _hypotheses(problem: Calibration, known: Float[Tensor, "B P"]) -> Float[Tensor, "B H P"]:
    names, model = problem.model.parameter_names, problem.model
    wide = model.wide and model.name not in _DISTORTIONS
    params = _with_focal(
        problem, known, known.new_tensor(_WIDE if wide else _PERSPECTIVE).expand(len(known), -1)
    )
    name, values = _DISTORTIONS.get(model.name, ("", ()))
    if not name or names.index(name) not in problem.free:
        return params
    at = names.index(name)
    return torch.cat(
        [
            torch.cat([params[..., :at], torch.full_like(params[..., :1], v), params[..., at + 1 :]], -1)
            for v in values
        ],
        1,
    )


def _with_focal(
    problem: Calibration, known: Float[Tensor, "B P"], focal: Float[Tensor, "B H"]
) -> Float[Tensor, "B H P"]:
    """Parameters with these focal lengths where they are free; one alone if none is."""
    n = problem.model.num_focal
    free = [i in problem.free for i in range(n)]
    if not any(free):
        return known[:, None]
    own = [focal if free[i] else known[:, i, None].expand_as(focal) for i in range(n)]
    rest = known[:, None, n:].expand(-1, focal.shape[1], -1)
    return torch.cat([torch.stack(own, -1), rest], -1)


def _best(
    problem: Calibration,
    args: Observations,
    known: Known,
    params: Float[Tensor, "B H P"],
    pose: Pose,
    keep: int,
) -> tuple[Calibrated, Float[Tensor, "B K"]]:
    """Of candidates (B, H, V) the best, one item after the other. Views that do not fit are left out of them."""
    size, count, views = pose.t.shape[:3]
    keep = min(keep, count)
    flat = _pytree.tree_map(lambda leaf: leaf.flatten(0, 1), pose)
    admitted = batch.repeat(known.admitted, count)
    variable = Calibrated(params.flatten(0, 1), flat, admitted)
    many = batch.repeat(args, count) if count > 1 else args
    cost, feasible = problem.view_costs(variable, many)
    strength = weighting.strength(args.weights.flatten(0, 1)).sum(-1).view(size, views)
    limit = 0.5 * _HOPELESS**2 * batch.repeat(strength, count)
    fine = feasible & (cost < limit)
    total = torch.where(fine, cost, limit * admitted).sum(-1).view(size, count)
    best = total.topk(keep, -1, largest=False, sorted=True).indices
    index = (best + count * torch.arange(size, device=best.device)[:, None]).flatten()
    used = admitted * fine
    lost = (limit * (admitted - used)).sum(-1)
    usable = (used > 0).view(-1)
    ahead = _pytree.tree_map(lambda leaf: leaf.flatten(0, 1), flat)
    ahead = batch.where(usable, ahead, _ahead(ahead))
    flat = _pytree.tree_map(lambda leaf: leaf.unflatten(0, (-1, views)), ahead)
    chosen = batch.take(variable._replace(pose=flat, used=used), index)
    return chosen, lost[index].view(size, keep)


def _ahead(pose: Pose) -> Pose:
    """The identity, one unit ahead, as many as there are."""
    eye = torch.eye(3, dtype=pose.R.dtype, device=pose.R.device)
    return Pose(eye.expand_as(pose.R), pose.t.new_tensor([0.0, 0.0, 1.0]).expand_as(pose.t))
