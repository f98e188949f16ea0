"""Rendering annotated frames of one object: random pose, lights, background and occluders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from posegrad.data.augment import add_noise
from posegrad.data.backgrounds import random_background
from posegrad.data.bop_writer import Annotation
from posegrad.data.procedural import DIAMETER_MM, random_rotation
from posegrad.data.raycast import Hits, Lights, RayCaster, Window, shade


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
    def K(self) -> np.ndarray:
        """(3, 3) intrinsics: the principal point is the centre of the frame."""
        f = self.focal
        return np.array(
            [[f, 0, (self.width - 1) / 2], [0, f, (self.height - 1) / 2], [0, 0, 1]], dtype=np.float64
        )


def random_pose(config: RenderConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """R (3, 3) and t (3,) mm: the whole object is inside the frame, its centre anywhere where that holds."""
    if config.viewpoints == "sphere":
        R = random_rotation(rng)
    else:
        height, azimuth = rng.uniform(0.0, 1.0), rng.uniform(0, 2 * np.pi)  # uniform on the half sphere
        radius = np.sqrt(1 - height**2)
        to_camera = np.array([radius * np.cos(azimuth), radius * np.sin(azimuth), height])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        upright = np.stack([right, np.cross(-to_camera, right), -to_camera])
        angle = np.radians(config.in_plane_deg) * rng.uniform(-1, 1)
        c, s = np.cos(angle), np.sin(angle)
        R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ upright
    depth = rng.uniform(*config.distance) * DIAMETER_MM
    # all vertices lie within 0.6 diameters of the origin (the box centre); 2 px of margin
    margin = config.focal * 0.6 * DIAMETER_MM / (depth - 0.5 * DIAMETER_MM) + 2
    size = np.array([config.width, config.height])
    room = np.maximum((size - 1) / 2 - margin, 0)
    center = (size - 1) / 2 + room * rng.uniform(-1, 1, 2)
    return R, depth * np.linalg.inv(config.K) @ np.array([*center, 1.0])


def random_lights(rng: np.random.Generator) -> Lights:
    """One or two directional lights from the camera's side, and ambient light, slightly tinted."""
    count = int(rng.integers(1, 3))
    directions = rng.standard_normal((count, 3))
    directions[:, 2] = -np.abs(directions[:, 2]) - 0.3
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    tint = 1 + 0.12 * rng.uniform(-1, 1, (count + 1, 3))
    strength = rng.uniform(0.45, 0.85, (count, 1)) / np.sqrt(count)
    return Lights(
        directions,
        tint[:-1] * strength,
        tint[-1] * rng.uniform(0.3, 0.55),
        rng.uniform(0, 0.5),
        rng.uniform(8, 50),
    )


@dataclass(frozen=True)
class Frame:
    """A rendered picture (H, W, 3) uint8 RGB and its annotation (with the mask of the visible part)."""

    image: np.ndarray
    annotation: Annotation


def render_frame(
    target: RayCaster,
    occluders: Sequence[RayCaster],
    config: RenderConfig,
    rng: np.random.Generator,
    object_id: int = 1,
) -> Frame:
    """One frame; everything random in it comes from `rng`."""
    R, t = random_pose(config, rng)
    lights = random_lights(rng)
    image = random_background(config.width, config.height, rng)
    window = target.window(config.K, R, t, config.width, config.height)
    hits = target.cast(config.K, R, t, window, config.samples)
    visible, front = hits.mask, None
    if occluders and rng.random() < config.occluded_share:
        for _ in range(12):  # until one hides a part, but not too much; else the frame stays without
            trial, trial_window = _random_occluder(occluders, config, t, rng)
            left = hits.mask & ~_move(trial.mask, trial_window, window, config.samples)
            if config.min_visibility + 0.05 <= left.sum() / hits.mask.sum() <= 0.95:
                visible, front = left, (trial, trial_window)
                break
    _blend(image, window, hits, visible, lights, config.samples)
    if front is not None:
        _blend(image, front[1], front[0], front[0].mask, lights, config.samples)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.9)))
    picture = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = add_noise(picture, rng.uniform(0, 5), rng)
    return Frame(picture, _annotate(object_id, R, t, window, hits.mask, visible, config))


def _random_occluder(
    occluders: Sequence[RayCaster], config: RenderConfig, t: np.ndarray, rng: np.random.Generator
) -> tuple[Hits, Window]:
    """An object near the target's silhouette, 0.45 to 1.1 times its apparent size.

    Drawn over the target: an object at t / k looks just like one k times smaller at t, so it is a small
    near thing.
    """
    occluder = occluders[int(rng.integers(len(occluders)))]
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9) * DIAMETER_MM / 2
    place = t + away * np.array([np.cos(angle), np.sin(angle), 0.0])
    R, place = random_rotation(rng), place / rng.uniform(0.45, 1.1)
    window = occluder.window(config.K, R, place, config.width, config.height)
    return occluder.cast(config.K, R, place, window, config.samples), window


def _move(mask: np.ndarray, window: Window, target: Window, samples: int) -> np.ndarray:
    """A sample mask of one pixel window, as a sample mask of another (False outside)."""
    result = np.zeros(((target[3] - target[1]) * samples, (target[2] - target[0]) * samples), dtype=bool)
    x0, y0 = max(window[0], target[0]), max(window[1], target[1])
    x1, y1 = min(window[2], target[2]), min(window[3], target[3])
    if x0 < x1 and y0 < y1:
        cut = mask[(y0 - window[1]) * samples : (y1 - window[1]) * samples]
        cut = cut[:, (x0 - window[0]) * samples : (x1 - window[0]) * samples]
        top, left = (y0 - target[1]) * samples, (x0 - target[0]) * samples
        result[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return result


def _blend(
    image: np.ndarray, window: Window, hits: Hits, visible: np.ndarray, lights: Lights, samples: int
) -> None:
    """Draws the visible samples over the image, in place; each pixel is the mean of its samples."""
    x0, y0, x1, y1 = window
    if x0 >= x1 or y0 >= y1:
        return
    layer = np.zeros((*visible.shape, 4), dtype=np.float32)
    layer[visible, :3] = shade(hits, visible[hits.mask], lights)
    layer[visible, 3] = 1
    layer = cv2.resize(layer, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)  # exact block means
    image[y0:y1, x0:x1] = layer[..., :3] + (1 - layer[..., 3:]) * image[y0:y1, x0:x1]


def _annotate(
    object_id: int,
    R: np.ndarray,
    t: np.ndarray,
    window: Window,
    whole: np.ndarray,
    visible: np.ndarray,
    config: RenderConfig,
) -> Annotation:
    """Boxes, pixel counts and mask: a pixel belongs to a silhouette if at least half of its samples do."""
    x0, y0, x1, y1 = window
    size = (x1 - x0, y1 - y0)
    masks = [
        cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5 for m in (whole, visible)
    ]
    boxes = [_box(mask, x0, y0) for mask in masks]
    full = np.zeros((config.height, config.width), dtype=bool)
    full[y0:y1, x0:x1] = masks[1]
    return Annotation(object_id, R, t, boxes[0], boxes[1], int(masks[0].sum()), int(masks[1].sum()), full)


def _box(mask: np.ndarray, x0: int, y0: int) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return -1.0, -1.0, -1.0, -1.0
    return (
        float(x0 + columns[0]),
        float(y0 + rows[0]),
        float(columns[-1] - columns[0]),
        float(rows[-1] - rows[0]),
    )
