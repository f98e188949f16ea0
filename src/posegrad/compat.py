"""Drop-in for BPnP (Chen et al., CVPR 2020): the original's names and signatures on :func:`posegrad.solve_pnp`.

``from posegrad.compat import BPnP`` in place of ``import BPnP`` is the one line to change. What differs:
gradients are exact, the dtype is kept, the start without ``ini_pose`` is global and deterministic (the original ran
RANSAC), and items that fail are reported once by a warning and get a zero gradient.
"""

import warnings
from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import so3
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems.pnp import solve_pnp
from posegrad.projection import project_points


class _Layer:
    """Looks like the original's ``torch.autograd.Function``: called by ``.apply``, never made."""

    _model_dims: tuple[int, ...] = (2,)
    _model_shape = "(n, 3)"

    def __new__(cls) -> NoReturn:
        raise TypeError(
            f"{cls.__name__} is not instantiated: call {cls.__name__}.apply(pts2d, pts3d, K, ini_pose)"
        )

    @classmethod
    def apply(
        cls,
        pts2d: Float[Tensor, "B n 2"],
        pts3d: Float[Tensor, "... n 3"],
        K: Float[Tensor, "3 3"],
        ini_pose: Float[Tensor, "B 6"] | None = None,
    ) -> Float[Tensor, "B 6"]:
        """Poses (B, 6) = [rotation vector (rad, length in [0, pi]), translation] from points.

        Args:
            pts2d: (B, n, 2) pixels.
            pts3d: (n, 3), shared by the batch; for ``BPnP_m3d`` (B, n, 3), one model an item.
            K: (3, 3) calibration matrix in pixels.
            ini_pose: (B, 6) start, refined locally; None for a global start.

        Raises:
            ValueError: on other shapes.
        """
        for name, value in (("pts2d", pts2d), ("pts3d", pts3d), ("K", K)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
        if pts2d.ndim != 3:
            raise ValueError(f"pts2d: got shape {tuple(pts2d.shape)}, expected (B, n, 2)")
        if pts3d.ndim not in cls._model_dims:
            raise ValueError(
                f"pts3d: got shape {tuple(pts3d.shape)}, expected {cls._model_shape} for {cls.__name__}"
            )
        init = None
        if ini_pose is not None:
            if ini_pose.shape != (pts2d.shape[0], 6):
                raise ValueError(
                    f"ini_pose: got shape {tuple(ini_pose.shape)}, expected ({pts2d.shape[0]}, 6)"
                )
            init = Pose.from_rotvec(ini_pose[:, :3].detach(), ini_pose[:, 3:].detach())
        solution = solve_pnp(pts2d, pts3d, K, init=init)
        if not bool(solution.ok.all()):
            failed = Status(int(solution.status.max()))
            warnings.warn(
                f"{cls.__name__}: {int((~solution.ok).sum())} of {len(pts2d)} items failed ({failed.name}: "
                f"{failed.advice}); their poses mean nothing and their gradients are zero. "
                "posegrad.solve_pnp tells which.",
                RuntimeWarning,
                stacklevel=2,
            )
        return torch.cat([solution.pose.rotvec(), solution.pose.t], -1)


class BPnP(_Layer):
    """PnP with one model (n, 3) for the batch: ``BPnP.apply(pts2d, pts3d, K, ini_pose=None)``.

    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 8)
    >>> pixels = batch_project(torch.cat([scene.pose.rotvec(), scene.pose.t], -1), scene.points3d[0], scene.K)
    >>> BPnP.apply(pixels, scene.points3d[0], scene.K).shape
    torch.Size([2, 6])
    """


class BPnP_fast(_Layer):
    """The same as :class:`BPnP`: the original's fast variant traded the exact Hessian for speed, ours need not.

    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 8)
    >>> pixels = batch_project(torch.cat([scene.pose.rotvec(), scene.pose.t], -1), scene.points3d[0], scene.K)
    >>> BPnP_fast.apply(pixels, scene.points3d[0], scene.K).shape
    torch.Size([2, 6])
    """


class BPnP_m3d(_Layer):
    """PnP with one model an item (B, n, 3).

    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 8)
    >>> BPnP_m3d.apply(scene.points2d, scene.points3d, scene.K).shape
    torch.Size([2, 6])
    """

    _model_dims = (3,)
    _model_shape = "(B, n, 3)"


def batch_project(
    P: Float[Tensor, "B ..."], pts3d: Float[Tensor, "n 3"], K: Float[Tensor, "3 3"], angle_axis: bool = True
) -> Float[Tensor, "B n 2"]:
    """Project one model under a batch of poses.

    Args:
        P: (B, 6) = [rotation vector, translation], or (B, 3, 4) = [R t] with ``angle_axis=False``.
        pts3d: (n, 3).
        K: (3, 3) in pixels.
        angle_axis: which of the two P is.

    Returns:
        (B, n, 2) pixels.

    Raises:
        ValueError: on other shapes.

    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> batch_project(torch.tensor([[0.0, 0, 0, 0, 0, 5]]), torch.tensor([[1.0, 0, 0]]), K)
    tensor([[[420., 240.]]])
    """
    expected = (6,) if angle_axis else (3, 4)
    if tuple(P.shape[1:]) != expected:
        wanted = "(B, 6)" if angle_axis else "(B, 3, 4)"
        raise ValueError(f"P: got shape {tuple(P.shape)}, expected {wanted} with angle_axis={angle_axis}")
    pose = Pose(so3.exp(P[:, :3]), P[:, 3:]) if angle_axis else Pose.from_matrix(P)
    return project_points(pts3d, K, pose)
