"""Figures of a calibration: where its residuals point, and what its views cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_residuals(
    points2d: np.ndarray, residuals: np.ndarray, image_size: tuple[int, int], path: str | Path
) -> None:
    """Writes a figure: residuals as arrows over the image, magnified, and as a cloud about zero, one colour a view.

    Args:
        points2d, residuals: (V, N, 2) pixels; residuals are projection minus observation.
        image_size: (width, height).
        path: the file to write.
    """
    figure = Figure(figsize=(10, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    over, cloud = figure.subplots(1, 2, width_ratios=(1.4, 1))
    norm = np.linalg.norm(residuals, axis=-1)
    typical = float(np.quantile(norm, 0.9)) or 1.0
    factor = 0.04 * max(image_size) / typical
    for view, (at, residual) in enumerate(zip(points2d, residuals, strict=True)):
        color = f"C{view % 10}"
        over.quiver(
            *at.T, *residual.T, angles="xy", scale_units="xy", scale=1 / factor, width=0.002, color=color
        )
        cloud.plot(*residual.T, ".", markersize=3, color=color)
    over.set(xlim=(0, image_size[0] - 1), ylim=(image_size[1] - 1, 0), aspect="equal")
    over.set_title(f"residuals, x {factor:.0f}", fontsize=9)
    limit = 1.1 * float(np.abs(residuals).max()) or 1.0
    cloud.set(xlim=(-limit, limit), ylim=(limit, -limit), aspect="equal", xlabel="x, px", ylabel="y, px")
    cloud.set_title(f"RMS {np.sqrt((norm**2).mean()):.3f} px", fontsize=9)
    cloud.grid(alpha=0.3)
    figure.savefig(str(path), bbox_inches="tight")


def draw_coverage(
    points2d: np.ndarray,
    cells: np.ndarray,
    tilts: np.ndarray,
    image_size: tuple[int, int],
    path: str | Path,
) -> None:
    """Writes a figure: corners over a grid of the image, empty cells marked, and the boards' tilts.

    Args:
        points2d: (V, N, 2) pixels.
        cells: (rows, columns) corners in each cell of a grid over the image.
        tilts: degrees, one a view.
        image_size: (width, height).
        path: the file to write.
    """
    figure = Figure(figsize=(10, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    over, below = figure.subplots(1, 2, width_ratios=(1.4, 1))
    width, height = image_size
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    over.imshow(np.where(cells > 0, np.nan, 1.0), extent=extent, cmap="Reds", vmin=0, vmax=2, aspect="equal")
    for view, at in enumerate(points2d):
        over.plot(*at.T, ".", markersize=3, color=f"C{view % 10}")
    over.set_title(f"corners; {(cells > 0).mean():.0%} of the cells have some", fontsize=9)
    below.bar(np.arange(len(tilts)), tilts, color=[f"C{view % 10}" for view in range(len(tilts))])
    below.set(xlabel="view", ylabel="tilt of the board, degrees")
    below.grid(alpha=0.3, axis="y")
    figure.savefig(str(path), bbox_inches="tight")
