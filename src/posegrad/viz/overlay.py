"""Drawing on pictures: pose axes, mesh outlines, keypoints.

All functions take (H, W, 3) uint8 RGB and return a new picture; an integer coordinate is a pixel centre.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from posegrad.data.mesh import Mesh

Color = tuple[int, int, int]
GREEN: Color = (60, 220, 70)
MAGENTA: Color = (255, 50, 220)
_SHIFT = 4
"""OpenCV draws at 1 / 2^shift of a pixel."""


def project(
    points3d: np.ndarray, K: np.ndarray, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) and depths (N,) of points (N, 3); pixels are NaN where the depth is not positive."""
    camera = np.asarray(points3d, dtype=np.float64) @ np.asarray(R).T + np.asarray(t)
    depth = camera[:, 2]
    safe = np.where(depth > 1e-9, depth, np.nan)
    return (camera @ np.asarray(K, dtype=np.float64).T)[:, :2] / safe[:, None], depth


def draw_axes(
    image: np.ndarray, K: np.ndarray, R: np.ndarray, t: np.ndarray, length: float, *, thickness: int = 2
) -> np.ndarray:
    """Draws the object frame's axes from its origin: x red, y green, z blue, the farthest first.

    Args:
        image: (H, W, 3) uint8 RGB.
        K: (3, 3) pixels.
        R, t: (3, 3), (3,): x_cam = R X + t.
        length: of the axes, in the unit of t (half the diameter looks well).
        thickness: of the lines, px.
    """
    canvas = _canvas(image)
    pixels, depth = project(np.vstack([np.zeros(3), length * np.eye(3)]), K, R, t)
    colors: list[Color] = [(235, 50, 50), (50, 200, 60), (60, 110, 255)]
    for axis in np.argsort(-depth[1:]):
        if np.isfinite(pixels[[0, axis + 1]]).all():
            line = pixels[[0, axis + 1]]
            _polyline(canvas, line, (0, 0, 0), thickness + 2, closed=False)
            _polyline(canvas, line, colors[axis], thickness, closed=False)
    return canvas


def silhouette(
    mesh: Mesh, K: np.ndarray, R: np.ndarray, t: np.ndarray, width: int, height: int, *, samples: int = 4
) -> np.ndarray:
    """The mesh's silhouette as a mask (height * samples, width * samples) bool, `samples` per pixel and axis.

    Sample j lies at pixel (j + 0.5) / samples - 0.5; faces that reach behind the camera are left out.
    """
    pixels, _ = project(mesh.vertices, K, R, t)
    # far away points would overflow OpenCV's fixed-point coordinates
    fine = np.clip((pixels + 0.5) * samples - 0.5, -1e5, 1e5)
    triangles = fine[mesh.faces]
    triangles = triangles[np.isfinite(triangles).all((1, 2))]
    corner, high = triangles.min(1), triangles.max(1)
    size = np.array([width, height]) * samples
    inside = ((high >= 0) & (corner < size)).all(1)
    mask = np.zeros((height * samples, width * samples), dtype=np.uint8)
    for triangle in np.round(triangles[inside] * (1 << _SHIFT)).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1, cv2.LINE_8, _SHIFT)
    return mask.astype(bool)


def draw_mesh_outline(
    image: np.ndarray,
    mesh: Mesh,
    K: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    *,
    color: Color = GREEN,
    thickness: int = 1,
    halo: bool = True,
) -> np.ndarray:
    """Draws the contour of the mesh's silhouette at a pose, with a dark halo to keep it visible."""
    canvas = _canvas(image)
    outlines = mesh_outline(mesh, K, R, t, canvas.shape[1], canvas.shape[0])
    for width, shade in ((thickness + 2, (0, 0, 0)), (thickness, color)):
        if width > thickness and not halo:
            continue
        for outline in outlines:
            _polyline(canvas, outline, shade, width, closed=True)
    return canvas


def mesh_outline(
    mesh: Mesh, K: np.ndarray, R: np.ndarray, t: np.ndarray, width: int, height: int, *, samples: int = 4
) -> list[np.ndarray]:
    """The closed contours (P, 2) px of the mesh's silhouette, holes included; see :func:`silhouette`."""
    mask = silhouette(mesh, K, R, t, width, height, samples=samples)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [(contour[:, 0] + 0.5) / samples - 0.5 for contour in contours if len(contour) > 4 * samples]


def draw_keypoints(
    image: np.ndarray, points: np.ndarray, *, truth: np.ndarray | None = None, radius: float = 2.5
) -> np.ndarray:
    """Draws keypoints (N, 2) as discs, one hue per index; with `truth`, a line leads to a cross there."""
    canvas = _canvas(image)
    points = np.asarray(points, dtype=np.float64)
    for number, point in enumerate(points):
        color = keypoint_color(number, len(points))
        if not np.isfinite(point).all():
            continue
        if truth is not None and np.isfinite(truth[number]).all():
            target = np.asarray(truth[number], dtype=np.float64)
            arm = radius + 1
            for line in (
                np.stack([point, target]),
                target + np.array([[-arm, 0], [arm, 0]]),
                target + np.array([[0, -arm], [0, arm]]),
            ):
                _polyline(canvas, line, color, 1, closed=False)
        for size, shade in ((radius + 1, (0, 0, 0)), (radius, color)):
            cv2.circle(canvas, _fixed(point), round(size * (1 << _SHIFT)), shade, -1, cv2.LINE_AA, _SHIFT)
    return canvas


def keypoint_color(number: int, count: int) -> Color:
    """The colour of keypoint `number` of `count`: hues spread over the circle."""
    r, g, b = colorsys.hsv_to_rgb(number / max(count, 1), 0.85, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def _canvas(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}.")
    return np.ascontiguousarray(image).copy()


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.round(np.clip(point, -1e5, 1e5) * (1 << _SHIFT)).astype(int)
    return int(x), int(y)


def _polyline(canvas: np.ndarray, points: np.ndarray, color: Color, thickness: int, *, closed: bool) -> None:
    fixed = np.round(np.clip(points, -1e5, 1e5) * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(canvas, [fixed], closed, color, thickness, cv2.LINE_AA, _SHIFT)
