"""A usual and some extreme parameters of every model, and points of its valid field."""

import math

import torch
from torch import Tensor

from posegrad.cameras import MODELS, Camera
from posegrad.cameras.distorted import Distorted

PARAMS: dict[str, list[float]] = {
    "SIMPLE_PINHOLE": [500, 320, 240],
    "PINHOLE": [500, 520, 320, 240],
    "SKEW_PINHOLE": [500, 520, 320, 240, 3],
    "SIMPLE_RADIAL": [500, 320, 240, -0.1],
    "RADIAL": [500, 320, 240, -0.2, 0.05],
    "OPENCV": [500, 520, 320, 240, -0.25, 0.08, 1e-3, -2e-3],
    "FULL_OPENCV": [500, 520, 320, 240, 0.3, 0.05, 1e-3, -2e-3, 0.01, 0.5, 0.1, 0.02],
    "FOV": [500, 520, 320, 240, 0.9],
    "SIMPLE_FISHEYE": [300, 320, 240],
    "FISHEYE": [300, 310, 320, 240],
    "SIMPLE_RADIAL_FISHEYE": [300, 320, 240, -0.02],
    "RADIAL_FISHEYE": [300, 320, 240, -0.02, 0.003],
    "OPENCV_FISHEYE": [190.2205, 190.0174, 318.8252, 319.6421, -0.0195919, 0.0194069, -0.0083875, 0.00034797],
    "SIMPLE_DIVISION": [500, 320, 240, -0.3],
    "DIVISION": [500, 520, 320, 240, -0.3],
}

# folds near the centre, pincushions, poles, strong tangential terms
STRONG: list[tuple[str, list[float]]] = [
    ("SIMPLE_RADIAL", [400, 320, 240, -1.5]),
    ("SIMPLE_RADIAL", [400, 320, 240, 8.0]),
    ("RADIAL", [400, 320, 240, -0.9, 0.1]),
    ("RADIAL", [400, 320, 240, 0.5, -0.4]),
    ("OPENCV", [400, 420, 320, 240, -0.4, 0.02, 0.02, -0.03]),
    ("OPENCV", [400, 420, 320, 240, 0.0, 0.0, 0.01, 0.01]),
    ("FULL_OPENCV", [400, 420, 320, 240, -0.3, 0.1, 1e-3, 1e-3, -0.02, 0.0, 0.0, 0.0]),
    ("FULL_OPENCV", [900, 910, 960, 540, 0.6, -3.6, 5e-4, 2e-4, 2.0, 0.45, -3.35, 1.9]),
    ("FULL_OPENCV", [400, 420, 320, 240, 0.1, 0.0, -0.01, 0.01, 0.0, -0.5, 0.02, 0.0]),
    ("FOV", [400, 420, 320, 240, 2.2]),
    ("FOV", [400, 420, 320, 240, -0.05]),
    ("FOV", [400, 420, 320, 240, 0.0]),
    ("SIMPLE_RADIAL_FISHEYE", [300, 320, 240, -0.3]),
    ("RADIAL_FISHEYE", [300, 320, 240, 0.2, -0.05]),
    ("OPENCV_FISHEYE", [300, 310, 320, 240, 0.3, -0.2, 0.04, -0.003]),
    ("OPENCV_FISHEYE", [300, 310, 320, 240, -0.9, 0.1, 0.2, 0.3]),
    ("SIMPLE_DIVISION", [400, 320, 240, -3.0]),
    ("DIVISION", [400, 420, 320, 240, 0.4]),
    ("DIVISION", [400, 420, 320, 240, 0.0]),
]


def camera(name: str, params: list[float] | None = None) -> Camera:
    return MODELS[name](torch.tensor(PARAMS[name] if params is None else params, dtype=torch.float64))


def reach(model: Camera) -> float:
    """Angle in radians that the points of :func:`points_in_field` stay within: the edge, or what lenses see."""
    largest = math.radians(150) if model.wide else math.radians(80)
    if not isinstance(model, Distorted):
        return largest
    # the direction of the rim tells its angle
    radius = model.limit.sqrt().clamp(max=30.0)
    if "DIVISION" in model.name:
        k = model.params[-1:]
        radius = torch.where(k > 0, k.clamp(min=1e-3).rsqrt(), radius)
    x, y, z = (c.item() for c in model._direction(radius, torch.zeros_like(radius)))
    return min(largest, math.atan2(math.hypot(x, y), z))


def points_in_field(model: Camera, count: int = 200, within: float = 0.95, seed: int = 0) -> Tensor:
    """(N, 3) at angles up to ``within`` times the field's (of half of them exactly that), at various distances."""
    generator = torch.Generator().manual_seed(seed)
    u, v, w = torch.rand(3, count, generator=generator, dtype=torch.float64)
    angle = reach(model) * within * torch.where(torch.arange(count) % 2 == 0, 1.0, u)
    turn, distance = 2 * torch.pi * v, 0.5 + 4 * w
    direction = torch.stack([angle.sin() * turn.cos(), angle.sin() * turn.sin(), angle.cos()], -1)
    return distance[:, None] * direction
