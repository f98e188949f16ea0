"""Pose metrics, each per item (...,): lengths in the unit of the poses and points, angles in degrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from posegrad.cameras import Camera, as_camera
from posegrad.pose import Pose

__all__ = [
    "MSPD_THRESHOLDS",
    "MSSD_THRESHOLDS",
    "add",
    "adds",
    "average_recall",
    "mspd",
    "mssd",
    "projection_2d",
    "recall",
    "recall_5cm_5deg",
    "rotation_error_deg",
    "translation_error",
]

MSSD_THRESHOLDS = tuple(0.05 * k for k in range(1, 11))  # in diameters of the object
MSPD_THRESHOLDS = tuple(5.0 * k for k in range(1, 11))  # in pixels of an image 640 pixels wide


def add(pose: Pose, true: Pose, points: Tensor) -> Tensor:
    """ADD: mean distance between the model's points in the two poses, `mean_i |R z + t - (R* z + t*)|`.

    Args:
        pose, true: (...,) poses.
        points: (V, 3) vertices of the model, same unit as the translations.

    Returns:
        (...,) in that unit; usually counted correct below 0.1 diameter (see `recall`).

    Reference:
        Hinterstoisser et al., "Model Based Training, Detection and Pose Estimation of Texture-Less 3D Objects
        in Heavily Cluttered Scenes", ACCV 2012.

    >>> true = Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 500.0]))
    >>> pose = Pose(true.R, true.t + torch.tensor([3.0, 4.0, 0.0]))
    >>> add(pose, true, points=torch.eye(3))
    tensor(5.)
    """
    return (pose.act(points) - true.act(points)).norm(dim=-1).mean(-1)


def adds(
    pose: Pose, true: Pose, points: Tensor, *, neighbours: Tensor | None = None, chunk: int = 1024
) -> Tensor:
    """ADD-S: mean distance from each point in the true pose to the nearest in the other (symmetry).

    Args:
        pose, true: (...,) poses.
        points: (V, 3) vertices of the model, same unit as the translations.
        neighbours: (W, 3) points among which the nearest is looked for; None: `points`. Where `points` is a sample
            of the vertices give all of them, or the distances come out too large.
        chunk: points handled at once; memory grows with chunk x V per item.

    Returns:
        (...,) in the unit of the points.

    Reference:
        Hinterstoisser et al., ACCV 2012 (see `add`).

    >>> true = Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 500.0]))
    >>> half_a_turn = Pose.from_rotvec(torch.tensor([0.0, 0.0, torch.pi]), true.t)
    >>> bar = torch.tensor([[-1.0, 0, 0], [1, 0, 0]])
    >>> add(half_a_turn, true, bar), adds(half_a_turn, true, bar).round(decimals=5)
    (tensor(2.), tensor(0.))
    """
    seen, actual = pose.act(points if neighbours is None else neighbours), true.act(points)
    shape = torch.broadcast_shapes(seen.shape[:-2], actual.shape[:-2])
    seen = seen.expand(*shape, *seen.shape[-2:]).reshape(-1, *seen.shape[-2:])
    actual = actual.expand(*shape, *actual.shape[-2:]).reshape(-1, *actual.shape[-2:])
    means = []
    for one, other in zip(seen, actual, strict=True):
        # Exact differences: the matrix-product form loses the last digits far from the origin.
        nearest = [
            torch.cdist(part, one, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)
            for part in other.split(chunk)
        ]
        means.append(torch.cat(nearest).mean())
    return torch.stack(means).reshape(shape)


def mssd(
    pose: Pose, true: Pose, points: Tensor, symmetries: Pose | None = None, *, chunk: int = 4096
) -> Tensor:
    """Maximum symmetry-aware surface distance: `min_S max_i |T z_i - T* S z_i|`.

    The maximum is a convex function of z, so the vertices of the model's convex hull give the same answer as all.

    Args:
        pose, true: (...,) poses T, T*.
        points: (V, 3) vertices of the model, same unit as the translations.
        symmetries: (S,) or (..., S) transforms S of the object onto itself, identity among them (see
            `posegrad.data.symmetry_transforms`); None: the identity alone.
        chunk: points handled at once; memory grows with chunk per item.

    Returns:
        (...,) in the unit of the points; BOP counts it below 0.05, 0.1, .. 0.5 diameters (see `average_recall`).

    Reference:
        Hodan et al., "BOP Challenge 2020 on 6D Object Localization", ECCVW 2020, section 2.2.

    >>> true = Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 500.0]))
    >>> turned = Pose.from_rotvec(torch.tensor([0.0, 0.0, torch.pi]), true.t)
    >>> half_a_turn = Pose.from_rotvec(torch.tensor([[0.0, 0, 0], [0, 0, torch.pi]]), torch.zeros(2, 3))
    >>> bar = torch.tensor([[-1.0, 0, 0], [2, 0, 0]])
    >>> mssd(turned, true, bar), mssd(turned, true, bar, half_a_turn).round(decimals=5)
    (tensor(4.), tensor(0.))
    """

    def squared(true: Pose, part: Tensor) -> Tensor:
        # One affine map per pair of poses instead of the difference of two.
        return Pose(pose.R - true.R, pose.t - true.t).act(part).square().sum(-1)

    return _least_maximum(squared, true, points, symmetries, chunk).sqrt()


def mspd(
    pose: Pose,
    true: Pose,
    points: Tensor,
    camera: Camera | Tensor,
    symmetries: Pose | None = None,
    *,
    chunk: int = 4096,
) -> Tensor:
    """Maximum symmetry-aware projection distance: `min_S max_i |pi(T z_i) - pi(T* S z_i)|`.

    Args:
        pose, true: (...,) poses T, T*.
        points: (V, 3) vertices of the model, same unit as the translations.
        camera: K or a pg camera of the full image.
        symmetries, chunk: as in `mssd`.

    Returns:
        (...,) full-image pixels; BOP counts it below 5, 10, .. 50 px times image width / 640. An item with a point
        at or behind the camera in either pose has an infinite error.

    Reference:
        Hodan et al., "BOP Challenge 2020 on 6D Object Localization", ECCVW 2020, section 2.2.

    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> true = Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 500.0]))
    >>> pose = Pose(true.R, true.t + torch.tensor([3.0, 4.0, 0.0]))
    >>> mspd(pose, true, torch.zeros(1, 3), K)
    tensor(5.)
    """

    camera = as_camera(camera)

    def squared(true: Pose, part: Tensor) -> Tensor:
        seen, actual = camera.project(pose.act(part)), camera.project(true.act(part))
        error = (seen.points2d - actual.points2d).square().sum(-1)
        return error.masked_fill(~(seen.valid & actual.valid), torch.inf)

    return _least_maximum(squared, true, points, symmetries, chunk).sqrt()


def _least_maximum(
    error: Callable[[Pose, Tensor], Tensor], true: Pose, points: Tensor, symmetries: Pose | None, chunk: int
) -> Tensor:
    """The largest error over the points, the least of these over the true poses `T* S`."""
    if symmetries is None:
        symmetries = Pose.identity(1, dtype=true.R.dtype, device=true.R.device)
    least: Tensor | None = None
    for k in range(symmetries.shape[-1]):
        equal = true @ Pose(symmetries.R[..., k, :, :], symmetries.t[..., k, :])
        maxima = [error(equal, part).amax(-1) for part in points.split(chunk)]
        largest = torch.stack(maxima).amax(0)
        least = largest if least is None else torch.minimum(least, largest)
    assert least is not None
    return least


def average_recall(error: Tensor, thresholds: Sequence[float] | Tensor, ok: Tensor | None = None) -> Tensor:
    """Mean of the recalls below each threshold, in [0, 1] (see `recall`).

    One estimate per target; `posegrad.train.bop_scores` matches several instances of an object in a picture.

    Args:
        error: (...,), for MSSD in diameters, for MSPD in pixels times 640 / image width.
        thresholds: `MSSD_THRESHOLDS`, `MSPD_THRESHOLDS`, or others in the unit of the errors.
        ok: (...,) bool, False for items whose solution failed.

    >>> average_recall(torch.tensor([0.02, 0.26, 9.0, 9.0]), MSSD_THRESHOLDS)  # 10 and 5 of 10 thresholds
    tensor(0.3750, dtype=torch.float64)
    """
    return torch.stack([recall(error, threshold, ok) for threshold in thresholds]).mean()


def projection_2d(pose: Pose, true: Pose, points: Tensor, camera: Camera | Tensor) -> Tensor:
    """2D projection error: mean pixel distance between the projections of the points in the two poses.

    Args:
        pose, true: (...,) poses.
        points: (V, 3) vertices of the model.
        camera: K or a pg camera of the full image.

    Returns:
        (...,) full-image pixels; usually counted correct below 5 px. An item with a point at or behind the
        camera in either pose has an infinite error.

    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> true = Pose.from_rotvec(torch.zeros(3), torch.tensor([0.0, 0.0, 500.0]))
    >>> pose = Pose(true.R, true.t + torch.tensor([3.0, 4.0, 0.0]))
    >>> projection_2d(pose, true, torch.zeros(1, 3), K)
    tensor(5.)
    """
    seen = as_camera(camera).project(pose.act(points))
    actual = as_camera(camera).project(true.act(points))
    error = (seen.points2d - actual.points2d).norm(dim=-1).mean(-1)
    front = (seen.valid & actual.valid).all(-1)
    return torch.where(front, error, torch.full_like(error, torch.inf))


def rotation_error_deg(pose: Pose, true: Pose) -> Tensor:
    """Angle of `R R*^T` in degrees, [0, 180]: `atan2(|sin|, cos)`, accurate near 0 as well as near 180.

    >>> rotation_error_deg(Pose.from_rotvec(torch.tensor([0.0, 0, torch.pi / 2]), torch.zeros(3)), Pose.identity())
    tensor(90.)
    """
    off = pose.R @ true.R.transpose(-1, -2)
    skew = off - off.transpose(-1, -2)
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).norm(dim=-1) / 2
    cosine = (off.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.atan2(sine, cosine))


def translation_error(pose: Pose, true: Pose) -> Tensor:
    """Distance `|t - t*|`, in the unit of the translations.

    >>> translation_error(Pose(torch.eye(3), torch.tensor([3.0, 4.0, 0.0])), Pose.identity())
    tensor(5.)
    """
    return (pose.t - true.t).norm(dim=-1)


def recall(error: Tensor, threshold: Tensor | float, ok: Tensor | None = None) -> Tensor:
    """Share of items with an error below the threshold, in [0, 1]; failed items count as wrong.

    Args:
        error: (...,) of any metric here; NaN counts as wrong.
        threshold: same unit; for ADD 0.1 times the diameter of the object, for `projection_2d` 5 px.
        ok: (...,) bool, False for items whose solution failed.

    >>> recall(torch.tensor([1.0, 3.0, 9.0, 2.0]), 5.0, ok=torch.tensor([True, True, True, False]))
    tensor(0.5000, dtype=torch.float64)
    """
    right = error < threshold
    if ok is not None:
        right = right & ok
    return right.double().mean()


def recall_5cm_5deg(pose: Pose, true: Pose, *, cm: float, ok: Tensor | None = None) -> Tensor:
    """Share of items within 5 cm and 5 degrees, in [0, 1]; failed items count as wrong.

    Args:
        pose, true: (...,) poses.
        cm: one centimetre in the unit of the translations: 10 for millimetres, 0.01 for metres.
        ok: (...,) bool, False for items whose solution failed.

    >>> pose = Pose(torch.eye(3).expand(2, 3, 3), torch.tensor([[0.0, 0, 40.0], [0, 0, 60.0]]))
    >>> recall_5cm_5deg(pose, Pose.identity(2), cm=10.0)  # millimetres
    tensor(0.5000, dtype=torch.float64)
    """
    near = torch.where(rotation_error_deg(pose, true) < 5, translation_error(pose, true), torch.inf)
    return recall(near, 5 * cm, ok)
