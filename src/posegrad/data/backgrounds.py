"""Procedural backgrounds."""

from __future__ import annotations

import cv2
import numpy as np


def random_background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A cluttered picture of gradient, noise, polygons and stripes: (height, width, 3) float32 in 0..1."""
    vivid = rng.uniform(0.1, 0.7)  # one mood per picture: from nearly grey to colourful
    corners = np.array([_color(vivid, rng) for _ in range(4)], dtype=np.float32).reshape(2, 2, 3)
    image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(rng.integers(3, 16))):
        if rng.random() < 0.75:
            _polygon(image, _color(vivid, rng), rng)
        else:
            _stripes(image, _color(vivid, rng), rng)
    grain = np.zeros_like(image)
    for cell in (96, 40, 16, 6, 2):
        grid = rng.standard_normal((height // cell + 2, width // cell + 2, 3), dtype=np.float32)
        # most of the variation is common to the channels: real surfaces vary more in brightness than in hue
        grid = 0.3 * grid + 0.9 * grid[..., :1]
        strength = float(rng.uniform(0, 0.06))
        grain += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    image += grain
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.6)))
    return np.clip(image, 0, 1, out=image)


def _color(vivid: float, rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour in 0..1, pulled towards grey by 1 - vivid."""
    color = rng.uniform(0, 1, 3)
    return vivid * color + (1 - vivid) * color.mean() + rng.uniform(-0.2, 0.2)


def _polygon(image: np.ndarray, color: np.ndarray, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    count = int(rng.integers(3, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    radius = rng.uniform(0.05, 0.35) * width * rng.uniform(0.6, 1.2, count)
    center = rng.uniform(0, 1, 2) * (width, height)
    points = center + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    cv2.fillPoly(image, [points.astype(np.int32)], color.tolist(), cv2.LINE_AA)


def _stripes(image: np.ndarray, color: np.ndarray, rng: np.random.Generator) -> None:
    """Parallel lines over a random rectangle."""
    height, width = image.shape[:2]
    w, h = (rng.uniform(0.15, 0.6, 2) * (width, height)).astype(int)
    x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 30)
    u = np.arange(w, dtype=np.float32) * np.float32(np.cos(angle) / period)
    v = np.arange(h, dtype=np.float32) * np.float32(np.sin(angle) / period)
    phase = u[None] + v[:, None]
    on = (phase - np.floor(phase)) < rng.uniform(0.2, 0.7)
    image[y : y + h, x : x + w][on] = color
