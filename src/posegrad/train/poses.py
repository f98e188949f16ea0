"""Poses of a run as a file of results of the BOP challenge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from posegrad.data import Detection, Instance, PoseEstimate
from posegrad.data.bop_results import bop_results_text
from posegrad.train.files import write_bytes
from posegrad.train.predictor import Predictions

__all__ = ["pose_lines", "write_poses"]


def pose_lines(
    looked: Sequence[Instance | Detection], found: Predictions, seconds: float = -1.0
) -> list[PoseEstimate]:
    """Lines of predictions, in the order of where was looked; failed ones have none. Seconds are of the whole image,
    -1 where nobody took the time."""
    return [
        PoseEstimate(
            item.scene_id,
            item.image_id,
            item.object_id,
            float(found.score[row]),
            found.pose.R[row].numpy(),
            found.pose.t[row].numpy(),
            seconds,
        )
        for row, item in enumerate(looked)
        if bool(found.ok[row])
    ]


def write_poses(path: Path, lines: Iterable[PoseEstimate]) -> None:
    """Write them as BOP's evaluation reads them; a full disk is one line and leaves no half file."""
    write_bytes(path, bop_results_text(lines).encode())
