"""Close-ups of predictions as SVG: the picture once, and over it layers of lines that the page can switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from posegrad.data import Mesh, encode_image
from posegrad.data.cropping import extract_crop
from posegrad.viz.overlay import keypoint_color, mesh_outline, project
from posegrad.viz.page import data_uri, escape

__all__ = ["LAYERS", "Closeup", "closeup", "heatmap_strip"]

SIDE = 320
LAYERS = {
    "truth": "true outline",
    "found": "predicted outline",
    "keypoints": "keypoints, a line to the true place",
    "ellipses": "2 sigma of the heatmap",
    "pose-ellipses": "2 sigma of the keypoint under the pose's covariance",
}
_CONTOUR_SLACK = 0.3
"""Pixels that a simplified outline may be off."""


@dataclass(frozen=True)
class Closeup:
    """What is drawn of one item, in full-image pixels.

    Attributes:
        key: unique on the page.
        image: (H, W, 3) uint8 RGB, the full picture.
        full_from_view: (2, 3), the part that is shown, as from a picture of `SIDE` pixels.
        mesh, K: the object and the camera.
        truth, found: (R, t); found None where PnP failed.
        keypoints3d: (N, 3), in the mesh's unit.
        points2d: (N, 2) predicted keypoints.
        moments: (N, 2, 2) second moments of their heatmaps, px^2; None: there are none.
        pose_moments: (N, 2, 2) covariances of the keypoints as projected by the pose, px^2; None: not known.
        heatmaps: (N, h, w) probabilities, None: there are none. full_from_cell: (2, 3), theirs.
    """

    key: str
    image: np.ndarray
    full_from_view: np.ndarray
    mesh: Mesh
    K: np.ndarray
    truth: tuple[np.ndarray, np.ndarray]
    found: tuple[np.ndarray, np.ndarray] | None
    keypoints3d: np.ndarray
    points2d: np.ndarray
    moments: np.ndarray | None = None
    pose_moments: np.ndarray | None = None
    heatmaps: np.ndarray | None = None
    full_from_cell: np.ndarray | None = None

    @property
    def view_from_full(self) -> np.ndarray:
        """(3, 3), of homogeneous pixels."""
        return np.linalg.inv(np.vstack([self.full_from_view, [0.0, 0.0, 1.0]]))

    @property
    def true_points2d(self) -> np.ndarray:
        """(N, 2) of the true pose; NaN behind the camera."""
        return project(self.keypoints3d, self.K, *self.truth)[0]

    def in_view(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the full image."""
        view = self.view_from_full
        return points @ view[:2, :2].T + view[:2, 2]


def closeup(item: Closeup, description: str) -> str:
    """The `<svg>` of an item, its layers in groups of the classes in `LAYERS`."""
    jpeg = encode_image(extract_crop(item.image, item.full_from_view, SIDE), "jpg", jpeg_quality=82)
    picture = (
        f'<image id="{escape(item.key)}-picture" width="{SIDE}" height="{SIDE}" '
        f'href="{data_uri(jpeg, "jpeg")}"/>'
    )
    groups = [picture]
    for name, moments in (("pose-ellipses", item.pose_moments), ("ellipses", item.moments)):
        if moments is not None:
            groups.append(_ellipses(item, moments, name))
    # Over the ellipses, of which there are many.
    groups.append(_outline(item, item.truth, "truth"))
    if item.found is not None:
        groups.append(_outline(item, item.found, "found"))
    groups.append(_keypoints(item))
    inner = "\n".join(groups)
    head = f'<svg class="closeup" role="img" aria-label="{escape(description)}" {_viewbox(0, 0, SIDE)}>'
    return f"{head}\n{inner}\n</svg>"


def _viewbox(x: float, y: float, side: float) -> str:
    return f'viewBox="{x:.6g} {y:.6g} {side:.6g} {side:.6g}"'


def _outline(item: Closeup, pose: tuple[np.ndarray, np.ndarray], name: str) -> str:
    contours = mesh_outline(item.mesh, item.view_from_full @ item.K, *pose, SIDE, SIDE, samples=2)
    # half a pixel: in SVG an integer is the corner of a pixel, in OpenCV its centre
    slim = [cv2.approxPolyDP(c.astype(np.float32), _CONTOUR_SLACK, True)[:, 0] + 0.5 for c in contours]
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in c) + "Z" for c in slim if len(c) > 2)
    return f'<g class="{name}"><path class="halo" d="{path}"/><path d="{path}"/></g>'


def _ellipses(item: Closeup, moments: np.ndarray, name: str) -> str:
    linear = item.view_from_full[:2, :2]
    centres = item.in_view(item.points2d) + 0.5
    if name == "pose-ellipses" and item.found is not None:
        centres = item.in_view(project(item.keypoints3d, item.K, *item.found)[0]) + 0.5
    lines = []
    for number, (centre, moment) in enumerate(zip(centres, moments, strict=True)):
        if not (np.isfinite(moment).all() and _near(centre)):
            continue
        variances, axes = np.linalg.eigh(linear @ moment @ linear.T)
        small, large = 2 * np.sqrt(np.clip(variances, 0, (2 * SIDE) ** 2))
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
        lines.append(
            f'<ellipse rx="{large:.1f}" ry="{small:.1f}" stroke="{_color(number, len(moments))}" '
            f'transform="translate({centre[0]:.1f} {centre[1]:.1f}) rotate({angle:.0f})"/>'
        )
    return f'<g class="{name}">{"".join(lines)}</g>'


def _keypoints(item: Closeup) -> str:
    lines = []
    found, true = item.in_view(item.points2d) + 0.5, item.in_view(item.true_points2d) + 0.5
    off = np.linalg.norm(item.points2d - item.true_points2d, axis=1)
    for number, (a, b) in enumerate(zip(found, true, strict=True)):
        if not _near(a):
            continue
        color = _color(number, len(found))
        line = ""
        if _near(b):
            line = f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{color}"/>'
        lines.append(
            f'{line}<circle cx="{a[0]:.1f}" cy="{a[1]:.1f}" r="3" fill="{color}">'
            f"<title>keypoint {number}: {off[number]:.1f} px off</title></circle>"
        )
    return f'<g class="keypoints">{"".join(lines)}</g>'


def _near(point: np.ndarray) -> bool:
    return bool(np.isfinite(point).all() and (np.abs(point - SIDE / 2) < 2 * SIDE).all())


def _color(number: int, count: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*keypoint_color(number, count))


def heatmap_strip(item: Closeup, numbers: Sequence[int]) -> str:
    """The heatmaps of some keypoints over the picture of :func:`closeup`, which has to be on the same page."""
    if item.heatmaps is None or item.full_from_cell is None:
        return ""
    parts = [_heatmap(item, number, item.heatmaps, item.full_from_cell) for number in numbers]
    return f'<div class="strip">{"".join(parts)}</div>'


def _heatmap(item: Closeup, number: int, heatmaps: np.ndarray, full_from_cell: np.ndarray) -> str:
    heatmap, color = heatmaps[number], keypoint_color(number, len(heatmaps))
    layer = np.full((*heatmap.shape, 4), (*color[::-1], 0), np.uint8)
    shown = np.nan_to_num(heatmap)  # a network that came apart has none
    # the square root shows the tails
    layer[..., 3] = np.round(225 * np.sqrt(shown / max(float(shown.max()), 1e-30)))
    _, png = cv2.imencode(".png", layer)
    cells = np.array([[-0.5, -0.5], [heatmap.shape[1] - 0.5, heatmap.shape[0] - 0.5]])
    low, high = item.in_view(cells @ full_from_cell[:, :2].T + full_from_cell[:, 2]) + 0.5
    found, true = item.in_view(item.points2d[number]) + 0.5, item.in_view(item.true_points2d[number]) + 0.5
    off = float(np.linalg.norm(item.points2d[number] - item.true_points2d[number]))
    seen = f"{off:.1f} px off"
    if item.moments is not None:
        seen += f", σ {np.sqrt(np.trace(item.moments[number]) / 2):.1f} px"
    corner, side = _part(found, true)
    shapes = []
    if _near(true):
        shapes.append(f'<path class="cross" d="M{true[0] - 4:.1f} {true[1]:.1f}h8m-4-4v8"/>')
    if _near(found):
        shapes.append(f'<circle class="dot" cx="{found[0]:.1f}" cy="{found[1]:.1f}" r="3"/>')
    return (
        f'<div><svg role="img" aria-label="heatmap of keypoint {number}, {seen}" '
        f"{_viewbox(corner[0], corner[1], side)}>"
        f'<use href="#{escape(item.key)}-picture" class="dimmed"/>'
        f'<image x="{low[0]:.2f}" y="{low[1]:.2f}" width="{high[0] - low[0]:.2f}" height="{high[1] - low[1]:.2f}" '
        f'preserveAspectRatio="none" href="{data_uri(png.tobytes(), "png")}"/>'
        f"{''.join(shapes)}</svg><small>#{number}: {seen}</small></div>"
    )


def _part(found: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, float]:
    """Corner and side of the part of the view that shows both places of a keypoint."""
    if not (_near(found) and _near(true)):
        return np.zeros(2), float(SIDE)
    side = float(np.clip(2 * np.abs(found - true).max() + 40, 100, SIDE))
    return np.clip((found + true - side) / 2, 0, SIDE - side), side
