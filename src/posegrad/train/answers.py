"""What is made of a network's answer to a batch of crops: poses, and how sure they are."""

from __future__ import annotations

import torch
from torch import Tensor

from posegrad.cameras import Camera
from posegrad.nn import (
    KeypointPoseNet,
    KeypointPrediction,
    PoseRegressionNet,
    Regression,
    heatmap_moments,
    spatial_softmax,
)
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems.uncertainty import pose_covariance
from posegrad.projection import project_points
from posegrad.so3 import hat

__all__ = ["regressed", "solved"]


def solved(
    net: KeypointPoseNet,
    seen: KeypointPrediction,
    points3d: Tensor,
    camera: Camera | Tensor,
    full_from_crop: Tensor,
) -> dict[str, Tensor | Pose]:
    """The fields of `Predictions` by name, of keypoints through PnP from scratch."""
    found = net.solve(seen, points3d, camera, full_from_crop)
    points2d, weights = seen.in_full_image(full_from_crop), net.pnp_weights(seen, full_from_crop)
    covariance = pose_covariance(found, points2d, points3d, camera, weights=weights.to(points2d.dtype))
    known = found.ok & covariance.isfinite().all(-1).all(-1)
    covariance = torch.where(known[:, None, None], covariance, torch.zeros_like(covariance))
    linear = full_from_crop[:, None, :, :2]
    moments = heatmap_moments(spatial_softmax(seen.logits), seen.stride).to(linear.dtype)
    return {
        "pose": found.pose,
        "ok": found.ok,
        "status": found.status.long(),
        "points2d": points2d,
        "weights": seen.weights,
        "covariance": covariance,
        "moments": linear @ moments @ linear.mT,
        "score": torch.where(known, _confidence(found.pose.R, covariance, points3d), 0.0),
    }


def regressed(
    net: PoseRegressionNet,
    seen: Regression,
    points3d: Tensor,
    camera: Camera | Tensor,
    full_from_crop: Tensor,
) -> dict[str, Tensor | Pose]:
    """The same of direct regression: keypoints are those of the pose, what is not known is zero, and the score is 1."""
    found = net.solve(seen, points3d, camera, full_from_crop)
    points2d = project_points(points3d, camera, found.pose)
    count, keypoints = points2d.shape[:2]
    good = torch.full_like(found.ok, int(Status.CONVERGED), dtype=torch.int64)
    return {
        "pose": found.pose,
        "ok": found.ok,
        "status": torch.where(found.ok, good, int(Status.NOT_FINITE)),
        "points2d": points2d,
        "weights": torch.ones_like(points2d[..., 0]),
        "covariance": points2d.new_zeros(count, 6, 6),
        "moments": points2d.new_zeros(count, keypoints, 2, 2),
        "score": found.ok.to(points2d.dtype),
    }


def _confidence(R: Tensor, covariance: Tensor, points3d: Tensor) -> Tensor:
    """1 / (1 + (s / 0.1 D)^2), see `Predictions.score`."""
    turned = points3d @ R.mT
    eye = torch.eye(3, dtype=turned.dtype, device=turned.device).expand(*turned.shape[:-1], 3, 3)
    J = torch.cat([-hat(turned), eye], -1)  # of a point by [rotation, translation]
    moved = (J @ covariance[:, None] @ J.mT).diagonal(dim1=-2, dim2=-1).sum(-1).mean(-1)
    extent = (points3d.amax(-2) - points3d.amin(-2)).square().sum(-1)
    return 1 / (1 + moved / (0.01 * extent))
