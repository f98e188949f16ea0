"""Reading and encoding pictures; a truncated file is an error, never a half grey picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from posegrad.data.errors import DatasetError, DatasetFileError


def load_image(path: str | Path) -> np.ndarray:
    """Reads a picture as (H, W, 3) uint8 RGB; of 16 bits the upper 8.

    Raises:
        DatasetError: truncated, not a picture, or of numbers without a known white; DatasetFileError (also a
            FileNotFoundError): no such file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "red.png"
    ...     _ = path.write_bytes(encode_image(np.full((4, 6, 3), (255, 0, 0), np.uint8), "png"))
    ...     load_image(path)[0, 0]
    array([255,   0,   0], dtype=uint8)
    """
    try:
        # Pillow, not OpenCV, which fills the missing part of a truncated JPEG with grey and says nothing.
        with Image.open(path) as image:
            return _rgb(image)
    except FileNotFoundError:
        raise DatasetFileError(f"No image {path}: restore it, or leave it out.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{path} is truncated or not an image ({error}): copy it again, or leave it out."
        ) from error


def _rgb(image: Image.Image) -> np.ndarray:
    # Pillow converts 16-bit grey by cutting off all above 255, so that nearly everything turns white.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} instead of 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def encode_image(image: np.ndarray, suffix: str, *, jpeg_quality: int = 95) -> bytes:
    """Encodes (H, W, 3) RGB or (H, W) grey uint8 as `png` (exact) or `jpg` (4:4:4, quality in 1..100).

    Raises:
        ValueError: for another shape, dtype or suffix.

    >>> encode_image(np.zeros((4, 6, 3), np.uint8), "png")[1:4]
    b'PNG'
    """
    if image.dtype != np.uint8 or image.shape[2:] not in ((3,), ()) or image.ndim < 2:
        raise ValueError(f"image: expected (H, W, 3) or (H, W) uint8, got {image.shape} {image.dtype}.")
    if suffix == "png":
        options = [cv2.IMWRITE_PNG_COMPRESSION, 3]
    elif suffix == "jpg":
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality, *sampling]
    else:
        raise ValueError(f"suffix: expected 'png' or 'jpg', got {suffix!r}.")
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, buffer = cv2.imencode("." + suffix, image, options)
    if not done:
        raise DatasetError(f"OpenCV could not encode a {image.shape} picture as {suffix}.")
    return buffer.tobytes()
