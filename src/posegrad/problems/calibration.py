"""Camera calibration: the parameters of a camera and the poses of its views, as a differentiable function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.cameras import Camera
from posegrad.optim.adjoint import Adjoint, Implicit
from posegrad.optim.compiling import uncompiled
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems.calibration_door import Setting, admit_views
from posegrad.problems.calibration_result import hand_back
from posegrad.problems.calibration_search import minimum
from posegrad.robust import RobustLoss


@_pytree.register
@dataclass(frozen=True, eq=False)
class CalibrationSolution(Solution):
    """Answer of :func:`calibrate_camera`, per calibration of the batch ``(...)``, each of V views.

    Only ``camera`` and ``pose`` carry gradients. Where not ``ok`` the camera is the initial one (or a neutral one), the
    poses are the identity one unit ahead, and all gradients are zero.

    Args:
        covariance: (..., P, P) of the camera's parameters, zero for those that were fixed; the poses' uncertainty is
            taken into account. Infinite variances where it is not known.
        pose_covariance: (..., V, 6, 6) in the tangent [rotation (rad), translation] of each view, the camera's
            uncertainty taken into account.
        residuals: (..., V, N, 2) projection minus observation, pixels; zero where a point or a view does not take part.
        rms: (...) root of the mean squared norm of the residuals of all points that take part, pixels: what OpenCV
            prints. Not weighted.
        view_rms: (..., V) likewise of each view; zero for those that do not take part.
        view_status: (..., V) CONVERGED for views that take part; what is wrong with the others.

    ``cost`` is in pixels squared. ``hessian`` (..., F, F) is that of the cost as a function of the F free parameters of
    the camera, with the poses at their best for each; zero where the item failed.

    >>> import posegrad as pg
    >>> board = torch.cartesian_prod(torch.arange(6.0), torch.arange(5.0), torch.zeros(1)).double()
    >>> turns = 0.4 * torch.tensor([[1.0, 0, 0], [-1, 0.3, 0], [0, 1, 0], [0.2, -1, 0]]).double()
    >>> poses = pg.Pose.from_rotvec(turns, torch.tensor([-2.5, -2.0, 9.0]).double().expand(4, 3))
    >>> views = pg.project_points(board, torch.tensor([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]]).double(), poses)
    >>> views = views + torch.randn(views.shape, generator=torch.Generator().manual_seed(0)).double()
    >>> solution = calibrate_camera(views, board, model="SIMPLE_PINHOLE", image_size=(640, 480))
    >>> bool(((solution.camera.params[0] - 800).abs() < 3 * solution.std[0]).all()), solution.view_rms.shape
    (True, torch.Size([4]))
    """

    covariance: Float[Tensor, "*batch P P"]
    pose_covariance: Float[Tensor, "*batch V 6 6"]
    residuals: Float[Tensor, "*batch V N 2"]
    rms: Float[Tensor, "*batch"]
    view_rms: Float[Tensor, "*batch V"]
    view_status: Int[Tensor, "*batch V"]

    _ADVICE: ClassVar[dict[Status, str]] = {
        Status.DEGENERATE: "The views do not determine the camera (targets parallel to the image, too few views, too "
        "many free parameters): tilt the target, add views, or hold parameters by fixed=(...).",
        Status.TOO_FEW_POINTS: "No view has 4 unmasked points of positive weight.",
        Status.INFEASIBLE: "Points behind the camera or outside of the model's field: give an init, or another model.",
        Status.MAX_STEPS: "Stopped before convergence: fewer free parameters, a model nearer to the lens, or an init.",
    }

    @property
    def camera(self) -> Camera:
        """Parameters (..., P)."""
        return self.variable.camera

    @property
    def pose(self) -> Pose:
        """``cam_from_world`` of the views, R (..., V, 3, 3) and t (..., V, 3)."""
        return self.variable.pose

    @property
    def std(self) -> Float[Tensor, "*batch P"]:
        """Standard deviations of the camera's parameters; zero for those that were fixed."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()


@uncompiled
def calibrate_camera(
    points2d: Float[Tensor, "*batch V N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    *,
    model: str | type[Camera] = "OPENCV",
    image_size: tuple[int, int],
    fixed: Sequence[str] = (),
    shared: bool = True,
    init: Camera | None = None,
    weights: Float[Tensor, "*batch_and_kind"] | None = None,
    mask: Bool[Tensor, "*batch V N"] | None = None,
    loss: RobustLoss | None = None,
    noise: float | Float[Tensor, "*batch"] | None = None,
    solver: LevenbergMarquardt = LevenbergMarquardt(),  # noqa: B008 (frozen)
    adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
) -> CalibrationSolution:
    """Calibrate a camera from views of known points, with exact gradients.

    ``argmin_(camera, R_v, t_v) 1/2 sum_vi rho(r_vi^T W_vi r_vi)``, ``r_vi = pi(camera, R_v z_vi + t_v) - x_vi``

    No start is needed: homographies give one for planar targets before a perspective camera, a search over focal
    lengths for everything else. With ``init`` the answer is the minimum that local refinement reaches from that camera.
    Gradients reach points2d, points3d and weights by implicit differentiation with the exact Hessian, to any order.

    A view whose input is bad (not finite, fewer than 4 points, points on a line) is left out and says so in
    ``view_status``; a calibration that fails has a status and a zero gradient.

    Args:
        points2d: observed pixels (..., V, N, 2) of V views, the centre of the top-left pixel being (0, 0). Leading
            dimensions are calibrations of their own.
        points3d: the target's points (N, 3), or (..., V, N, 3) where views show different ones; any unit.
        model: a camera model, by name (``pg.cameras.MODELS``) or class.
        image_size: (width, height) in pixels: the principal point is looked for from its centre.
        fixed: names of parameters that are held: at the init's value; without one at none for distortions, at the
            image's centre for cx and cy.
        shared: one camera for all V views, or one for each: then every view is a calibration of its own, the batch
            shape is (..., V) and V = 1.
        init: a camera of this model to start from, parameters (P,) or (..., P). No gradient goes to it.
        weights: they multiply the squared residual: (..., V, N), (..., V, N, 2) or (..., V, N, 2, 2), as in
            :func:`solve_pnp`.
        mask: (..., V, N) bool, False for missing points; their contents, NaN included, do not matter.
        loss: rho, a robust loss of :mod:`posegrad.robust`, its scale in pixels times the root of the weights.
        noise: standard deviation in pixels of a coordinate of weight 1, for the covariances. None: estimated from the
            residuals, ``sigma^2 = 2 cost / (2 M - D)`` with M points and D unknowns; unknown with a robust loss.
        solver: settings of the minimisation.
        adjoint: ``Implicit()``, ``Implicit(hessian="gauss_newton")`` or ``Unrolled()``.

    Returns:
        A :class:`CalibrationSolution`. Work is done in float64 and handed back in the dtype of the points.

    Raises:
        TypeError, ValueError: for a wrong call, naming the argument.

    Degeneracies: planar targets that are all parallel to the image leave the focal length open (DEGENERATE; also when
    noise alone decides it: two standard deviations from zero), one planar view leaves more than the focal length open,
    and views from one distance and direction determine the distortion but poorly: look at ``std``.

    Reference: Zhang, "A flexible new technique for camera calibration", PAMI 22 (2000); Triggs et al., "Bundle
    Adjustment - A Modern Synthesis" (1999), section 6.1.

    >>> import posegrad as pg
    >>> x, y = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    >>> board = torch.stack([x, y, 0 * x], -1).reshape(-1, 3).double()
    >>> turns = 0.4 * torch.tensor([[1.0, 0, 0], [-1, 0.3, 0], [0, 1, 0], [0.2, -1, 0]]).double()
    >>> poses = pg.Pose.from_rotvec(turns, torch.tensor([-2.5, -2.0, 9.0]).double().expand(4, 3))
    >>> truth = pg.cameras.Radial(torch.tensor([800.0, 320, 240, -0.2, 0.05]).double())
    >>> views = pg.project_points(board, truth, poses)
    >>> pg.calibrate_camera(views, board, model="RADIAL", image_size=(640, 480)).camera.params.round(decimals=3) + 0.0
    tensor([ 8.0000e+02,  3.2000e+02,  2.4000e+02, -2.0000e-01,  5.0000e-02],
           dtype=torch.float64)
    """
    setting = Setting.of(model, image_size, fixed, init, solver, adjoint)
    return CalibrationSolution(
        **calibrated(points2d, points3d, setting, weights, mask, loss, noise, shared=shared)
    )


def calibrated(
    points2d: Tensor,
    points3d: Tensor,
    setting: Setting,
    weights: Tensor | None,
    mask: Tensor | None,
    loss: RobustLoss | None,
    noise: float | Tensor | None,
    *,
    shared: bool,
) -> dict[str, Any]:
    """The fields of a :class:`CalibrationSolution`, for the problems that are one."""
    device = points2d.device.type if isinstance(points2d, Tensor) else "cpu"
    with torch.autocast(device, enabled=False):
        views = admit_views(points2d, points3d, setting, weights, mask, loss, shared=shared)
        return hand_back(views, setting, minimum(views, setting), noise)
