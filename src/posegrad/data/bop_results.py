"""Estimated poses (scene_id,im_id,obj_id,score,R,t,time) and what is to be estimated, as files of the BOP challenge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.errors import DatasetError, DatasetFileError
from posegrad.data.json_files import read_json

HEADER = "scene_id,im_id,obj_id,score,R,t,time"
ORTHOGONAL = 1e-2  # what rounding to a few digits leaves of a rotation matrix; a scale or a shear is more


@dataclass(frozen=True)
class PoseEstimate:
    """One line of a results file.

    Args:
        scene_id, image_id, object_id: as in the dataset.
        score: confidence, higher is better; any finite number.
        R, t: (3, 3) and (3,) float64, object to camera, x_cam = R X + t, t in millimetres.
        time: seconds spent on the whole picture (the same in all of its lines); -1: not measured.

    >>> estimate = PoseEstimate(2, 17, 1, 0.9, np.eye(3), np.array([0.0, 0, 800]))
    >>> estimate.time
    -1.0
    """

    scene_id: int
    image_id: int
    object_id: int
    score: float
    R: np.ndarray
    t: np.ndarray
    time: float = -1.0


@dataclass(frozen=True)
class PoseTarget:
    """What a method is asked for: the poses of `count` instances of an object in a picture.

    >>> PoseTarget(scene_id=2, image_id=17, object_id=1, count=1).count
    1
    """

    scene_id: int
    image_id: int
    object_id: int
    count: int


def read_bop_targets(path: str | Path) -> list[PoseTarget]:
    """Reads a list of targets, such as a dataset's test_targets_bop19.json.

    Raises:
        DatasetError: not JSON, or an entry that lacks one of the four numbers; DatasetFileError: no such file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "targets.json"
    ...     _ = path.write_text('[{"im_id": 17, "inst_count": 1, "obj_id": 1, "scene_id": 2}]')
    ...     read_bop_targets(path)
    [PoseTarget(scene_id=2, image_id=17, object_id=1, count=1)]
    """
    path, names = Path(path), ("scene_id", "im_id", "obj_id", "inst_count")
    content, found = read_json(path), []
    for number, entry in enumerate(content if isinstance(content, list) else [content]):
        values: list[Any] = [entry.get(name) if isinstance(entry, dict) else None for name in names]
        if not all(type(value) is int and value >= 0 for value in values):
            raise DatasetError(
                f"{path}, entry {number}: expected integers {', '.join(names)}, got {str(entry)[:80]}."
            )
        found.append(PoseTarget(*values))
    return found


def write_bop_results(path: str | Path, estimates: Iterable[PoseEstimate]) -> None:
    """Writes a results file; every number reads back as it was.

    The challenge wants the name METHOD_DATASET-SPLIT.csv.

    Raises:
        ValueError: an estimate is not finite; it would be a file that no one can read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine_lmo-test.csv"
    ...     write_bop_results(path, [PoseEstimate(2, 17, 1, 0.9, np.eye(3), np.array([0.0, 0, 800]))])
    ...     print(path.read_text().splitlines()[1])
    ...     read_bop_results(path)[0].t
    2,17,1,0.9,1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0,0.0 0.0 800.0,-1.0
    array([  0.,   0., 800.])
    """
    Path(path).write_text(bop_results_text(estimates))


def bop_results_text(estimates: Iterable[PoseEstimate]) -> str:
    """The content of such a file."""
    lines = [HEADER]
    for number, item in enumerate(estimates):
        R = np.asarray(item.R, dtype=np.float64).reshape(9)
        t = np.asarray(item.t, dtype=np.float64).reshape(3)
        if not np.isfinite([item.score, item.time, *R, *t]).all():
            raise ValueError(
                f"estimates[{number}]: score, R, t and time must be finite: leave failed poses out; got {item}."
            )
        cells = [item.scene_id, item.image_id, item.object_id, float(item.score)]
        texts = [str(cell) for cell in cells]
        texts += [" ".join(repr(float(x)) for x in values) for values in (R, t)]
        lines.append(",".join([*texts, repr(float(item.time))]))
    return "\n".join(lines) + "\n"


def read_bop_results(path: str | Path) -> list[PoseEstimate]:
    """Reads a results file, in its order; the line of names at its top may be absent.

    Raises:
        DatasetError: a line cannot be read; the message says which, and what is wrong.
        DatasetFileError: no such file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "theirs_lmo-test.csv"
    ...     _ = path.write_text("2,17,1,0.9,1 0 0 0 1 0 0 0 1,0 0 800,-1")
    ...     read_bop_results(path)[0].score
    0.9
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetFileError(f"No results file {path}: check the path.")
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not a text file ({error}): expected lines of {HEADER}.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.replace(" ", "").startswith("scene_id")):
            continue
        try:
            found.append(_parse(line))
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: {error}.") from error
    return found


def _parse(line: str) -> PoseEstimate:
    cells = line.split(",")
    if len(cells) != 7:
        raise ValueError(f"expected 7 cells ({HEADER}), got {len(cells)}")
    scene, image, thing = (
        _whole(cell, name) for cell, name in zip(cells, ("scene_id", "im_id", "obj_id"), strict=False)
    )
    (score,), R = _numbers(cells[3], 1, "score"), _numbers(cells[4], 9, "R").reshape(3, 3)
    t, (time,) = _numbers(cells[5], 3, "t"), _numbers(cells[6], 1, "time")
    if np.abs(R @ R.T - np.eye(3)).max() > ORTHOGONAL or np.linalg.det(R) < 0:
        raise ValueError(f"R is no rotation matrix (9 numbers, row-major), got {cells[4].strip()}")
    return PoseEstimate(scene, image, thing, float(score), R, t, float(time))


def _whole(cell: str, name: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise ValueError(f"{name}: expected an integer, got {cell.strip()!r}") from None


def _numbers(cell: str, count: int, name: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in cell.split()])
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        many = "a finite number" if count == 1 else f"{count} finite numbers separated by blanks"
        raise ValueError(f"{name}: expected {many}, got {cell.strip()!r}")
    return values
