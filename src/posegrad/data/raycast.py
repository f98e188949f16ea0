"""Ray casting a coloured mesh with Embree, and shading the hits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from posegrad.data.mesh import Mesh

Window = tuple[int, int, int, int]
"""Pixel window (x0, y0, x1, y1), x1 and y1 exclusive."""


@dataclass(frozen=True)
class Hits:
    """What a window's rays met: `mask` (h, w) bool on the sample grid; else one row per hit, in its order.

    Normals and unit directions of the rays are in camera axes, `depth` (n,) is the camera's z.
    """

    mask: np.ndarray
    normal: np.ndarray
    albedo: np.ndarray
    direction: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Lights:
    """Lambert plus Blinn highlights, in camera axes.

    Args:
        directions: (L, 3) unit vectors from the surface to the light.
        colors: (L, 3) intensity.
        ambient: (3,) intensity.
        gloss: strength of the highlight.
        shininess: its exponent.
    """

    directions: np.ndarray
    colors: np.ndarray
    ambient: np.ndarray
    gloss: float
    shininess: float


class RayCaster:
    """A mesh made ready for ray casting; one object serves many poses and several threads.

    Args:
        mesh: any unit.
        two_sided: normals are turned to the camera: for open surfaces, and faces that are inside out.
    """

    def __init__(self, mesh: Mesh, *, two_sided: bool = False) -> None:
        self._two_sided = two_sided
        self._columns = np.ascontiguousarray(mesh.vertices.T, dtype=np.float32)
        self._faces = mesh.faces.astype(np.int32)
        corners = mesh.vertices[mesh.faces]
        weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros_like(mesh.vertices)
        for k in range(3):  # area-weighted vertex normals
            np.add.at(normals, mesh.faces[:, k], weighted)
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        colors = np.full(mesh.vertices.shape, 200) if mesh.colors is None else mesh.colors
        self._attributes = np.hstack([normals / np.maximum(lengths, 1e-12), colors / 255.0]).astype(
            np.float32
        )
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, vertices=mesh.vertices.astype(np.float32), indices=self._faces)

    def window(self, K: np.ndarray, R: np.ndarray, t: np.ndarray, width: int, height: int) -> Window:
        """The pixels around the projected mesh, cut at the frame (empty where x0 >= x1)."""
        x, y, z = (K @ R).astype(np.float32) @ self._columns + (K @ t).astype(np.float32)[:, None]
        x, y = x / z, y / z
        x0, y0, x1, y1 = (
            np.floor(x.min()) - 1,
            np.floor(y.min()) - 1,
            np.ceil(x.max()) + 2,
            np.ceil(y.max()) + 2,
        )
        return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)

    def cast(self, K: np.ndarray, R: np.ndarray, t: np.ndarray, window: Window, samples: int) -> Hits:
        """Casts samples x samples rays per pixel of the window, spread evenly over each pixel's square."""
        x0, y0, x1, y1 = window
        x = x0 - 0.5 + (np.arange((x1 - x0) * samples) + 0.5) / samples
        y = y0 - 0.5 + (np.arange((y1 - y0) * samples) + 0.5) / samples
        inverse = np.linalg.inv(K)
        # rows of R^T K^-1 (x, y, 1), written as a sum to avoid a large matrix product
        to_object = (R.T @ inverse).astype(np.float32)
        across, down = (
            x.astype(np.float32)[:, None] * to_object[:, 0],
            y.astype(np.float32)[:, None] * to_object[:, 1],
        )
        rays = (down[:, None] + across[None] + to_object[:, 2]).reshape(-1, 3)
        origins = np.broadcast_to((-R.T @ t).astype(np.float32), rays.shape)
        result = self._scene.run(np.ascontiguousarray(origins), rays, output=1)
        hit = np.flatnonzero(result["primID"] >= 0)
        u, v = result["u"][hit, None], result["v"][hit, None]
        corners = self._faces[result["primID"][hit]]
        values = self._attributes[corners[:, 0]] * (1 - u - v)
        values += self._attributes[corners[:, 1]] * u
        values += self._attributes[corners[:, 2]] * v
        normal = values[:, :3] @ R.T.astype(np.float32)
        direction = rays[hit] @ R.T.astype(np.float32)
        if self._two_sided:
            normal[np.einsum("ij,ij->i", normal, direction) > 0] *= -1
        mask = np.zeros(len(rays), dtype=bool)
        mask[hit] = True
        # the rays have z = 1 in the camera: Embree's distance along them is the depth
        depth = result["tfar"][hit]
        return Hits(mask.reshape(len(y), len(x)), _unit(normal), values[:, 3:], _unit(direction), depth)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt(np.maximum(np.einsum("ij,ij->i", rows, rows), 1e-12))[:, None]


def shade(hits: Hits, keep: np.ndarray, lights: Lights) -> np.ndarray:
    """The colours of the hits chosen by `keep` (one bool per hit): (n, 3) float32 in 0..1."""
    normal, albedo, view = hits.normal[keep], hits.albedo[keep], -hits.direction[keep]
    light = np.broadcast_to(lights.ambient.astype(np.float32), albedo.shape).copy()
    highlight = np.zeros_like(albedo)
    for direction, color in zip(
        lights.directions.astype(np.float32), lights.colors.astype(np.float32), strict=True
    ):
        light += np.maximum(normal @ direction, 0)[:, None] * color
        cosine = np.maximum(np.einsum("ij,ij->i", normal, _unit(view + direction)), 0)
        highlight += (lights.gloss * cosine**lights.shininess)[:, None] * color
    return np.clip(albedo * light + highlight, 0, 1)
