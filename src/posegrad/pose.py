"""Rigid transformations."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import _pytree, so3


@_pytree.register
@dataclass(frozen=True, eq=False)
class Pose:
    """A batch of rigid transformations ``cam_from_world``: ``x_cam = R x_world + t``.

    Column vectors, OpenCV camera axes (x right, y down, z forward). The tangent is
    ``R <- exp(w) R, t <- t + dt``, in the order [rotation (rad), translation (unit of the points)].

    Args:
        R: rotation matrices (..., 3, 3).
        t: translations (..., 3), in the unit of the 3D points.

    >>> pose = Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 5.0]))
    >>> pose.act(torch.zeros(1, 3))
    tensor([[0., 0., 5.]])
    """

    R: Float[Tensor, "*batch 3 3"]
    t: Float[Tensor, "*batch 3"]

    def __post_init__(self) -> None:
        for name, value, shape in (("R", self.R, (3, 3)), ("t", self.t, (3,))):
            if not isinstance(value, Tensor):
                raise TypeError(f"Pose.{name}: got {type(value).__name__}, expected a torch.Tensor")
            if tuple(value.shape[-len(shape) :]) != shape:
                wanted = "(..., " + ", ".join(map(str, shape)) + ")"
                raise ValueError(f"Pose.{name}: got shape {tuple(value.shape)}, expected {wanted}")

    @classmethod
    def identity(
        cls, *batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> "Pose":
        """Identity transformations with the given batch shape."""
        R = torch.eye(3, dtype=dtype, device=device).expand(*batch, 3, 3)
        return cls(R, torch.zeros(*batch, 3, dtype=dtype, device=device))

    @classmethod
    def from_rotvec(cls, rotvec: Float[Tensor, "*batch 3"], t: Float[Tensor, "*batch 3"]) -> "Pose":
        """From rotation vectors (axis times angle, radians) and translations."""
        return cls(so3.exp(rotvec), t)

    @classmethod
    def from_quat_wxyz(cls, quat: Float[Tensor, "*batch 4"], t: Float[Tensor, "*batch 3"]) -> "Pose":
        """From quaternions (w, x, y, z) of any non-zero length, and translations."""
        return cls(so3.matrix_from_quat_wxyz(quat), t)

    @classmethod
    def from_quat_xyzw(cls, quat: Float[Tensor, "*batch 4"], t: Float[Tensor, "*batch 3"]) -> "Pose":
        """From quaternions (x, y, z, w) of any non-zero length, and translations."""
        return cls.from_quat_wxyz(quat.roll(1, -1), t)

    @classmethod
    def from_matrix(cls, matrix: Float[Tensor, "*batch r 4"]) -> "Pose":
        """From (..., 4, 4) or (..., 3, 4) matrices ``[R t]``; a fourth row is not read."""
        if matrix.ndim < 2 or matrix.shape[-1] != 4 or matrix.shape[-2] not in (3, 4):
            raise ValueError(f"matrix: got shape {tuple(matrix.shape)}, expected (..., 4, 4) or (..., 3, 4)")
        return cls(matrix[..., :3, :3], matrix[..., :3, 3])

    @property
    def shape(self) -> torch.Size:
        """Batch shape."""
        return torch.broadcast_shapes(self.R.shape[:-2], self.t.shape[:-1])

    def rotvec(self) -> Float[Tensor, "*batch 3"]:
        """Rotation vectors (..., 3) in radians, length in [0, pi]."""
        return so3.log(self.R)

    def quat_wxyz(self) -> Float[Tensor, "*batch 4"]:
        """Unit quaternions (w, x, y, z), w >= 0."""
        return so3.quat_wxyz_from_matrix(self.R)

    def quat_xyzw(self) -> Float[Tensor, "*batch 4"]:
        """Unit quaternions (x, y, z, w), w >= 0."""
        return self.quat_wxyz().roll(-1, -1)

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        """Homogeneous matrices (..., 4, 4)."""
        R, t = self.R.expand(*self.shape, 3, 3), self.t.expand(*self.shape, 3)
        top = torch.cat([R, t[..., None]], -1)
        last = torch.tensor([0, 0, 0, 1], dtype=top.dtype, device=top.device)
        return torch.cat([top, last.expand(*top.shape[:-2], 1, 4)], -2)

    def act(self, points: Float[Tensor, "*batch N 3"]) -> Float[Tensor, "*batch N 3"]:
        """Transform points (..., N, 3): ``R x + t``; batch dimensions broadcast."""
        if self.R.dtype == points.dtype == torch.float64:  # which autocast leaves alone; four times as quick
            return points @ self.R.mT + self.t[..., None, :]
        return _times(self.R[..., None, :, :], points) + self.t[..., None, :]

    def inverse(self) -> "Pose":
        """``world_from_cam``."""
        R = self.R.mT
        return Pose(R, -_times(R, self.t))

    def compose(self, other: "Pose") -> "Pose":
        """``a_from_b.compose(b_from_c) = a_from_c``; the same as ``a_from_b @ b_from_c``."""
        R = _times(self.R[..., None, :, :], other.R.mT).mT
        return Pose(R, _times(self.R, other.t) + self.t)

    def __matmul__(self, other: "Pose") -> "Pose":
        return self.compose(other)

    def retract(self, delta: Float[Tensor, "*batch 6"]) -> "Pose":
        """Move along a tangent vector [w, dt]: ``R <- exp(w) R``, ``t <- t + dt``."""
        return Pose(so3.exp(delta[..., :3]) @ self.R, self.t + delta[..., 3:])

    def to(self, *args: object, **kwargs: object) -> "Pose":
        """``Tensor.to`` on both members."""
        return Pose(self.R.to(*args, **kwargs), self.t.to(*args, **kwargs))  # pyright: ignore

    def detach(self) -> "Pose":
        """Cut both members from the autograd graph."""
        return Pose(self.R.detach(), self.t.detach())

    def __getitem__(self, index: Any) -> "Pose":
        """Index the batch dimensions (members are broadcast against each other first)."""
        flat = torch.arange(self.shape.numel(), device=self.R.device).view(self.shape)[index]
        R, t = self.R.expand(*self.shape, 3, 3), self.t.expand(*self.shape, 3)
        return Pose(R.reshape(-1, 3, 3)[flat], t.reshape(-1, 3)[flat])

    __iter__ = None  # `R, t = pose` on a batch of two would give two poses


def _times(R: Tensor, x: Tensor) -> Tensor:
    """``R x`` by sums of products: a matrix product would be rounded to half precision under autocast."""
    return (R * x[..., None, :]).sum(-1)
