"""What numbers of an annotation cannot be right, in words: shared by the reader, which stops, and the check, which
goes on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_ORTHONORMAL = 0.01
"""Largest entry of R R^T - I: files with three digits pass."""
_NEAR, _FAR = 0.5, 300.0
"""Median depth of an object, diameters: nearer, the camera is inside it; farther, it is a few pixels large."""
_FOCAL = (0.1, 50.0)
"""Focal length over the picture's width: fields of view from 157 to 1 degree."""


class Fault(NamedTuple):
    """What is wrong, and how to put it right."""

    what: str
    fix: str


def as_float(value: object) -> float:
    """A number of JSON as a float; NaN for anything else, and for one that no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.nan


def positive(value: object) -> float | None:
    """A finite number > 0 of JSON as a float, or None."""
    return value if 0 < (value := as_float(value)) < np.inf else None


def numbers(value: object, count: int) -> np.ndarray:
    """`count` numbers of JSON as a float64 array.

    Raises:
        ValueError: anything else, in words.
    """
    if not isinstance(value, list) or any(
        isinstance(v, bool) or not isinstance(v, int | float) for v in value
    ):
        raise ValueError(f"expected a list of {count} numbers, got {short(value)}")
    if len(value) != count:
        raise ValueError(f"expected {count} numbers, got {len(value)}")
    return np.array([as_float(v) for v in value])


def short(value: object) -> str:
    """As Python writes it, the beginning of what is long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def pose_fault(R: np.ndarray, t: np.ndarray) -> Fault | None:
    """Of a pose (3, 3), (3,): x_cam = R X + t, millimetres."""
    if not (np.isfinite(R).all() and np.isfinite(t).all()):
        return Fault(
            "the pose has numbers that are not finite", "annotate the object again, or delete the entry"
        )
    off = float(np.abs(R @ R.T - np.eye(3)).max())
    if off > _ORTHONORMAL:
        return Fault(
            f"cam_R_m2c is no rotation (R R^T differs from the identity by {off:.2g})",
            "write the 9 numbers row-major, without scale",
        )
    if np.linalg.det(R) < 0:
        return Fault(
            "cam_R_m2c is a reflection (determinant -1)",
            "flip no axis alone: convert to a right-handed frame",
        )
    if t[2] <= 0:
        return Fault(
            f"the object is behind the camera (z = {t[2]:.4g} mm)",
            "BOP has OpenCV's axes, z forward: from OpenGL's, multiply R and t by diag(1, -1, -1) from the left",
        )
    return None


def scale_fault(depths: np.ndarray, diameter: float) -> Fault | None:
    """Of the depths (n,) at which an object is annotated, against its diameter, both said to be millimetres."""
    if not len(depths) or not diameter > 0:
        return None
    depth = float(np.median(depths))
    if depth < _NEAR * diameter and diameter < 1000 * depth < _FAR * diameter:
        return Fault(
            f"cam_t_m2c seems to be in metres: the object, {diameter:.4g} mm large, is {depth:.3g} mm away",
            "multiply the translations in scene_gt.json by 1000",
        )
    if depth > _FAR * diameter and diameter < depth / 1000 < _FAR * diameter:
        return Fault(
            f"the model seems to be in metres: it is {diameter:.3g} mm large, and {depth:.4g} mm away",
            "multiply the meshes and the lengths of models_info.json by 1000",
        )
    if not _NEAR * diameter <= depth <= _FAR * diameter:
        return Fault(
            f"the object, {diameter:.4g} mm large, is {depth:.4g} mm away",
            "make meshes, models_info.json and cam_t_m2c millimetres",
        )
    return None


def camera_fault(K: np.ndarray, size: tuple[int, int] | None = None) -> Fault | None:
    """Of intrinsics (3, 3), pixels, for pictures of (width, height)."""
    if not np.isfinite(K).all():
        return Fault("cam_K has numbers that are not finite", "write the 9 numbers of K, row-major")
    if K[0, 2] == K[1, 2] == 0 and K[2, 0] > 0:
        return Fault("cam_K is column-major", "transpose it: fx 0 cx 0 fy cy 0 0 1")
    if min(K[0, 0], K[1, 1]) <= 0:
        return Fault(
            f"cam_K has focal lengths {K[0, 0]:g} and {K[1, 1]:g}",
            "both are pixels > 0: calibrate the camera",
        )
    if K[1, 0] != 0 or not np.array_equal(K[2], [0, 0, 1]):
        return Fault("cam_K is not fx s cx 0 fy cy 0 0 1", "write the 9 numbers of K, row-major")
    if size is not None:
        width, height = size
        if not (0 <= K[0, 2] < width and 0 <= K[1, 2] < height):
            return Fault(
                f"the principal point ({K[0, 2]:.4g}, {K[1, 2]:.4g}) is outside the picture ({width} x {height} px)",
                "K is that of another resolution or crop: scale it with the pictures",
            )
        if not _FOCAL[0] * width <= K[0, 0] <= _FOCAL[1] * width:
            return Fault(
                f"the focal length is {K[0, 0]:g} px for pictures {width} px wide",
                "it is in pixels, not millimetres",
            )
    return None


def mesh_fault(vertices: np.ndarray, diameter: float) -> Fault | None:
    """Of a mesh (V, 3) against the diameter that models_info.json gives, both said to be millimetres."""
    size = np.ptp(vertices, axis=0)
    box, side = float(np.linalg.norm(size)), float(size.max())
    # the diameter is at least the longest side of the box, and at most its diagonal
    if 0.95 * side <= diameter <= 1.05 * box:
        return None
    for name, factor in (("metres", 1000.0), ("centimetres", 10.0)):
        if 0.95 * side * factor <= diameter <= 1.05 * box * factor:
            return Fault(
                f"the mesh seems to be in {name}: it is {side:.3g} mm long, and its diameter in models_info.json "
                f"{diameter:.4g} mm",
                f"multiply its coordinates by {factor:g}",
            )
        if 0.95 * side <= diameter * factor <= 1.05 * box * factor:
            return Fault(
                f"the diameter in models_info.json, {diameter:.3g}, seems to be in {name}: the mesh is {side:.4g} mm "
                f"long",
                f"multiply the lengths of models_info.json by {factor:g}",
            )
    return Fault(
        f"the diameter in models_info.json, {diameter:.4g} mm, does not fit the mesh, {side:.4g} mm long",
        "compute models_info.json again",
    )
