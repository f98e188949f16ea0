"""What decides the numbers of a run: a run is resumed with the settings and the crops that it began with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from posegrad.train.config import KEYPOINT_RULES, TrainConfig
from posegrad.train.source import Source

__all__ = ["contradiction", "data_hash", "settings_hash"]

# Where the files are, how fast a run is, and what becomes of pictures that nobody could have trained on.
_FREE = {
    *("root", "split", "extra_data", "cache", "weights", "out"),
    *("workers", "threads", "pictures", "checkpoint_minutes"),
    "skip_bad",
}
_OPTIONS = {"objects": "object"}


def _decisive(config: TrainConfig) -> Iterator[tuple[str, str, Any]]:
    for section, entries in dataclasses.asdict(config).items():
        for key, value in entries.items():
            if key == "keypoints_from" and value not in KEYPOINT_RULES:
                value = "a file"  # wherever it is: what it says is in the hash of the data
            if key not in _FREE:
                yield section, key, value


def settings_hash(config: TrainConfig) -> str:
    """Hash of the settings that decide the numbers of a run; defaults are left out, so that new ones change nothing."""
    default = set(map(str, _decisive(TrainConfig())))
    chosen = sorted(entry for entry in map(str, _decisive(config)) if entry not in default)
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()


def contradiction(config: TrainConfig, stored: TrainConfig) -> str | None:
    """The first option that decides the numbers and differs, with both values; None: none does."""
    for (_, key, mine), (_, _, theirs) in zip(_decisive(config), _decisive(stored), strict=True):
        if mine != theirs:
            option = _OPTIONS.get(key, key).replace("_", "-")
            return f"--{option}: got {mine}, but the run to resume has {theirs}"
    return None


def data_hash(source: Source) -> str:
    """Hash of which crops are trained on, of their annotations and of the keypoints, wherever the files lie."""
    digest = hashlib.sha256()
    for points in source.keypoints.values():
        digest.update(np.ascontiguousarray(points, dtype=np.float64).tobytes())
    for item in [*source.train, *source.extra]:
        digest.update(np.array([item.scene_id, item.image_id, item.object_id], dtype=np.int64).tobytes())
        for values in (item.K, item.R, item.t, item.bbox):
            digest.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    return digest.hexdigest()
