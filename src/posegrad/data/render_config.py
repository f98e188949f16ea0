"""What is rendered: the settings of the embedded dataset, and those of frames of any objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from posegrad.data.backgrounds import random_background

Background = Callable[[int, int, np.random.Generator], np.ndarray]
"""(width, height, generator) to a picture (height, width, 3) float32 in 0..1."""


@dataclass(frozen=True)
class FrameConfig:
    """Camera, poses and surroundings of rendered frames.

    Args:
        K: (3, 3) intrinsics, pixels.
        width, height: of the frames, pixels.
        viewpoints: "hemisphere": cameras above the object, uniform; "sphere": all of SO(3).
        up: (3,) unit vector of the object's frame that points up ("hemisphere" only).
        in_plane_deg: in-plane rotation within +- this angle about the upright view, degrees ("hemisphere" only).
        occluded_share: share of the frames with an occluder in front of the objects.
        min_visibility: smallest visible share of a silhouette that an occluder or another object leaves.
        samples: rays per pixel and axis.
        per_frame: most objects in one frame.
        background: what is behind them.

    >>> FrameConfig(np.array([[600.0, 0, 319.5], [0, 600, 239.5], [0, 0, 1]]), 640, 480, per_frame=3).up
    (0.0, 0.0, 1.0)
    """

    K: np.ndarray
    width: int
    height: int
    viewpoints: str = "hemisphere"
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    in_plane_deg: float = 45.0
    occluded_share: float = 0.3
    min_visibility: float = 0.4
    samples: int = 2
    per_frame: int = 1
    background: Background = random_background


@dataclass(frozen=True)
class RenderConfig:
    """The rendered dataset; another value of any field is another dataset.

    Raises:
        ValueError: for a value out of range, or an object that may not fit the frame.

    >>> RenderConfig(train_frames=100).K
    array([[560. ,   0. , 159.5],
           [  0. , 560. , 119.5],
           [  0. ,   0. ,   1. ]])
    """

    train_frames: int = 3000
    """Frames in `train`."""
    test_frames: int = 300
    """Frames in `test`, from other random streams."""
    object_seed: int = 12
    """Shape and texture of the object."""
    seed: int = 1
    """Poses, lights, backgrounds, occluders."""
    width: int = 320
    """Frame width, px."""
    height: int = 240
    """Frame height, px."""
    focal: float = 560.0
    """Focal length, px: the object spans about 80 to 140 px at 7 to 4 diameters."""
    distance: tuple[float, float] = (4.0, 7.0)
    """Range of the object's depth, diameters (uniform); 4 to 10 is the harder option."""
    viewpoints: str = "hemisphere"
    """`hemisphere`: cameras above the object (z > 0 in its frame), uniform; `sphere`: all of SO(3)."""
    in_plane_deg: float = 45.0
    """In-plane rotation within +- this angle about the upright view, degrees (`hemisphere` only)."""
    occluded_share: float = 0.3
    """Share of the frames with an occluder in front of the object."""
    min_visibility: float = 0.4
    """Smallest visible share of the silhouette behind an occluder."""
    samples: int = 2
    """Rays per pixel and axis."""
    image_format: str = "jpg"
    """`jpg` (quality 95) or `png`."""

    def __post_init__(self) -> None:
        low, high = self.distance
        if self.viewpoints not in ("hemisphere", "sphere"):
            raise ValueError(f"viewpoints: expected 'hemisphere' or 'sphere', got {self.viewpoints!r}.")
        if not 1.5 <= low <= high:
            raise ValueError(f"distance: expected 1.5 <= near <= far (diameters), got {self.distance}.")
        radius = self.focal / (2 * low - 1)
        if 2 * radius + 8 > min(self.width, self.height):
            raise ValueError(
                f"distance, focal: at {low} diameters the object may span {2 * radius:.0f} px, too much for "
                f"{self.width} x {self.height} px frames; increase the distance or frame, or lower the focal."
            )
        if min(self.train_frames, self.test_frames) < 0 or self.samples < 1:
            raise ValueError("train_frames, test_frames, samples: expected >= 0, >= 0, >= 1.")

    @property
    def frames(self) -> FrameConfig:
        """The same for the renderer."""
        return FrameConfig(
            self.K,
            self.width,
            self.height,
            viewpoints=self.viewpoints,
            in_plane_deg=self.in_plane_deg,
            occluded_share=self.occluded_share,
            min_visibility=self.min_visibility,
            samples=self.samples,
        )

    @property
    def K(self) -> np.ndarray:
        """(3, 3) intrinsics: the principal point is the centre of the frame."""
        f = self.focal
        return np.array(
            [[f, 0, (self.width - 1) / 2], [0, f, (self.height - 1) / 2], [0, 0, 1]], dtype=np.float64
        )
