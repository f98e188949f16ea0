"""Rotations and rigid motions, moved by Cayley's map: the exponential up to second order, without a branch at zero."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posegrad import so3
from posegrad.manifolds.base import NEAR, Manifold, all_of, checked_tensor, flat
from posegrad.manifolds.vectors import Euclidean
from posegrad.pose import Pose


@dataclass(frozen=True)
class SO3(Manifold):
    """Rotation matrices: (B, ..., 3, 3), tangent ``R <- exp(w) R`` (moved by Cayley's map, the same to second order).

    >>> SO3().retract(torch.eye(3)[None], torch.zeros(1, 3))[0, 0]
    tensor([1., 0., 0.])
    """

    def dimension(self, variable: Tensor) -> int:
        if checked_tensor(variable, self).ndim < 3 or tuple(variable.shape[-2:]) != (3, 3):
            raise ValueError(f"SO3: got shape {tuple(variable.shape)}, expected (B, ..., 3, 3)")
        return math.prod(variable.shape[1:-1])

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return so3.cayley(delta.reshape(*variable.shape[:-1])) @ variable

    def near(self, variable: Tensor, delta: Tensor) -> Tensor:
        return so3.exp_near_zero(delta.reshape(*variable.shape[:-1])) @ variable

    def contains(self, variable: Tensor) -> Tensor:
        return all_of(so3.is_rotation(variable, NEAR))

    def project(self, variable: Tensor) -> Tensor:
        return so3.normalise(variable)

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.eye(3, dtype=variable.dtype, device=variable.device).expand_as(variable).clone()

    def size(self, variable: Tensor) -> Tensor:
        return torch.ones_like(flat(variable[..., 0]))


@dataclass(frozen=True)
class SE3(Manifold):
    """Poses: a :class:`posegrad.Pose` of batch shape (B,), tangent as in :meth:`posegrad.Pose.retract`.

    >>> SE3().retract(Pose.identity(1), torch.zeros(1, 6)).t
    tensor([[0., 0., 0.]])
    """

    def dimension(self, variable: Pose) -> int:
        if not isinstance(variable, Pose):
            raise TypeError(f"SE3: got {type(variable).__name__}, expected a pg.Pose")
        if len(variable.shape) != 1:
            raise ValueError(f"SE3: got a Pose of batch shape {tuple(variable.shape)}, expected (B,)")
        return 6

    def retract(self, variable: Pose, delta: Tensor) -> Pose:
        return Pose(so3.cayley(delta[:, :3]) @ variable.R, variable.t + delta[:, 3:])

    def near(self, variable: Pose, delta: Tensor) -> Pose:
        return Pose(so3.exp_near_zero(delta[:, :3]) @ variable.R, variable.t + delta[:, 3:])

    def contains(self, variable: Pose) -> Tensor:
        return so3.is_rotation(variable.R, NEAR) & all_of(variable.t.isfinite())

    def project(self, variable: Pose) -> Pose:
        return Pose(so3.normalise(variable.R), variable.t)

    def harmless(self, variable: Pose) -> Pose:
        return Pose(SO3().harmless(variable.R), torch.zeros_like(variable.t))

    def size(self, variable: Pose) -> Tensor:
        return torch.cat([torch.ones_like(variable.t), Euclidean().size(variable.t)], -1)
