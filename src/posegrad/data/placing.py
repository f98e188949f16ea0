"""Where objects stand in a rendered frame: random poses inside the picture, none through another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posegrad.data.mesh import Mesh, mesh_diameter
from posegrad.data.procedural import random_rotation
from posegrad.data.raycast import Hits, RayCaster, Window
from posegrad.data.render_config import FrameConfig

_TRIALS = 20
SPARE = 0.05
"""Left above the smallest visible share: samples are counted here, pixels in the annotation."""


@dataclass(frozen=True)
class Target:
    """An object to be rendered.

    Args:
        id: the BOP id.
        caster: its mesh, mm.
        diameter: mm.
        distance: range of its depth, diameters (uniform).
        center: (3,) mm, the point of the object that is placed in the picture.
        spread: all vertices are within this many diameters of `center`.
    """

    id: int
    caster: RayCaster
    diameter: float
    distance: tuple[float, float]
    center: np.ndarray
    spread: float

    @classmethod
    def of_mesh(cls, object_id: int, mesh: Mesh, distance: tuple[float, float]) -> Target:
        """Any mesh, mm; its faces are seen from both sides."""
        diameter = mesh_diameter(mesh.vertices)
        center = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
        spread = float(np.linalg.norm(mesh.vertices - center, axis=1).max()) / diameter
        return cls(object_id, RayCaster(mesh, two_sided=True), diameter, distance, center, spread)


@dataclass(frozen=True)
class Placed:
    """A target at x_cam = R X + t mm, its centre at `center`, and what its pixel window's rays met."""

    target: Target
    R: np.ndarray
    t: np.ndarray
    center: np.ndarray
    window: Window
    hits: Hits


def random_pose(
    target: Target, config: FrameConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """R (3, 3) and the centre (3,) mm in the camera: the whole object is inside the frame (of a lens that is not
    very wide), its centre anywhere where that holds."""
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
        if config.up != (0.0, 0.0, 1.0):
            R = R @ _turn_up(np.array(config.up))
    depth = rng.uniform(*target.distance) * target.diameter
    margin = _radius(target, config, depth) + 2
    size = np.array([config.width, config.height])
    room = np.maximum((size - 1) / 2 - margin, 0)
    center = (size - 1) / 2 + room * rng.uniform(-1, 1, 2)
    return R, depth * np.linalg.inv(config.K) @ np.array([*center, 1.0])


def _radius(target: Target, config: FrameConfig, depth: float) -> float:
    """Pixels around the centre that the object stays within. The near side of the ball is half a diameter nearer than
    its centre, but for the corners of a box: those have at least as much room by the first factor."""
    focal = float(max(config.K[0, 0], config.K[1, 1]))
    return focal * target.spread * target.diameter / (depth - 0.5 * target.diameter)


def _turn_up(up: np.ndarray) -> np.ndarray:
    """A rotation that takes `up` to the z axis."""
    side = np.cross(up, [1.0, 0, 0] if abs(up[0]) < 0.9 else [0.0, 1, 0])
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(up, side), up])


def place(targets: Sequence[Target], config: FrameConfig, rng: np.random.Generator) -> list[Placed]:
    """The targets at random poses, at most `per_frame` of them, the nearest first.

    Balls around them do not touch, so that none reaches through another; one for which no place is found is left out
    (never the first).
    """
    if len(targets) > 1:
        targets = [targets[i] for i in rng.permutation(len(targets))[: config.per_frame]]
    placed: list[Placed] = []
    for target in targets:
        for trial in range(_TRIALS):
            candidate = _place(target, config, rng)
            last = not placed and trial == _TRIALS - 1
            if last or (_inside(candidate.window, config) and _fits(candidate, placed, config)):
                placed.append(candidate)
                break
    return in_order(placed)


def _place(target: Target, config: FrameConfig, rng: np.random.Generator) -> Placed:
    R, center = random_pose(target, config, rng)
    t = center - R @ target.center
    window = target.caster.window(config.K, R, t, config.width, config.height)
    return Placed(target, R, t, center, window, target.caster.cast(config.K, R, t, window, config.samples))


def _inside(window: Window, config: FrameConfig) -> bool:
    """The window has a pixel to spare on every side: it touches no border if the object does not."""
    return window[0] > 0 and window[1] > 0 and window[2] < config.width and window[3] < config.height


def _fits(candidate: Placed, placed: Sequence[Placed], config: FrameConfig) -> bool:
    reach = [p.target.spread * p.target.diameter for p in (candidate, *placed)]
    apart = all(
        np.linalg.norm(candidate.center - other.center) > reach[0] + r
        for other, r in zip(placed, reach[1:], strict=True)
    )
    if not apart:
        return False
    everything = in_order([*placed, candidate])
    masks = visible_parts(everything, config.samples)
    least = config.min_visibility + SPARE
    return not placed or all(
        mask.sum() >= least * item.hits.mask.sum() for mask, item in zip(masks, everything, strict=True)
    )


def in_order(placed: Sequence[Placed]) -> list[Placed]:
    """Nearest first: along a ray through two balls that do not touch, the one of smaller tangent length is first."""
    return sorted(
        placed, key=lambda p: float(p.center @ p.center) - (p.target.spread * p.target.diameter) ** 2
    )


def visible_parts(placed: Sequence[Placed], samples: int) -> list[np.ndarray]:
    """The samples of each, ordered by `in_order`, that those before it do not hide."""
    masks = []
    for number, item in enumerate(placed):
        mask = item.hits.mask
        for other in placed[:number]:
            mask = mask & ~move_mask(other.hits.mask, other.window, item.window, samples)
        masks.append(mask)
    return masks


def move_mask(mask: np.ndarray, window: Window, target: Window, samples: int) -> np.ndarray:
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
