"""Boxes of a detector, in the format of the BOP challenge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrad.data.errors import DatasetError
from posegrad.data.json_files import read_json
from posegrad.data.plausibility import as_float, numbers, short


@dataclass(frozen=True)
class Detection:
    """A box in which a detector sees an object.

    Args:
        scene_id, image_id, object_id: the ids of the dataset.
        bbox: (4,) float64, (x, y, w, h), full-image pixels.
        score: the detector's confidence, the higher the surer.

    >>> Detection(1, 0, 5, np.array([60.0, 40, 20, 30]), 0.9).score
    0.9
    """

    scene_id: int
    image_id: int
    object_id: int
    bbox: np.ndarray
    score: float


def read_detections(path: str | Path) -> list[Detection]:
    """Detections of a file in BOP's (COCO-like) format, in its order.

    A JSON list of {"scene_id", "image_id", "category_id": object id, "bbox": [x, y, w, h], "score"}; other entries
    (time, segmentation) are ignored. A missing score is 1.

    Raises:
        DatasetError: no such file, other content, or a box without extent, with its place in the list.

    >>> import tempfile
    >>> entry = '{"scene_id": 1, "image_id": 0, "category_id": 5, "bbox": [60, 40, 20, 30], "score": 0.9}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "detections.json"
    ...     _ = path.write_text(f"[{entry}]")
    ...     read_detections(path)[0].bbox
    array([60., 40., 20., 30.])
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, list):
        raise DatasetError(
            f'{path}: expected a list of {{"scene_id", "image_id", "category_id", "bbox", "score"}}, as BOP '
            f"detections are, got a {type(content).__name__}."
        )
    return [_detection(entry, f"{path}, entry {number}") for number, entry in enumerate(content)]


def _detection(entry: object, place: str) -> Detection:
    if not isinstance(entry, dict):
        raise DatasetError(f"{place}: expected a JSON object, got {short(entry)}.")
    ids: list[int] = []
    for key in ("scene_id", "image_id", "category_id"):
        if type(entry.get(key)) is not int:
            raise DatasetError(f"{place}: {key} is {short(entry.get(key))}: write an integer.")
        ids.append(entry[key])
    try:
        bbox = numbers(entry.get("bbox"), 4)
    except ValueError as error:
        raise DatasetError(f"{place}: bbox: {error}: write [x, y, w, h], pixels.") from error
    if not (np.isfinite(bbox).all() and min(bbox[2:]) > 0):
        raise DatasetError(
            f"{place}: bbox is {short(entry['bbox'])}: write [x, y, w, h], pixels, w and h > 0."
        )
    score = as_float(entry.get("score", 1.0))
    if not np.isfinite(score):
        raise DatasetError(
            f"{place}: score is {short(entry['score'])}: write a number, the higher the surer."
        )
    scene_id, image_id, object_id = ids
    return Detection(scene_id, image_id, object_id, bbox, score)


def best_detections(detections: Iterable[Detection], count: int) -> list[Detection]:
    """The `count` of highest score, the best first; of equal ones the first.

    >>> box = np.ones(4)
    >>> [d.score for d in best_detections([Detection(1, 0, 5, box, s) for s in (0.2, 0.9, 0.5)], 2)]
    [0.9, 0.5]
    """
    return sorted(detections, key=lambda detection: -detection.score)[:count]


def box_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x, y, w, h), in [0, 1].

    >>> box_overlap(np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 2, 2])).__round__(4)
    0.3333
    """
    corner = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(corner.clip(min=0).prod())
    return shared / float(a[2:].prod() + b[2:].prod() - shared)
