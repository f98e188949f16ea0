"""Evaluation on the boxes of a detector in place of the annotated ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from posegrad.data import Detection, Instance, best_detections
from posegrad.data.detections import box_overlap
from posegrad.train.errors import RunError
from posegrad.train.predictor import PosePredictor, Predictions

__all__ = ["in_detected_boxes", "match", "predict_detected"]


def match(instances: Sequence[Instance], detections: Iterable[Detection]) -> dict[int, Detection]:
    """Which detection stands for which instance, by the position of the instance; some may have none.

    As in the BOP challenge, an image with n instances of an object gets the n best-scored detections of that object,
    whether they hit it or not. Of several, the best-scored chooses first, the instance that it overlaps most.
    """
    offered: dict[tuple[int, int, int], list[Detection]] = defaultdict(list)
    for detection in detections:
        offered[detection.scene_id, detection.image_id, detection.object_id].append(detection)
    wanted: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for row, item in enumerate(instances):
        wanted[item.scene_id, item.image_id, item.object_id].append(row)
    matched: dict[int, Detection] = {}
    for key, rows in wanted.items():
        free = list(rows)
        for detection in best_detections(offered[key], len(rows)):
            row = max(free, key=lambda row: box_overlap(instances[row].bbox, detection.bbox))
            free.remove(row)
            matched[row] = detection
    return matched


def in_detected_boxes(instances: Sequence[Instance], detections: Sequence[Detection]) -> list[Instance]:
    """Instances with the boxes of the detections that stand for them; those without one keep their own."""
    matched = match(instances, detections)
    return [
        replace(item, bbox=matched[row].bbox) if row in matched else item
        for row, item in enumerate(instances)
    ]


def predict_detected(
    predictor: PosePredictor, instances: Sequence[Instance], detections: Sequence[Detection]
) -> Predictions:
    """Poses of instances in detected boxes; those without a detection are not ok, with the status `UNDETECTED`.

    Raises:
        RunError: there is no detection for any of them.
    """
    matched = match(instances, detections)
    if not matched:
        raise RunError(
            f"--detections: none of {len(detections)} is of an object and image that is tested: check scene_id, "
            f"image_id and category_id against the dataset"
        )
    rows = sorted(matched)
    boxed = [replace(instances[row], bbox=matched[row].bbox) for row in rows]
    found = predictor.on(boxed, [matched[row].score for row in rows])
    return found.placed(rows, len(instances))
