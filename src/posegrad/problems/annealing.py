"""Starts for robust losses, found without the outliers having their say.

The minima of least squares, which the search starts from, give every outlier its full pull, and a loss whose influence
fades may be in a wrong valley there. Graduated non-convexity leaves it by degrees: first the loss with a scale so large
that it is nearly least squares, then with smaller and smaller ones, each minimised from where the one before left off,
until the scale is the user's. What then keeps its weight are mostly inliers; least squares on those finds the minima
that the outliers hid, and they are annealed, too. Items whose best start has no outlier need none of it.

A search by descent, not by consensus: no promise, but nearly always the best minimum while most points are inliers
(``benchmarks/outliers.py``).

Reference: Blake & Zisserman, "Visual Reconstruction" (1987); Yang et al., "Graduated Non-Convexity for Robust Spatial
Perception", RA-L 5 (2020), where the surrogates are others: here they are the loss itself at other scales, so that any
loss has them.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.minimal.sqpnp import sqpnp
from posegrad.optim import batch
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, descend
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.constraints import Held
from posegrad.problems.formulation import Formulation
from posegrad.problems.reprojection import Correspondences
from posegrad.problems.starts import pushed_forward
from posegrad.robust import RobustLoss, Squared

# The scale falls in this many equal ratios, with so many Gauss-Newton steps at each.
_STAGES, _STEPS = 6, 2
# It starts at 2^k times the user's, k as small as leaves the worst residual half of its weight, and at most this.
_MAX_DOUBLINGS = 16
_SETTINGS = LevenbergMarquardt()
# A point that keeps less than this part of its weight is an outlier.
_OUTLIER_WEIGHT = 0.1
# Inliers are weighted as by the loss at this times the user's scale; how many minima of theirs are starts.
_INLIER_SCALE, _NUM_MINIMA = 4.0, 2


def with_annealed(
    form: Formulation, pose: Pose, valid: Bool[Tensor, "B C"], args: Any, held: Held | None
) -> tuple[Pose, Bool[Tensor, "B D"]]:
    """Candidates (B, C, ...), where the loss is robust those made of them, too, and which of all are any good."""
    data = form.data(args)
    if isinstance(data.loss, Squared) or not data.points2d.shape[1]:
        return pose, valid
    chosen = torch.arange(len(valid), device=valid.device)
    if batch.questions_are_cheap(valid.device):  # elsewhere all items are annealed, asked or not
        needed = _has_outliers(data, pose, valid)
        chosen = needed.logical_not().to(torch.uint8).argsort(stable=True)[: int(needed.sum())]
        if not len(chosen):
            return pose, valid
    more, found = _annealed_candidates(form, *batch.take((pose, valid, args, held), chosen))
    filler = Pose(*(v[:, :1].expand(-1, found.shape[1], *v.shape[2:]) for v in (pose.R, pose.t)))
    more = batch.put(filler, chosen, more)
    found = valid.new_zeros(len(valid), found.shape[1]).index_copy(0, chosen, found)
    return Pose(torch.cat([pose.R, more.R], 1), torch.cat([pose.t, more.t], 1)), torch.cat([valid, found], 1)


def _has_outliers(data: Correspondences, pose: Pose, valid: Bool[Tensor, "B C"]) -> Bool[Tensor, " B"]:
    """Items whose best candidate has an outlier (or that have none)."""
    shape = valid.shape
    many = batch.repeat(data, shape[1])
    s = _squares(many, pushed_forward(_flat(pose), many))
    rho = many.loss.evaluate(s)
    best = torch.where(valid, rho.value.sum(-1).view(shape), torch.inf).argmin(-1, keepdim=True)
    counts = weighting.strength(many.weights) > 0
    doubtful = ((rho.first < _OUTLIER_WEIGHT) & counts).any(-1).view(shape) | ~valid
    return doubtful.gather(1, best).squeeze(1)


def _annealed_candidates(
    form: Formulation, pose: Pose, valid: Bool[Tensor, "B C"], args: Any, held: Held | None
) -> tuple[Pose, Bool[Tensor, "B E"]]:
    """What becomes of the candidates, and of the minima of least squares on what the best of those keeps."""
    annealed, cost = _annealed(form, pose, args, held)
    best = torch.where(valid, cost, torch.inf).argmin(-1, keepdim=True)
    inliers, found = _minima_of_inliers(form.data(args), _pick(annealed, best))
    again, _ = _annealed(form, inliers, args, held)
    both = Pose(torch.cat([annealed.R, again.R], 1), torch.cat([annealed.t, again.t], 1))
    return both, torch.cat([valid, found], 1)


def _annealed(
    form: Formulation, pose: Pose, args: Any, held: Held | None
) -> tuple[Pose, Float[Tensor, "B C"]]:
    """Where every candidate goes, and its cost there, infinite where a point has no image."""
    shape = pose.t.shape[:2]
    many = batch.repeat(args, shape[1])
    data = form.data(many)
    start = pushed_forward(_flat(pose), data)
    variable = form.variable(start, None if held is None else batch.repeat(held, shape[1]))
    widest = _widest(data.loss, _squares(data, form.pose(variable)).amax(-1))
    for stage in range(_STAGES):
        wider = widest ** (1 - stage / _STAGES)
        softened = form.replace_data(many, replace(data, loss=data.loss.in_units_of(wider.reciprocal())))
        variable = descend(form.problem, variable, softened, _SETTINGS, max_steps=_STEPS).variable
    cost = torch.where(
        form.problem.feasible(variable, many), form.problem.cost(variable, many), torch.inf
    ).view(shape)
    pose = form.pose(variable)
    return Pose(pose.R.view(*shape, 3, 3), pose.t.view(*shape, 3)), cost


def _flat(pose: Pose) -> Pose:
    return Pose(pose.R.flatten(0, 1), pose.t.flatten(0, 1))


def _squares(data: Correspondences, pose: Pose) -> Float[Tensor, "B N"]:
    residual = (data.camera.project(pose.act(data.points3d)).points2d - data.points2d).mT
    return (residual * weighting.apply(data.weights, residual)).sum(1)


def _widest(loss: RobustLoss, worst: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The factor by which the scale must grow for a squared residual to keep half of its weight, a power of two."""
    doubled = 2.0 ** torch.arange(_MAX_DOUBLINGS, dtype=worst.dtype, device=worst.device)[:, None]
    weight = loss.in_units_of(doubled.reciprocal()).evaluate(worst[:, None]).first.squeeze(-1)
    return 2.0 ** (weight < 0.5).sum(0).to(worst.dtype)


def _pick(pose: Pose, index: Tensor) -> Pose:
    """One candidate (B, ...) of each item."""
    return Pose(
        pose.R.take_along_dim(index[..., None, None], 1).squeeze(1),
        pose.t.take_along_dim(index[..., None], 1).squeeze(1),
    )


def _minima_of_inliers(data: Correspondences, pose: Pose) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """The minima of least squares on the points that fit a pose (or the pose itself where there are none)."""
    bearings, seen = data.camera.unproject(data.points2d)
    wide = pose.t.new_full(pose.t.shape[:1], 1 / _INLIER_SCALE)
    weight = data.loss.in_units_of(wide).evaluate(_squares(data, pose)).first * weighting.strength(
        data.weights
    )
    found, valid = sqpnp(bearings, data.points3d, torch.where(seen, weight, 0.0), _NUM_MINIMA)
    R = torch.where(valid[..., None, None], found.R, pose.R[:, None])
    return Pose(R, torch.where(valid[..., None], found.t, pose.t[:, None])), valid
