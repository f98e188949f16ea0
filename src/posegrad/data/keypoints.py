"""Choosing keypoints on an object."""

from __future__ import annotations

import numpy as np


def farthest_point_keypoints(vertices: np.ndarray, count: int) -> np.ndarray:
    """Farthest-point sampling of the vertices: each next keypoint is the vertex farthest from those chosen.

    The first keypoint is the vertex farthest from the mean of the vertices; ties go to the lowest vertex
    index, so the answer is deterministic (Gonzalez, "Clustering to minimize the maximum intercluster
    distance", 1985; used for object pose by PVNet, CVPR 2019).

    Args:
        vertices: (V, 3), any length unit.
        count: number of keypoints, 1 <= count <= number of distinct vertices.

    Returns:
        (count, 3) float64, vertices in the order of choice (a prefix is the answer for fewer).

    Raises:
        ValueError: wrong shape, not finite, or fewer distinct vertices than `count`.

    >>> farthest_point_keypoints(np.array([[0.0, 0, 0], [1, 0, 0], [10, 0, 0], [0, 3, 0]]), 3)
    array([[10.,  0.,  0.],
           [ 0.,  3.,  0.],
           [ 1.,  0.,  0.]])
    """
    points = np.asarray(vertices, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"vertices: expected (V, 3) with V >= 1, got shape {points.shape}.")
    if not np.isfinite(points).all():
        raise ValueError("vertices: expected finite coordinates, got NaN or infinity; clean the mesh first.")
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}.")
    chosen = [int(((points - points.mean(0)) ** 2).sum(1).argmax())]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        farthest = int(distance.argmax())
        if distance[farthest] == 0:
            raise ValueError(f"count: got {count}, but the mesh has only {len(chosen)} distinct vertices.")
        chosen.append(farthest)
    return points[chosen]
