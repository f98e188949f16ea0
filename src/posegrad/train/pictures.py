"""Pictures for the run folder: curves of the log, and predicted against true poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data import encode_image, load_image
from posegrad.train.predictor import Predictions
from posegrad.train.source import Source
from posegrad.viz import picture_grid, plot_curves, pose_picture

__all__ = ["draw_curves", "draw_poses"]

_PANELS = (
    ("l_h",),
    ("l_p",),
    ("failed",),
    ("grad_heatmap_keypoints", "grad_pose_keypoints"),
    ("grad_heatmap_logits", "grad_pose_logits"),
    ("grad_weights",),
)


def draw_curves(log: list[dict[str, Any]], path: Path) -> None:
    """Curves of losses, gradient norms and failed share over the steps of `log.jsonl`."""
    plot_curves(log, path, panels=_PANELS, title="training")


def draw_poses(source: Source, found: Predictions, folder: Path, count: int) -> None:
    """Draw `count` test instances, evenly spaced: true outline green, predicted outline (magenta) and axes.

    Writes one PNG per instance and `overview.png`; captions give the mean distance of the vertices (ADD) in
    percent of the diameter.
    """
    count = min(count, len(source.test))
    if count < 1:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in (
        *folder.glob("[0-9]*_[0-9]*_[0-9]*.png"),
        folder / "overview.png",
    ):  # of an earlier run, no others
        old.unlink(missing_ok=True)
    pictures, captions = [], []
    for index in np.linspace(0, len(source.test) - 1, count).round().astype(int).tolist():
        item, ok = source.test[index], bool(found.ok[index])
        R, t = found.pose.R[index].numpy(), found.pose.t[index].numpy()
        image, seen = load_image(item.image_path), (R, t) if ok else None
        model = source.objects[item.object_id]
        picture = pose_picture(image, model.mesh, item.K, (item.R, item.t), seen)
        shift = model.mesh.vertices @ (R - item.R).T + (t - item.t)
        distance = np.linalg.norm(shift, axis=1).mean() / model.diameter
        name = f"{item.scene_id:06d}_{item.image_id:06d}"
        (folder / f"{name}_{index}.png").write_bytes(encode_image(picture, "png"))
        pictures.append(picture)
        caption = f"{name} ADD {100 * distance:.1f} % d" if ok else f"{name} failed"
        captions.append(f"object {item.object_id} {caption}" if len(source.objects) > 1 else caption)
    (folder / "overview.png").write_bytes(encode_image(picture_grid(pictures, captions), "png"))
