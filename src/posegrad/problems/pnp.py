"""Perspective-n-Point: the pose of a calibrated camera from 2D-3D correspondences, as a differentiable function."""

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from posegrad import _pytree
from posegrad.cameras import Camera
from posegrad.minimal.sqpnp import sqpnp
from posegrad.optim import batch
from posegrad.optim.adjoint import Adjoint, Implicit, Unrolled
from posegrad.optim.compiling import uncompiled
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, State, descend, descend_on, finish
from posegrad.optim.minimiser import minimiser
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.conditioning import Units
from posegrad.problems.door import Batch, admit, neutral_data, neutral_pose
from posegrad.problems.reprojection import Correspondences, Reprojection
from posegrad.robust import RobustLoss

_PROBLEM = Reprojection()
# Without an init: how many minima of the object-space cost are refined; for how many steps all of them, and how many
# in all those whose cost then is not this many times the best one's. Wrong minima converge slowly: without the cut they
# take most of the time.
_NUM_CANDIDATES, _FIRST_STEPS, _TRIAL_STEPS, _HOPELESS = 4, 3, 10, 10.0
# Points count as collinear when they are off a line by less than this many rounding errors of their dtype, but never
# when by more than a hundredth of their extent: coarse points far from the origin are solved as they are.
_COLLINEAR_ROUNDINGS, _COLLINEAR_AT_MOST = 8, 1e-2


@_pytree.register
@dataclass(frozen=True, eq=False)
class PnPSolution(Solution):
    """Answer of :func:`solve_pnp`, per item of the batch ``(...)``; only ``pose`` carries gradients.

    ``pose`` is finite for every item, and the identity one unit ahead where the input was bad; use it, and what
    you compute from it, only where ``ok``: see :func:`posegrad.masked_mean`. ``cost`` is in pixels squared,
    ``decrement`` in pixels, ``hessian`` (..., 6, 6) in the tangent [rotation (rad), translation]. INFEASIBLE
    means: points behind the camera.
    """

    _ADVICE: ClassVar[dict[Status, str]] = {
        Status.INFEASIBLE: "Points behind the camera: check the init, the axes (z forward) and the camera's signs.",
        Status.DEGENERATE: "The points do not determine the pose (collinear or coincident): add points off the line.",
        Status.TOO_FEW_POINTS: "Fewer than 4 unmasked points of positive weight (3 with an init).",
    }

    @property
    def pose(self) -> Pose:
        """``cam_from_world``, R (..., 3, 3) and t (..., 3) in the unit of ``points3d``."""
        return self.variable


@uncompiled
def solve_pnp(
    points2d: Float[Tensor, "*batch N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    camera: Camera | Float[Tensor, "*batch 3 3"],
    *,
    weights: Float[Tensor, "*batch_and_kind"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
    loss: RobustLoss | None = None,
    init: Pose | None = None,
    solver: LevenbergMarquardt = LevenbergMarquardt(),  # noqa: B008 (frozen)
    adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
    backend: Literal["auto", "torch"] = "auto",
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
            N = 2 only numbers.)
        mask: (..., N) bool, False for padded or missing points; their contents, NaN included, do not matter.
        loss: rho, a robust loss of :mod:`posegrad.robust`, its scale in pixels times the root of the weights. Default:
            ``rho(s) = s``. With a loss whose influence ends (Tukey, Truncated), start close: give an ``init``.
        init: start pose; a constant, no gradient goes to it.
        solver: settings of the minimisation.
        adjoint: ``Implicit()``, ``Implicit(hessian="gauss_newton")`` or ``Unrolled()``.
        backend: ``"auto"`` or ``"torch"`` (any device).

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

    Degeneracies: fewer than 4 points (3 with an init); collinear or coincident points; fronto-parallel planes far
    away are legal but ill-conditioned, see ``solution.hessian``.

    Reference: Chen et al., "End-to-End Learnable Geometric Vision by Backpropagating PnP Optimization", CVPR 2020;
    start: Terzakis & Lourakis, ECCV 2020.

    >>> import posegrad as pg
    >>> model = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=torch.float64)
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    >>> pose = pg.Pose.from_rotvec(torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.0, 0, 5]).double())
    >>> solution = pg.solve_pnp(pg.project_points(model, K, pose), model, K)
    >>> torch.allclose(solution.pose.t, pose.t)
    True
    """
    if backend not in ("auto", "torch"):
        raise ValueError(f"backend: got {backend!r}, expected 'auto' or 'torch'")
    if not isinstance(solver, LevenbergMarquardt):
        raise TypeError(f"solver: got {type(solver).__name__}, expected pg.LevenbergMarquardt(...)")
    if not isinstance(adjoint, Implicit | Unrolled):
        raise TypeError(f"adjoint: got {type(adjoint).__name__}, expected pg.Implicit(...) or pg.Unrolled()")
    device = points2d.device.type if isinstance(points2d, Tensor) else "cpu"
    with torch.autocast(device, enabled=False):
        return _solve(admit(points2d, points3d, camera, weights, mask, loss, init), solver, adjoint)


class _Hints(NamedTuple):
    """What the solver reads beside the data."""

    verdict: Int[Tensor, " B"]  # CONVERGED, or what is wrong with the item's input
    init: Pose | None


def _solve(item: Batch, settings: LevenbergMarquardt, adjoint: Adjoint) -> PnPSolution:
    units = Units.of(item.data)
    data = units.condition(item.data)
    verdict = torch.where(
        _collinear(item.data, units, item.points3d_dtype), int(Status.DEGENERATE), item.status
    )
    verdict = torch.where(item.status != int(Status.CONVERGED), item.status, verdict)
    hints = _Hints(verdict, None if item.init is None else units.condition_pose(item.init))
    if isinstance(adjoint, Unrolled):
        solution = _unrolled(data, hints, settings)
    else:
        solution = minimiser(functools.partial(_search, settings=settings), _PROBLEM, adjoint, data, hints)
    return _hand_back(item, units, solution)


def _search(data: Correspondences, hints: _Hints, settings: LevenbergMarquardt) -> Solution:
    """The minimum of each item; a harmless pose where there is none."""
    return _search_from(data, hints, settings)[1]


def _search_from(data: Correspondences, hints: _Hints, settings: LevenbergMarquardt) -> tuple[Pose, Solution]:
    """The start that won, too."""
    if hints.init is None:
        start, state = _global_start(data, settings)
    else:
        start = hints.init
        state = descend(_PROBLEM, start, data, settings, max_steps=settings.max_steps)
    solution = finish(_PROBLEM, state, data, settings)
    status = torch.where(hints.verdict != int(Status.CONVERGED), hints.verdict, solution.status)
    pose = neutral_pose(solution.variable, status == int(Status.CONVERGED))
    return start, replace(solution, variable=pose, status=status)


def _unrolled(data: Correspondences, hints: _Hints, settings: LevenbergMarquardt) -> Solution:
    """Found without a graph first, then again, from the start that won, with one."""
    with torch.no_grad():
        start, solution = _search_from(_pytree.tree_map(Tensor.detach, data), hints, settings)
        ok = solution.ok
    # what failed may be infinite: it must not enter the graph, where zero times infinity is NaN
    data = neutral_data(data, ok)
    state = descend(_PROBLEM, neutral_pose(start, ok), data, settings, max_steps=settings.max_steps)
    pose = batch.where(ok, finish(_PROBLEM, state, data, settings).variable, solution.variable)
    return replace(solution, variable=pose)


def _global_start(data: Correspondences, settings: LevenbergMarquardt) -> tuple[Pose, State]:
    """Refine the minima of the object-space cost; the start and the state of the best of them, per item."""
    size, count = data.weights.shape[0], _NUM_CANDIDATES
    bearings, seen = data.camera.unproject(data.points2d)
    strength = torch.where(seen, weighting.strength(data.weights), 0.0)
    candidates, valid = sqpnp(bearings, data.points3d, strength, count)
    valid = valid.flatten()
    many = batch.repeat(data, count)
    # an invalid candidate has nothing to minimise: it ends at once
    kept = valid[:, None].expand(-1, many.points2d.shape[1])
    many = replace(many, weights=weighting.keep(many.weights, kept))
    pose = Pose(candidates.R.flatten(0, 1), candidates.t.flatten(0, 1))
    ahead = Pose.identity(size * count, dtype=pose.R.dtype, device=pose.R.device)
    pose = batch.where(valid, pose, replace(ahead, t=ahead.t + pose.t.new_tensor([0.0, 0.0, 1.0])))
    pose = _pushed_forward(pose, many)
    state = descend(_PROBLEM, pose, many, settings, max_steps=_FIRST_STEPS)
    cost = _cost_of(state, valid).unflatten(0, (size, count))
    hopeless = (cost > _HOPELESS * cost.amin(-1, keepdim=True)).flatten()
    state = descend_on(
        _PROBLEM, state._replace(done=state.done | hopeless), many, settings, max_steps=_TRIAL_STEPS
    )
    cost = _cost_of(state, valid).unflatten(0, (size, count))
    best = cost.argmin(-1) + count * torch.arange(size, device=cost.device)
    return batch.take(pose, best), batch.take(state, best)


def _cost_of(state: State, valid: Tensor) -> Tensor:
    feasible = valid & state.quadratic.feasible & state.quadratic.cost.isfinite()
    return torch.where(feasible, state.quadratic.cost, torch.inf)


def _pushed_forward(pose: Pose, data: Correspondences) -> Pose:
    """Noise can leave a point of a good candidate behind the camera: move the object along z until none is."""
    if data.camera.wide:
        return pose
    depth = torch.where(weighting.strength(data.weights) > 0, pose.act(data.points3d)[..., 2], torch.inf)
    nearest = depth.amin(-1) if depth.shape[-1] else depth.sum(-1) + torch.inf
    shift = torch.where(nearest <= 1e-3, 0.1 - nearest, torch.zeros_like(nearest))
    return replace(pose, t=pose.t + shift[:, None] * pose.t.new_tensor([0.0, 0.0, 1.0]))


def _collinear(data: Correspondences, units: Units, dtype: torch.dtype) -> Bool[Tensor, " B"]:
    """Where the points of positive weight lie on a line, up to the rounding of the dtype they came in."""
    used = (weighting.strength(data.weights) > 0).to(data.points3d.dtype)
    z = (data.points3d.detach() - units.centre[:, None]) / units.size[:, None, None]
    scatter = (z * used[..., None]).mT @ z / used.sum(-1).clamp(min=1)[:, None, None]
    # the scatter has trace 1; its second eigenvalue is about half of 1 - tr(scatter^2)
    trace = scatter.diagonal(dim1=-2, dim2=-1).sum(-1)
    second = 0.5 * (trace.square() - scatter.square().sum((-1, -2)))
    rounding = torch.finfo(dtype).eps * (1 + units.centre.square().sum(-1).sqrt() / units.size)
    limit = (_COLLINEAR_ROUNDINGS * rounding).clamp(max=_COLLINEAR_AT_MOST).square()
    limit = limit.clamp(min=64 * torch.finfo(z.dtype).eps)  # rounding of the scatter itself
    return second < limit


def _hand_back(item: Batch, units: Units, solution: Solution) -> PnPSolution:
    """To the user's units, dtype and batch shape."""
    dtype = torch.float32 if item.dtype in (torch.float16, torch.bfloat16) else item.dtype
    pose = units.restore_pose(solution.variable)

    def out(value: Tensor) -> Tensor:
        return value.to(dtype).unflatten(0, item.shape) if item.shape else value.to(dtype).squeeze(0)

    def out_index(value: Tensor) -> Tensor:
        return value.unflatten(0, item.shape) if item.shape else value.squeeze(0)

    def out_number(value: Tensor) -> Tensor:
        # a narrower dtype may overflow: the largest number then, not infinity
        return out(value.detach()).nan_to_num()

    return PnPSolution(
        variable=Pose(out(pose.R), out(pose.t)),
        status=out_index(solution.status),
        cost=out_number(solution.cost * units.cost),
        num_steps=out_index(solution.num_steps),
        decrement=out_number(solution.decrement * units.cost.sqrt()),
        hessian=out_number(units.restore_hessian(solution.hessian.detach(), solution.variable.R.detach())),
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
        backend: Literal["auto", "torch"] = "auto",
    ) -> None:
        super().__init__()
        self.solver, self.adjoint = solver, adjoint
        self.backend: Literal["auto", "torch"] = backend

    def forward(
        self,
        points2d: Tensor,
        points3d: Tensor,
        camera: Camera | Tensor,
        *,
        weights: Tensor | None = None,
        mask: Tensor | None = None,
        loss: RobustLoss | None = None,
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
            init=init,
            solver=self.solver,
            adjoint=self.adjoint,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"solver={self.solver}, adjoint={self.adjoint}, backend={self.backend!r}"
