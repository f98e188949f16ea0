"""Perspective-n-Point: the pose of a calibrated camera from 2D-3D correspondences, as a differentiable function."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from posegrad import _pytree
from posegrad.cameras import Camera, as_camera
from posegrad.optim import batch
from posegrad.optim.adjoint import Adjoint, Implicit, Unrolled, unmoved
from posegrad.optim.compiling import uncompiled
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, descend, finish
from posegrad.optim.minimiser import minimiser
from posegrad.optim.settings import check_count
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import fused, weighting
from posegrad.problems.call import Call
from posegrad.problems.conditioning import Units, squared_width
from posegrad.problems.constraints import PoseConstraint
from posegrad.problems.door import Batch, admit, neutral_data, neutral_pose
from posegrad.problems.formulation import Formulation, Given
from posegrad.problems.fused_arguments import Unserved
from posegrad.problems.fused_layout import Request
from posegrad.problems.pnp_solution import PnPSolution
from posegrad.problems.prior import PosePrior
from posegrad.problems.ranking import EXACT
from posegrad.problems.reprojection import Correspondences
from posegrad.problems.search import Hints, Search
from posegrad.robust import RobustLoss

# Points count as collinear when they are off a line by less than this many rounding errors of their dtype, but never
# when by more than a hundredth of their extent: coarse points far from the origin are solved as they are.
_COLLINEAR_ROUNDINGS, _COLLINEAR_AT_MOST = 8, 1e-2


Backend = Literal["auto", "torch", "kernels"]


@uncompiled
def solve_pnp(
    points2d: Float[Tensor, "*batch N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    camera: Camera | Float[Tensor, "*batch 3 3"],
    *,
    weights: Float[Tensor, "*batch_and_kind"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
    loss: RobustLoss | None = None,
    prior: PosePrior | None = None,
    constraint: PoseConstraint | None = None,
    init: Pose | None = None,
    num_solutions: int = 1,
    solver: LevenbergMarquardt = LevenbergMarquardt(),  # noqa: B008 (frozen)
    adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
    backend: Backend = "auto",
) -> PnPSolution:
    """Solve Perspective-n-Point for a batch, with exact gradients.

    ``argmin_(R, t) 1/2 sum_i rho(r_i^T W_i r_i)`` with residuals ``r_i = pi(camera, R z_i + t) - x_i``

    Without ``init`` the answer is the best of several minima found from a global start; with ``init`` it is the
    minimum that local refinement reaches from there. Gradients reach points2d, points3d, weights and the camera's
    parameters by implicit differentiation, to any order. Items are independent: one that fails gets a status, a
    finite pose and a zero gradient, and changes nothing for the others.

    Args:
        points2d: observed pixels (..., N, 2), the centre of the top-left pixel being (0, 0).
        points3d: world or object points (..., N, 3), any unit; leading dimensions broadcast, so one model
            (N, 3) serves a batch.
        camera: calibration matrix K (3, 3) or (..., 3, 3) in pixels, skew included (entries below the diagonal and
            the last row are ignored), or a camera of :mod:`posegrad.cameras`.
        weights: they multiply the squared residual: numbers (..., N) >= 0, one per axis (..., N, 2), or information
            matrices W (..., N, 2, 2), positive semi-definite, of which the symmetric part counts. Default 1. (For
            N = 2 only numbers, (2, 2) being a batch of two: for others add a point that ``mask`` leaves out.)
        mask: (..., N) bool, False for padded or missing points; their contents, NaN included, do not matter.
        loss: rho, a robust loss of :mod:`posegrad.robust`, its scale in pixels times the root of the weights. Default:
            ``rho(s) = s``. Without ``init`` the scale is annealed, which copes with some 30 % of outliers, no more.
        prior: a Gaussian prior on the pose, added to the cost. With it any number of points will do.
        constraint: parts of the pose that are known and kept: see :class:`PoseConstraint`.
        init: start pose; a constant, no gradient goes to it.
        num_solutions: how many of the best minima to return in ``alternatives``; more than 1 needs a global start.
        solver: settings of the minimisation.
        adjoint: ``Implicit()``, ``Implicit(hessian="gauss_newton")`` or ``Unrolled()``.
        backend: ``"torch"`` (any device), ``"kernels"`` (fused, for the CPU), or ``"auto"``: kernels where they serve
            the call. They do for plain CPU tensors and camera models up to OPENCV and OPENCV_FISHEYE, without a prior,
            a constraint, several solutions or ``Unrolled()``, outside of transforms, without a gradient for the
            loss's parameters. Both give the same answers and gradients, to rounding.

    Returns:
        A :class:`PnPSolution`. Work is done in float64 (on devices that have it) and handed back in the dtype of
        the points; half precision comes back as float32.

    Raises:
        TypeError, ValueError: for a wrong call (type, dtype, shape, device, swapped arguments), naming the
            argument. Bad values of an item never raise.

    Transforms: ``torch.func.vmap``, ``grad``, ``vjp``, ``jvp``, ``jacrev``, ``jacfwd`` and ``hessian`` pass, nested in
    any order (``Implicit(max_gain=...)`` has no forward mode, ``Unrolled()`` cannot be mapped). ``torch.compile``
    calls this function as it is, with one break of the graph; transforms that are to be taken inside of a compiled
    model belong into a function under ``torch.compiler.disable``. Autocast does not reach inside.

    Degeneracies: fewer than 3 points; collinear or coincident points; fronto-parallel planes far away are legal but
    ill-conditioned, see ``solution.hessian``. Three points have up to four poses that fit exactly; the answer is the
    one whose centroid is farthest from the camera, and ``num_solutions=4`` gives all of them.

    Reference: Chen et al., "End-to-End Learnable Geometric Vision by Backpropagating PnP Optimization", CVPR 2020;
    starts: Terzakis & Lourakis, ECCV 2020; three points: Persson & Nordberg, ECCV 2018.

    >>> import posegrad as pg
    >>> model = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.float64)
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    >>> pose = pg.Pose.from_rotvec(torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.0, 0, 5]).double())
    >>> solution = pg.solve_pnp(pg.project_points(model, K, pose), model, K)
    >>> torch.allclose(solution.pose.t, pose.t)
    True
    """
    if backend not in ("auto", "torch", "kernels"):
        raise ValueError(f"backend: got {backend!r}, expected 'auto', 'torch' or 'kernels'")
    reason = ""
    if backend != "torch":
        options = (prior, constraint, num_solutions)
        request = Request(points2d, points3d, camera, weights, mask, loss, init, solver, adjoint)  # pyright: ignore
        try:
            return _fused(request, options)
        except Unserved as unserved:
            reason = str(unserved)
    if not isinstance(solver, LevenbergMarquardt):
        raise TypeError(f"solver: got {type(solver).__name__}, expected pg.LevenbergMarquardt(...)")
    if not isinstance(adjoint, Implicit | Unrolled):
        raise TypeError(f"adjoint: got {type(adjoint).__name__}, expected pg.Implicit(...) or pg.Unrolled()")
    check_count("num_solutions", num_solutions)
    if num_solutions > 1 and (init is not None or isinstance(adjoint, Unrolled)):
        name = "an init" if init is not None else "pg.Unrolled()"
        raise ValueError(
            f"num_solutions: got {num_solutions} with {name}, expected 1: only a global start finds more"
        )
    device = points2d.device.type if isinstance(points2d, Tensor) else "cpu"
    with torch.autocast(device, enabled=False):
        call = Call(points2d, points3d, as_camera(camera), weights, mask, loss, prior, constraint, init)
        if backend == "kernels":
            call.check()
            raise ValueError(f"backend: 'kernels' does not serve this call: {reason}; use 'auto' or 'torch'")
        return _solve(admit(call), solver, adjoint, num_solutions)


def _fused(request: Request, options: tuple[PosePrior | None, PoseConstraint | None, int]) -> PnPSolution:
    """The short way; raises where it does not lead."""
    if type(request.solver) is not LevenbergMarquardt or type(request.adjoint) is not Implicit:
        raise Unserved("the adjoint is not pg.Implicit(...)")
    prior, constraint, num_solutions = options
    if prior is not None or constraint is not None or type(num_solutions) is not int or num_solutions != 1:
        raise Unserved("there is a prior, a constraint or more than one solution asked for")
    return PnPSolution.of(*fused.solve(request, _long_way))


def _long_way(request: Request, init: Pose | None) -> PnPSolution:
    """By torch operations, differentiable to any order."""
    points2d, points3d, camera, weights, mask, loss, _, solver, adjoint = request
    call = Call(points2d, points3d, as_camera(camera), weights, mask, loss, None, None, init)
    with torch.autocast("cpu", enabled=False):
        return _solve(admit(call), solver, adjoint, 1)


def _solve(item: Batch, settings: LevenbergMarquardt, adjoint: Adjoint, count: int) -> PnPSolution:
    units = Units.of(item.data, centred=not item.kind.axes)
    form = Formulation(item.prior is not None, item.kind)
    given = Given(
        data=units.condition(item.data),
        prior=None if item.prior is None else item.prior.term(units.centre, units.size, units.cost),
    )
    verdict = item.status
    if form.free and not form.has_prior:
        collinear = _collinear(item.data, units, item.points3d_dtype)
        verdict = torch.where(collinear & (verdict == int(Status.CONVERGED)), int(Status.DEGENERATE), verdict)
    held = item.held
    hints = Hints(
        verdict=verdict,
        init=None if item.init is None else units.condition_pose(item.init),
        likely=None if item.prior is None else units.condition_pose(item.prior.pose),
        held=None if held is None else held._replace(translation=held.translation / units.size[:, None]),
    )
    args, search = form.args(given), Search(form, settings, count)
    if isinstance(adjoint, Unrolled):
        return _hand_back(item, units, form, _unrolled(args, hints, search))
    if count > 1:
        args, hints, units = batch.repeat(args, count), batch.repeat(hints, count), batch.repeat(units, count)
    solution = minimiser(search, form.problem, adjoint, args, hints, keep_hessian=True)
    if count == 1:
        return _hand_back(item, units, form, solution)
    return _ranked(_hand_back(item, units, form, solution, count), solution.cost.view(-1, count), item)


def _ranked(all_of_them: PnPSolution, cost: Float[Tensor, "B K"], item: Batch) -> PnPSolution:
    """The best of each item's solutions, (..., K), with all of them beside it."""
    first: PnPSolution = _pytree.tree_map(lambda leaf: leaf.select(len(item.shape), 0), all_of_them)
    ok = all_of_them.ok.reshape(-1, cost.shape[1])
    ratio = torch.where(ok[:, 0] & ok[:, 1], cost[:, 0].clamp(min=EXACT) / cost[:, 1].clamp(min=EXACT), 0.0)
    ambiguity = ratio.clamp(0, 1).to(first.cost).view(item.shape)
    return replace(first, alternatives=all_of_them, ambiguity=ambiguity)


def _unrolled(args: Correspondences, hints: Hints, search: Search) -> Solution:
    """Found without a graph first, then again, from the start that won, with one."""
    form, settings = search.formulation, search.settings
    with torch.no_grad():
        start, solution = search.from_start(_pytree.tree_map(Tensor.detach, args), hints)
        ok = solution.ok
    if not len(ok):  # no step is taken that could carry a graph
        return replace(solution, variable=unmoved(solution.variable, args))
    # what failed may be infinite: it must not enter the graph, where zero times infinity is NaN
    args = form.replace_data(args, neutral_data(form.data(args), ok))
    start = form.moved(start, neutral_pose(form.pose(start), ok))
    state = descend(form.problem, start, args, settings, max_steps=settings.max_steps)
    variable = finish(form.problem, state, args, settings).variable
    return replace(solution, variable=batch.where(ok, variable, solution.variable))


def _collinear(data: Correspondences, units: Units, dtype: torch.dtype) -> Bool[Tensor, " B"]:
    """Where the points of positive weight lie on a line, up to the rounding of the dtype they came in."""
    z = (data.points3d.detach() - units.centre[:, None]) / units.size[:, None, None]
    second = squared_width(z, weighting.strength(data.weights) > 0)
    rounding = torch.finfo(dtype).eps * (1 + units.centre.square().sum(-1).sqrt() / units.size)
    limit = (_COLLINEAR_ROUNDINGS * rounding).clamp(max=_COLLINEAR_AT_MOST).square()
    limit = limit.clamp(min=64 * torch.finfo(z.dtype).eps)  # rounding of the scatter itself
    return second < limit


def _hand_back(
    item: Batch, units: Units, form: Formulation, solution: Solution, count: int | None = None
) -> PnPSolution:
    """To the user's units, dtype and batch shape; with a count, that many answers an item."""
    dtype = torch.float32 if item.dtype in (torch.float16, torch.bfloat16) else item.dtype
    shape = item.shape if count is None else (*item.shape, count)
    conditioned = form.pose(solution.variable)
    pose = units.restore_pose(conditioned)
    hessian = form.whole(solution.hessian, solution.variable).detach()
    fits = pose.t.detach().to(dtype).isfinite().all(-1)  # a prior may lead out of a narrow dtype
    pose, hessian = neutral_pose(pose, fits), torch.where(fits[:, None, None], hessian, 0.0)
    status = torch.where(fits, solution.status, int(Status.NOT_FINITE))

    def out_index(value: Tensor) -> Tensor:
        return value.reshape((*shape, *value.shape[1:]))

    def out(value: Tensor) -> Tensor:
        return out_index(value.to(dtype))

    def out_number(value: Tensor) -> Tensor:
        # a narrower dtype may overflow: the largest number then, not infinity
        return out(value.detach()).nan_to_num()

    return PnPSolution(
        variable=Pose(out(pose.R), out(pose.t)),
        status=out_index(status),
        cost=out_number(solution.cost * units.cost),
        num_steps=out_index(solution.num_steps),
        decrement=out_number(solution.decrement * units.cost.sqrt()),
        hessian=out_number(units.restore_hessian(hessian, conditioned.R.detach())),
    )


class PnP(nn.Module):
    """:func:`solve_pnp` as a layer with fixed settings; it has no parameters.

    >>> import posegrad as pg
    >>> pg.PnP(adjoint=pg.Implicit(max_gain=4.0)).adjoint
    Implicit(hessian='exact', max_gain=4.0)
    """

    def __init__(
        self,
        *,
        solver: LevenbergMarquardt = LevenbergMarquardt(),  # noqa: B008 (frozen)
        adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
        num_solutions: int = 1,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.solver, self.adjoint, self.num_solutions = solver, adjoint, num_solutions
        self.backend: Backend = backend

    def forward(
        self,
        points2d: Tensor,
        points3d: Tensor,
        camera: Camera | Tensor,
        *,
        weights: Tensor | None = None,
        mask: Tensor | None = None,
        loss: RobustLoss | None = None,
        prior: PosePrior | None = None,
        constraint: PoseConstraint | None = None,
        init: Pose | None = None,
    ) -> PnPSolution:
        """Arguments and result of :func:`solve_pnp`."""
        return solve_pnp(
            points2d,
            points3d,
            camera,
            weights=weights,
            mask=mask,
            loss=loss,
            prior=prior,
            constraint=constraint,
            init=init,
            num_solutions=self.num_solutions,
            solver=self.solver,
            adjoint=self.adjoint,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return (
            f"solver={self.solver}, adjoint={self.adjoint}, num_solutions={self.num_solutions}, "
            f"backend={self.backend!r}"
        )
