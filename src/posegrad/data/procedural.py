"""Procedural objects: asymmetric shapes with rich solid textures, made from a seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from posegrad.data.mesh import Mesh, mesh_diameter
from posegrad.data.surface_nets import numeric_gradient, surface_nets

DIAMETER_MM = 100.0


@dataclass(frozen=True)
class Part:
    """A primitive in its own frame: x_part = rotation^T (x - center)."""

    kind: str
    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (a bound for ellipsoids), (N, 3) -> (N,)."""
        p = (points - self.center) @ self.rotation
        size = self.size
        if self.kind == "ellipsoid":
            scaled = np.linalg.norm(p / size, axis=1)
            return scaled * (scaled - 1) / np.maximum(np.linalg.norm(p / size**2, axis=1), 1e-9)
        if self.kind == "box":
            radius = 0.25 * size.min()
            q = np.abs(p) - (size - radius)
            return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0) - radius
        if self.kind == "torus":
            ring = np.hypot(p[:, 0], p[:, 1]) - size[0]
            return np.hypot(ring, p[:, 2]) - size[1]
        if (
            self.kind == "spout"
        ):  # a capsule along +z that tapers from size[0] to size[1] over the length size[2]
            along = np.clip(p[:, 2] / size[2], 0, 1)
            axial = p[:, 2] - along * size[2]
            radius = size[0] + (size[1] - size[0]) * along
            return np.sqrt(p[:, 0] ** 2 + p[:, 1] ** 2 + axial**2) - radius
        raise ValueError(f"kind: unknown part {self.kind!r}.")


@dataclass(frozen=True)
class Shape:
    """A smooth union of parts minus a few balls."""

    parts: tuple[Part, ...]
    bites: tuple[Part, ...]

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Approximate signed distance to the surface, (N, 3) -> (N,)."""
        result = self.parts[0].distance(points)
        for part in self.parts[1:]:
            result = _smooth_min(result, part.distance(points), 0.05)
        for bite in self.bites:
            result = -_smooth_min(-result, bite.distance(points), 0.03)
        return result

    def region(self, points: np.ndarray) -> np.ndarray:
        """The part each surface point belongs to; points in a bite get the number len(parts)."""
        distances = np.stack([part.distance(points) for part in self.parts], axis=1)
        region = distances.argmin(1)
        for bite in self.bites:
            region = np.where(bite.distance(points) < 0.01, len(self.parts), region)
        return region


def _smooth_min(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    blend = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - blend**2 * radius / 4


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix, uniform on SO(3) (a normalised normal quaternion)."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _frame(direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rotation whose third column is `direction`."""
    z = direction / np.linalg.norm(direction)
    x = np.cross(rng.standard_normal(3), z)
    x /= np.linalg.norm(x)
    return np.column_stack([x, np.cross(z, x), z])


def _spread_directions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random unit vectors far from each other: the best of many draws, one after the other."""
    chosen = [_unit(rng.standard_normal(3))]
    while len(chosen) < count:
        trial = rng.standard_normal((8, 3))
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        chosen.append(trial[(trial @ np.array(chosen).T).max(1).argmin()])
    return np.array(chosen)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def random_shape(rng: np.random.Generator) -> Shape:
    """A body with a spout, a handle, a ball, a block and a horn of different sizes, less two bites."""
    body_size = np.array([0.72, 0.55, 0.42]) * rng.uniform(0.85, 1.15, 3)
    body = Part(str(rng.choice(["ellipsoid", "box"])), np.zeros(3), np.eye(3), body_size)
    directions = _spread_directions(7, rng)
    # the point of an ellipsoid of the body's size in each direction, slightly inside
    anchors = directions / np.linalg.norm(directions / body_size, axis=1, keepdims=True) * 0.9
    parts = [body]
    sizes = rng.uniform(0.85, 1.2, (5, 3))
    recipes = [
        ("spout", np.array([0.20, 0.10, 0.55])),
        ("torus", np.array([0.30, 0.085, 1.0])),
        ("ellipsoid", np.array([0.30, 0.27, 0.25])),
        ("box", np.array([0.17, 0.24, 0.30])),
        ("spout", np.array([0.10, 0.16, 0.35])),
    ]
    for (kind, size), factor, direction, anchor in zip(recipes, sizes, directions, anchors, strict=False):
        rotation = _frame(_unit(direction + 0.35 * rng.standard_normal(3)), rng)
        if kind == "torus":  # the ring stands on the surface: its axis lies along the surface
            rotation = rotation[:, [2, 0, 1]]
        parts.append(Part(kind, anchor + 0.12 * direction, rotation, size * factor))
    bites = tuple(
        Part("ellipsoid", anchor * 1.25, np.eye(3), np.full(3, radius))
        for anchor, radius in zip(anchors[5:], rng.uniform(0.18, 0.28, 2), strict=True)
    )
    return Shape(tuple(parts), bites)


def _color(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _waves(points: np.ndarray, frequency: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random function of space in about -1..1: a few plane waves."""
    directions = rng.standard_normal((count, 3))
    directions *= (
        frequency * rng.uniform(0.7, 1.3, (count, 1)) / np.linalg.norm(directions, axis=1, keepdims=True)
    )
    return np.sin(points @ directions.T + rng.uniform(0, 2 * np.pi, count)).sum(1) / np.sqrt(count)


def texture(shape: Shape, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Solid texture: a colour and a pattern per part, spots of several sizes, fine mottling; (N, 3) in 0..1.

    The same generator state gives the same texture for any set of points.
    """
    region = shape.region(points)
    count = len(shape.parts) + 1
    hues = rng.uniform() + np.arange(count) * 0.381966 + rng.uniform(-0.04, 0.04, count)
    base = [_color(h, rng.uniform(0.6, 0.95), rng.uniform(0.65, 1.0)) for h in hues]
    second = [_color(h + rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.8), rng.uniform(0.25, 1.0)) for h in hues]
    patterns = rng.permutation(
        ["stripes", "checks", "patches", "rings", "stripes", "patches", "checks", "rings"]
    )
    colors = np.zeros_like(points)
    for number in range(count):
        axes, period, phase = random_rotation(rng), rng.uniform(0.16, 0.26), rng.uniform(0, 1)
        patch = _waves(points, 9.0, 6, rng)
        q = points @ axes / period + phase
        pattern = patterns[number % len(patterns)]
        if pattern == "stripes":
            on = np.mod(q[:, 0], 1) < 0.45
        elif pattern == "checks":
            on = np.mod(np.floor(q).sum(1), 2) == 0
        elif pattern == "rings":
            on = np.mod(np.linalg.norm(q - 2.5, axis=1), 1) < 0.4
        else:
            on = patch > 0.4
        chosen = np.where(on[:, None], second[number], base[number])
        colors = np.where((region == number)[:, None], chosen, colors)
    for _ in range(26):
        center, radius = _unit(rng.standard_normal(3)), rng.uniform(0.05, 0.17)
        color, rim = _color(rng.uniform(), rng.uniform(0, 0.9), rng.uniform(0.1, 1)), rng.uniform(0.5, 0.8)
        center = center * rng.uniform(0.35, 1.0)
        away = np.linalg.norm(points - center, axis=1) / radius
        colors = np.where((away < 1)[:, None], color, colors)
        colors = np.where((away < rim * 0.6)[:, None], 1 - color, colors)
    mottling = 1 + 0.09 * _waves(points, 14.0, 6, rng) + 0.06 * _waves(points, 40.0, 6, rng)
    return np.clip(colors * mottling[:, None], 0, 1)


def _occlusion(shape: Shape, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Ambient occlusion in 0.4..1 from the distance field along the normal: creases and bites get darker."""
    shade = np.ones(len(points))
    for height in (0.05, 0.1, 0.2):
        shade -= 0.25 * (height - np.minimum(shape.distance(points + height * normals), height)) / height
    return np.clip(shade, 0.4, 1.0)


def procedural_object(seed: int, *, spacing: float = 0.9) -> Mesh:
    """A textured, clearly asymmetric object of diameter 100 mm, the same for the same seed.

    Args:
        seed: >= 0.
        spacing: between neighbouring vertices, mm; about 25 000 / spacing^2 vertices.

    Returns:
        A closed mesh; its origin is the centre of its box, and its diameter is 100 mm, to the rounding of float32.

    >>> mesh = procedural_object(12, spacing=4.0)
    >>> round(mesh_diameter(mesh.vertices), 5)
    100.0
    """
    shape = random_shape(np.random.default_rng([seed, 0]))
    bound = np.full(3, 2.0)
    rough, _ = surface_nets(shape.distance, -bound, bound, 0.08)
    low, high = rough.min(0) - 0.1, rough.max(0) + 0.1
    points, faces = surface_nets(shape.distance, low, high, spacing * mesh_diameter(rough) / DIAMETER_MM)
    normals = numeric_gradient(shape.distance, points, 1e-3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    color = texture(shape, points, np.random.default_rng([seed, 1]))
    color = color * _occlusion(shape, points, normals)[:, None]
    scale, origin = DIAMETER_MM / mesh_diameter(points), (points.min(0) + points.max(0)) / 2
    # float32, so that the PLY file is exact and small
    vertices = ((points - origin) * scale).astype(np.float32).astype(np.float64)
    return Mesh(vertices, faces, np.round(color * 255).astype(np.uint8))
