"""The minima of a pose problem: from an initial pose, or from none."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.minimal.sqpnp import sqpnp
from posegrad.optim import batch
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, State, descend, descend_on, finish
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.constraints import Held
from posegrad.problems.door import neutral_pose
from posegrad.problems.formulation import Formulation
from posegrad.problems.reprojection import Correspondences

# Without an init: how many minima of the object-space cost are refined; for how many steps all of them, and how many
# in all those whose cost then is not this many times the best one's. Wrong minima converge slowly: without the cut they
# take most of the time.
_NUM_CANDIDATES, _FIRST_STEPS, _TRIAL_STEPS, _HOPELESS = 4, 3, 10, 10.0
# Two minima are one when their rotations differ by less than this, radians, and their translations by this part.
_SAME = 1e-4


class Hints(NamedTuple):
    """What the search reads beside the problem's arguments; the tensors have the batch in front."""

    verdict: Int[Tensor, " B"]  # CONVERGED, or what is wrong with the item's input
    init: Pose | None = None
    likely: Pose | None = None  # a candidate more, where there is a prior
    held: Held | None = None


@dataclass(frozen=True)
class Search:
    """How to search; called with the problem's arguments and hints.

    Args:
        count: how many minima of each item to return, best first. With more than one, the arguments and hints have
            each item that many times, one after the other, and so has the answer.
    """

    formulation: Formulation
    settings: LevenbergMarquardt
    count: int = 1

    def __call__(self, args: Any, hints: Hints) -> Solution:
        """The minima; a harmless pose where there is none."""
        return self.from_start(args, hints)[1] if self.count == 1 else self._several(args, hints)

    def from_start(self, args: Any, hints: Hints) -> tuple[Any, Solution]:
        """The best minimum, and the start that led to it."""
        form, settings = self.formulation, self.settings
        if hints.init is None:
            start, state, valid = self._candidates(args, hints)
            cost = _cost_of(state, valid)
            best = cost.argmin(-1) + cost.shape[1] * torch.arange(cost.shape[0], device=cost.device)
            start, state = batch.take(start, best), batch.take(state, best)
        else:
            start = form.variable(hints.init, hints.held)
            state = descend(form.problem, start, args, settings, max_steps=settings.max_steps)
        return start, self._judged(finish(form.problem, state, args, settings), hints.verdict)

    def _several(self, args: Any, hints: Hints) -> Solution:
        once = torch.arange(0, len(hints.verdict), self.count, device=hints.verdict.device)
        args, hints = batch.take(args, once), batch.take(hints, once)
        _, state, valid = self._candidates(args, hints, hopeless=torch.inf)
        many = batch.repeat(args, valid.shape[1])
        found = finish(self.formulation.problem, state, many, self.settings)
        usable = valid & (found.status == int(Status.CONVERGED)).view(valid.shape)
        index, missing = _best_distinct(
            self.formulation.pose(found.variable), found.cost.view(valid.shape), usable, self.count
        )
        chosen = batch.take(found, index)
        status = torch.where(missing, int(Status.NO_OTHER), chosen.status)
        # where there is no minimum at all, the first answer tells why
        status = torch.where(
            missing & (torch.arange(len(index), device=index.device) % self.count == 0), chosen.status, status
        )
        verdict = batch.repeat(hints.verdict, self.count)
        return self._judged(replace(chosen, status=status), verdict)

    def _judged(self, solution: Solution, verdict: Tensor) -> Solution:
        status = torch.where(verdict != int(Status.CONVERGED), verdict, solution.status)
        ok = status == int(Status.CONVERGED)
        pose = neutral_pose(self.formulation.pose(solution.variable), ok)
        return replace(solution, variable=self.formulation.moved(solution.variable, pose), status=status)

    def _candidates(
        self, args: Any, hints: Hints, hopeless: float = _HOPELESS
    ) -> tuple[Any, State, Bool[Tensor, "B C"]]:
        """Starts (the same number for every item, one item after the other), what some steps make of them, and
        which of them count."""
        form, settings = self.formulation, self.settings
        data = form.data(args)
        pose, valid = _starts(data, hints.likely)
        count = valid.shape[1]
        many = batch.repeat(args, count)
        # an invalid candidate has nothing to minimise: it ends at once
        kept = valid.flatten()[:, None].expand(-1, data.points2d.shape[1])
        own = form.data(many)
        own = replace(own, weights=weighting.keep(own.weights, kept))
        many = form.replace_data(many, own)
        held = None if hints.held is None else batch.repeat(hints.held, count)
        start = form.variable(_pushed_forward(pose, own), held)
        state = descend(form.problem, start, many, settings, max_steps=_FIRST_STEPS)
        cost = _cost_of(state, valid)
        lost = (cost > hopeless * cost.amin(-1, keepdim=True)).flatten()
        state = state._replace(done=state.done | lost)
        state = descend_on(form.problem, state, many, settings, max_steps=_TRIAL_STEPS)
        return start, state, valid


def _starts(data: Correspondences, likely: Pose | None) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """Poses (B C), one item after the other, and which of them are any good (B, C)."""
    size = data.weights.shape[0]
    bearings, seen = data.camera.unproject(data.points2d)
    strength = torch.where(seen, weighting.strength(data.weights), 0.0)
    pose, valid = sqpnp(bearings, data.points3d, strength, _NUM_CANDIDATES)
    if likely is not None:
        pose = Pose(torch.cat([pose.R, likely.R[:, None]], 1), torch.cat([pose.t, likely.t[:, None]], 1))
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], 1)
    pose = Pose(pose.R.flatten(0, 1), pose.t.flatten(0, 1))
    ahead = Pose.identity(size * valid.shape[1], dtype=pose.R.dtype, device=pose.R.device)
    ahead = replace(ahead, t=ahead.t + pose.t.new_tensor([0.0, 0.0, 1.0]))
    return batch.where(valid.flatten(), pose, ahead), valid


def _cost_of(state: State, valid: Bool[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    quadratic = state.quadratic
    feasible = valid & (quadratic.feasible & quadratic.cost.isfinite()).view(valid.shape)
    return torch.where(feasible, quadratic.cost.view(valid.shape), torch.inf)


def _pushed_forward(pose: Pose, data: Correspondences) -> Pose:
    """Noise can leave a point of a good candidate behind the camera: move the object along z until none is."""
    if data.camera.wide:
        return pose
    depth = torch.where(weighting.strength(data.weights) > 0, pose.act(data.points3d)[..., 2], torch.inf)
    nearest = depth.amin(-1) if depth.shape[-1] else depth.sum(-1) + torch.inf
    shift = torch.where(nearest <= 1e-3, 0.1 - nearest, torch.zeros_like(nearest))
    return replace(pose, t=pose.t + shift[:, None] * pose.t.new_tensor([0.0, 0.0, 1.0]))


def _best_distinct(
    pose: Pose, cost: Float[Tensor, "B C"], usable: Bool[Tensor, "B C"], count: int
) -> tuple[Int[Tensor, " K"], Bool[Tensor, " K"]]:
    """Of every item's candidates the ``count`` best that differ, as indices (B count), and which are none."""
    left = torch.where(usable, cost, torch.inf)
    size, tried = left.shape
    R, t = pose.R.reshape(size, tried, 9), pose.t.reshape(size, tried, 3)
    at = torch.arange(size, device=left.device)
    index, missing = [], []
    for _ in range(count):
        lowest, best = left.min(-1)
        index.append(tried * at + best)
        missing.append(lowest.isinf())
        turn = (R - R[at, best][:, None]).square().sum(-1)  # 8 sin^2(angle / 2)
        shift = (t - t[at, best][:, None]).square().sum(-1)
        near = (turn < 2 * _SAME**2) & (shift < _SAME**2 * t[at, best].square().sum(-1, keepdim=True))
        left = torch.where(near, torch.inf, left)
    return torch.stack(index, 1).flatten(), torch.stack(missing, 1).flatten()
