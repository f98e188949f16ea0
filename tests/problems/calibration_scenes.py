"""Synthetic calibrations: views of a target through a known camera."""

from dataclasses import dataclass

import torch
from torch import Tensor

import posegrad as pg
from tests.cameras.samples import PARAMS

SIZE = (640, 480)


@dataclass(frozen=True)
class Calibration:
    points2d: Tensor  # (V, N, 2)
    points3d: Tensor  # (N, 3)
    camera: pg.cameras.Camera
    pose: pg.Pose


def board(columns: int = 8, rows: int = 6, square: float = 1.0) -> Tensor:
    """Inner corners of a chessboard, centred."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3).double()
    return square * (points - points.mean(0))


def rig(count: int = 40, seed: int = 0) -> Tensor:
    """Points in a box: no plane."""
    generator = torch.Generator().manual_seed(seed)
    return 8 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 4


def views(
    name: str,
    *,
    num_views: int = 8,
    target: Tensor | None = None,
    noise: float = 0.0,
    distance: float | None = None,
    tilt: float = 0.5,
    seed: int = 0,
) -> Calibration:
    """Targets tilted by about ``tilt`` radians, turned by any angle, all over the image."""
    generator = torch.Generator().manual_seed(seed)
    camera = pg.cameras.MODELS[name](torch.tensor(PARAMS[name], dtype=torch.float64))
    points = board() if target is None else target

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    angle = torch.pi * uniform(num_views)
    lean = tilt * (1 + 0.3 * uniform(num_views))
    axis = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
    spin = torch.cat([torch.zeros(num_views, 2).double(), torch.pi * uniform(num_views, 1)], -1)
    R = pg.so3.exp(lean[:, None] * axis) @ pg.so3.exp(spin)
    far = (8.0 if camera.wide else 12.0) if distance is None else distance
    depth = far * (1 + 0.2 * uniform(num_views))
    offset = 0.25 * depth[:, None] * uniform(num_views, 2)
    pose = pg.Pose(R, torch.cat([offset, depth[:, None]], -1))
    points2d = pg.project_points(points, camera, pose)
    assert bool(camera.project(pose.act(points)).valid.all()), "a point is outside of the field"
    jitter = torch.randn(points2d.shape, generator=generator, dtype=torch.float64)
    return Calibration(points2d + noise * jitter, points, camera, pose)
