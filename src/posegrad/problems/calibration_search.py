"""The minimum of a calibration: from the points alone, or from the parameters of a given camera."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.minimal.homography import Plane
from posegrad.optim import batch
from posegrad.optim.adjoint import Implicit, attached
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.minimiser import minimiser
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import calibration_fused as fused
from posegrad.problems import calibration_start as start
from posegrad.problems import weighting
from posegrad.problems.calibration_door import Setting, Views
from posegrad.problems.calibration_problem import Calibrated, Calibration, Observations
from posegrad.problems.calibration_solver import State, begin, descend, finish, judge
from posegrad.problems.door import neutral_pose
from posegrad.problems.pnp import solve_pnp

# Without a closed form: how many starts are refined, and for how many steps before the best is chosen.
_NUM_STARTS, _TRIAL_STEPS = 3, 15
# A view is solved anew, alone, when its plane mirrored about the line of sight fits almost as well (its cost at most
# this many times as high), or when its mean square is so many times the median view's and above rounding.
_ALIKE, _ODD, _ODD_FLOOR = 9.0, 400.0, 1e-10
# ... and gets the new pose when that lowers its cost to this part.
_BETTER = 0.99


class Hints(NamedTuple):
    """What the search reads beside the observations; the tensors have the batch in front."""

    verdict: Int[Tensor, " B"]  # CONVERGED, or what is wrong with the calibration's input
    admitted: Float[Tensor, "B V"]  # 1 where the view's input is fine
    params: Float[Tensor, "B P"]  # the initial camera's, or neutral ones


@dataclass(frozen=True)
class Search:
    """How to search; called with the observations and hints.

    Args:
        from_init: the hints' parameters are the start.
    """

    problem: Calibration
    settings: LevenbergMarquardt
    from_init: bool

    def __call__(self, args: Observations, hints: Hints) -> Solution:
        """The minima, with a packed Hessian; harmless values where there is none."""
        return self.from_start(args, hints)[1]

    def from_start(self, args: Observations, hints: Hints) -> tuple[Calibrated, Solution]:
        """The best minimum, and the start that led to it."""
        cheap = batch.questions_are_cheap(hints.verdict.device)
        # under vmap they may still be what all mapped calibrations share
        hints = hints._replace(params=hints.params.expand(len(hints.verdict), -1))
        known = start.Known(hints.params, hints.admitted)
        planes = start.planes_of(args)
        quick = (
            cheap
            and not self.from_init
            and start.closed_form_suits(self.problem)
            and bool(start.are_planes(planes, hints.admitted))
        )
        if not quick:
            first = self._thorough(args, hints, known)
            return first, self._judged(self._refined(first, args, hints, planes), hints)
        first = start.from_planes(self.problem.unbounded(), args, known, planes)
        found = self._refined(first, args, hints, planes)
        failed = (found.status != int(Status.CONVERGED)) & (hints.verdict == int(Status.CONVERGED))
        if bool(failed.any()):
            index = failed.nonzero().flatten()
            args, known, some, planes = (batch.take(tree, index) for tree in (args, known, hints, planes))
            other = self._thorough(args, some, known)
            again = self._refined(other, args, some, planes)
            better = _preferred(again, batch.take(found, index))
            first = batch.put(first, index, batch.where(better, other, batch.take(first, index)))
            found = batch.put(found, index, batch.where(better, again, batch.take(found, index)))
        return first, self._judged(found, hints)

    def _refined(self, first: Calibrated, args: Observations, hints: Hints, planes: Plane) -> Solution:
        """The minimum near a start. The distortion's field is looked at in the end, and at every step where that
        shows a point outside of it."""
        cheap = batch.questions_are_cheap(hints.verdict.device)
        problem = self.problem.unbounded() if cheap else self.problem
        if fused.serves(problem, first, args):
            ordinary = fused.Ordinary(hints.admitted, planes.frame[..., 2, :], _ALIKE, _ODD, _ODD_FLOOR)
            solution = fused.course(problem, first, args, self.settings, ordinary)
            if solution is not None:
                return solution
        found = self._minimum(problem, first, args, hints, planes)
        if not cheap:
            return found
        outside = (found.status == int(Status.CONVERGED)) & ~self.problem.feasible(found.variable, args)
        if bool(outside.any()):
            bounded = self._minimum(self.problem, first, args, hints, planes)
            found = batch.where(outside, bounded, found)
        return found

    def _minimum(
        self, problem: Calibration, first: Calibrated, args: Observations, hints: Hints, planes: Plane
    ) -> Solution:
        settings = self.settings
        state = descended(problem, first, args, settings, settings.max_steps)
        state = self._with_odd_views(problem, state, args, hints, planes)
        return judge(problem, finished(problem, state, args, settings), args, settings)

    def _with_odd_views(
        self, problem: Calibration, state: State, args: Observations, hints: Hints, planes: Plane
    ) -> State:
        """Views that fit much worse than the others, or were left out so far, get a pose of their own under the
        camera found from the others."""
        variable = state.variable
        count = weighting.strength(args.weights.flatten(0, 1)).sum(-1).view_as(hints.admitted)
        square = state.model.view_cost / count.clamp(min=torch.finfo(count.dtype).tiny)
        taken = torch.where(variable.used > 0, square, torch.nan)
        usual = taken.nanmedian(-1, keepdim=True).values
        odd = (variable.used > 0) & (square > _ODD * usual) & (square > _ODD_FLOOR)
        mirrored, _ = problem.view_costs(variable._replace(pose=start.mirrored(variable.pose, planes)), args)
        odd = odd | ((variable.used > 0) & (mirrored < _ALIKE * state.model.view_cost))
        odd = odd | ((variable.used == 0) & (hints.admitted > 0))
        if batch.questions_are_cheap(odd.device) and not bool(odd.any()):
            return state
        pose, solved = _poses(problem, variable.params, args)
        trial = variable._replace(pose=pose, used=hints.admitted * solved)
        cost, feasible = problem.view_costs(trial, args)
        better = odd & solved & feasible & (hints.admitted > 0)
        better = better & ((variable.used == 0) | (cost < _BETTER * state.model.view_cost))
        merged = variable._replace(
            pose=Pose(
                torch.where(better[..., None, None], pose.R, variable.pose.R),
                torch.where(better[..., None], pose.t, variable.pose.t),
            ),
            used=torch.where(better, 1.0, variable.used),
        )
        settings = self.settings
        return descended(problem, merged, args, settings, settings.max_steps, state.steps, ~better.any(-1))

    def _thorough(self, args: Observations, hints: Hints, known: start.Known) -> Calibrated:
        """A start from the initial camera, or from the best of several hypotheses."""
        if self.from_init:
            pose, solved = _poses(self.problem, hints.params, args)
            return Calibrated(hints.params, pose, hints.admitted * solved)
        free = self.problem.unbounded()
        candidates, lost = start.from_hypotheses(free, args, known, _NUM_STARTS)
        count = lost.shape[1]
        many = batch.repeat(args, count) if count > 1 else args
        state = descended(free, candidates, many, self.settings, _TRIAL_STEPS)
        cost = torch.where(state.model.feasible, state.model.cost, torch.inf).view_as(lost) + lost
        best = cost.argmin(-1) + count * torch.arange(cost.shape[0], device=cost.device)
        return batch.take(candidates, best) if count > 1 else candidates

    def _judged(self, solution: Solution, hints: Hints) -> Solution:
        status = torch.where(hints.verdict != int(Status.CONVERGED), hints.verdict, solution.status)
        ok = status == int(Status.CONVERGED)
        variable: Calibrated = solution.variable
        views = variable.used.shape[1]
        usable = (ok[:, None] & (variable.used > 0)).flatten()
        pose = neutral_pose(_pytree.tree_map(lambda leaf: leaf.flatten(0, 1), variable.pose), usable)
        pose = _pytree.tree_map(lambda leaf: leaf.unflatten(0, (-1, views)), pose)
        params = torch.where(ok[:, None], variable.params, hints.params)
        used = torch.where(ok[:, None], variable.used, 0.0)
        return replace(solution, variable=Calibrated(params, pose, used), status=status)


def descended(
    problem: Calibration,
    variable: Calibrated,
    args: Observations,
    settings: LevenbergMarquardt,
    max_steps: int,
    steps: Tensor | None = None,
    done: Tensor | None = None,
) -> State:
    """Close to the minimum near a start; ``steps`` have been made, and what is ``done`` stays."""
    if fused.serves(problem, variable, args):
        return fused.descended(problem, variable, args, settings, max_steps, steps, done)
    state = begin(problem, variable, args, settings)
    if steps is not None and done is not None:
        state = state._replace(steps=steps, done=state.done | done)
    return descend(problem, state, args, settings, max_steps)


def finished(problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt) -> State:
    """At the minimum."""
    if fused.serves(problem, state.variable, args):
        return fused.finished(problem, state, args, settings)
    return finish(problem, state, args, settings)


def _preferred(a: Solution, b: Solution) -> Bool[Tensor, " B"]:
    """Where ``a`` is the better answer: it converged and ``b`` did not, or lower costs."""
    a_ok, b_ok = (solution.status == int(Status.CONVERGED) for solution in (a, b))
    more = a.variable.used.sum(-1) - b.variable.used.sum(-1)
    return (a_ok & ~b_ok) | (a_ok & b_ok & ((more > 0) | ((more == 0) & (a.cost < b.cost))))


def _poses(
    problem: Calibration, params: Float[Tensor, "B P"], args: Observations
) -> tuple[Pose, Bool[Tensor, "B V"]]:
    """The pose of every view under a camera, and where there is one."""
    loss = args.loss
    solution = solve_pnp(
        args.points2d, args.points3d, problem.model(params[:, None]), weights=args.weights, loss=loss
    )
    return solution.pose, solution.ok


def minimum(views: Views, setting: Setting) -> Solution:
    """The minimum of admitted views, with the gradient that the setting's adjoint gives it; conditioned."""
    problem = Calibration(setting.model, setting.free, views.num_views)
    admitted = views.status == int(Status.CONVERGED)
    # where there is no view at all, what is wrong with the worst
    verdict = torch.where(admitted.any(-1), int(Status.CONVERGED), views.status.amax(-1))
    hints = Hints(verdict, admitted.to(views.params), views.params)
    search = Search(problem, setting.solver, not setting.search)
    args = views.observations
    if isinstance(setting.adjoint, Implicit):
        return minimiser(search, problem, setting.adjoint, args, hints)
    return _unrolled(args, hints, search)


def _unrolled(args: Observations, hints: Hints, search: Search) -> Solution:
    """Found without a graph first, then again, from the start that won, with one."""
    problem, settings = search.problem, search.settings
    with torch.no_grad():
        first, solution = search.from_start(_pytree.tree_map(Tensor.detach, args), hints)
        ok = solution.ok
        # views that joined or got another pose on the way
        used = torch.where(ok[:, None], solution.variable.used, 0.0)
        pose, params = first.pose, first.params
        moved = (first.used != used) & (used > 0)
        pose = Pose(
            torch.where(moved[..., None, None], solution.variable.pose.R, pose.R),
            torch.where(moved[..., None], solution.variable.pose.t, pose.t),
        )
        views = used.shape[1]
        flat = neutral_pose(_pytree.tree_map(lambda leaf: leaf.flatten(0, 1), pose), (used > 0).flatten())
        pose = _pytree.tree_map(lambda leaf: leaf.unflatten(0, (-1, views)), flat)
    # what failed may be infinite: it must not enter the graph, where zero times infinity is NaN
    args = batch.where(ok, args, _pytree.tree_map(torch.zeros_like, args))
    args = args._replace(
        loss=_pytree.tree_map(lambda leaf: batch.where(ok, leaf, torch.ones_like(leaf)), args.loss)
    )
    state = begin(problem, Calibrated(params, pose, used), args, settings)
    state = descend(problem, state, args, settings, settings.max_steps)
    variable = finish(problem, state, args, settings).variable
    variable = batch.where(ok, variable, attached(solution.variable, args))
    return replace(solution, variable=variable)
