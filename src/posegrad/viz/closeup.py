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
THUMBNAIL = 160
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
    groups = [picture, _outline(item, item.truth, "truth")]
    if item.found is not None:
        groups.append(_outline(item, item.found, "found"))
    for name, moments in (("pose-ellipses", item.pose_moments), ("ellipses", item.moments)):
        if moments is not None:
            groups.append(_ellipses(item, moments, name))
    groups.append(_keypoints(item))
    inner = "\n".join(groups)
    return f'<svg class="closeup" role="img" aria-label="{escape(description)}" {_viewbox(0, 0, SIDE)}>\n{inner}\n</svg>'


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
    return '<div class="strip">' + "".join(_heatmap(item, number) for number in numbers) + "</div>"


def _heatmap(item: Closeup, number: int) -> str:
    assert item.heatmaps is not None and item.full_from_cell is not None
    heatmap = item.heatmaps[number]
    strength = np.sqrt(heatmap / max(float(heatmap.max()), 1e-30))  # the square root shows the tails
    layer = np.full((*heatmap.shape, 4), (*keypoint_color(number, len(item.heatmaps)), 0), np.uint8)
    layer[..., 3] = np.round(225 * strength)
    done, png = cv2.imencode(".png", layer[..., [2, 1, 0, 3]])
    assert done
    # cells as squares: the map from (column, row) corners to the view's corners
    corner = item.in_view(item.full_from_cell @ [-0.5, -0.5, 1.0]) + 0.5
    far = item.in_view(item.full_from_cell @ [heatmap.shape[1] - 0.5, heatmap.shape[0] - 0.5, 1.0]) + 0.5
    x, y = item.in_view(item.true_points2d[number]) + 0.5
    u, v = item.in_view(item.points2d[number]) + 0.5
    off = float(np.linalg.norm(item.points2d[number] - item.true_points2d[number]))
    sigma = "" if item.moments is None else f", sigma {np.sqrt(np.trace(item.moments[number]) / 2):.1f} px"
    label = f"heatmap of keypoint {number}, {off:.1f} px off{sigma}"
    cross = (
        f'<path class="cross" d="M{x - 9:.1f} {y:.1f}h18M{x:.1f} {y - 9:.1f}v18"/>'
        if _near(np.array([x, y]))
        else ""
    )
    dot = f'<circle class="dot" cx="{u:.1f}" cy="{v:.1f}" r="5"/>' if _near(np.array([u, v])) else ""
    return (
        f'<div><svg role="img" aria-label="{label}" {_viewbox(0, 0, SIDE)}>'
        f'<use href="#{escape(item.key)}-picture" class="dimmed"/>'
        f'<image x="{corner[0]:.2f}" y="{corner[1]:.2f}" width="{far[0] - corner[0]:.2f}" '
        f'height="{far[1] - corner[1]:.2f}" preserveAspectRatio="none" href="{data_uri(png.tobytes(), "png")}"/>'
        f"{cross}{dot}</svg><small>#{number}: {off:.1f} px off{sigma.replace('sigma', 'σ')}</small></div>"
    )
