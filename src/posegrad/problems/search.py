"""The minima of a pose problem: from an initial pose, or from none.

Without an initial pose, per item:

1. Up to four minima of the object-space cost (SQPnP) are starts; with a prior its mean, too, and with a robust loss
   what annealing makes of them (:mod:`posegrad.problems.annealing`).
2. Each is refined for a few Gauss-Newton steps, given up when it is far worse than the item's best, and refined on.
3. Items with three points, without a feasible candidate or with much noise for their width are refined from more
   starts, none of which is given up: the first ones, moved into the camera's field; up to eight minima of SQPnP's cost
   by angle; for three points the four poses of P3P, of complex ones the real part.
4. The best candidate, and those that are nearly as good (for the items of step 3: not much worse) and somewhere else,
   are refined to the end by Newton steps; where none of them ends in a minimum, the item's others, too. The best
   minimum is the answer: see ``ranking.py``.
"""

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
from posegrad.problems.ranking import Ranking
from posegrad.problems.starts import (
    first_starts,
    more_starts,
    need_more,
    pushed_forward,
    pushed_into_the_field,
)

# For how many steps candidates are refined whose first cost is not _FAR times the best one's (or which are off by less
# than _NEAR focal lengths on the average); and for how many in all those whose cost then is not _HOPELESS times the
# best one's. Wrong minima converge slowly: without the cuts they take most of the time.
_FIRST_STEPS, _FAR, _NEAR, _TRIAL_STEPS, _HOPELESS = 3, 1000.0, 0.03, 10, 10.0
# Candidates whose cost is within this factor of the best one's are refined to the end: costs may still fall by as much;
# those of items that got more starts, which converge slowly, by more.
_NEARLY_AS_GOOD, _NOT_MUCH_WORSE = 1.1, 2.0


class Hints(NamedTuple):
    """What the search reads beside the problem's arguments; the tensors have the batch in front."""

    verdict: Int[Tensor, " B"]  # CONVERGED, or what is wrong with the item's input
    init: Pose | None = None
    likely: Pose | None = None  # a candidate more, where there is a prior
    held: Held | None = None


class Candidates(NamedTuple):
    """Any number of candidates for every item, in any order: whose they are, where they started, where they are."""

    item: Int[Tensor, " K"]
    start: Any
    state: State
    valid: Bool[Tensor, " K"]

    def cost(self) -> Float[Tensor, " K"]:
        """Infinite for those that do not count."""
        quadratic = self.state.quadratic
        return torch.where(
            self.valid & quadratic.feasible & quadratic.cost.isfinite(), quadratic.cost, torch.inf
        )


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
        if hints.init is not None:
            start = form.variable(hints.init, hints.held)
            state = descend(form.problem, start, args, settings, max_steps=settings.max_steps)
            return start, self._judged(finish(form.problem, state, args, settings), hints.verdict)
        found, slow = self._candidates(args, hints)
        ranking = Ranking.of(form.data(args))
        pose, cost = form.pose(found.state.variable), found.cost()
        best = ranking.best(pose, cost, found.item)
        factor = torch.where(slow, _NOT_MUCH_WORSE, _NEARLY_AS_GOOD)
        rivals = ranking.rivals(pose, cost, found.item, best, factor)
        index = torch.cat([best, batch.indices(rivals)])
        solution = self._finished(args, found, index)
        ends = self._best_end(ranking, solution, found.item[index])
        # the lowest cost can be on the way to a point in the camera's centre, where there is no minimum
        lost = ~solution.ok[ends] & (hints.verdict == int(Status.CONVERGED))
        others = batch.indices((lost[found.item] & cost.isfinite()).index_fill(0, index, False))
        if len(others) > 0:
            index = torch.cat([index, others])
            solution = batch.join(solution, self._finished(args, found, others))
            ends = self._best_end(ranking, solution, found.item[index])
        start = batch.take(found.start, index[ends])
        return start, self._judged(batch.take(solution, ends), hints.verdict)

    def _finished(self, args: Any, candidates: Candidates, index: Int[Tensor, " M"]) -> Solution:
        """Some candidates refined to the end."""
        state, item = batch.take(candidates.state, index), candidates.item[index]
        return finish(self.formulation.problem, state, batch.copies(args, item), self.settings)

    def _best_end(self, ranking: Ranking, solution: Solution, item: Int[Tensor, " M"]) -> Int[Tensor, " B"]:
        """Of every item's refined candidates the best minimum, the first where none is one."""
        cost = torch.where(solution.ok, solution.cost, torch.inf)
        return ranking.best(self.formulation.pose(solution.variable), cost, item)

    def _several(self, args: Any, hints: Hints) -> Solution:
        once = torch.arange(0, len(hints.verdict), self.count, device=hints.verdict.device)
        args, hints = batch.take(args, once), batch.take(hints, once)
        candidates, _ = self._candidates(args, hints, cut=False)
        found = self._finished(args, candidates, torch.arange(len(candidates.item), device=once.device))
        usable = candidates.valid & (found.status == int(Status.CONVERGED))
        ranking = Ranking.of(self.formulation.data(args))
        cost = torch.where(usable, found.cost, torch.inf)
        index, missing = ranking.best_distinct(
            self.formulation.pose(found.variable), cost, candidates.item, self.count
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
    ) -> tuple[Candidates, Bool[Tensor, " B"]]:
        """Starts, and what some steps make of them; at least one for every item. And which items got more starts."""
        form = self.formulation
        data = form.data(args)
        pose, valid = with_annealed(form, *first_starts(data, hints.likely), args, hints.held)
        size, count = valid.shape
        items = torch.arange(size, device=valid.device)
        of_each = torch.arange(size * count, device=valid.device)
        first = self._refined(
            args, hints, _flat(pose), valid.flatten(), of_each // count, together=count if cut else None
        )
        lowest, best = first.cost().view(valid.shape).min(-1)
        best = batch.take(form.pose(first.state.variable), best + count * items)
        needs_more = need_more(data, best, lowest) & (hints.verdict == int(Status.CONVERGED))
        needy = batch.indices(needs_more)
        if len(needy) == 0:
            return first, needs_more
        more, good = more_starts(batch.copies(data, needy), *batch.copies((pose, valid), needy))
        chosen = batch.indices(good.flatten())
        item = needy[chosen // good.shape[1]]
        more = batch.take(_flat(more), chosen)
        second = self._refined(args, hints, more, good.flatten()[chosen], item, push=True)
        return batch.join(first, second), needs_more

    def _refined(
        self,
        args: Any,
        hints: Hints,
        pose: Pose,
        valid: Bool[Tensor, " K"],
        item: Int[Tensor, " K"],
        *,
        together: int | None = None,
        push: bool = False,
    ) -> Candidates:
        """Some steps from poses for some items.

        Args:
            together: if given, that many poses in a row are one item's, and hopeless ones are given up.
            push: move poses into the camera's field.
        """
        form, settings = self.formulation, self.settings
        # an invalid candidate has nothing to minimise: it ends at once
        many = batch.copies(args, item)
        own = form.data(many)
        kept = valid[:, None].expand(-1, own.points2d.shape[1])
        own = replace(own, weights=weighting.keep(own.weights, kept))
        many = form.replace_data(many, own)
        pose = pushed_forward(pose, own)
        pose = pushed_into_the_field(pose, own) if push else pose
        start = form.variable(pose, None if hints.held is None else batch.copies(hints.held, item))
        state = descend(form.problem, start, many, settings, max_steps=0)
        near = 0.5 * _NEAR**2 * weighting.strength(own.weights).sum(-1)
        for steps, factor, floor in ((_FIRST_STEPS, _FAR, near), (_TRIAL_STEPS, _HOPELESS, 0.0)):
            if together is not None:
                cost = Candidates(item, start, state, valid).cost()
                best = cost.view(-1, together).amin(-1, keepdim=True).expand(-1, together).flatten()
                state = state._replace(done=state.done | ((cost > factor * best) & (cost > floor)))
            state = descend_on(form.problem, state, many, settings, max_steps=steps)
        return Candidates(item, start, state, valid)


def _flat(pose: Pose) -> Pose:
    """(B, C, ...) -> (B C, ...)."""
    return Pose(pose.R.flatten(0, 1), pose.t.flatten(0, 1))
