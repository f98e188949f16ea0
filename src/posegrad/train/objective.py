"""The loss of one batch, and how strongly each part pulls at the keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posegrad.nn import (
    KeypointPoseNet,
    KeypointPrediction,
    PoseRegressionNet,
    Regression,
    crop_extent,
    heatmap_loss,
    inside_crop,
    kendall_loss,
    map_points,
    mixture,
    nearest_symmetric_pose,
    pose_loss,
    warm_up,
)
from posegrad.optim.adjoint import Implicit
from posegrad.pose import Pose
from posegrad.problems.pnp import PnP
from posegrad.projection import project_points
from posegrad.train.config import LossConfig
from posegrad.train.lookup import KeypointTable

__all__ = ["Counts", "Objective", "RegressionObjective", "Terms", "make_objective", "pnp_layer"]


def pnp_layer(config: LossConfig) -> PnP:
    """The PnP layer of a run: exact implicit gradients, bounded by `max_gain`."""
    return PnP(adjoint=Implicit(max_gain=config.max_gain or None))


@dataclass(frozen=True)
class Counts:
    """What the losses of a batch are means over; of a batch in parts, the sums over the parts.

    Attributes:
        items: crops. keypoints: of those inside their crop.
    """

    items: float
    keypoints: float


@dataclass(frozen=True)
class Terms:
    """Losses of a batch, or what one of its parts contributes to them.

    Attributes:
        total: what is differentiated.
        heatmap: l_h; None where there are no heatmaps.
        pose: l_p, without its factor beta; None while it is off. beta: that factor at this moment.
        failed: share of items whose PnP failed, in [0, 1].
    """

    total: Tensor
    heatmap: Tensor | None
    pose: Tensor | None
    beta: float
    failed: Tensor | None
    prediction: KeypointPrediction | Regression

    def values(self) -> dict[str, float]:
        """The losses and the share of failed items by their name in the log; those of the parts of a batch add up."""
        named = {"loss": self.total, "l_h": self.heatmap, "l_p": self.pose, "failed": self.failed}
        return {name: float(value.detach()) for name, value in named.items() if value is not None}

    def squared_gradients(self) -> dict[str, float]:
        """Squared norms of d l_h / d x and d (beta l_p) / d x, x the keypoints in crop pixels, and by the logits.

        l_h reaches the keypoints through its coordinate term only; by the logits its gradient is complete.
        """
        if isinstance(self.prediction, Regression):
            return {}
        at = {"keypoints": self.prediction.points2d, "logits": self.prediction.logits}
        norms = {}
        parts = {"heatmap": self.heatmap, "pose": None if self.pose is None else self.beta * self.pose}
        for part, loss in parts.items():
            for place, leaf in at.items():
                norms[f"grad_{part}_{place}"] = _squared_norm(loss, leaf)
        return norms


def _squared_norm(loss: Tensor | None, leaf: Tensor) -> float:
    if loss is None or not loss.requires_grad:
        return 0.0
    (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.double().square().sum())


class Objective:
    """Loss of a batch at a given progress of the run.

    Args:
        config: which loss, with which weights.
        net: the network whose PnP layer is used.
        keypoints: of all objects, float64, mm; with their symmetries, if these are to count.
    """

    def __init__(self, config: LossConfig, net: KeypointPoseNet, keypoints: KeypointTable) -> None:
        self.config = config
        self.net = net
        self.keypoints = keypoints

    def beta(self, progress: float) -> float:
        """Weight of the pose loss at `progress` in [0, 1]."""
        if self.config.loss == "heatmap":
            return 0.0
        if self.config.loss == "pose":
            return self.config.beta
        return self.config.beta * warm_up(progress, self.config.beta_start, self.config.beta_full)

    def see(self, batch: dict[str, Tensor]) -> KeypointPrediction:
        """What the network sees in the crops of a batch."""
        return self.net(batch["image"], self.keypoints.positions(batch["object_id"]))

    def _targets(self, batch: dict[str, Tensor], pose: Pose) -> Tensor:
        """(B, N, 2) true keypoints, crop pixels."""
        seen = project_points(self.keypoints.of(batch["object_id"]), batch["K"], pose)
        return map_points(seen, invert_affine(batch["full_from_crop"]))

    def counts(self, batch: dict[str, Tensor]) -> Counts:
        """What the losses of these crops are means over; known before the network has seen them (and so, of symmetric
        objects, counted in the annotated pose, whichever the losses choose)."""
        height, width = batch["image"].shape[-2:]
        inside = inside_crop(self._targets(batch, Pose(batch["R"], batch["t"])), (width, height))
        return Counts(items=len(inside), keypoints=float(inside.sum()))

    def __call__(
        self,
        prediction: KeypointPrediction,
        batch: dict[str, Tensor],
        progress: float,
        counts: Counts | None = None,
    ) -> Terms:
        """The losses of a batch, or with the `counts` of the whole batch what this part contributes to them."""
        config, pose = self.config, Pose(batch["R"], batch["t"])
        full_from_crop, K = batch["full_from_crop"], batch["K"]
        points3d = self.keypoints.of(batch["object_id"])
        counts = self.counts(batch) if counts is None else counts
        points2d = prediction.in_full_image(full_from_crop)
        if (symmetries := self.keypoints.symmetries(batch["object_id"])) is not None:
            pose = nearest_symmetric_pose(points2d, points3d, K, pose, symmetries)
        l_h = heatmap_loss(
            prediction.logits,
            self._targets(batch, pose),
            stride=prediction.stride,
            sigma=config.sigma,
            coordinate=config.coordinate,
            points2d=prediction.points2d,
            count=counts.keypoints,
        )
        beta = self.beta(progress)
        if beta == 0:
            return Terms(l_h, l_h, None, 0.0, None, prediction)
        init = pose if config.start_from_truth else None
        solution = self.net.solve(prediction, points3d, K, full_from_crop, init=init)
        l_p = pose_loss(
            solution,
            pose,
            points2d,
            points3d,
            K,
            extent=crop_extent(full_from_crop, batch["image"].shape[-1]),
            reprojection=config.reprojection,
            distance=config.distance,
            robust=config.robust or None,
            count=counts.items,
        ).to(l_h.dtype)
        total = beta * l_p if config.loss == "pose" else mixture(l_h, l_p, beta)
        failed = (~solution.ok).double().sum() / counts.items
        return Terms(total, l_h, l_p, beta, failed, prediction)


class RegressionObjective:
    """The same for direct regression; its loss is logged as l_p. Arguments as of `Objective`."""

    def __init__(self, config: LossConfig, net: PoseRegressionNet, keypoints: KeypointTable) -> None:
        self.config, self.net, self.keypoints = config, net, keypoints

    def beta(self, progress: float) -> float:
        """Weight of the loss, at any progress: learned weights need none."""
        return self.config.beta if self.config.regression == "reprojection" else 1.0

    def see(self, batch: dict[str, Tensor]) -> Regression:
        """What the network sees in the crops of a batch."""
        return self.net(batch["image"], self.keypoints.positions(batch["object_id"]))

    def counts(self, batch: dict[str, Tensor]) -> Counts:
        """What the loss of these crops is a mean over."""
        return Counts(items=len(batch["image"]), keypoints=0.0)

    def __call__(
        self,
        prediction: Regression,
        batch: dict[str, Tensor],
        progress: float,
        counts: Counts | None = None,
    ) -> Terms:
        """The loss of a batch, or with the `counts` of the whole batch what this part contributes to it."""
        config, pose, K = self.config, Pose(batch["R"], batch["t"]), batch["K"]
        points3d = self.keypoints.of(batch["object_id"])
        counts = self.counts(batch) if counts is None else counts
        found = self.net.solve(prediction, points3d, K, batch["full_from_crop"])
        points2d = project_points(points3d, K, found.pose)
        if (symmetries := self.keypoints.symmetries(batch["object_id"])) is not None:
            pose = nearest_symmetric_pose(points2d, points3d, K, pose, symmetries)
        if config.regression == "weighted":
            loss = kendall_loss(found, pose, points3d, self.net.log_variances, count=counts.items)
        else:
            loss = pose_loss(
                found,
                pose,
                points2d,
                points3d,
                K,
                extent=crop_extent(batch["full_from_crop"], batch["image"].shape[-1]),
                reprojection=0.0,
                distance=config.distance,
                robust=config.robust or None,
                count=counts.items,
            )
        loss = loss.to(prediction.numbers.dtype)
        failed = (~found.ok).double().sum() / counts.items
        beta = self.beta(progress)
        return Terms(beta * loss, None, loss, beta, failed, prediction)


def make_objective(
    config: LossConfig, net: KeypointPoseNet | PoseRegressionNet, keypoints: KeypointTable
) -> Objective | RegressionObjective:
    """That of the network."""
    if isinstance(net, PoseRegressionNet):
        return RegressionObjective(config, net, keypoints)
    return Objective(config, net, keypoints)


def invert_affine(affine: Tensor) -> Tensor:
    """Inverse of (..., 2, 3) affine maps."""
    linear = torch.linalg.inv(affine[..., :2])
    return torch.cat([linear, -linear @ affine[..., 2:]], -1)
