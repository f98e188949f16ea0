"""Meshing the zero level of a function on a grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def surface_nets(
    distance: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """A closed triangle mesh of {distance = 0} inside a box.

    One vertex per grid cell that the surface crosses, at the mean of its edge crossings, then moved onto the
    surface by two Newton steps; one quad per crossed grid edge (Gibson, "Constrained elastic surface nets",
    1998).

    Args:
        distance: (N, 3) -> (N,), negative inside, smooth, positive on the box's faces.
        low, high: (3,) corners of the box, any unit.
        spacing: of the grid; the last grid point of an axis may lie up to one spacing beyond `high`.

    Returns:
        vertices (V, 3) float64 and faces (F, 3) int64, counter-clockwise seen from outside.
    """
    axes = [np.arange(a, b + spacing, spacing) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    value = np.concatenate([distance(layer.reshape(-1, 3)) for layer in grid]).reshape(grid.shape[:3])
    inside = value < 0
    cells = tuple(len(axis) - 1 for axis in axes)

    sums, counts = np.zeros((*cells, 3)), np.zeros(cells)
    for a in range(3):
        start = tuple(slice(0, -1) if k == a else slice(None) for k in range(3))
        stop = tuple(slice(1, None) if k == a else slice(None) for k in range(3))
        crossed = inside[start] != inside[stop]
        share = value[start] / np.where(crossed, value[start] - value[stop], 1.0)
        point = grid[start] + share[..., None] * (grid[stop] - grid[start])
        others = [k for k in range(3) if k != a]
        for i in (0, 1):
            for j in (0, 1):  # the four edges of a cell along this axis
                window: list[slice] = [slice(None)] * 3
                window[others[0]] = slice(i, i + cells[others[0]])
                window[others[1]] = slice(j, j + cells[others[1]])
                hit = crossed[tuple(window)]
                sums += np.where(hit[..., None], point[tuple(window)], 0.0)
                counts += hit
    active = counts > 0
    index = np.full(active.shape, -1, dtype=np.int64)
    index[active] = np.arange(active.sum())
    vertices = sums[active] / counts[active][:, None]
    for _ in range(2):
        gradient = numeric_gradient(distance, vertices, 0.05 * spacing)
        step = distance(vertices) / np.maximum((gradient**2).sum(1), 1e-2)
        # at most half a cell: a vertex stays near its cell even where the gradient is odd
        vertices = vertices - np.clip(step[:, None] * gradient, -spacing / 2, spacing / 2)
    return vertices, _faces(inside, index)


def _faces(inside: np.ndarray, index: np.ndarray) -> np.ndarray:
    faces = []
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        first = np.moveaxis(inside, (a, b, c), (0, 1, 2))
        cell = np.moveaxis(index, (a, b, c), (0, 1, 2))
        low, high = first[:-1, 1:-1, 1:-1], first[1:, 1:-1, 1:-1]
        # the four cells around an edge along axis a, counter-clockwise about +a
        corners = [cell[:, :-1, :-1], cell[:, 1:, :-1], cell[:, 1:, 1:], cell[:, :-1, 1:]]
        for mask, order in ((low & ~high, (0, 1, 2, 3)), (~low & high, (3, 2, 1, 0))):
            quad = np.stack([corners[k][mask] for k in order], axis=-1)
            faces += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
    return np.concatenate(faces)


def numeric_gradient(
    function: Callable[[np.ndarray], np.ndarray], points: np.ndarray, step: float
) -> np.ndarray:
    """Central differences of a scalar function of (N, 3) points: (N, 3)."""
    offsets = step * np.eye(3)
    return np.stack([(function(points + o) - function(points - o)) / (2 * step) for o in offsets], axis=-1)
