"""Pose and focal length from one view: PnP with an unknown focal length."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.cameras import SimplePinhole
from posegrad.optim.adjoint import Adjoint, Implicit
from posegrad.optim.compiling import uncompiled
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.calibration import CalibrationSolution, calibrated
from posegrad.problems.calibration_door import Setting, checked_size
from posegrad.problems.call import check_per_point, check_points
from posegrad.robust import RobustLoss


@_pytree.register
@dataclass(frozen=True, eq=False)
class FocalSolution(CalibrationSolution):
    """Answer of :func:`estimate_focal`, per item of the batch ``(...)``: a calibration of one view.

    ``focal`` (...) and ``focal_std`` (...) are in pixels, ``pose`` (...) is the view's; the fields of views
    (``residuals``, ``view_rms``, ``pose_covariance``, ...) keep their dimension of size 1.

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 12, focal=600.0)
    >>> K = torch.tensor([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]]).double()
    >>> points2d = pg.project_points(scene.points3d, K, scene.pose)
    >>> solution = estimate_focal(points2d, scene.points3d, principal_point=(320, 240))
    >>> solution.pose.t.shape, solution.residuals.shape, bool((solution.focal_std < 0.01).all())
    (torch.Size([2, 3]), torch.Size([2, 1, 12, 2]), True)
    """

    @property
    def focal(self) -> Float[Tensor, "*batch"]:
        """The focal length in pixels."""
        return self.camera.params[..., 0]

    @property
    def focal_std(self) -> Float[Tensor, "*batch"]:
        """Its standard deviation in pixels."""
        return self.std[..., 0]

    @property
    def pose(self) -> Pose:
        """``cam_from_world``, R (..., 3, 3) and t (..., 3)."""
        R, t = self.variable.pose.R, self.variable.pose.t
        return Pose(R.squeeze(-3), t.squeeze(-2))


@uncompiled
def estimate_focal(
    points2d: Float[Tensor, "*batch N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    *,
    image_size: tuple[int, int] | None = None,
    principal_point: tuple[float, float] | Float[Tensor, "*batch 2"] | None = None,
    weights: Float[Tensor, "*batch_and_kind"] | None = None,
    mask: Bool[Tensor, "*batch N"] | None = None,
    loss: RobustLoss | None = None,
    noise: float | Float[Tensor, "*batch"] | None = None,
    solver: LevenbergMarquardt = LevenbergMarquardt(),  # noqa: B008 (frozen)
    adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
) -> FocalSolution:
    """Focal length and pose of a view of known points, with exact gradients: PnP for a camera that is not calibrated.

    ``argmin_(f, R, t) 1/2 sum_i rho(r_i^T W_i r_i)``, ``r_i = pi(f, c; R z_i + t) - x_i``, with square pixels, no
    distortion and a known principal point c. For more unknowns, or several views, see :func:`calibrate_camera`, which
    this is an instance of: the same start (homographies for planes, a search over focal lengths else), statuses and
    gradients.

    Args:
        points2d: observed pixels (..., N, 2), the centre of the top-left pixel being (0, 0).
        points3d: (..., N, 3), any unit; leading dimensions broadcast.
        image_size: (width, height) in pixels: the principal point is its centre unless it is given.
        principal_point: c in pixels, a pair or (..., 2); a constant, no gradient goes to it. One of the two is needed.
        weights, mask, loss, noise, solver, adjoint: as in :func:`calibrate_camera`, without its dimension of views.

    Degeneracies: fewer than 4 points; a plane parallel to the image (status DEGENERATE, also where noise alone decides
    the focal length). A single plane determines it by its perspective alone: look at ``focal_std``.

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 12, focal=600.0)
    >>> K = torch.tensor([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]]).double()
    >>> points2d = pg.project_points(scene.points3d, K, scene.pose)
    >>> estimate_focal(points2d, scene.points3d, principal_point=(320, 240)).focal.round()
    tensor([700., 700.], dtype=torch.float64)
    """
    check_points(points2d, points3d)
    if mask is not None or weights is not None:
        check_per_point(weights, mask, points2d.shape[-2])
    size, centre = _centre(points2d, image_size, principal_point)
    focal = torch.full_like(centre[..., :1], float(max(size)))
    setting = Setting.of(
        "SIMPLE_PINHOLE",
        size,
        ("cx", "cy"),
        SimplePinhole(torch.cat([focal, centre], -1)),
        solver,
        adjoint,
        search=True,
    )
    if weights is not None:
        weights = weights.unsqueeze(-1 - weighting.trailing_dims(weights.shape, points2d.shape[-2]))
    mask = None if mask is None else mask.unsqueeze(-2)
    return FocalSolution(
        **calibrated(
            points2d.unsqueeze(-3), points3d.unsqueeze(-3), setting, weights, mask, loss, noise, shared=True
        )
    )


def _centre(
    points2d: Tensor, image_size: Any, principal_point: Any
) -> tuple[tuple[int, int], Float[Tensor, "*batch 2"]]:
    """Image size and principal point; where one is not given, from the other."""
    if image_size is None and principal_point is None:
        raise ValueError("principal_point: got None and no image_size, expected one of them")
    if principal_point is None:
        width, height = checked_size(image_size)
        return (width, height), torch.tensor([(width - 1) / 2, (height - 1) / 2]).to(points2d)
    centre = torch.as_tensor(principal_point, device=points2d.device).to(torch.float64).detach()
    if centre.ndim == 0 or centre.shape[-1] != 2:
        raise ValueError(f"principal_point: got shape {tuple(centre.shape)}, expected (..., 2) in pixels")
    if image_size is not None:
        return checked_size(image_size), centre
    # only a scale for the search is left of it
    extent = points2d.detach().double().nan_to_num(0.0, 0.0, 0.0).abs().amax() if points2d.numel() else 1.0
    side = max(1, round(float(max(2 * centre.abs().amax(), extent))))
    return (side, side), centre
