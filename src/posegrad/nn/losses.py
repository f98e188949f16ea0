"""The losses of the BPnP paper, each alone: heatmap `l_h`, pose `l_p`, mixture `l_m = l_h + beta l_p`.

Every pixel distance is divided by the side of the crop (in the pixels it is measured in), so that weights and
scales mean the same for any image size, focal length and object.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from posegrad.cameras import Camera
from posegrad.nn.heatmaps import gaussian_heatmap, soft_argmax, spatial_softmax
from posegrad.pose import Pose
from posegrad.projection import project_points

__all__ = ["crop_extent", "heatmap_loss", "inside_crop", "mixture", "pose_loss", "warm_up"]


class Solved(Protocol):
    """Poses of a batch, and which of them are good: of `pg.solve_pnp`, `KeypointPoseNet`, `PoseRegressionNet`."""

    @property
    def pose(self) -> Pose: ...

    @property
    def ok(self) -> Tensor: ...


def crop_extent(full_from_crop: Tensor, size: int) -> Tensor:
    """Side of a crop in full-image pixels: `size sqrt |det A|`, (..., 2, 3) -> (...).

    >>> crop_extent(torch.tensor([[1.5, 0.0, 10.0], [0.0, 1.5, 20.0]]), size=128)
    tensor(192.)
    """
    a = full_from_crop
    determinant = a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0]
    return size * determinant.abs().sqrt()


def inside_crop(points2d: Tensor, size: tuple[int, int]) -> Tensor:
    """Which points (..., 2), in pixels, lie on a crop of `size` (width, height): (...) bool.

    >>> inside_crop(torch.tensor([[-0.5, 0.0], [64.0, 0.0]]), (64, 64))
    tensor([ True, False])
    """
    extent = torch.tensor(size, dtype=points2d.dtype, device=points2d.device)
    return ((points2d >= -0.5) & (points2d <= extent - 0.5)).all(-1)


def heatmap_loss(
    logits: Tensor,
    target: Tensor,
    *,
    stride: int,
    sigma: float = 4.0,
    coordinate: float = 10.0,
    points2d: Tensor | None = None,
    count: Tensor | float | None = None,
) -> Tensor:
    """Heatmap loss `l_h`: divergence from a Gaussian at the true keypoint plus the error of the decoded one.

        l_h = mean_i  KL(g_i || softmax(logits_i)) + coordinate (sqrt(1 + |x_i - x*_i|^2) - 1) / S

    The paper compares heatmaps by their squared difference; the divergence has a useful gradient from flat
    heatmaps on, and the coordinate term takes out the bias of the soft argmax. Keypoints outside the crop are
    left out.

    Args:
        logits: (B, N, h, w).
        target: (B, N, 2) true keypoints, crop pixels.
        stride: crop pixels per heatmap cell.
        sigma: standard deviation of the Gaussian, crop pixels, > 0.
        coordinate: weight of the coordinate term, >= 0; its distances are in pixels over the crop side S.
        points2d: (B, N, 2) the decoded keypoints x, crop pixels; default: by plain DSNT.
        count: of a batch in parts, the number of keypoints inside in all of them (`inside_crop`): the losses of the
            parts add up to that of the whole. Default: those inside here.

    Returns:
        Scalar; 0 if every keypoint is outside.

    Reference:
        Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks", 2018, section 4.

    >>> logits = torch.zeros(1, 8, 32, 32, requires_grad=True)
    >>> heatmap_loss(logits, torch.full((1, 8, 2), 40.0), stride=4).backward()
    >>> logits.grad.abs().sum() > 0
    tensor(True)
    """
    height, width = logits.shape[-2:]
    inside = inside_crop(target, (width * stride, height * stride))
    target = target.to(logits.dtype)
    target = torch.where(inside[..., None], target, torch.zeros_like(target))
    goal = gaussian_heatmap(target, (height, width), stride, sigma)
    log_p = logits.flatten(-2).log_softmax(-1).view_as(logits)
    divergence = (torch.xlogy(goal, goal) - goal * log_p).sum((-2, -1))
    if points2d is None:
        points2d = soft_argmax(spatial_softmax(logits), stride)
    # A distance that is smooth at 0: linear beyond a pixel, so that its gradient says how far the points are.
    distance = ((1 + (points2d - target).square().sum(-1)).sqrt() - 1) / (width * stride)
    per_point = torch.where(inside, divergence + coordinate * distance, torch.zeros_like(divergence))
    total = torch.as_tensor(inside.sum() if count is None else count, device=logits.device)
    return per_point.sum() / total.clamp(min=1)


def _robust(squared: Tensor, scale: float | None) -> Tensor:
    if scale is None:
        return squared
    # Pseudo-Huber on the distance: s near 0, 2 c sqrt(s) far away; smooth, and no square root at 0.
    c2 = scale * scale
    return 2 * c2 * ((1 + squared / c2).sqrt() - 1)


def pose_loss(
    solution: Solved,
    pose: Pose,
    points2d: Tensor,
    points3d: Tensor,
    camera: Camera | Tensor,
    *,
    extent: Tensor | float,
    reprojection: float = 1.0,
    distance: float = 0.0,
    robust: float | None = 0.1,
    count: float | None = None,
) -> Tensor:
    """Pose loss `l_p`: pixel distance between the projections with the solved and with the true pose.

        l_p = mean_i rho(|pi(z_i | y) - pi(z_i | y*)|^2 / S^2) + reprojection rho(|x_i - pi(z_i | y)|^2 / S^2)

    With `robust=None`, rho(s) = s: the paper's loss. The default rho bounds the gradient of every point,
    rho(s) = 2 c^2 (sqrt(1 + s / c^2) - 1), so that a wild pose cannot dominate the batch. Failed items add
    zero value and zero gradient, and are counted in the mean.

    `distance` adds mean_i rho(|y z_i - y* z_i|^2 / D^2), the distance of the points in space over their extent D, as
    ADD measures it: pixels hardly show that an object is one percent too far,
    which at ten diameters is an error of a tenth of its size.

    Args:
        solution: of `KeypointPoseNet.solve` or `pg.solve_pnp`.
        pose: the true poses y*, (B,).
        points2d: (B, N, 2) predicted keypoints x, full-image pixels.
        points3d: (N, 3) or (B, N, 3).
        camera: K or a pg camera, as given to PnP.
        extent: S, the side of the crop in full-image pixels (see `crop_extent`), a number or (B,).
        reprojection: lambda of the paper, >= 0: the pull of the keypoints to the nearest consistent set.
        distance: weight of the distance in space, >= 0.
        robust: c, in crop sides (in D for `distance`), > 0; None: the paper's squared distance.
        count: of a batch in parts, the number of items in all of them: the losses of the parts add up to that of the
            whole. Default: B.

    Reference:
        Chen et al., "End-to-End Learnable Geometric Vision by Backpropagating PnP Optimization", CVPR 2020.

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(4, 8)
    >>> x = scene.points2d.requires_grad_()
    >>> solution = pg.solve_pnp(x, scene.points3d, scene.K)
    >>> pose_loss(solution, scene.pose, x, scene.points3d, scene.K, extent=200.0).item() < 1e-12  # the true pose
    True
    """
    ok = solution.ok
    # A failed pose may project to infinity; the true one stands in for it, so that no NaN enters the graph.
    R = torch.where(ok[..., None, None], solution.pose.R, pose.R.to(solution.pose.R.dtype))
    t = torch.where(ok[..., None], solution.pose.t, pose.t.to(solution.pose.t.dtype))
    seen = project_points(points3d, camera, Pose(R, t))
    with torch.no_grad():
        true = project_points(points3d, camera, Pose(pose.R.to(R.dtype), pose.t.to(t.dtype)))
    scale = torch.as_tensor(extent, dtype=seen.dtype, device=seen.device)[..., None, None]
    per_point = _robust(((seen - true) / scale).square().sum(-1), robust)
    if reprojection:
        kept = torch.where(ok[..., None, None], points2d.to(seen.dtype), true)
        off = ((kept - seen) / scale).square().sum(-1)
        per_point = per_point + reprojection * _robust(off, robust)
    if distance:
        points = points3d.to(R.dtype)
        D2 = (points.amax(-2) - points.amin(-2)).square().sum(-1)[..., None]
        moved = points @ (R - pose.R.to(R.dtype)).mT + (t - pose.t.to(t.dtype))[..., None, :]
        per_point = per_point + distance * _robust(moved.square().sum(-1) / D2, robust)
    per_item = per_point.mean(-1)
    counted = torch.where(ok, per_item, torch.zeros_like(per_item))
    return counted.mean() if count is None else counted.sum() / count


def warm_up(progress: float, start: float, end: float) -> float:
    """Ramp from 0 at `start` to 1 at `end`, all as fractions of the run in [0, 1].

    >>> [warm_up(progress, 0.2, 0.4) for progress in (0.1, 0.25, 0.5)]
    [0.0, 0.24999999999999994, 1.0]
    """
    if progress >= end:
        return 1.0
    return max(0.0, (progress - start) / (end - start)) if progress > start else 0.0


def mixture(heatmap: Tensor, pose: Tensor, beta: float) -> Tensor:
    """Mixture `l_m = l_h + beta l_p`.

    >>> mixture(torch.tensor(2.0), torch.tensor(0.5), beta=10.0)
    tensor(7.)
    """
    return heatmap + beta * pose
