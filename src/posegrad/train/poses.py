"""Poses as a file of results of the BOP challenge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrad.data import Instance
from posegrad.train.files import write_bytes
from posegrad.train.predictor import Predictions

__all__ = ["PoseLine", "pose_lines", "write_poses"]

_HEADER = "scene_id,im_id,obj_id,score,R,t,time"


@dataclass(frozen=True)
class PoseLine:
    """One estimate: a line of the file.

    Attributes:
        scene_id, image_id, object_id: of the dataset.
        score: the higher the surer.
        R, t: (3, 3) and (3,), x_cam = R X + t, t in millimetres.
        time: seconds spent on the image, the same for all of its lines; -1: not measured.
    """

    scene_id: int
    image_id: int
    object_id: int
    score: float
    R: np.ndarray
    t: np.ndarray
    time: float = -1.0


def pose_lines(instances: Sequence[Instance], found: Predictions) -> list[PoseLine]:
    """Lines of predictions for instances; failed ones have none."""
    return [
        PoseLine(
            item.scene_id,
            item.image_id,
            item.object_id,
            float(found.score[row]),
            found.pose.R[row].numpy(),
            found.pose.t[row].numpy(),
        )
        for row, item in enumerate(instances)
        if bool(found.ok[row])
    ]


def write_poses(path: Path, lines: Iterable[PoseLine]) -> None:
    """Write a CSV as BOP's evaluation reads it: R row-major, 9 numbers, and t, mm, 3 numbers, separated by spaces."""
    rows = [_HEADER]
    for line in lines:
        R, t = (" ".join(f"{value:.9g}" for value in values.ravel().tolist()) for values in (line.R, line.t))
        ids = f"{line.scene_id},{line.image_id},{line.object_id}"
        rows.append(f"{ids},{line.score:.6g},{R},{t},{line.time:.6g}")
    write_bytes(path, ("\n".join(rows) + "\n").encode())
