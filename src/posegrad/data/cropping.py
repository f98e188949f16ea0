"""Square crops: the map between crop and image, and the resampling."""

from __future__ import annotations

import cv2
import numpy as np

BORDER_GREY = 127
_FINEST = (
    8192  # pixels per side that are averaged: a crop that is larger shows little, and may be of any size
)


def crop_affine(center: np.ndarray, side: float, size: int, angle: float = 0.0) -> np.ndarray:
    """The (2, 3) map from crop pixels to full-image pixels: p_full = A (p_crop, 1), integer = pixel centre.

    Args:
        center: (2,) full-image pixel under the crop's centre ((size - 1) / 2, (size - 1) / 2).
        side: extent of the crop in full-image pixels (size crop pixels long).
        size: pixels per side of the crop.
        angle: rotation of the crop's axes in the full image, radians, from x towards y.

    >>> full_from_crop = crop_affine(np.array([100.0, 50.0]), side=64.0, size=32)
    >>> full_from_crop @ [15.5, 15.5, 1.0]  # the centre of the crop
    array([100.,  50.])
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = side / size * np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, np.asarray(center, dtype=np.float64) - linear.sum(1) * (size - 1) / 2])


def extract_crop(image: np.ndarray, full_from_crop: np.ndarray, size: int) -> np.ndarray:
    """The (size, size, C) crop of an image under `crop_affine`'s map; bilinear, averaged where it shrinks.

    Outside of the image the crop is mid grey.

    >>> image = np.full((120, 160, 3), 200, np.uint8)
    >>> extract_crop(image, crop_affine(np.array([80.0, 60.0]), side=64.0, size=32), 32).shape
    (32, 32, 3)
    """
    shrink = float(np.hypot(*full_from_crop[:, 0]))
    factor = int(np.ceil(min(shrink, max(1, _FINEST // size)))) if shrink > 1.3 else 1
    # sample `factor` times finer, then average blocks: sample j lies at crop pixel (j + 0.5) / factor - 0.5
    fine = full_from_crop.copy()
    fine[:, 2] += full_from_crop[:, :2].sum(1) * (0.5 / factor - 0.5)
    fine[:, :2] /= factor
    crop = cv2.warpAffine(
        image,
        fine,
        (size * factor, size * factor),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(BORDER_GREY,) * 3,
    )
    return crop if factor == 1 else cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
