"""Rendering annotated frames: objects at random poses under random lights, with background and occluders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from posegrad.data.augment import add_noise
from posegrad.data.bop_writer import Annotation
from posegrad.data.placing import SPARE, Placed, move_mask, place, visible_parts
from posegrad.data.placing import Target as Target
from posegrad.data.procedural import DIAMETER_MM, random_rotation
from posegrad.data.raycast import Hits, Lights, RayCaster, Window, shade
from posegrad.data.render_config import FrameConfig


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
    """A rendered picture (H, W, 3) uint8 RGB and its annotations (with the masks of the visible parts)."""

    image: np.ndarray
    annotations: list[Annotation]


def render_frame(
    targets: Sequence[Target],
    occluders: Sequence[RayCaster],
    config: FrameConfig,
    rng: np.random.Generator,
) -> Frame:
    """One frame; everything random in it comes from `rng`.

    Args:
        targets: objects of which at most `config.per_frame` appear, ordered by id in the annotation.
        occluders: meshes of `procedural_object`, drawn in front of a share of the frames, without annotation.
        config: camera, poses and surroundings.
        rng: one stream makes one frame.
    """
    placed = place(targets, config, rng)
    lights = random_lights(rng)
    image = config.background(config.width, config.height, rng)
    visible, front = visible_parts(placed, config.samples), None
    if occluders and rng.random() < config.occluded_share:
        front = _cover(placed, visible, occluders, config, rng)
    hidden = [np.zeros_like(mask) for mask in visible]
    if front is not None:
        hidden = [move_mask(front[0].mask, front[1], item.window, config.samples) for item in placed]
    for item, covered in reversed(list(zip(placed, hidden, strict=True))):  # the farthest first
        _blend(image, item.window, item.hits, item.hits.mask & ~covered, lights, config.samples)
    if front is not None:
        _blend(image, front[1], front[0], front[0].mask, lights, config.samples)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.9)))
    picture = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = add_noise(picture, rng.uniform(0, 5), rng)
    labels = [
        _annotate(item, mask & ~covered, config)
        for item, mask, covered in zip(placed, visible, hidden, strict=True)
    ]
    return Frame(picture, sorted(labels, key=lambda label: label.object_id))


def _cover(
    placed: Sequence[Placed],
    visible: Sequence[np.ndarray],
    occluders: Sequence[RayCaster],
    config: FrameConfig,
    rng: np.random.Generator,
) -> tuple[Hits, Window] | None:
    """An occluder that hides a part of the nearest object, but not too much of any; None if none is found."""
    for _ in range(12):
        trial, window = _random_occluder(occluders, config, placed[0], rng)
        shares = [
            (mask & ~move_mask(trial.mask, window, item.window, config.samples)).sum()
            / max(item.hits.mask.sum(), 1)
            for item, mask in zip(placed, visible, strict=True)
        ]
        if config.min_visibility + SPARE <= min(shares) and shares[0] <= 0.95:
            return trial, window
    return None


def _random_occluder(
    occluders: Sequence[RayCaster], config: FrameConfig, item: Placed, rng: np.random.Generator
) -> tuple[Hits, Window]:
    """An object near the item's silhouette, 0.45 to 1.1 times its apparent size.

    Drawn over it: an object at t / k looks just like one k times smaller at t, so it is a small near thing.
    """
    occluder, diameter = occluders[int(rng.integers(len(occluders)))], item.target.diameter
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9) * diameter / 2
    center = item.center + away * np.array([np.cos(angle), np.sin(angle), 0.0])
    R, center = random_rotation(rng), center / rng.uniform(0.45, 1.1) * (DIAMETER_MM / diameter)
    window = occluder.window(config.K, R, center, config.width, config.height)
    return occluder.cast(config.K, R, center, window, config.samples), window


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


def _annotate(item: Placed, visible: np.ndarray, config: FrameConfig) -> Annotation:
    """Boxes, pixel counts and mask: a pixel belongs to a silhouette if at least half of its samples do."""
    x0, y0, x1, y1 = item.window
    size = (x1 - x0, y1 - y0)
    masks = [
        cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        for m in (item.hits.mask, visible)
    ]
    boxes = [_box(mask, x0, y0) for mask in masks]
    full = np.zeros((config.height, config.width), dtype=bool)
    full[y0:y1, x0:x1] = masks[1]
    whole, visible_count = (int(mask.sum()) for mask in masks)
    return Annotation(item.target.id, item.R, item.t, boxes[0], boxes[1], whole, visible_count, full)


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
