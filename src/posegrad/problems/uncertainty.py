"""How uncertain a pose is, given the noise of the pixels it was solved from."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.cameras import Camera, as_camera
from posegrad.optim.covariance import inverse_hessian_covariance, noise_variance, sandwich_covariance
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.call import Call
from posegrad.problems.conditioning import Units
from posegrad.problems.constraints import PoseConstraint
from posegrad.problems.door import Batch, admit, neutral_data, neutral_pose
from posegrad.problems.formulation import Formulation, Given
from posegrad.problems.pnp import PnPSolution
from posegrad.problems.prior import PosePrior
from posegrad.problems.prior_problem import Prior
from posegrad.problems.reprojection import Reprojection
from posegrad.robust import RobustLoss, Squared
from posegrad.robust.base import is_number


def pose_covariance(
    solution: PnPSolution,
    points2d: Float[Tensor, "*batch N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    camera: Camera | Float[Tensor, "*batch 3 3"],
    *,
    weights: Float[Tensor, "*batch_and_kind"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
    loss: RobustLoss | None = None,
    prior: PosePrior | None = None,
    constraint: PoseConstraint | None = None,
    noise: float | Float[Tensor, "*batch"] | None = None,
    form: Literal["hessian", "sandwich"] = "hessian",
) -> Float[Tensor, "*batch 6 6"]:
    """Covariance of a solved pose in its tangent [rotation (rad), translation], to first order in the noise.

    ``R_true ~ exp(w) R, t_true ~ t + dt`` with ``[w, dt] ~ N(0, covariance)``. With H the exact Hessian of the cost:

    - ``form="hessian"``: ``sigma^2 H^-1``, for independent noise of covariance ``sigma^2 W_i^-1`` per point. With a
      prior, whose covariance then is ``sigma^2 L^-1``, it is the posterior's (Laplace's approximation).
    - ``"sandwich"``: ``H^-1 (sum_i g_i g_i^T) H^-1`` with g_i the gradient of point i's share of the cost, which asks
      nothing about size and shape of the pixels' noise, but for hundreds of points. A prior is taken at its word:
      its covariance in the sum is ``sigma^2 L``.

    Under a constraint H and g_i are those of the directions that are left. There the covariance lives: its rank is
    ``constraint.dimension``, and what is held has none. Differentiable by all data, the way through the pose included.

    Args:
        solution: what :func:`solve_pnp` made of the same data.
        points2d, points3d, camera, weights, mask, loss, prior, constraint: as given to it.
        noise: sigma > 0 in pixels: the standard deviation of a coordinate of weight 1, so 1 where the weights are
            inverse variances; a number, or a tensor (...), whose items that are not > 0 have no covariance. None:
            estimated from what is left of the cost, ``sigma^2 = 2 cost / (2 N - D)`` with N the points of positive
            weight and D the degrees of freedom (6, or those a constraint leaves), which needs ``2 N > D``, no loss and
            no prior. The sandwich reads it for the prior alone.
        form: ``"hessian"`` or ``"sandwich"``. (Its sum is taken times ``2 N / (2 N - D)``, since the pose fits a part
            of the noise; it needs ``2 N > D``.)

    Returns:
        (..., 6, 6), symmetric. Where the solution is not ok or the noise is not known: infinite variances, zero
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
    call = Call(points2d, points3d, as_camera(camera), weights, mask, loss, prior, constraint, solution.pose)
    _check_noise(noise, form, call)
    with torch.autocast(points2d.device.type, enabled=False):
        item = admit(call)
        if item.shape != solution.status.shape:
            raise ValueError(
                f"solution: has batch shape {tuple(solution.status.shape)}, the data {tuple(item.shape)}; "
                "give the data it was solved from"
            )
        matrix = _covariance(item, solution, noise, form)
        return matrix.to(solution.pose.R.dtype).view(*item.shape, 6, 6)


def _check_noise(noise: Any, form: str, call: Call) -> None:
    if is_number(noise):
        if not 0 < noise < math.inf:
            raise ValueError(f"noise: got {noise!r}, expected a standard deviation > 0 in pixels")
    elif not (noise is None or (isinstance(noise, Tensor) and noise.is_floating_point())):
        got = f"dtype {noise.dtype}" if isinstance(noise, Tensor) else type(noise).__name__
        raise TypeError(f"noise: got {got}, expected a number, a floating-point torch.Tensor or None")
    if noise is None and call.prior is not None:
        raise ValueError(
            "noise: got None with a prior, whose cost does not tell the noise; give it in pixels (1 where the weights "
            "are inverse variances)"
        )
    if noise is None and form == "hessian" and not isinstance(call.loss, Squared | None):
        raise ValueError(
            "noise: got None with a robust loss, whose cost does not tell the noise; give it in pixels"
        )


def _covariance(
    item: Batch, solution: PnPSolution, noise: float | Tensor | None, form: str
) -> Float[Tensor, "B 6 6"]:
    """In the user's units and the tangent of the whole pose, from the conditioned problem that a constraint leaves."""
    units = Units.of(item.data, centred=not item.kind.axes)
    formulation = Formulation(item.prior is not None, item.kind)
    ok, compute = solution.ok.flatten(), item.data.points2d.dtype
    given = Given(
        data=neutral_data(units.condition(item.data), ok),
        prior=None if item.prior is None else item.prior.keep(ok).term(units.centre, units.size, units.cost),
    )
    args, held = formulation.args(given), item.held
    if held is not None:
        held = held._replace(translation=held.translation / units.size[:, None])
    R, t = solution.pose.R.to(compute).reshape(-1, 3, 3), solution.pose.t.to(compute).reshape(-1, 3)
    pose = neutral_pose(units.condition_pose(Pose(R, t)), ok)
    variable = formulation.variable(pose, held)
    hessian = formulation.problem.quadratic(variable, args, exact=True).hessian
    count, freedom = 2 * (weighting.strength(given.data.weights) > 0).sum(-1), item.kind.dimension
    if noise is not None:
        variance = _variance(noise, item.shape, compute, units)
    else:
        variance = noise_variance(formulation.problem.cost(variable, args), count, freedom).value
    if form == "hessian":
        found = inverse_hessian_covariance(hessian, variance)
    else:
        gradients = Reprojection().point_gradients(pose, given.data)
        prior = None
        if given.prior is not None:  # its gradient has the covariance sigma^2 L
            information = Prior().quadratic(pose, given.prior, exact=False).hessian
            prior = variance[:, None, None] * formulation.part(information, variable)
        correction = count / (count - freedom).clamp(min=1).to(compute)
        found = sandwich_covariance(
            hessian, formulation.along(gradients, variable), correction=correction, known=prior
        )
        found = found._replace(ok=found.ok & (count > freedom))
    ok = (ok & found.ok)[:, None, None]
    matrix = formulation.whole(torch.where(ok, found.matrix, 0.0), variable)
    unknown = torch.full((6,), torch.inf, dtype=compute, device=R.device).diag()
    return torch.where(ok, units.restore_covariance(matrix, R), unknown)


def _variance(
    noise: float | Tensor, shape: torch.Size, dtype: torch.dtype, units: Units
) -> Float[Tensor, " B"]:
    """Of a coordinate of weight 1, in conditioned units; infinite where it is none."""
    sigma = torch.as_tensor(noise, dtype=dtype, device=units.size.device)
    try:
        sigma = sigma.expand(shape).reshape(-1)
    except RuntimeError:
        raise ValueError(
            f"noise: got shape {tuple(sigma.shape)}, expected a number or {tuple(shape)} as the solution"
        ) from None
    return torch.where(sigma > 0, sigma.square(), torch.inf) / units.cost
