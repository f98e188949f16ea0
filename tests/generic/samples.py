"""Small problems on every manifold, of one flat tensor of data, so that all of it can be differenced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import posegrad as pg
from posegrad import _pytree

BATCH = 2


class Sample(NamedTuple):
    """A residual in blocks (B, N, K), a start and data (B, P), and where the variable lives."""

    residual: Callable[[Any, Tensor], Tensor]
    init: Any
    data: Tensor
    manifold: Any = None

    def solve(self, data: Tensor, **options: Any) -> pg.Solution:
        """One item for each row of data, which are displaced copies of the sample's, in order."""
        copies = len(data) // BATCH
        init = _pytree.tree_map(lambda leaf: leaf.repeat_interleave(copies, 0), self.init)
        return pg.least_squares(self.residual, init, data, manifold=self.manifold, **options)


def loss_of(variable: Any) -> Tensor:
    """(B,) some function of all that a variable is made of."""
    total = 0.0
    for number, leaf in enumerate(_pytree.flatten(variable)[0]):
        flat = leaf.flatten(1)
        weights = torch.linspace(-1, 1 + number, flat.shape[1], dtype=flat.dtype)
        total = total + flat.square() @ weights + flat @ weights.flip(0)
    return torch.as_tensor(total)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


_SOURCE = _random(5, 3, seed=1)
_TIMES = torch.linspace(0, 1, 6, dtype=torch.float64)


def _curve(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, :1] * (x[:, 1:] * _TIMES).exp() - y)[..., None]


def _rotated(R: Tensor, y: Tensor) -> Tensor:
    return _SOURCE @ R.mT - y.unflatten(1, (5, 3))


def _registered(pose: pg.Pose, y: Tensor) -> Tensor:
    return pose.act(_SOURCE) - y.unflatten(1, (5, 3))


def _direction(x: Tensor, y: Tensor) -> Tensor:
    return x[:, None] - y.unflatten(1, (4, 3))


def _decay(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, :1] * (-x[:, 1:] * _TIMES).exp() - y)[..., None]


def _similarity(x: Any, y: Tensor) -> Tensor:
    return x["scale"][..., None] * x["pose"].act(_SOURCE) - y.unflatten(1, (5, 3))


def _samples() -> dict[str, Sample]:
    noise = _random(BATCH, 15, seed=2)
    R = pg.so3.exp(_random(BATCH, 3, seed=3))
    t = _random(BATCH, 3, seed=4)
    pose = pg.Pose(pg.so3.exp(0.2 * _random(BATCH, 3, seed=5)) @ R, t + 0.3)
    scale = torch.tensor([[1.5], [0.7]], dtype=torch.float64)
    moved = pg.Pose(R, t).act(_SOURCE)
    ab = torch.tensor([[1.3, 0.8], [2.0, -0.5]], dtype=torch.float64)
    axis = R[:, 0]
    near = axis + 0.3 * _random(BATCH, 3, seed=6)
    unit = near / near.norm(dim=-1, keepdim=True)
    return {
        "euclidean": Sample(
            _curve, torch.ones_like(ab), ab[:, :1] * (ab[:, 1:] * _TIMES).exp() + 0.1 * noise[:, :6]
        ),
        "so3": Sample(_rotated, pose.R, (_SOURCE @ R.mT).flatten(1) + 0.2 * noise, pg.manifolds.SO3()),
        "se3": Sample(_registered, pose, moved.flatten(1) + 0.2 * noise),
        "sphere": Sample(_direction, unit, axis.repeat(1, 4) + 0.3 * noise[:, :12], pg.manifolds.Sphere()),
        "positive": Sample(
            _decay,
            torch.ones(BATCH, 2, dtype=torch.float64),
            ab[:, :1] * (-ab[:, 1:].abs() * _TIMES).exp() + 0.1 * noise[:, :6],
            pg.manifolds.Positive(),
        ),
        "product": Sample(
            _similarity,
            {"pose": pose, "scale": torch.ones_like(scale)},
            (scale[..., None] * moved).flatten(1) + 0.2 * noise,
            {"scale": pg.manifolds.Positive()},
        ),
    }


SAMPLES = _samples()
