"""How uncertain a pose is, given the noise of the pixels it was solved from."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.cameras import Camera, as_camera
from posegrad.optim.covariance import inverse_hessian_covariance, noise_variance, sandwich_covariance
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.call import Call
from posegrad.problems.conditioning import Units
from posegrad.problems.door import admit, neutral_data, neutral_pose
from posegrad.problems.pnp import PnPSolution
from posegrad.problems.reprojection import Correspondences, Reprojection
from posegrad.robust import RobustLoss, Squared

_PROBLEM = Reprojection()


def pose_covariance(
    solution: PnPSolution,
    points2d: Float[Tensor, "*batch N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    camera: Camera | Float[Tensor, "*batch 3 3"],
    *,
    weights: Float[Tensor, "*batch_and_kind"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
    loss: RobustLoss | None = None,
    noise: float | Float[Tensor, "*batch"] | None = None,
    form: Literal["hessian", "sandwich"] = "hessian",
) -> Float[Tensor, "*batch 6 6"]:
    """Covariance of a solved pose in its tangent [rotation (rad), translation], to first order in the noise.

    ``sigma^2 H^-1`` (``form="hessian"``) with H the exact Hessian, for independent noise of covariance
    ``sigma^2 W_i^-1`` per point; or ``H^-1 (sum_i g_i g_i^T) H^-1`` (``"sandwich"``) with g_i the gradient of point i's
    share of the cost, which asks nothing about size and shape of the noise, but for hundreds of points.
    ``R_true ~ exp(w) R, t_true ~ t + dt`` with ``[w, dt] ~ N(0, covariance)``. Differentiable by all data, the way
    through the pose included.

    Args:
        solution: what :func:`solve_pnp` made of the same data.
        points2d, points3d, camera, weights, mask, loss: as given to it.
        noise: sigma > 0 in pixels: the standard deviation of a coordinate of weight 1; a number or (...). None:
            estimated from what is left of the cost, ``sigma^2 = 2 cost / (2 N - 6)`` with N the points of positive
            weight, which needs N >= 4 and no loss. For ``"sandwich"`` not used.
        form: ``"hessian"`` or ``"sandwich"`` (times ``2 N / (2 N - 6)``, since the pose fits part of the noise).

    Returns:
        (..., 6, 6), symmetric. Where the solution is not ok or the noise cannot be estimated: infinite variances, zero
        covariances, no gradient.

    Raises:
        TypeError, ValueError: for a wrong call, naming the argument.

    Reference: Triggs et al., "Bundle Adjustment - A Modern Synthesis" (1999), section 3.3; White, Econometrica 48
    (1980).

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 8, noise=1.0)
    >>> solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    >>> pg.pose_covariance(solution, scene.points2d, scene.points3d, scene.K, noise=1.0).shape
    torch.Size([2, 6, 6])
    """
    if not isinstance(solution, PnPSolution):
        raise TypeError(f"solution: got {type(solution).__name__}, expected what pg.solve_pnp returned")
    if form not in ("hessian", "sandwich"):
        raise ValueError(f"form: got {form!r}, expected 'hessian' or 'sandwich'")
    if form == "hessian" and noise is None and loss is not None and not isinstance(loss, Squared):
        raise ValueError(
            "noise: got None with a robust loss, whose cost does not tell the noise; give it in pixels"
        )
    with torch.autocast(points2d.device.type, enabled=False):
        item = admit(Call(points2d, points3d, as_camera(camera), weights, mask, loss, init=solution.pose))
        if item.shape != solution.status.shape:
            raise ValueError(
                f"solution: has batch shape {tuple(solution.status.shape)}, the data {tuple(item.shape)}; "
                "give the data it was solved from"
            )
        ok = solution.ok.flatten()
        units = Units.of(item.data)
        data = neutral_data(units.condition(item.data), ok)
        compute = item.data.points2d.dtype
        R, t = (v.to(compute).flatten(0, solution.status.ndim - 1) if item.shape else v.to(compute)[None]
                for v in (solution.pose.R, solution.pose.t))  # fmt: skip
        pose = neutral_pose(units.condition_pose(Pose(R, t)), ok)
        hessian = _PROBLEM.quadratic(pose, data, exact=True).hessian
        residuals = 2 * (weighting.strength(data.weights) > 0).sum(-1)
        if form == "sandwich":
            correction = residuals / (residuals - 6).clamp(min=1)
            found = sandwich_covariance(
                hessian, _PROBLEM.point_gradients(pose, data), correction=correction.to(compute)
            )
            ok = ok & (residuals > 6)
        else:
            found = inverse_hessian_covariance(
                hessian, _variance(noise, pose, data, units, residuals, item.shape)
            )
        matrix = units.restore_covariance(torch.where((ok & found.ok)[:, None, None], found.matrix, 0.0), R)
        unknown = torch.full((6,), torch.inf, dtype=compute, device=R.device).diag()
        matrix = torch.where((ok & found.ok)[:, None, None], matrix, unknown)
        return matrix.to(solution.pose.R.dtype).view(*item.shape, 6, 6)


def _variance(
    noise: float | Tensor | None,
    pose: Pose,
    data: Correspondences,
    units: Units,
    num_residuals: Tensor,
    shape: torch.Size,
) -> Float[Tensor, " B"]:
    """Of a coordinate of weight 1, in conditioned units; infinite where it cannot be estimated."""
    if noise is None:
        return noise_variance(_PROBLEM.cost(pose, data), num_residuals, _PROBLEM.dimension).value
    sigma = torch.as_tensor(noise, dtype=pose.t.dtype, device=pose.t.device)
    try:
        sigma = sigma.expand(shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"noise: got shape {tuple(sigma.shape)}, expected a number or {tuple(shape)} as the solution"
        ) from None
    return torch.where(sigma > 0, sigma.square(), torch.inf) / units.cost
