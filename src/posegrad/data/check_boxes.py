"""Checking the boxes of a scene's objects against those of the projected meshes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.findings import Findings

Size = tuple[int, int]
"""(width, height) of a picture."""
SLACK = 3.0
"""Pixels by which boxes may differ without a word: of rounding, and of the two conventions of a box's width."""
_MOST_OFF, _ONE_OFF = 0.02, 0.15
"""By how much a box may be off the projected mesh, in longer sides: in the median of a scene, and in one frame. In
published datasets it is next to nothing."""


@dataclass(frozen=True)
class Entry:
    """One annotated object: its pose and intrinsics are None where they cannot be right."""

    frame: int
    number: int
    object_id: int
    pose: tuple[np.ndarray, np.ndarray] | None
    K: np.ndarray | None


@dataclass(frozen=True)
class Scene:
    """What was read of a scene's annotations; `info` by frame, None where the file is absent or broken."""

    folder: Path
    frames: dict[int, list[Entry]]
    info: dict[int, Any] | None


def compare_boxes(
    path: Path,
    object_id: int,
    boxes: list[tuple[Entry, np.ndarray]],
    hull: np.ndarray,
    sizes: dict[int, Size],
    findings: Findings,
) -> None:
    """The boxes against those of the projected mesh; where most disagree, what would make them agree."""
    found = [(e, b) for e, b in boxes if e.pose is not None and e.K is not None]
    if not found:
        return

    def misfit(change: Callable[[Entry, np.ndarray], tuple[Entry, np.ndarray]]) -> np.ndarray:
        pairs = [change(e, b) for e, b in found]
        return np.array([_misfit(e, b, hull, sizes.get(e.frame)) for e, b in pairs])

    given = misfit(lambda entry, box: (entry, box))
    everywhere = bool(np.median(given) > _MOST_OFF)
    fix = "pose, intrinsics, mesh or box is of something else: posegrad data show draws them"
    if everywhere:
        for words, change in _GUESSES:
            if np.median(misfit(change)) <= _MOST_OFF:
                fix = f"they agree if {words}"
                break
    for (entry, _), off in zip(found, given, strict=True):
        if off > (_MOST_OFF if everywhere else _ONE_OFF):
            findings.add(
                path, f"projection {object_id}",
                f"object {object_id}: the projected mesh is not where bbox_obj of scene_gt_info.json says", fix,
                entry.frame,
            )  # fmt: skip


def _misfit(entry: Entry, box: np.ndarray, hull: np.ndarray, size: Size | None) -> float:
    """By how much the sides of a box and of that of the projected points differ at most, beyond some pixels, both cut
    at the picture: in longer sides."""
    assert entry.pose is not None
    assert entry.K is not None
    R, t = entry.pose
    camera = hull @ R.T + t
    if camera[:, 2].min() <= 0:
        return np.inf
    pixels = camera @ entry.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    a = np.concatenate([pixels.min(0), pixels.max(0)])
    b = np.concatenate([box[:2], box[:2] + box[2:]])
    if size is not None:
        a, b = (np.clip(corners, 0, np.tile(size, 2)) for corners in (a, b))
    longer = max(*(a[2:] - a[:2]), *(b[2:] - b[:2]), 1.0)
    return float(max(np.abs(a - b).max() - SLACK, 0) / longer)


_GUESSES = (
    (
        "cam_R_m2c is column-major; transpose it",
        lambda e, box: (replace(e, pose=(e.pose[0].T, e.pose[1])), box),
    ),
    (
        "the poses are those of the camera in the object's frame; invert them",
        lambda e, box: (replace(e, pose=(e.pose[0].T, -e.pose[0].T @ e.pose[1])), box),
    ),
    (
        "the boxes are [x0, y0, x1, y1]; write [x, y, w, h]",
        lambda e, box: (e, np.concatenate([box[:2], box[2:] - box[:2]])),
    ),
)
