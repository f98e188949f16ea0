"""The minima of a pose problem: from an initial pose, or from none."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, State, descend, descend_on, finish
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.annealing import with_annealed
from posegrad.problems.constraints import Held
from posegrad.problems.door import neutral_pose
from posegrad.problems.formulation import Formulation
from posegrad.problems.starts import first_starts, pushed_forward

# For how many steps candidates are refined whose first cost is not _FAR times the best one's (or which are off by less
# than _NEAR focal lengths on the average); and for how many in all those whose cost then is not _HOPELESS times the
# best one's. Wrong minima converge slowly: without the cuts they take most of the time.
_FIRST_STEPS, _FAR, _NEAR, _TRIAL_STEPS, _HOPELESS = 3, 1000.0, 0.03, 10, 10.0
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
        _, state, valid = self._candidates(args, hints, cut=False)
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
        self, args: Any, hints: Hints, *, cut: bool = True
    ) -> tuple[Any, State, Bool[Tensor, "B C"]]:
        """Starts (the same number for every item, one item after the other), what some steps make of them, and
        which of them count."""
        form, settings = self.formulation, self.settings
        data = form.data(args)
        pose, valid = with_annealed(form, *first_starts(data, hints.likely), args, hints.held)
        count = valid.shape[1]
        many = batch.repeat(args, count)
        # an invalid candidate has nothing to minimise: it ends at once
        kept = valid.flatten()[:, None].expand(-1, data.points2d.shape[1])
        own = form.data(many)
        own = replace(own, weights=weighting.keep(own.weights, kept))
        many = form.replace_data(many, own)
        held = None if hints.held is None else batch.repeat(hints.held, count)
        start = form.variable(pushed_forward(_flat(pose, valid), own), held)
        state = descend(form.problem, start, many, settings, max_steps=0)
        near = 0.5 * _NEAR**2 * weighting.strength(data.weights).sum(-1, keepdim=True)
        for steps, factor, floor in ((_FIRST_STEPS, _FAR, near), (_TRIAL_STEPS, _HOPELESS, 0.0)):
            cost = _cost_of(state, valid)
            lost = (cost > factor * cost.amin(-1, keepdim=True)) & (cost > floor) & cut
            state = state._replace(done=state.done | lost.flatten())
            state = descend_on(form.problem, state, many, settings, max_steps=steps)
        return start, state, valid


def _flat(pose: Pose, valid: Bool[Tensor, "B C"]) -> Pose:
    """Poses (B C), one item after the other, those that are not any good one unit ahead."""
    pose = Pose(pose.R.flatten(0, 1), pose.t.flatten(0, 1))
    ahead = Pose.identity(len(pose.t), dtype=pose.R.dtype, device=pose.R.device)
    ahead = replace(ahead, t=ahead.t + pose.t.new_tensor([0.0, 0.0, 1.0]))
    return batch.where(valid.flatten(), pose, ahead)


def _cost_of(state: State, valid: Bool[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    quadratic = state.quadratic
    feasible = valid & (quadratic.feasible & quadratic.cost.isfinite()).view(valid.shape)
    return torch.where(feasible, quadratic.cost.view(valid.shape), torch.inf)


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
