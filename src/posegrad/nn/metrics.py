"""Pose metrics, each per item (...,): lengths in the unit of the poses and points, angles in degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from posegrad.cameras import Camera, as_camera
from posegrad.pose import Pose

__all__ = [
    "add",
    "adds",
    "projection_2d",
    "recall",
    "recall_5cm_5deg",
    "rotation_error_deg",
    "translation_error",
]


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
