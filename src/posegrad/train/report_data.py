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
from torch import Tensor

from posegrad.data import CropDataset, load_image
from posegrad.data.cropping import crop_affine
from posegrad.nn import KeypointPoseNet, KeypointPrediction, map_points, spatial_softmax
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems.pnp import PnPSolution
from posegrad.problems.uncertainty import pose_covariance
from posegrad.projection import project_points
from posegrad.train.evaluation import Predictions, item_errors, mean_pose
from posegrad.train.source import Source
from posegrad.viz.closeup import SIDE, Closeup

__all__ = [
    "Errors",
    "Example",
    "environment",
    "errors_by_object",
    "examine",
    "examples",
    "keypoint_covariances",
    "statuses",
]

_PACKAGES = ("posegrad", "torch", "numpy", "timm", "accelerate", "opencv-python-headless", "numba")
_VIEW_OVER_CROP = 1.2


@dataclass(frozen=True)
class Errors:
    """Errors of one object's items, infinite where PnP failed.

    Attributes:
        name: of the object.
        index: (M,) places of the items in the list of test instances.
        metric: "ADD", or "ADD-S" for a symmetric object.
        distance: (M,) that metric over the diameter. baseline: (M,) of the mean pose.
        rotation: degrees. along, across: translation along and across the viewing direction, mm.
        visibility: in [0, 1]. depth: true distance, mm.
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

    @property
    def solved(self) -> np.ndarray:
        """(M,) bool."""
        return np.isfinite(self.distance)


def errors_by_object(source: Source, found: Predictions) -> list[Errors]:
    """Of every object that has test images."""
    return [_errors(source, found)] if source.test else []


def _errors(source: Source, found: Predictions) -> Errors:
    ok, key = found.ok.numpy(), "adds" if source.symmetric else "add"
    errors = {name: value.numpy() for name, value in item_errors(found.pose, source, source.test).items()}
    baseline = item_errors(mean_pose(source.train, source.test, source.diameter), source, source.test)[key]
    true_t = np.stack([item.t for item in source.test])
    depth = np.linalg.norm(true_t, axis=1)
    shift = found.pose.t.numpy() - true_t
    along = (shift * true_t).sum(1) / depth

    def failed_infinite(values: np.ndarray) -> np.ndarray:
        return np.where(ok & np.isfinite(values), values, np.inf)

    return Errors(
        name=source.name.rpartition(", ")[2],
        index=np.arange(len(source.test)),
        metric="ADD-S" if source.symmetric else "ADD",
        distance=failed_infinite(errors[key] / source.diameter),
        baseline=baseline.numpy() / source.diameter,
        rotation=failed_infinite(errors["rotation"]),
        along=failed_infinite(np.abs(along)),
        across=failed_infinite(np.linalg.norm(shift - along[:, None] * true_t / depth[:, None], axis=1)),
        visibility=np.array([item.visibility for item in source.test]),
        depth=depth,
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


@torch.no_grad()
def examine(
    net: KeypointPoseNet,
    source: Source,
    found: Predictions,
    chosen: Sequence[int],
    *,
    padding: float,
    precision: torch.dtype,
) -> list[Closeup]:
    """Look at some test items again, for the heatmaps that `predict` does not keep.

    Args:
        net, source, found, padding, precision: as in :func:`predict`.
        chosen: places in `source.test`.
    """
    if not chosen:
        return []
    device = next(net.parameters()).device
    items = [source.test[index] for index in chosen]
    crops = CropDataset(items, size=net.image_size, padding=padding)
    batch = torch.utils.data.default_collate([crops[k] for k in range(len(items))])
    batch = {name: value.to(device) for name, value in batch.items()}
    points3d = torch.from_numpy(source.keypoints).to(device)
    was_training = net.training
    net.eval()
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        seen = net(batch["image"])
    solution = net.solve(seen, points3d, batch["K"], batch["full_from_crop"])
    net.train(was_training)
    pose_moments = keypoint_covariances(seen, solution, points3d, batch).cpu()
    heatmaps = spatial_softmax(seen.logits.double()).cpu()
    affine = batch["full_from_crop"].cpu()
    full_from_cell = _from_cells(affine, seen.stride)
    moments = _moments(heatmaps, full_from_cell)
    closeups = []
    for k, (index, item) in enumerate(zip(chosen, items, strict=True)):
        pose = (found.pose.R[index].numpy(), found.pose.t[index].numpy()) if bool(found.ok[index]) else None
        side = _VIEW_OVER_CROP * padding * float(item.bbox[2:].max())
        closeups.append(
            Closeup(
                key=f"item-{index}",
                image=load_image(item.image_path),
                full_from_view=crop_affine(item.bbox[:2] + item.bbox[2:] / 2, side, SIDE),
                mesh=source.mesh,
                K=item.K,
                truth=(item.R, item.t),
                found=pose,
                keypoints3d=source.keypoints,
                points2d=found.points2d[index].numpy(),
                moments=moments[k].numpy(),
                pose_moments=pose_moments[k].numpy() if pose is not None else None,
                heatmaps=heatmaps[k].numpy(),
                full_from_cell=full_from_cell[k].numpy(),
            )
        )
    return closeups


def _from_cells(full_from_crop: Tensor, stride: int) -> Tensor:
    """(B, 2, 3) maps from cells of a heatmap to full-image pixels; see `crop_from_cell`."""
    linear = full_from_crop[..., :2] * stride
    centre = torch.full((1, 2), 0.5 * stride - 0.5, dtype=full_from_crop.dtype)
    return torch.cat([linear, map_points(centre, full_from_crop).mT], -1)


def _moments(heatmaps: Tensor, full_from_cell: Tensor) -> Tensor:
    """Second moments (B, N, 2, 2) of heatmaps (B, N, h, w), px^2; a cell's own extent is included."""
    h, w = heatmaps.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    cells = torch.stack([u, v], -1)
    mean = torch.einsum("bnhw,hwk->bnk", heatmaps, cells)
    off = cells - mean[..., None, None, :]
    inside = torch.einsum("bnhw,bnhwk,bnhwl->bnkl", heatmaps, off, off) + torch.eye(2).double() / 12
    linear = full_from_cell[:, None, :, :2]
    return linear @ inside @ linear.mT


def keypoint_covariances(
    seen: KeypointPrediction, solution: PnPSolution, points3d: Tensor, batch: dict[str, Tensor]
) -> Tensor:
    """Covariances (B, N, 2, 2) px^2 of the keypoints as the pose projects them, to first order.

    Args:
        seen, solution: of a network and its PnP layer. points3d: (N, 3). batch: with `K` and `full_from_crop`.
    """
    K, weights = batch["K"], seen.weights.to(points3d.dtype)
    points2d = seen.in_full_image(batch["full_from_crop"]).to(points3d.dtype)
    covariance = pose_covariance(solution, points2d, points3d, K, weights=weights)

    def projected(tangent: Tensor, R: Tensor, t: Tensor, camera: Tensor) -> Tensor:
        return project_points(points3d, camera, Pose(R, t).retract(tangent))

    jacobian = torch.func.vmap(torch.func.jacrev(projected))(
        solution.pose.t.new_zeros(len(K), 6), solution.pose.R, solution.pose.t, K
    )
    return jacobian @ covariance[:, None] @ jacobian.mT


def statuses(found: Predictions, chosen: Sequence[int] | None = None) -> list[tuple[str, int, str]]:
    """Name, count and advice of every status that occurs, of all items or of some, the most frequent first."""
    codes = found.status if chosen is None else found.status[list(chosen)]
    counts = Counter(Status(code) for code in codes.tolist())
    return [(status.name, count, PnPSolution.advice(status)) for status, count in counts.most_common()]


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
