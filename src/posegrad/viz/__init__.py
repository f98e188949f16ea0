"""Pictures: pose axes, mesh outlines, keypoints, grids and curves. Needs `pip install posegrad[train]`."""

from posegrad.viz.figures import picture_grid, plot_curves, pose_picture
from posegrad.viz.overlay import (
    GREEN,
    MAGENTA,
    draw_axes,
    draw_keypoints,
    draw_mesh_outline,
    keypoint_color,
    silhouette,
)

__all__ = [
    "GREEN",
    "MAGENTA",
    "draw_axes",
    "draw_keypoints",
    "draw_mesh_outline",
    "keypoint_color",
    "picture_grid",
    "plot_curves",
    "pose_picture",
    "silhouette",
]
