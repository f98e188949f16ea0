"""Choosing keypoints on an object: farthest points, the corners of its box, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.errors import DatasetError
from posegrad.data.json_files import read_json
from posegrad.data.plausibility import numbers

FEWEST = 4
"""PnP with a unique answer needs as many."""
FAR_OUTSIDE = 2.0
"""Distance from the centre of the mesh at which a keypoint cannot be meant, in halves of its box's diagonal."""


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


def box_keypoints(vertices: np.ndarray) -> np.ndarray:
    """The corners of the axis-aligned box and its centre (BB8: Rad & Lepetit, ICCV 2017), (9, 3) float64.

    Corners come in binary order of (x, y, z), the smallest first, the centre last.

    >>> box_keypoints(np.array([[0.0, 0, 0], [2, 4, 6]]))[[0, 1, 7, 8]]
    array([[0., 0., 0.],
           [0., 0., 6.],
           [2., 4., 6.],
           [1., 2., 3.]])
    """
    points = np.asarray(vertices, dtype=np.float64)
    low, high = points.min(0), points.max(0)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(8, 3)
    return np.vstack([corners, (low + high) / 2])


def read_keypoints(
    path: str | Path, meshes: Mapping[int, np.ndarray], *, dataset: str = ""
) -> dict[int, np.ndarray]:
    """Keypoints of objects from a JSON file, millimetres in the frame of their meshes.

    The file holds `[[x, y, z], ..]` for a single object, `{"<object id>": [[x, y, z], ..], ..}`, or lists of several
    datasets, `{"<dataset>": {"<object id>": ..}}`, whose name begins that of the folder ("lmo" that of "lmo_bop").

    Args:
        path: the file.
        meshes: (V, 3) vertices by object id, mm: which objects, and what the keypoints are checked against.
        dataset: name of the dataset's folder.

    Returns:
        (N, 3) float64 by object id, the same N for all.

    Raises:
        DatasetError: file or object absent, other content, fewer than 4 or different numbers of keypoints, numbers
            that are not finite, keypoints far outside of the mesh (another unit).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "keypoints.json"
    ...     _ = path.write_text('{"5": [[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]]}')
    ...     read_keypoints(path, {5: 10 * np.eye(3)})[5].shape
    (4, 3)
    """
    path = Path(path)
    lists = _lists_by_object(read_json(path), path, list(meshes), dataset)
    found = {object_id: _points(lists[object_id], f"{path}, object {object_id}") for object_id in meshes}
    for object_id, points in found.items():
        if fault := keypoint_fault(points, meshes[object_id]):
            raise DatasetError(f"{path}, object {object_id}: {fault}.")
    counts = {object_id: len(points) for object_id, points in found.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} for object {object_id}" for object_id, count in counts.items())
        raise DatasetError(
            f"{path}: one network needs as many keypoints for each of its objects, got {told}: "
            f"shorten the longer lists, or train one network per object."
        )
    return found


def keypoint_fault(points: np.ndarray, vertices: np.ndarray) -> str | None:
    """What is wrong with keypoints (N, 3) of a mesh (V, 3), with the fix; None: nothing."""
    if len(points) < FEWEST:
        return f"got {len(points)} keypoints, PnP needs at least {FEWEST}"
    if not np.isfinite(points).all():
        return "the keypoints have numbers that are not finite: correct the file"
    low, high = vertices.min(0), vertices.max(0)
    radius = float(np.linalg.norm(high - low)) / 2
    away = float(np.linalg.norm(points - (low + high) / 2, axis=1).max())
    extent = float(np.linalg.norm(np.ptp(points, axis=0))) / 2
    if away > FAR_OUTSIDE * radius:
        return (
            f"a keypoint lies {away:.4g} mm from the centre of the mesh, which reaches {radius:.4g} mm: give "
            f"millimetres in the frame of the mesh"
        )
    if extent < 0.01 * radius:
        return (
            f"the keypoints lie within {2 * extent:.3g} mm, the mesh is {2 * radius:.4g} mm large: give millimetres, "
            f"not metres"
        )
    return None


def _lists_by_object(content: Any, path: Path, object_ids: list[int], dataset: str) -> dict[int, Any]:
    form = f'{path}: expected [[x, y, z], ..] or {{"<object id>": [[x, y, z], ..], ..}}, millimetres'
    if isinstance(content, list):
        if len(object_ids) != 1:
            raise DatasetError(
                f"{form}; the plain list does not say which of the objects {object_ids} it is of."
            )
        return {object_ids[0]: content}
    if isinstance(content, dict) and content and not any(key.isdigit() for key in content):
        names = [name for name in content if dataset.startswith(name) and isinstance(content[name], dict)]
        if not names:
            raise DatasetError(f"{form}; of the datasets {sorted(content)} none is {dataset!r}.")
        content = content[max(names, key=len)]
    if not isinstance(content, dict):
        raise DatasetError(f"{form}.")
    if absent := [object_id for object_id in object_ids if str(object_id) not in content]:
        raise DatasetError(f"{path}: no keypoints for object {absent[0]}, only for {', '.join(content)}.")
    return {object_id: content[str(object_id)] for object_id in object_ids}


def _points(content: Any, name: str) -> np.ndarray:
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{name}: expected a list of [x, y, z], millimetres.")
    try:
        return np.stack([numbers(point, 3) for point in content])
    except ValueError as error:
        raise DatasetError(f"{name}: {error} for a keypoint: write [x, y, z], millimetres.") from error
