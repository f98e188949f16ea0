"""The problems of ``speed.py``, the loss whose gradient is compared, and the exact gradient to compare with."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import random_scene

#: items whose gradient is compared
CHECKED = 8


@dataclass(frozen=True, order=True)
class Cell:
    """One cell of the table: what is asked for, and of how much."""

    batch: int
    points: int
    dtype: str = "float64"
    init: bool = True
    backward: bool = True

    @property
    def task(self) -> str:
        """As the tables call it."""
        what = "forward + backward" if self.backward else "forward"
        return f"{what}, {'nearby start' if self.init else 'no start'}"

    def __str__(self) -> str:
        return f"{self.batch} x {self.points}, {self.task}, {self.dtype}"


@dataclass(frozen=True)
class Inputs:
    """What every method gets: pixels (B, N, 2), points (B, N, 3), K, a start, in the cell's dtype.

    The loss is ``<weight_R, R> + <weight_t, t>``, summed over the batch.
    """

    points2d: Tensor
    points3d: Tensor
    K: Tensor
    near: pg.Pose
    weight_R: Tensor
    weight_t: Tensor

    def loss(self, R: Tensor, t: Tensor) -> Tensor:
        """A fixed linear function of the pose."""
        return (R * self.weight_R).sum() + (t * self.weight_t).sum()

    def double(self) -> "Inputs":
        """The same numbers in float64: what the dtype has rounded stays rounded."""
        tensors = {name: getattr(self, name).double() for name in self.__dataclass_fields__ if name != "near"}
        return replace(self, near=self.near.to(torch.float64), **tensors)

    def head(self, count: int) -> "Inputs":
        """The first items."""
        return replace(
            self, points2d=self.points2d[:count], points3d=self.points3d[:count], near=self.near[:count]
        )


class Answer(NamedTuple):
    """What a method found: R (B, 3, 3), t (B, 3), and its gradients by pixels and points where asked for."""

    R: Tensor
    t: Tensor
    by_pixels: Tensor | None = None
    by_points: Tensor | None = None


def make_inputs(cell: Cell) -> Inputs:
    """A cell's problems: one pixel of noise; the start is off by 0.02 rad and 0.02 units about and along each axis."""
    dtype = getattr(torch, cell.dtype)
    scene = random_scene(cell.batch, cell.points, noise=1.0, seed=cell.batch + cell.points)
    K = scene.K * torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 1]])  # others know no skew
    near = scene.pose.retract(torch.full((cell.batch, 6), 0.02, dtype=torch.float64))
    generator = torch.Generator().manual_seed(7)
    weight_R, weight_t = torch.randn(3, 3, generator=generator), torch.randn(3, generator=generator)
    tensors = (scene.points2d, scene.points3d, K)
    return Inputs(
        *(v.to(dtype).contiguous() for v in tensors), near.to(dtype), weight_R.to(dtype), weight_t.to(dtype)
    )


def costs(inputs: Inputs, answer: Answer) -> Tensor:
    """``1/2 sum |r|^2`` of every item, in float64; infinite where a point is not in front of the camera."""
    x, z, K = (value.double() for value in (inputs.points2d, inputs.points3d, inputs.K))
    in_camera = z @ answer.R.double().mT + answer.t.double()[:, None]
    image = in_camera @ K.mT
    cost = 0.5 * (image[..., :2] / image[..., 2:] - x).square().sum((-1, -2))
    return torch.where((in_camera[..., 2] > 0).all(-1) & cost.isfinite(), cost, torch.inf)


def exact_gradients(inputs: Inputs, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the loss by pixels and points, at the minimum next to a pose: for the first items, in float64.

    Not the package's solver: Newton steps and implicit differentiation by torch.func, written out.
    """
    inputs = inputs.head(CHECKED).double()
    K = inputs.K

    def cost(delta: Tensor, x: Tensor, z: Tensor, pose: pg.Pose) -> Tensor:
        image = pose.retract(delta).act(z) @ K.mT
        return 0.5 * (image[:, :2] / image[:, 2:] - x).square().sum()

    def loss(delta: Tensor, pose: pg.Pose) -> Tensor:
        moved = pose.retract(delta)
        return inputs.loss(moved.R, moved.t)

    gradient = torch.func.grad(cost)
    zero = torch.zeros(6, dtype=torch.float64)

    def hessian(x: Tensor, z: Tensor, pose: pg.Pose) -> Tensor:
        return torch.stack(
            [torch.func.grad(lambda d, k=k: gradient(d, x, z, pose)[k])(zero) for k in range(6)]
        )

    def newton(x: Tensor, z: Tensor, pose: pg.Pose) -> pg.Pose:
        H = hessian(x, z, pose)
        return pose.retract(-torch.linalg.inv_ex(H)[0] @ gradient(zero, x, z, pose))

    def pulled(x: Tensor, z: Tensor, pose: pg.Pose) -> tuple[Tensor, Tensor]:
        H = hessian(x, z, pose)
        u = torch.linalg.inv_ex(H)[0] @ torch.func.grad(loss)(zero, pose)
        by = torch.func.grad(lambda x, z: -(u * gradient(zero, x, z, pose)).sum(), argnums=(0, 1))
        return by(x, z)

    pose = pg.Pose(R[:CHECKED].double(), t[:CHECKED].double())
    for _ in range(4):
        pose = torch.func.vmap(newton)(inputs.points2d, inputs.points3d, pose)
    return torch.func.vmap(pulled)(inputs.points2d, inputs.points3d, pose)


def gradient_error(answer: Answer, exact: tuple[Tensor, Tensor]) -> float:
    """Largest relative error of an item's gradient by its pixels or by its points."""
    worst = 0.0
    for got, wanted in zip(answer[2:], exact, strict=True):
        assert got is not None
        difference = (got[:CHECKED].double() - wanted).flatten(1).norm(dim=1)
        error = (difference / wanted.flatten(1).norm(dim=1)).nan_to_num(torch.inf, torch.inf)
        worst = max(worst, error.max().item())
    return worst
