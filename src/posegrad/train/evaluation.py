"""Metrics of poses on held-out images, per object and on average, and the table beside a mean-pose baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from posegrad.data import Instance
from posegrad.nn import (
    add,
    adds,
    nearest_symmetric_pose,
    projection_2d,
    recall,
    rotation_error_deg,
    translation_error,
)
from posegrad.pose import Pose
from posegrad.projection import project_points
from posegrad.train.predictor import UNDETECTED, Predictions
from posegrad.train.source import ObjectModel, Source

__all__ = [
    "MEAN_POSE",
    "NETWORK",
    "aligned",
    "cell",
    "compare",
    "item_errors",
    "mean_pose",
    "mean_row",
    "measure",
    "table",
    "true_poses",
]

NETWORK, MEAN_POSE = "posegrad", "mean pose"
"""Rows of the tables."""
Row = dict[str, float]

MM_PER_CM = 10.0
MAX_VERTICES = 2000


def true_poses(instances: Sequence[Instance]) -> Pose:
    """The annotated poses of instances, float64, mm."""
    R = torch.from_numpy(np.stack([i.R for i in instances]))
    return Pose(R, torch.from_numpy(np.stack([i.t for i in instances])))


def intrinsics(instances: Sequence[Instance]) -> Tensor:
    """(M, 3, 3) float64."""
    return torch.from_numpy(np.stack([i.K for i in instances]))


def _nearest_true_poses(pose: Pose, model: ObjectModel, instances: Sequence[Instance]) -> Pose:
    """Of the poses that look like the annotated one, that which is nearest to the estimate in the image."""
    true, K = true_poses(instances), intrinsics(instances)
    if not model.symmetric:
        return true
    keypoints = torch.from_numpy(model.keypoints)
    symmetries = Pose(*map(torch.from_numpy, model.symmetries))
    return nearest_symmetric_pose(project_points(keypoints, K, pose), keypoints, K, true, symmetries)


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
    pose: Pose, model: ObjectModel, instances: Sequence[Instance], seed: int = 0
) -> dict[str, Tensor]:
    """Errors (M,) of poses of one object: ``add`` (and ``adds``, of a symmetric one) and ``translation`` in mm,
    ``rotation`` in degrees, ``projection`` in full-image pixels.

    ADD and projection errors are means over the mesh's vertices (at most 2000 of them, drawn by `seed`). Of a symmetric
    object, all but ADD are from the nearest of the poses that look like the annotated one.
    """
    vertices = model.mesh.vertices
    everything = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64))
    if len(vertices) > MAX_VERTICES:
        chosen = np.random.default_rng(seed).choice(len(vertices), MAX_VERTICES, replace=False)
        vertices = vertices[np.sort(chosen)]
    points = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64))
    true = true_poses(instances)
    nearest = _nearest_true_poses(pose, model, instances)
    errors = {
        "add": add(pose, true, points),
        "rotation": rotation_error_deg(pose, nearest),
        "translation": translation_error(pose, nearest),
        "projection": projection_2d(pose, nearest, points, intrinsics(instances)),
    }
    if model.symmetric:
        errors["adds"] = adds(pose, true, points, neighbours=everything)
    return errors


def measure(pose: Pose, ok: Tensor, model: ObjectModel, instances: Sequence[Instance], seed: int = 0) -> Row:
    """Metrics of poses on instances of one object: shares in percent, medians in degrees, mm and full-image pixels.

    Failed items count as wrong, and with an infinite error in the medians; see :func:`item_errors`.
    """
    errors = item_errors(pose, model, instances, seed)
    turned_little = torch.where(errors["rotation"] < 5, errors["translation"], torch.inf)
    limit = 0.1 * model.diameter

    def median(name: str) -> float:
        # torch's takes the lower of two
        return float(np.median(torch.where(ok, errors[name], torch.inf).numpy()))

    result = {
        "add_01d": 100 * float(recall(errors["add"], limit, ok)),
        "projection_5px": 100 * float(recall(errors["projection"], 5.0, ok)),
        "cm5_deg5": 100 * float(recall(turned_little, 5 * MM_PER_CM, ok)),
        "median_rotation_deg": median("rotation"),
        "median_translation_mm": median("translation"),
        "median_projection_px": median("projection"),
        "failed": 100 * float((~ok).double().mean()),
        "count": len(instances),
    }
    if "adds" in errors:
        result["adds_01d"] = 100 * float(recall(errors["adds"], limit, ok))
    return result


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean over objects of every metric that all of them have; `count` is the number of all images.

    Of several objects, "add_or_adds_01d" counts symmetric ones by ADD-S and the others by ADD: ADD(-S), as
    published tables do. Of a single one, its own row.
    """
    if len(rows) == 1:
        return rows[0]
    rows = [{**row, "add_or_adds_01d": row.get("adds_01d", row["add_01d"])} for row in rows]
    shared = [key for key in rows[0] if all(key in row for row in rows)]
    return {
        key: sum(row[key] for row in rows) if key == "count" else float(np.mean([row[key] for row in rows]))
        for key in shared
    }


def compare(source: Source, found: Predictions) -> dict[str, dict[str, Row]]:
    """Metrics of predictions for the test instances and of the mean-pose baseline, by object id, then by row.

    Where some instances lack a box, "undetected" is their share in percent; they count as failed, too.
    """
    detected = found.status != UNDETECTED
    result: dict[str, dict[str, Row]] = {}
    for object_id, model in source.objects.items():
        rows = [k for k, item in enumerate(source.test) if item.object_id == object_id]
        train = [item for item in source.train if item.object_id == object_id]
        test = [source.test[k] for k in rows]
        if not test:
            continue
        pose = Pose(found.pose.R[rows], found.pose.t[rows])
        network = measure(pose, found.ok[rows], model, test)
        if not bool(detected.all()):
            network["undetected"] = 100 * float((~detected[rows]).double().mean())
        everything = torch.ones(len(test), dtype=torch.bool)
        baseline = measure(mean_pose(train, test, model.diameter), everything, model, test)
        result[str(object_id)] = {NETWORK: network, MEAN_POSE: baseline}
    return result


COLUMNS = {
    "add_01d": ("ADD-0.1d", "%"),
    "adds_01d": ("ADD-S-0.1d", "%"),
    "add_or_adds_01d": ("ADD(-S)-0.1d", "%"),
    "projection_5px": ("2D-5px", "%"),
    "cm5_deg5": ("5cm5deg", "%"),
    "median_rotation_deg": ("rotation", "deg, median"),
    "median_translation_mm": ("translation", "mm, median"),
    "median_projection_px": ("2D", "px, median"),
    "failed": ("failed", "%"),
    "undetected": ("undetected", "%"),
    "count": ("images", ""),
}
MEANINGS = {
    "add_01d": "share of images whose vertices are off by less than a tenth of the diameter, on average",
    "adds_01d": "the same with the nearest vertex in place of the same one, for objects with symmetries",
    "add_or_adds_01d": "ADD-S-0.1d of objects with symmetries, ADD-0.1d of the others",
    "projection_5px": "share of images whose vertices, projected, are off by less than 5 px, on average",
    "cm5_deg5": "share of images with less than 5 cm and 5 degrees of error",
    "median_rotation_deg": "median angle between the true and the predicted rotation; of objects with symmetries, like "
    "all but ADD, from the nearest of the poses that look the same",
    "median_translation_mm": "median distance between the true and the predicted translation",
    "median_projection_px": "median of the mean distance of the projected vertices, full-image pixels",
    "failed": "share of images without a pose; they count as wrong, and with an infinite error in medians",
    "undetected": "share of images without a box, which count as failed, too",
    "count": "images that were evaluated",
}
"""What the columns say."""


def table(rows: Mapping[str, Row], objects: Mapping[str, Mapping[str, Row]] | None = None) -> str:
    """Rows of metrics as text with aligned columns, units in the second line.

    Of several objects (see `compare`), the network's row of each comes first.
    """
    named = dict(rows)
    if objects is not None and len(objects) > 1:
        named = {f"object {object_id}": parts[NETWORK] for object_id, parts in objects.items()}
        named |= {f"{name}, mean": row for name, row in rows.items()}
    keys = [key for key in COLUMNS if any(key in row for row in named.values())]
    lines = [["", *(COLUMNS[k][0] for k in keys)], ["", *(COLUMNS[k][1] for k in keys)]]
    lines += [[name, *(cell(key, row.get(key)) for key in keys)] for name, row in named.items()]
    return aligned(lines)


def cell(key: str, value: float | None) -> str:
    """A value of a column as text; empty where a row has none."""
    if value is None:
        return ""
    return f"{value:.0f}" if key == "count" else f"{value:.2f}" if "median" in key else f"{value:.1f}"


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
