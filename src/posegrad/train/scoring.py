"""Scores of the BOP challenge for a file of estimated poses, of this package or of any other method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.spatial import KDTree

from posegrad.data import (
    BopDataset,
    DatasetError,
    Instance,
    PoseEstimate,
    PoseTarget,
    load_image,
    read_bop_results,
    read_bop_targets,
)
from posegrad.data.json_files import read_json_object
from posegrad.nn import MSPD_THRESHOLDS, MSSD_THRESHOLDS, add, mspd, mssd
from posegrad.pose import Pose
from posegrad.train.evaluation import aligned, intrinsics, true_poses

__all__ = ["Scores", "ScoresReport", "bop_scores", "score"]

TARGETS = "test_targets_bop19.json"
_VISIBLE = 0.1
_ADD_THRESHOLDS = (0.1,)  # in diameters
_THRESHOLDS = {
    "mssd": MSSD_THRESHOLDS,
    "mspd": MSPD_THRESHOLDS,
    "add": _ADD_THRESHOLDS,
    "adds": _ADD_THRESHOLDS,
}
_Key = tuple[int, int, int]


@dataclass(frozen=True)
class Scores:
    """Shares in [0, 1] of `count` instances.

    Attributes:
        mssd, mspd: average recalls over BOP's ten thresholds each.
        add: share with ADD < 0.1 diameter. adds: the same, by ADD-S for the symmetric objects.
    """

    count: int
    mssd: float
    mspd: float
    add: float
    adds: float


def bop_scores(
    dataset: BopDataset, results: Iterable[PoseEstimate], targets: Sequence[PoseTarget] | None = None
) -> dict[int | None, Scores]:
    """Average recalls of MSSD and MSPD and the share of correct ADD(-S), as the BOP challenge counts them.

    Of each target the `count` estimates of the highest score are matched to the `count` most visible annotated
    instances, for every threshold anew: in the order of their scores, each to the nearest that is left below the
    threshold. A recall is the share of instances so found, over all targets. ADD and ADD-S are matched in the same way.

    Args:
        dataset: with the folder of the scenes to score, meshes and models_info.json.
        results: estimates; those of no target are left out.
        targets: None: those of test_targets_bop19.json in the dataset's folder; without such a file every annotated
            instance that is at least a tenth visible, which is the rule of those lists.

    Returns:
        Scores by object id, and under None those of all targets together: BOP's AR_MSSD and AR_MSPD.

    Raises:
        DatasetError: a target is not annotated, no estimate is of any target, or there is no target.

    Reference:
        Hodan et al., "BOP Challenge 2020 on 6D Object Localization", ECCVW 2020, section 2.

    >>> import tempfile
    >>> from posegrad.data import Annotation, BopWriter, Mesh
    >>> label = Annotation(1, np.eye(3), np.array([0.0, 0, 500]), (79, 59, 24, 24), (79, 59, 24, 12), 288, 144)
    >>> K = np.array([[500.0, 0, 80], [0, 500, 60], [0, 0, 1]])
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with BopWriter(root, "test") as writer:
    ...         writer.add_model(1, Mesh(40 * np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])))
    ...         writer.add_frame(1, 0, np.zeros((120, 160, 3), np.uint8), K, [label])
    ...     mine = PoseEstimate(1, 0, 1, 0.9, np.eye(3), np.array([0.0, 0, 520]))  # 0.35 diameters too far
    ...     scores = bop_scores(BopDataset(root), [mine], [PoseTarget(1, 0, 1, count=1)])
    >>> scores[None].mssd, scores[None].mspd, scores[None].add
    (0.3, 0.9, 0.0)
    """
    targets = _default_targets(dataset) if targets is None else targets
    wanted = {(t.scene_id, t.image_id, t.object_id): t.count for t in targets}
    if not wanted:
        raise DatasetError(f"{dataset.root}: the list of targets is empty: nothing is to be scored.")
    estimates: dict[_Key, list[PoseEstimate]] = {key: [] for key in wanted}
    strangers = 0
    for item in results:
        key = (item.scene_id, item.image_id, item.object_id)
        if key in wanted:
            estimates[key].append(item)
        else:
            strangers += 1
    if strangers and not any(estimates.values()):
        raise DatasetError(
            f"None of the {strangers} estimates is of one of the {len(wanted)} targets of {dataset.root}: "
            f"are they of another dataset, or of other scenes?"
        )
    scale = 640 / _image_width(dataset)
    tallies = {}
    for object_id in sorted({key[2] for key in wanted}):
        own = {key: count for key, count in wanted.items() if key[2] == object_id}
        tallies[object_id] = _tally(dataset, object_id, own, estimates, scale)
    counts = {object_id: count for object_id, (count, _) in tallies.items()}
    scores: dict[int | None, Scores] = {i: _scores(counts[i], found) for i, (_, found) in tallies.items()}
    together = {name: np.sum([found[name] for _, found in tallies.values()], 0) for name in _THRESHOLDS}
    scores[None] = _scores(sum(counts.values()), together)
    return scores


def _default_targets(dataset: BopDataset) -> list[PoseTarget]:
    """The dataset's list, or what it would hold."""
    if (dataset.root / TARGETS).is_file():
        return read_bop_targets(dataset.root / TARGETS)
    counts = Counter(
        (item.scene_id, item.image_id, object_id)
        for object_id in dataset.object_ids
        for item in dataset.annotations(object_id)
        if item.visibility >= _VISIBLE
    )
    return [PoseTarget(*key, count=count) for key, count in sorted(counts.items())]


def _scores(count: int, found: dict[str, np.ndarray]) -> Scores:
    return Scores(count, **{name: float((found[name] / max(count, 1)).mean()) for name in _THRESHOLDS})


def _tally(
    dataset: BopDataset,
    object_id: int,
    wanted: dict[_Key, int],
    estimates: dict[_Key, list[PoseEstimate]],
    scale: float,
) -> tuple[int, dict[str, np.ndarray]]:
    """Instances to be found of an object, and by metric how many were, (thresholds,)."""
    annotated: dict[_Key, list[Instance]] = {key: [] for key in wanted}
    for item in dataset.annotations(object_id, {key[1] for key in wanted}):
        key = (item.scene_id, item.image_id, object_id)
        if key in annotated:
            annotated[key].append(item)
    if missing := [key for key in wanted if not annotated[key]]:
        scene, image, _ = missing[0]
        raise DatasetError(
            f"{dataset.root / dataset.split_folder}: object {object_id} is not annotated in scene {scene}, image "
            f"{image}, but is a target there: is it the folder that the targets are of?"
        )
    blocks = []  # estimates by instances, of each target
    instances = 0
    for key, count in wanted.items():
        visible = sorted(annotated[key], key=lambda item: -item.visibility)[:count]
        best = sorted(estimates[key], key=lambda item: -item.score)[:count]
        instances += len(visible)
        if best:
            blocks.append((best, visible))
    matched = {name: np.zeros(len(limits), dtype=np.int64) for name, limits in _THRESHOLDS.items()}
    pairs = [(one, other) for best, visible in blocks for one in best for other in visible]
    if not pairs:
        return instances, matched
    errors = _errors(dataset, object_id, pairs, scale)
    start = 0
    for best, visible in blocks:
        shape, stop = (len(best), len(visible)), start + len(best) * len(visible)
        for name, thresholds in _THRESHOLDS.items():
            matched[name] += count_matches(errors[name][start:stop].reshape(shape), thresholds)
        start = stop
    return instances, matched


def count_matches(errors: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """How many instances are found below each threshold: (estimates by falling score, instances) -> (thresholds,).

    >>> count_matches(np.array([[0.2, 0.1], [9.0, 0.2]]), [0.05, 0.15, 0.25])
    array([0, 1, 1])
    """
    counts = []
    for threshold in thresholds:
        free = np.ones(errors.shape[1], dtype=bool)
        for estimate in np.where(errors < threshold, errors, np.inf):
            nearest = int(np.where(free, estimate, np.inf).argmin())
            if estimate[nearest] < threshold:
                free[nearest] = False
        counts.append(int((~free).sum()))
    return np.array(counts)


def _errors(
    dataset: BopDataset, object_id: int, pairs: list[tuple[PoseEstimate, Instance]], scale: float
) -> dict[str, np.ndarray]:
    """Of each pair of estimate and annotation: MSSD, ADD, ADD(-S) in diameters, MSPD in pixels of a 640 px image."""
    instances = [instance for _, instance in pairs]
    true, K = true_poses(instances), intrinsics(instances)
    R = torch.from_numpy(np.stack([estimate.R for estimate, _ in pairs]))
    pose = Pose(R, torch.from_numpy(np.stack([estimate.t for estimate, _ in pairs])))
    symmetries = Pose(*map(torch.from_numpy, dataset.symmetries(object_id)))
    vertices, diameter = dataset.load_mesh(object_id).vertices, dataset.diameter(object_id)
    points = torch.from_numpy(vertices)
    found = {
        "mssd": mssd(pose, true, points, symmetries) / diameter,
        "mspd": mspd(pose, true, points, K, symmetries) * scale,
        "add": add(pose, true, points) / diameter,
    }
    errors = {name: value.numpy() for name, value in found.items()}
    symmetric = dataset.is_symmetric(object_id)
    errors["adds"] = _adds(pose, true, vertices) / diameter if symmetric else errors["add"]
    return errors


def _adds(pose: Pose, true: Pose, vertices: np.ndarray) -> np.ndarray:
    """ADD-S of many poses of a mesh: one tree of its vertices, in which the true points are looked up."""
    tree = KDTree(vertices)
    moved = (pose.inverse() @ true).act(torch.from_numpy(vertices)).numpy()
    return np.stack([tree.query(points)[0].mean() for points in moved])


def _image_width(dataset: BopDataset) -> int:
    path = dataset.root / "camera.json"
    if path.is_file() and isinstance(width := read_json_object(path).get("width"), int) and width > 0:
        return width
    picture = next(
        (
            item.image_path
            for i in dataset.object_ids
            for item in dataset.annotations(i)
            if item.image_path.is_file()
        ),
        None,
    )
    if picture is None:
        raise DatasetError(
            f'{dataset.root}: no camera.json with a "width", and no picture: restore one of them.'
        )
    return load_image(picture).shape[1]


@dataclass(frozen=True)
class ScoresReport:
    """Scores by object id (None: all targets), and the table that shows them in percent."""

    scores: dict[int | None, Scores]
    table: str


def score(
    results: tyro.conf.Positional[Path],
    data: Path,
    folder: str = "test",
    targets: Path | None = None,
) -> ScoresReport:
    """Score a file of estimated poses by the metrics of the BOP challenge.

    Args:
        results: CSV file scene_id,im_id,obj_id,score,R,t,time.
        data: Dataset folder in BOP layout.
        folder: Folder of the annotated scenes in it.
        targets: JSON list of what is to be estimated; None: test_targets_bop19.json of the dataset, or without one, all
            that is annotated and at least a tenth visible.

    Raises:
        DatasetError: a file is absent or damaged.
    """
    dataset = BopDataset(data, folder)
    wanted = None if targets is None else read_bop_targets(targets)
    scores = bop_scores(dataset, read_bop_results(results), wanted)
    lines = [
        ["object", "AR_MSSD", "AR_MSPD", "ADD-0.1d", "ADD(-S)-0.1d", "targets"],
        ["", "%", "%", "%", "%", ""],
    ]
    for object_id, row in scores.items():
        cells = [f"{100 * getattr(row, name):.2f}" for name in _THRESHOLDS]
        lines.append(["all" if object_id is None else str(object_id), *cells, str(row.count)])
    table = aligned(lines)
    if targets is None and not (data / TARGETS).is_file():
        table += f"\n\n{data} has no {TARGETS}: targets are all annotated instances that are at least a tenth visible"
    return ScoresReport(scores, table)
