"""What PnP solvers minimise, for wrapping one of them into a layer."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.cameras import as_camera
from posegrad.optim.problem import Problem, Quadratic
from posegrad.pose import Pose
from posegrad.problems.reprojection import Correspondences, Reprojection

_REPROJECTION = Reprojection()


class ReprojectionProblem(Problem):
    """``argmin_(R, t) 1/2 sum_i w_i |pi(camera, R z_i + t) - x_i|^2`` for :func:`posegrad.argmin_layer`.

    The variable is a :class:`Pose` (B,), the arguments are a tuple ``(points2d, points3d, camera)``, or
    ``(points2d, points3d, camera, weights)``, or with a loss of :mod:`posegrad.robust` after the weights: as in
    :func:`posegrad.solve_pnp`, but with the batch, or 1, in front of every tensor: points2d (B, N, 2), points3d
    (B, N, 3) or (1, N, 3), camera (B, 3, 3), (1, 3, 3) or a camera whose parameters are (B, P) or (1, P), weights
    (B, N).

    It is solved in the units it is given in: keep the origin of the points near them.

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 8, noise=1.0)
    >>> layer = pg.argmin_layer(lambda args: scene.pose, pg.ReprojectionProblem())   # any solver of PnP
    >>> layer((scene.points2d, scene.points3d, scene.K[None])).ok
    tensor([True, True])
    """

    dimension = 6

    def residual(self, variable: Pose, args: Any) -> Float[Tensor, "B M"]:
        """Times the root of their weight, the loss's included."""
        return _REPROJECTION.residual(variable, _correspondences(args))

    def retract(self, variable: Pose, delta: Float[Tensor, "B 6"]) -> Pose:
        return _REPROJECTION.retract(variable, delta)

    def admit(self, variable: Pose) -> tuple[Pose, Bool[Tensor, " B"]]:
        fits = so3.is_rotation(variable.R)
        eye = torch.eye(3, dtype=variable.R.dtype, device=variable.R.device)
        return Pose(so3.normalise(torch.where(fits[:, None, None], variable.R, eye)), variable.t), fits

    def size(self, variable: Pose) -> Float[Tensor, "B 6"]:
        length = variable.t.square().mean(-1, keepdim=True).sqrt().expand_as(variable.t)
        return torch.cat([torch.ones_like(length), length], -1)

    def cost(self, variable: Pose, args: Any) -> Float[Tensor, " B"]:
        return _REPROJECTION.cost(variable, _correspondences(args))

    def feasible(self, variable: Pose, args: Any) -> Bool[Tensor, " B"]:
        return _REPROJECTION.feasible(variable, _correspondences(args))

    def quadratic(self, variable: Pose, args: Any, *, exact: bool) -> Quadratic:
        return _REPROJECTION.quadratic(variable, _correspondences(args), exact=exact)

    def slope(self, variable: Pose, args: Any, direction: Float[Tensor, "B 6"]) -> Float[Tensor, " B"]:
        return _REPROJECTION.slope(variable, _correspondences(args), direction)

    def pullback(self, variable: Pose, cotangent: Pose) -> Float[Tensor, "B 6"]:
        return _REPROJECTION.pullback(variable, cotangent)


def _correspondences(args: Any) -> Correspondences:
    if not isinstance(args, tuple | list) or not 3 <= len(args) <= 5:
        raise TypeError(
            f"args: got {type(args).__name__}, expected a tuple (points2d, points3d, camera[, weights[, loss]])"
        )
    points2d, points3d, camera, *rest = args
    weights = rest[0] if rest and rest[0] is not None else torch.ones_like(points2d[..., 0])
    size = max(len(value) for value in (points2d, points3d, weights))
    points2d, points3d, weights = (
        value.expand(size, *value.shape[1:]) for value in (points2d, points3d, weights)
    )
    return Correspondences(points2d, points3d, weights, as_camera(camera), *rest[1:])
