"""What a report shows, gathered: errors by object, examples from best to worst, statuses, machine."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posegrad.data import Instance, crop_affine, load_image
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems.pnp import PnPSolution
from posegrad.train.evaluation import item_errors, mean_pose
from posegrad.train.predictor import UNDETECTED, PosePredictor, Predictions
from posegrad.train.source import ObjectModel, Source
from posegrad.viz.closeup import SIDE, Closeup

__all__ = [
    "Errors",
    "Example",
    "environment",
    "errors_by_object",
    "examine",
    "examples",
    "keypoint_covariances",
    "metric_of",
    "statuses",
]

_PACKAGES = ("posegrad", "torch", "numpy", "timm", "accelerate", "opencv-python-headless", "numba")
_VIEW_OVER_CROP = 1.2


@dataclass(frozen=True)
class Errors:
    """Errors of one object's items, infinite where there is no pose.

    Attributes:
        name: of the object.
        index: (M,) places of the items in the list of test instances.
        metric: "ADD", or "ADD-S" for a symmetric object.
        distance: (M,) that metric over the diameter. baseline: (M,) of the mean pose.
        rotation: degrees. along, across: translation along and across the viewing direction, mm.
        visibility: in [0, 1]. depth: true distance, mm. score: confidence, in [0, 1].
    """

    name: str
    index: np.ndarray
    metric: str
    distance: np.ndarray
    baseline: np.ndarray
    rotation: np.ndarray
    along: np.ndarray
    across: np.ndarray
    visibility: np.ndarray
    depth: np.ndarray
    score: np.ndarray

    @property
    def solved(self) -> np.ndarray:
        """(M,) bool."""
        return np.isfinite(self.distance)


def errors_by_object(source: Source, found: Predictions) -> list[Errors]:
    """Of every object that has test images."""
    index = {
        i: np.array([k for k, item in enumerate(source.test) if item.object_id == i]) for i in source.objects
    }
    return [_errors(model, source, found, index[i]) for i, model in source.objects.items() if len(index[i])]


def metric_of(errors: Sequence[Errors]) -> str:
    """What their distances are: "ADD(-S)" where some objects are symmetric and others are not."""
    metrics = {e.metric for e in errors}
    return metrics.pop() if len(metrics) == 1 else "ADD(-S)"


def _errors(model: ObjectModel, source: Source, found: Predictions, index: np.ndarray) -> Errors:
    train = [item for item in source.train if item.object_id == model.id]
    test, key = [source.test[k] for k in index], "adds" if model.symmetric else "add"
    pose, ok = Pose(found.pose.R[index], found.pose.t[index]), found.ok[index].numpy()
    errors = {name: value.numpy() for name, value in item_errors(pose, model, test).items()}
    baseline = item_errors(mean_pose(train, test, model.diameter), model, test)[key]
    true_t = np.stack([item.t for item in test])
    depth = np.linalg.norm(true_t, axis=1)
    shift = pose.t.numpy() - true_t
    along = (shift * true_t).sum(1) / depth

    def failed_infinite(values: np.ndarray) -> np.ndarray:
        return np.where(ok & np.isfinite(values), values, np.inf)

    return Errors(
        name=f"object {model.id}",
        index=index,
        metric="ADD-S" if model.symmetric else "ADD",
        distance=failed_infinite(errors[key] / model.diameter),
        baseline=baseline.numpy() / model.diameter,
        rotation=failed_infinite(errors["rotation"]),
        along=failed_infinite(np.abs(along)),
        across=failed_infinite(np.linalg.norm(shift - along[:, None] * true_t / depth[:, None], axis=1)),
        visibility=np.array([item.visibility for item in test]),
        depth=depth,
        score=found.score[index].numpy(),
    )


@dataclass(frozen=True)
class Example:
    """An item to look at: why, where in the list of test instances, its error over the diameter (inf: failed)."""

    label: str
    index: int
    error: float


def examples(errors: Errors, *, more: bool) -> list[Example]:
    """Best, median and worst item; with `more` also one at 90 % and the three worst."""
    order = np.lexsort((errors.index, errors.distance))
    last = len(order) - 1
    ranks = {"best": 0, "median": last // 2}
    if more:
        ranks |= {"90 % are better": round(0.9 * last), "third worst": last - 2, "second worst": last - 1}
    ranks["worst"] = last
    chosen: dict[int, str] = {}
    for label, rank in ranks.items():
        if rank >= 0:
            chosen.setdefault(rank, label)
    # in a short list a rank has several names: the last of it is the worst
    if last > 0:
        chosen[last] = "worst"
    return [
        Example(chosen[rank], int(errors.index[order[rank]]), float(errors.distance[order[rank]]))
        for rank in sorted(chosen)
    ]


def examine(
    predictor: PosePredictor,
    source: Source,
    boxed: Sequence[Instance],
    found: Predictions,
    chosen: Sequence[int],
) -> list[Closeup]:
    """Look at some test items again, for the heatmaps that predictions do not keep.

    Args:
        predictor, source, found: what predicted what of which data.
        boxed: the test instances in the boxes that the network looked into.
        chosen: places in `source.test`.
    """
    if not chosen:
        return []
    maps = predictor.heatmaps([boxed[index] for index in chosen])
    closeups = []
    for k, index in enumerate(chosen):
        item, model = source.test[index], source.objects[source.test[index].object_id]
        seen, ok = bool(found.status[index] != UNDETECTED), bool(found.ok[index])
        side = _VIEW_OVER_CROP * predictor.padding * float(item.bbox[2:].max())
        pose = (found.pose.R[index].numpy(), found.pose.t[index].numpy())
        covariances = keypoint_covariances(pose, model.keypoints, item.K, found.covariance[index].numpy())
        closeups.append(
            Closeup(
                key=f"item-{index}",
                image=load_image(item.image_path),
                full_from_view=crop_affine(item.bbox[:2] + item.bbox[2:] / 2, side, SIDE),
                mesh=model.mesh,
                K=item.K,
                truth=(item.R, item.t),
                found=pose if ok else None,
                keypoints3d=model.keypoints,
                points2d=found.points2d[index].numpy()
                if seen
                else np.full((len(model.keypoints), 2), np.nan),
                moments=found.moments[index].numpy() if seen and maps is not None else None,
                pose_moments=covariances if ok and covariances.any() else None,
                heatmaps=maps[0][k].numpy() if seen and maps is not None else None,
                full_from_cell=maps[1][k].numpy() if seen and maps is not None else None,
            )
        )
    return closeups


def keypoint_covariances(
    pose: tuple[np.ndarray, np.ndarray], points3d: np.ndarray, K: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Covariances (N, 2, 2) px^2 of points (N, 3) as a pose of some covariance (6, 6) projects them, to first order."""
    R, t = pose
    turned = points3d @ R.T
    x, y, w = K @ (turned + t).T
    # d pixel / d point, and the point moves by rotation x R z + translation
    by_point = (K[None, :2] - np.stack([x, y], 1)[:, :, None] / w[:, None, None] * K[None, 2:]) / w[
        :, None, None
    ]
    by_rotation = np.cross(np.eye(3)[None], turned[:, None]).transpose(0, 2, 1)
    jacobian = np.concatenate([by_point @ by_rotation, by_point], -1)
    return jacobian @ covariance @ jacobian.transpose(0, 2, 1)


def statuses(found: Predictions, chosen: Sequence[int] | None = None) -> list[tuple[str, str, int]]:
    """Name, advice and count of every status that occurs, of all items or of some, the most frequent first."""
    codes = found.status if chosen is None else found.status[list(chosen)]
    return [(*_told(code), count) for code, count in Counter(codes.tolist()).most_common()]


def _told(code: int) -> tuple[str, str]:
    if code == UNDETECTED:
        return "UNDETECTED", "No detection of the object in this image: there was no box to look into."
    return Status(code).name, PnPSolution.advice(Status(code))


def environment() -> dict[str, Any]:
    """Versions and hardware of this process, for metrics.json."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    hardware = {"system": f"{platform.system()} {platform.machine()}", "processor": _processor()}
    hardware |= {"cores": str(os.cpu_count()), "threads of PyTorch": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        hardware["GPU"] = torch.cuda.get_device_name()
    return {"versions": versions, "hardware": hardware}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
