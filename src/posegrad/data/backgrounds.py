"""Backgrounds of rendered frames: procedural, or from photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from posegrad.data.errors import DatasetError
from posegrad.data.image import load_image

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_KEPT = 256 << 20
"""Bytes of decoded photographs that are kept."""


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


class PhotoBackgrounds:
    """Random cuttings of photographs, mirrored at random: as `random_background`, callable from threads.

    Args:
        folder: it and all folders below it are searched for pictures.

    Raises:
        DatasetError: no picture there; when called, a picture that cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.paths: Sequence[Path] = sorted(
            p for p in Path(folder).rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()
        )
        if not self.paths:
            raise DatasetError(f"{folder}: no pictures ({', '.join(sorted(_SUFFIXES))}) for the backgrounds.")
        self._kept: dict[Path, np.ndarray] = {}
        self._bytes = 0

    def __call__(self, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
        """A cutting of the frame's shape, from half to all of a photograph: (height, width, 3) float32 in 0..1."""
        photo = self._photo(self.paths[int(rng.integers(len(self.paths)))])
        share = rng.uniform(0.5, 1) * min(photo.shape[0] / height, photo.shape[1] / width)
        size = np.maximum(np.floor(share * np.array([width, height])).astype(int), 1)
        x, y = rng.integers(0, np.array(photo.shape[1::-1]) - size + 1)
        cut = photo[y : y + size[1], x : x + size[0]]
        cut = cv2.resize(
            cut, (width, height), interpolation=cv2.INTER_AREA if share > 1 else cv2.INTER_LINEAR
        )
        if rng.random() < 0.5:
            cut = cut[:, ::-1]
        return np.clip(cut.astype(np.float32) / 255 * np.float32(rng.uniform(0.7, 1.2)), 0, 1)

    def _photo(self, path: Path) -> np.ndarray:
        photo = self._kept.get(path)
        if photo is None:
            photo = load_image(path)
            if self._bytes + photo.nbytes <= _KEPT:
                self._kept[path] = photo
                self._bytes += photo.nbytes
        return photo
