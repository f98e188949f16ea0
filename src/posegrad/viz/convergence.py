"""How iterations converge: losses, keypoints that wander over the image, structures, camera parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

BLUE, RED, GREEN, GREY = "#1f5fbf", "#c8322b", "#2a8a3e", "#8a8a8a"
COLORS = (BLUE, RED, GREEN, "#c98a00", "#7d3fb2")


class KeypointTrack(NamedTuple):
    """One run: losses of its steps, keypoints and their pose's projections (steps, N, 2) px."""

    label: str
    losses: Sequence[float]
    keypoints: Tensor
    projections: Tensor


def plot_keypoint_tracks(tracks: Sequence[KeypointTrack], target: Tensor, path: str | Path) -> None:
    """A row for each run: its loss, the way of the projections and that of the keypoints to their targets (N, 2)."""
    figure = _figure(11, 3.1 * len(tracks))
    for row, track in enumerate(tracks):
        axes = [figure.add_subplot(len(tracks), 3, 3 * row + column + 1) for column in range(3)]
        _loss(axes[0], track.losses)
        axes[0].set_title(track.label, fontsize=10, loc="left")
        ways = (("projections under the pose", track.projections), ("keypoints", track.keypoints))
        for axis, (title, way) in zip(axes[1:], ways, strict=True):
            _way(axis, way.numpy(), target.numpy())
            axis.set_title(title, fontsize=10, loc="left")
        if row == 0:
            axes[2].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(str(path))


def _way(axis: Axes, way: np.ndarray, target: np.ndarray) -> None:
    axis.plot(*target.T, "s", color=RED, markersize=8, fillstyle="none", label="target")
    for point in way.transpose(1, 0, 2):
        axis.plot(*point.T, "-", color=GREY, linewidth=0.8, zorder=1)
    axis.plot(*way[0].T, "o", color="black", markersize=4, label="first step")
    axis.plot(*way[-1].T, "o", color=GREEN, markersize=4, label="last step")
    axis.set_aspect("equal", adjustable="datalim")
    axis.invert_yaxis()
    axis.set_xlabel("px")
    axis.grid(alpha=0.3)


def _loss(axis: Axes, losses: Sequence[float], window: int = 1) -> None:
    """The losses; where they are of a few items each, pale, with the mean of so many steps over them."""
    steps = np.arange(len(losses))
    if len(losses) > window > 1:
        axis.semilogy(steps, losses, color=BLUE, linewidth=0.6, alpha=0.35)
        mean = np.convolve(losses, np.ones(window) / window, mode="valid")
        axis.semilogy(steps[window - 1 :], mean, color=BLUE, linewidth=1.3)
    else:
        axis.semilogy(steps, losses, color=BLUE, linewidth=1.3)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_structure(
    losses: Sequence[float],
    aligned_errors: Sequence[float],
    truth: Tensor,
    first: Tensor,
    last: Tensor,
    path: str | Path,
) -> None:
    """Loss and error of a structure over the steps; points (N, 3), aligned, before and after, beside the truth."""
    figure = _figure(12, 3.6)
    axis = figure.add_subplot(1, 4, 1)
    _loss(axis, losses)
    axis = figure.add_subplot(1, 4, 2)
    axis.semilogy(
        np.arange(len(aligned_errors)), 100 * np.asarray(aligned_errors), color=GREEN, linewidth=1.3
    )
    axis.set_xlabel("step")
    axis.set_ylabel("structure off after alignment, %")
    axis.grid(alpha=0.3, which="both")
    axis.spines[["top", "right"]].set_visible(False)
    # seen along the axis of the least extent, so that the outline shows most
    centred = (truth - truth.mean(0)).numpy()
    plane = np.linalg.svd(centred, full_matrices=False)[2][:2]
    for column, (title, points) in enumerate((("first step", first), ("last step", last))):
        axis = figure.add_subplot(1, 4, 3 + column)
        for cloud, color, label in ((truth, GREY, "true"), (points, GREEN, "found")):
            axis.scatter(
                *(plane @ (cloud - truth.mean(0)).numpy().T), s=3, color=color, label=label, linewidths=0
            )
        axis.set_aspect("equal", adjustable="datalim")
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
    axis.legend(fontsize=8, frameon=False, markerscale=3)
    figure.savefig(str(path))


def plot_parameters(
    losses: Sequence[float], curves: Mapping[str, Tensor], references: Mapping[str, float], path: str | Path
) -> None:
    """Loss and parameters over the steps, each with its reference as a dotted line of the same colour."""
    figure = _figure(9, 3.4)
    _loss(figure.add_subplot(1, 2, 1), losses)
    _parameters(figure.add_subplot(1, 2, 2), curves, references)
    figure.savefig(str(path))


def plot_learned_camera(
    losses: Sequence[float],
    curves: Mapping[str, Tensor],
    references: Mapping[str, float],
    distortions: Mapping[str, tuple[Tensor, Tensor]],
    path: str | Path,
) -> None:
    """Loss, parameters with their references, and by how much cameras move a point at an angle off the axis.

    Args:
        losses: of each step.
        curves: parameter values at each step, px.
        references: by the same names.
        distortions: by name, angles (degrees) and displacements (px).
        path: the file to write.
    """
    figure = _figure(12, 3.4)
    _loss(figure.add_subplot(1, 3, 1), losses, window=30)
    _parameters(figure.add_subplot(1, 3, 2), curves, references)
    axis = figure.add_subplot(1, 3, 3)
    styles = ((GREEN, "-"), (RED, ":"), (BLUE, "--"))
    for (name, (angle, moved)), (color, style) in zip(distortions.items(), styles, strict=False):
        axis.plot(angle.numpy(), moved.numpy(), color=color, linestyle=style, linewidth=1.5, label=name)
    axis.set_xlabel("angle off the axis, degrees")
    axis.set_ylabel("radial displacement, px")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(str(path))


def _parameters(axis: Axes, curves: Mapping[str, Tensor], references: Mapping[str, float]) -> None:
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
        axis.plot(curve.numpy(), color=color, linewidth=1.3, label=name)
        axis.axhline(references[name], color=color, linewidth=1, linestyle=":")
    axis.set_xlabel("step")
    axis.set_ylabel("px")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.spines[["top", "right"]].set_visible(False)
