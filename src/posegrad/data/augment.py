"""Random changes of training crops: of the box (geometry) and of the pixels (colour, blur, noise, cutout)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """How much training crops vary; every field 0 leaves the crop as it is.

    >>> Augmentation(rotation_deg=180.0).shift
    0.12
    """

    shift: float = 0.12
    """Box centre moves by up to this share of the crop's side, per axis."""
    scale: float = 0.2
    """Crop side is multiplied by a factor in [1 / (1 + scale), 1 + scale], log-uniform."""
    rotation_deg: float = 45.0
    """In-plane rotation of the crop within +- this angle, degrees."""
    brightness: float = 0.15
    """Offset added to all channels, within +- this share of full range."""
    contrast: float = 0.35
    """Contrast factor in [1 / (1 + contrast), 1 + contrast], about the crop's mean."""
    color: float = 0.15
    """Standard deviation of the entries of a random 3 x 3 colour mixing matrix about the identity."""
    blur_probability: float = 0.3
    """Share of crops that are blurred."""
    blur_sigma: float = 1.2
    """Largest Gaussian blur, crop pixels (uniform from 0.3)."""
    noise_probability: float = 0.5
    """Share of crops with added noise."""
    noise_sigma: float = 8.0
    """Largest standard deviation of the noise, grey levels of 255 (uniform from 0)."""
    cutout_probability: float = 0.5
    """Share of crops with patches pasted over them."""
    cutout_count: int = 3
    """Largest number of patches."""
    cutout_size: float = 0.3
    """Largest side of a patch, share of the crop's side (from a quarter of that)."""


def jitter_box(
    center: np.ndarray, side: float, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, float, float]:
    """Random centre (2,) px, side px and in-plane angle in radians of a crop."""
    dx, dy, ds, da = rng.uniform(-1, 1, 4)
    center = center + side * augmentation.shift * np.array([dx, dy])
    return center, side * (1 + augmentation.scale) ** ds, float(np.radians(augmentation.rotation_deg) * da)


def change_pixels(image: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Random cutout, blur, colour and noise, in this order, on (S, S, 3) uint8 RGB; returns a new image."""
    image = image.copy()
    if rng.random() < augmentation.cutout_probability:
        _cutout(image, augmentation, rng)
    if rng.random() < augmentation.blur_probability and augmentation.blur_sigma > 0:
        image = cv2.GaussianBlur(
            image, (0, 0), rng.uniform(min(0.3, augmentation.blur_sigma), augmentation.blur_sigma)
        )
    image = _color(image, augmentation, rng)
    if rng.random() < augmentation.noise_probability and augmentation.noise_sigma > 0:
        image = add_noise(image, rng.uniform(0, augmentation.noise_sigma), rng)
    return image


def _cutout(image: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> None:
    """Pastes rectangles of one colour, or of another part of the same crop, in place."""
    size = image.shape[0]
    for _ in range(int(rng.integers(1, max(augmentation.cutout_count, 1) + 1))):
        width, height = (
            np.ceil(rng.uniform(0.25, 1, 2) * augmentation.cutout_size * size).astype(int).clip(1, size)
        )
        x, x_from = rng.integers(0, size - width + 1, 2)
        y, y_from = rng.integers(0, size - height + 1, 2)
        if rng.random() < 0.5:
            image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
        else:
            image[y : y + height, x : x + width] = image[
                y_from : y_from + height, x_from : x_from + width
            ].copy()


def _color(image: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """out = contrast * (M in - mean) + mean + offset, clipped to 0..255; rows of M sum to about 1."""
    mixing = np.eye(3) + augmentation.color * rng.standard_normal((3, 3)) * np.array(0.5)
    contrast = (1 + augmentation.contrast) ** rng.uniform(-1, 1)
    offset = 255 * augmentation.brightness * rng.uniform(-1, 1)
    if not (augmentation.color or augmentation.contrast or augmentation.brightness):
        return image
    mean = np.array(cv2.mean(image)[:3])
    matrix = np.column_stack([contrast * mixing, mean - contrast * mixing @ mean + offset])
    return cv2.transform(image, matrix)


# One bank of standard normal noise for all: 50 000 new ones take longer than the rest of an item.
_BANK = np.random.default_rng(0).standard_normal(1 << 19, dtype=np.float32)


def add_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Adds normal noise to every channel: a window of the bank at a random place, with a random sign."""
    count = image.size
    bank = _BANK if count <= _BANK.size // 2 else np.resize(_BANK, 2 * count)
    start = int(rng.integers(0, bank.size - count + 1))
    sign = 1 if rng.random() < 0.5 else -1
    noise = bank[start : start + count].reshape(image.shape) * np.float32(sign * sigma)
    return cv2.add(image, noise, dtype=cv2.CV_8U)
