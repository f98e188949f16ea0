"""Pictures for a run folder: grids of predictions and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from posegrad.data.crops import crop_affine, extract_crop
from posegrad.data.mesh import Mesh
from posegrad.viz.overlay import GREEN, MAGENTA, draw_axes, draw_mesh_outline, project

CAPTION_HEIGHT = 18


def pose_picture(
    image: np.ndarray,
    mesh: Mesh,
    K: np.ndarray,
    truth: tuple[np.ndarray, np.ndarray] | None,
    predicted: tuple[np.ndarray, np.ndarray] | None,
    *,
    size: int = 256,
    zoom: float = 1.6,
) -> np.ndarray:
    """A close-up: the outline at the true pose in green, at the predicted pose in magenta with its axes.

    Args:
        image: (H, W, 3) uint8 RGB, the full picture.
        mesh: its unit is that of the translations.
        K: (3, 3) pixels.
        truth, predicted: (R (3, 3), t (3,)) each, x_cam = R X + t; None draws none.
        size: side of the returned square, px.
        zoom: its extent over the longer side of the projected mesh (at the true pose where that is given).
    """
    shown = truth if truth is not None else predicted
    if shown is None:
        raise ValueError("truth, predicted: at least one pose is needed to know where to look.")
    pixels, _ = project(mesh.vertices, K, *shown)
    low, high = np.nanmin(pixels, axis=0), np.nanmax(pixels, axis=0)
    affine = crop_affine((low + high) / 2, zoom * float((high - low).max()), size)
    picture = extract_crop(image, affine, size)
    crop_K = np.linalg.inv(np.vstack([affine, [0, 0, 1]])) @ np.asarray(K, dtype=np.float64)
    if truth is not None:
        picture = draw_mesh_outline(picture, mesh, crop_K, *truth, color=GREEN, halo=False)
    if predicted is not None:
        length = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0))) / 3
        picture = draw_mesh_outline(picture, mesh, crop_K, *predicted, color=MAGENTA, halo=False)
        picture = draw_axes(picture, crop_K, *predicted, length)
    return picture


def picture_grid(
    images: Sequence[np.ndarray], captions: Sequence[str] | None = None, *, columns: int = 4, gap: int = 4
) -> np.ndarray:
    """Pictures of any sizes on a white sheet, row by row, each with an optional ASCII caption below it."""
    if not len(images):
        raise ValueError("images: expected at least one, got none.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions: expected {len(images)} like images, got {len(captions)}.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    below = CAPTION_HEIGHT if captions is not None else 0
    width = max(image.shape[1] for image in images) + gap
    height = max(image.shape[0] for image in images) + gap + below
    sheet = np.full((rows * height + gap, columns * width + gap, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        y, x = gap + number // columns * height, gap + number % columns * width
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
        if captions is not None:
            _caption(sheet, captions[number], x, y + image.shape[0], width - gap)
    return sheet


def _caption(sheet: np.ndarray, text: str, x: int, y: int, width: int) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    while len(text) > 1 and cv2.getTextSize(text, font, scale, 1)[0][0] > width:
        text = text[:-1]
    cv2.putText(sheet, text, (x, y + CAPTION_HEIGHT - 5), font, scale, (30, 30, 30), 1, cv2.LINE_AA)


def plot_curves(
    records: Sequence[Mapping[str, object]],
    path: str | Path,
    *,
    x: str = "step",
    panels: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> None:
    """Writes curves of a log as a picture (PNG, SVG or PDF by the suffix).

    Args:
        records: one mapping per log entry; entries that lack a key or hold no finite value are skipped.
        path: the file to write.
        x: the key of the horizontal axis.
        panels: the keys drawn together in each panel; default one panel per numeric key.
        title: above the figure.
    """
    series = {
        key: series_of(records, x, key) for key in dict.fromkeys(k for r in records for k in r) if key != x
    }
    if panels is None:
        panels = [[key] for key, (values, _) in series.items() if len(values)]
    panels = [[key for key in panel if key in series and len(series[key][0])] for panel in panels]
    panels = [panel for panel in panels if panel]
    if not panels:
        raise ValueError(f"records: no finite number to draw over {x!r} in {len(records)} records.")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        for key in panel:
            at, values = series[key]
            axes.plot(at, values, label=key, linewidth=1.3, marker="." if len(at) < 30 else None)
        values = np.concatenate([series[key][1] for key in panel])
        if values.min() > 0 and values.max() / values.min() > 50:
            axes.set_yscale("log")
        axes.set_xlabel(x)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    figure.savefig(str(path))


def series_of(records: Sequence[Mapping[str, object]], x: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Where both keys of a record are finite numbers: the two as arrays."""
    pairs = [(record.get(x), record.get(key)) for record in records]
    numbers = [
        (float(a), float(b))
        for a, b in pairs
        if isinstance(a, (int, float)) and isinstance(b, (int, float)) and np.isfinite(a) and np.isfinite(b)
    ]
    array = np.array(numbers, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]
