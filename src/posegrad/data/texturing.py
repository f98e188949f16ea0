"""The colours of a mesh from photographs, and which of its points a photograph sees."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from posegrad.data.bop import Instance
from posegrad.data.image import load_image
from posegrad.data.mesh import Mesh
from posegrad.data.raycast import RayCaster

__all__ = ["DEPTH_TOLERANCE", "SILHOUETTE_MARGIN", "seen_by", "square", "texture_mesh"]

SILHOUETTE_MARGIN = 2
"""Annotated poses are off by a pixel or two: pixels this near to the silhouette's edge may show object or not."""
DEPTH_TOLERANCE = 0.02
"""A point counts as seen if it is at most this much farther than the mesh's depth there, share of the size."""


def square(radius: int) -> np.ndarray:
    """Structuring element that reaches `radius` pixels to every side."""
    return np.ones((2 * radius + 1,) * 2, dtype=np.uint8)


def seen_by(
    caster: RayCaster, item: Instance, points: np.ndarray, shape: Sequence[int], tolerance: float, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 2) of object points (n, 3) mm in a photograph, and whether it sees them past the mesh itself."""
    camera = points @ item.R.T + item.t
    pixels = camera @ item.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    height, width = shape[:2]
    x0, y0, x1, y1 = caster.window(item.K, item.R, item.t, width, height)
    if x0 >= x1 or y0 >= y1:
        return pixels, np.zeros(len(points), dtype=bool)
    hits = caster.cast(item.K, item.R, item.t, (x0, y0, x1, y1), 1)
    depth = np.zeros(hits.mask.shape, dtype=np.float32)
    depth[hits.mask] = hits.depth
    # the farthest of 3 x 3 pixels: a slanted surface must not hide itself between their centres
    depth = cv2.dilate(depth, square(1))
    inside = cv2.erode(np.pad(hits.mask.astype(np.uint8), margin + 1), square(margin)) > 0
    depth[~inside[margin + 1 : -margin - 1, margin + 1 : -margin - 1]] = 0  # no point is in front of that
    column, row = np.round(pixels - (x0, y0)).astype(int).T
    inside = (column >= 0) & (column < x1 - x0) & (row >= 0) & (row < y1 - y0)
    column, row = column.clip(0, x1 - x0 - 1), row.clip(0, y1 - y0 - 1)
    return pixels, inside & (camera[:, 2] <= depth[row, column] + tolerance)


def texture_mesh(mesh: Mesh, instances: Sequence[Instance]) -> Mesh:
    """The mesh with the colours of photographs: per vertex the median over those that see it.

    The median tolerates other objects in front of a minority of the views; the mesh hides itself by ray casting.
    Vertices that no view sees get the median of all others.

    Args:
        mesh: mm; its triangles are divided until their edges are shorter than a 70th of its size.
        instances: of the object, with true poses (of the training images only).

    >>> import tempfile
    >>> from pathlib import Path
    >>> from posegrad.data import encode_image
    >>> K = np.array([[300.0, 0, 79.5], [0, 300, 59.5], [0, 0, 1]])
    >>> square = Mesh(40 * np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), [[0, 2, 1], [0, 3, 2]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "0.png"
    ...     _ = path.write_bytes(encode_image(np.full((120, 160, 3), (200, 100, 50), np.uint8), "png"))
    ...     item = Instance(1, 0, 1, path, K, np.eye(3), np.array([0.0, 0, 300]), np.array([40.0, 20, 80, 80]), 1.0)
    ...     colors = texture_mesh(square, [item]).colors
    >>> len(colors) > 1000, np.unique(colors, axis=0)
    (True, array([[200, 100,  50]], dtype=uint8))
    """
    while _edge(mesh) > np.ptp(mesh.vertices, axis=0).max() / 70:
        mesh = _divided(mesh)
    caster = RayCaster(mesh)
    tolerance = DEPTH_TOLERANCE * float(np.ptp(mesh.vertices, axis=0).max())
    colors = np.full((len(instances), len(mesh.vertices), 3), np.nan, dtype=np.float32)
    for index, item in enumerate(instances):
        image = load_image(item.image_path)
        pixels, visible = seen_by(caster, item, mesh.vertices, image.shape, tolerance, SILHOUETTE_MARGIN)
        column, row = np.round(pixels[visible]).astype(int).T
        column, row = column.clip(0, image.shape[1] - 1), row.clip(0, image.shape[0] - 1)
        colors[index, visible] = image[row, column]
    known = ~np.isnan(colors[..., 0]).all(0)
    median = np.full(mesh.vertices.shape, 127.0)
    if known.any():
        median[known] = np.nanmedian(colors[:, known], axis=0)
        median[~known] = np.median(median[known], axis=0)
    return Mesh(mesh.vertices, mesh.faces, np.round(median).astype(np.uint8))


def _edge(mesh: Mesh) -> float:
    """The median length of the edges."""
    corners = mesh.vertices[mesh.faces]
    return float(np.median(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)))


def _divided(mesh: Mesh) -> Mesh:
    """Every triangle in four, by the middles of its edges; the vertices of the mesh come first."""
    edges = np.sort(np.stack([mesh.faces, np.roll(mesh.faces, -1, axis=1)], axis=2), axis=2)
    unique, index = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    middle = len(mesh.vertices) + index.reshape(-1, 3)
    a, b, c = mesh.faces.T
    ab, bc, ca = middle.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    faces = np.concatenate([np.stack(part, axis=1) for part in parts])
    return Mesh(np.concatenate([mesh.vertices, mesh.vertices[unique].mean(1)]), faces)
