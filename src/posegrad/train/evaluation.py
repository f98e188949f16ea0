"""Poses of a network on held-out images, their metrics, and the table beside a mean-pose baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from posegrad.data import CropDataset, Instance
from posegrad.nn import (
    KeypointPoseNet,
    add,
    adds,
    projection_2d,
    recall,
    recall_5cm_5deg,
    rotation_error_deg,
    translation_error,
)
from posegrad.pose import Pose
from posegrad.train.source import Source

__all__ = ["Predictions", "aligned", "item_errors", "mean_pose", "measure", "predict", "table", "true_poses"]

MM_PER_CM = 10.0
MAX_VERTICES = 2000


@dataclass(frozen=True)
class Predictions:
    """Poses for a list of instances, in its order.

    Attributes:
        pose: (M,) object to camera, mm.
        ok: (M,) False where PnP failed.
        points2d: (M, N, 2) predicted keypoints, full-image pixels.
        weights: (M, N) PnP weights.
        status: (M,) `pg.Status` of the solution.
    """

    pose: Pose
    ok: Tensor
    points2d: Tensor
    weights: Tensor
    status: Tensor


def true_poses(instances: Sequence[Instance]) -> Pose:
    """The annotated poses of instances, float64, mm."""
    R = torch.from_numpy(np.stack([i.R for i in instances]))
    return Pose(R, torch.from_numpy(np.stack([i.t for i in instances])))


def intrinsics(instances: Sequence[Instance]) -> Tensor:
    """(M, 3, 3) float64."""
    return torch.from_numpy(np.stack([i.K for i in instances]))


@torch.no_grad()
def predict(
    net: KeypointPoseNet,
    instances: Sequence[Instance],
    keypoints: np.ndarray,
    *,
    padding: float,
    batch_size: int = 64,
    precision: torch.dtype = torch.float32,
) -> Predictions:
    """Run a network on plain crops of instances; PnP starts from scratch, in float64.

    Args:
        net: put into evaluation mode for the call.
        keypoints: (N, 3) mm.
        padding: as in training.
        precision: of the convolutions.
    """
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    crops = CropDataset(instances, size=net.image_size, padding=padding)
    points3d = torch.from_numpy(keypoints).to(device)
    parts: list[tuple[Tensor, ...]] = []
    for batch in DataLoader(crops, batch_size):
        batch = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            seen = net(batch["image"])
        found = net.solve(seen, points3d, batch["K"], batch["full_from_crop"])
        points2d = seen.in_full_image(batch["full_from_crop"])
        parts.append((found.pose.R, found.pose.t, found.ok, points2d, seen.weights, found.status))
    net.train(was_training)
    R, t, *rest = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return Predictions(Pose(R, t), *rest)


def mean_pose(train: Sequence[Instance], test: Sequence[Instance], diameter: float) -> Pose:
    """Baseline that looks at the box only: mean training rotation, depth from the size of the box.

    The rotation is the chordal mean (the rotation nearest to the sum of the training rotations). The depth is
    `c f diameter / side`, with side the longer side of the box and c the median, over the training
    instances, of the true depth over the same expression without c; the box's centre gives the direction.
    """
    U, _, Vh = torch.linalg.svd(true_poses(train).R.sum(0))
    signs = torch.ones(3, dtype=U.dtype)
    signs[2] = torch.det(U @ Vh)
    R = U @ (signs[:, None] * Vh)

    def naive_depth(item: Instance) -> float:
        return float(np.sqrt(item.K[0, 0] * item.K[1, 1]) * diameter / max(item.bbox[2:]))

    ratio = float(np.median([item.t[2] / naive_depth(item) for item in train]))
    t = []
    for item in test:
        u, v = item.bbox[:2] + item.bbox[2:] / 2
        ray = np.linalg.solve(item.K, [u, v, 1.0])
        t.append(ray / ray[2] * naive_depth(item) * ratio)
    return Pose(R.expand(len(test), 3, 3), torch.from_numpy(np.stack(t)))


def item_errors(
    pose: Pose, source: Source, instances: Sequence[Instance], seed: int = 0
) -> dict[str, Tensor]:
    """Errors (M,) of each pose: ``add`` (``adds`` for symmetric objects) and ``translation`` in mm, ``rotation`` in
    degrees, ``projection`` in full-image pixels.

    ADD and projection errors are means over the mesh's vertices (at most 2000 of them, drawn by `seed`).
    """
    vertices = source.mesh.vertices
    everything = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64))
    if len(vertices) > MAX_VERTICES:
        chosen = np.random.default_rng(seed).choice(len(vertices), MAX_VERTICES, replace=False)
        vertices = vertices[np.sort(chosen)]
    points = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64))
    true = true_poses(instances)
    errors = {
        "add": add(pose, true, points),
        "rotation": rotation_error_deg(pose, true),
        "translation": translation_error(pose, true),
        "projection": projection_2d(pose, true, points, intrinsics(instances)),
    }
    if source.symmetric:
        errors["adds"] = adds(pose, true, points, neighbours=everything)
    return errors


def measure(
    pose: Pose, ok: Tensor, source: Source, instances: Sequence[Instance], seed: int = 0
) -> dict[str, float]:
    """Metrics of poses on instances: shares in percent, medians in degrees, mm and full-image pixels.

    Failed items count as wrong, and with an infinite error in the medians; see :func:`item_errors`.
    """
    errors = item_errors(pose, source, instances, seed)
    limit = 0.1 * source.diameter

    def median(name: str) -> float:
        # torch's takes the lower of two
        return float(np.median(torch.where(ok, errors[name], torch.inf).numpy()))

    result = {
        "add_01d": 100 * float(recall(errors["add"], limit, ok)),
        "projection_5px": 100 * float(recall(errors["projection"], 5.0, ok)),
        "cm5_deg5": 100 * float(recall_5cm_5deg(pose, true_poses(instances), cm=MM_PER_CM, ok=ok)),
        "median_rotation_deg": median("rotation"),
        "median_translation_mm": median("translation"),
        "median_projection_px": median("projection"),
        "failed": 100 * float((~ok).double().mean()),
        "count": len(instances),
    }
    if "adds" in errors:
        result["adds_01d"] = 100 * float(recall(errors["adds"], limit, ok))
    return result


COLUMNS = {
    "add_01d": ("ADD-0.1d", "%"),
    "adds_01d": ("ADD-S-0.1d", "%"),
    "projection_5px": ("2D-5px", "%"),
    "cm5_deg5": ("5cm5deg", "%"),
    "median_rotation_deg": ("rotation", "deg, median"),
    "median_translation_mm": ("translation", "mm, median"),
    "median_projection_px": ("2D", "px, median"),
    "failed": ("failed", "%"),
    "count": ("images", ""),
}
MEANINGS = {
    "add_01d": "share of images whose vertices are off by less than a tenth of the diameter, on average",
    "adds_01d": "the same with the nearest vertex in place of the same one, for objects with symmetries",
    "projection_5px": "share of images whose vertices, projected, are off by less than 5 px, on average",
    "cm5_deg5": "share of images with less than 5 cm and 5 degrees of error",
    "median_rotation_deg": "median angle between the true and the predicted rotation",
    "median_translation_mm": "median distance between the true and the predicted translation",
    "median_projection_px": "median of the mean distance of the projected vertices, full-image pixels",
    "failed": "share of images without a pose; they count as wrong, and with an infinite error in medians",
    "count": "images that were evaluated",
}


def cell(key: str, value: float | None) -> str:
    """A value of a column as text."""
    if value is None:
        return "-"
    return f"{value:.0f}" if key == "count" else f"{value:.2f}" if "median" in key else f"{value:.1f}"


def table(rows: dict[str, dict[str, float]]) -> str:
    """Rows of metrics as text with aligned columns, units in the second line."""
    keys = [key for key in COLUMNS if any(key in row for row in rows.values())]
    lines = [["", *(COLUMNS[k][0] for k in keys)], ["", *(COLUMNS[k][1] for k in keys)]]
    for name, row in rows.items():
        lines.append([name, *(cell(k, row[k]) for k in keys)])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of as many cells each as a table with aligned columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
