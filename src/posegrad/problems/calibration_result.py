"""From a conditioned minimum to what a user gets: his units, dtype and batch shape; residuals and covariances."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.cameras import Camera
from posegrad.optim import arrow, batch
from posegrad.optim.arrow import Arrow
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.calibration_door import Setting, Views
from posegrad.problems.calibration_problem import Calibrated, CameraAndPose
from posegrad.problems.calibration_solver import noise_freedom
from posegrad.robust import Squared


def hand_back(
    views: Views, setting: Setting, solution: Solution, noise: float | Tensor | None
) -> dict[str, Any]:
    """The fields of a :class:`CalibrationSolution`."""
    item, shape, count = views.item, views.shape, views.num_views
    dtype = torch.float32 if item.dtype in (torch.float16, torch.bfloat16) else item.dtype
    variable: Calibrated = solution.variable
    used = variable.used > 0
    flat = Pose(variable.pose.R.flatten(0, 1), variable.pose.t.flatten(0, 1))
    restored = views.units.restore_pose(flat)
    # a view that does not take part has no pose to restore
    pose = batch.where(used.flatten(), restored, flat)
    scale = views.units.focal[::count]
    pixel = torch.arange(variable.params.shape[-1], device=scale.device) < setting.model.num_pixel_params
    per_param = torch.where(pixel, scale[:, None], 1.0)
    params = variable.params * per_param

    def out(value: Tensor, per_view: bool = False) -> Tensor:
        value = value.view(len(value) // count, count, *value.shape[1:]) if per_view else value
        return value.to(dtype).reshape((*shape, *value.shape[1:]))

    def out_number(value: Tensor) -> Tensor:
        # a narrower dtype may overflow: the largest number then, not infinity
        return out(value.detach()).nan_to_num()

    solved = setting.model(params)
    # the field of the distortion, which the camera carries along, is reshaped like all else
    camera = _pytree.tree_map(out, solved)
    with torch.no_grad():
        cost_unit = views.units.cost[::count]
        residuals, taking_part = _residuals(views, solved, pose, used)
        square = residuals.square().sum(-1).sum(-1).view(-1, count)
        points = taking_part.sum(-1).view(-1, count)
        covariance, pose_covariance, schur = _covariances(
            views, setting, solution, noise, per_param, pose.R, cost_unit
        )
        admitted = views.status == int(Status.CONVERGED)
        left_out = torch.where(solution.ok[:, None], int(Status.INFEASIBLE), solution.status[:, None])
        status = torch.where(used & solution.ok[:, None], int(Status.CONVERGED), left_out)
        view_status = torch.where(admitted, status, views.status)
    return {
        "variable": CameraAndPose(camera, Pose(out(pose.R, True), out(pose.t, True))),
        "status": solution.status.reshape(shape),
        "cost": out_number(solution.cost * cost_unit),
        "num_steps": solution.num_steps.reshape(shape),
        "decrement": out_number(solution.decrement * cost_unit.sqrt()),
        "hessian": out_number(schur),
        "covariance": out(covariance),
        "pose_covariance": out(pose_covariance),
        "residuals": out(residuals, True),
        "rms": out((square.sum(-1) / points.sum(-1).clamp(min=1)).sqrt()),
        "view_rms": out((square / points.clamp(min=1)).sqrt()),
        "view_status": view_status.reshape((*shape, count)),
    }


def _residuals(
    views: Views, camera: Camera, pose: Pose, used: Tensor
) -> tuple[Float[Tensor, "BV N 2"], Bool[Tensor, "BV N"]]:
    """In pixels, zero for points that do not take part, and which do."""
    data = views.item.data
    camera = batch.repeat(_pytree.tree_map(Tensor.detach, camera), views.num_views)
    residuals = camera.project(pose.detach().act(data.points3d)).points2d - data.points2d
    taking_part = (weighting.strength(data.weights) > 0) & used.flatten()[:, None]
    return torch.where(taking_part[..., None], residuals, 0.0), taking_part


def _covariances(
    views: Views,
    setting: Setting,
    solution: Solution,
    noise: float | Tensor | None,
    per_param: Tensor,
    R: Tensor,
    cost_unit: Tensor,
) -> tuple[Float[Tensor, "B P P"], Float[Tensor, "B V 6 6"], Float[Tensor, "B F F"]]:
    """Of the parameters, of the poses, and the Hessian of the cost by the free parameters; in the user's units."""
    variable: Calibrated = solution.variable
    free = torch.tensor(setting.free, device=R.device)
    matrix = Arrow.unpacked(solution.hessian, 6)
    by_params, by_poses, positive = arrow.covariances(matrix)
    schur = torch.linalg.inv_ex(by_params)[0]
    own_scale = per_param[:, free]
    outer = own_scale[:, :, None] * own_scale[:, None, :]
    ok = solution.ok & positive
    schur = torch.where(ok[:, None, None], schur * cost_unit[:, None, None] / outer, 0.0)
    variance = _variance(views, solution, noise, cost_unit)
    known = ok & variance.isfinite()
    variance = torch.where(known, variance, 0.0)
    size = per_param.shape[1]
    spread = by_params.new_zeros(len(free), size)
    spread[torch.arange(len(free), device=R.device), free] = 1.0
    found = spread.mT @ (variance[:, None, None] * outer * by_params) @ spread
    unknown = torch.where(spread.sum(0) > 0, torch.inf, 0.0).diag().to(found)
    covariance = torch.where(known[:, None, None], found, unknown)
    count = views.num_views
    scaled = (variance[:, None, None, None] * by_poses).flatten(0, 1)
    poses = views.units.restore_covariance(scaled, R.detach()).view(-1, count, 6, 6)
    known_views = known[:, None] & (variable.used > 0)
    infinite = torch.full((6,), torch.inf, dtype=poses.dtype, device=poses.device).diag()
    return covariance, torch.where(known_views[..., None, None], poses, infinite), schur


def _variance(
    views: Views, solution: Solution, noise: float | Tensor | None, cost_unit: Tensor
) -> Float[Tensor, " B"]:
    """Of a coordinate of weight 1 in conditioned units; infinite where it cannot be estimated."""
    variable: Calibrated = solution.variable
    if noise is None:
        if not isinstance(views.observations.loss, Squared):
            return torch.full_like(cost_unit, torch.inf)
        F = solution.hessian.shape[-1] - 6
        residuals, unknowns = noise_freedom(variable, views.observations.weights, F)
        freedom = residuals - unknowns
        return torch.where(freedom > 0, 2 * solution.cost / freedom.clamp(min=1), torch.inf)
    sigma = torch.as_tensor(noise, dtype=cost_unit.dtype, device=cost_unit.device)
    try:
        sigma = sigma.expand(views.shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"noise: got shape {tuple(sigma.shape)}, expected a number or {tuple(views.shape)}"
        ) from None
    return torch.where(sigma > 0, sigma.square(), torch.inf) / cost_unit
