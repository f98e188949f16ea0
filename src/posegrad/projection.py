"""Projection of world points and its residual: the forward model that every problem shares."""

from jaxtyping import Float
from torch import Tensor

from posegrad.cameras import Camera, as_camera
from posegrad.pose import Pose


def project_points(
    points3d: Float[Tensor, "*batch N 3"], camera: Camera | Tensor, pose: Pose
) -> Float[Tensor, "*batch N 2"]:
    """Pixels of world points: ``pi(camera, R x + t)``.

    Args:
        points3d: (..., N, 3) in the unit of ``pose.t``.
        camera: calibration matrix K (..., 3, 3) in pixels, or a camera object.
        pose: ``cam_from_world``; batch dimensions broadcast.

    Returns:
        (..., N, 2) pixels. Always finite for finite input; a point that is not in front of the camera has no
        image, and its pixel means nothing: ``camera.project(pose.act(points3d)).valid`` tells which.

    >>> import posegrad as pg
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> pose = pg.Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 5.0]))
    >>> pg.project_points(torch.tensor([[1.0, 0, 0]]), K, pose)
    tensor([[420., 240.]])
    """
    _check_last(points3d, "points3d", 3)
    if not isinstance(pose, Pose):
        raise TypeError(
            f"pose: got {type(pose).__name__}, expected a pg.Pose; see pg.Pose.from_matrix, from_rotvec"
        )
    return as_camera(camera).project(pose.act(points3d)).points2d


def reprojection_residuals(
    points2d: Float[Tensor, "*batch N 2"],
    points3d: Float[Tensor, "*batch N 3"],
    camera: Camera | Tensor,
    pose: Pose,
) -> Float[Tensor, "*batch N 2"]:
    """Projection minus observation, (..., N, 2) pixels; arguments as in :func:`project_points`.

    The square of a residual has a gradient everywhere, its norm has none at zero.

    Raises:
        TypeError, ValueError: for wrong types, shapes, or numbers of points that differ.

    >>> import posegrad as pg
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> pose = pg.Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 5.0]))
    >>> pg.reprojection_residuals(torch.tensor([[419.0, 242.0]]), torch.tensor([[1.0, 0, 0]]), K, pose)
    tensor([[ 1., -2.]])
    """
    _check_last(points2d, "points2d", 2)
    _check_last(points3d, "points3d", 3)
    if points2d.shape[-2] != points3d.shape[-2]:
        raise ValueError(
            f"points3d: got {points3d.shape[-2]} points, expected {points2d.shape[-2]} as in points2d"
        )
    return project_points(points3d, camera, pose) - points2d


def _check_last(points: Tensor, name: str, size: int) -> None:
    if not isinstance(points, Tensor):
        raise TypeError(f"{name}: got {type(points).__name__}, expected a torch.Tensor")
    if points.ndim < 2 or points.shape[-1] != size:
        hint = "; points2d comes before points3d" if points.ndim and points.shape[-1] == 5 - size else ""
        raise ValueError(f"{name}: got shape {tuple(points.shape)}, expected (..., N, {size}){hint}")
