"""What every solver here takes and returns: rays and points; some poses an item, and which of them are any good."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.pose import Pose


class Normalised(NamedTuple):
    """Points about their centroid with unit spread, and weights of sum 1; nothing is divided by zero."""

    points3d: Float[Tensor, "B N 3"]
    weights: Float[Tensor, "B N"]
    centre: Float[Tensor, "B 1 3"]
    size: Float[Tensor, "B 1 1"]

    @classmethod
    def of(cls, points3d: Float[Tensor, "#B N 3"], weights: Float[Tensor, "B N"]) -> "Normalised":
        tiny = torch.finfo(points3d.dtype).tiny
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=tiny)
        centre = (weights[..., None] * points3d).sum(-2, keepdim=True)
        centred = points3d - centre
        size = (weights[..., None] * centred.square()).sum((-1, -2), keepdim=True).clamp(min=tiny).sqrt()
        return cls(centred / size, weights, centre, size)

    def restored(self, pose: Pose) -> Pose:
        """Poses (B, C, ...) of the points as they were given."""
        return Pose(
            pose.R, self.size.squeeze(-1)[:, None] * pose.t - (pose.R @ self.centre.mT[:, None]).squeeze(-1)
        )


def check_arguments(bearings: Any, points3d: Any, weights: Any = None, *, count: int | None = None) -> None:
    """Raise for rays, points or weights of a wrong type or shape; ``count`` is the number of points, if it is fixed.

    Without weights nothing is shared by the batch.
    """
    parts = [("bearings", bearings, 3), ("points3d", points3d, 3), ("weights", weights, 0)]
    for name, value, width in parts if weights is not None or count is None else parts[:2]:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{name}: got dtype {value.dtype}, expected torch.float32 or torch.float64; use {name}.double()"
            )
        if value.dtype != bearings.dtype or value.device != bearings.device:
            raise TypeError(
                f"{name}: got {value.dtype} on {value.device}, expected {bearings.dtype} on {bearings.device} as "
                f"bearings; use {name}.to(bearings)"
            )
        if name == "bearings":
            if value.ndim != 3 or value.shape[2] != 3 or value.shape[1] != (count or value.shape[1]):
                raise ValueError(
                    f"bearings: got shape {tuple(value.shape)}, expected (B, {count or 'N'}, 3): unit rays, one batch "
                    "dimension (use bearings[None] for a single item)"
                )
            continue
        wanted = (*bearings.shape[:2], 3) if width else tuple(bearings.shape[:2])
        shared = name == "points3d" and count is None and tuple(value.shape) == (1, *wanted[1:])
        if tuple(value.shape) != wanted and not shared:
            raise ValueError(
                f"{name}: got shape {tuple(value.shape)}, expected {wanted} as bearings {tuple(bearings.shape)}"
                f"{' (or 1 in front)' if name == 'points3d' and count is None else ''}"
            )


def checked(pose: Pose, valid: Bool[Tensor, "B C"]) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """Poses that are not valid, or not finite, replaced by the identity one unit ahead, and which are left."""
    valid = valid & pose.R.isfinite().all(-1).all(-1) & pose.t.isfinite().all(-1)
    eye = torch.eye(3, dtype=pose.R.dtype, device=pose.R.device)
    return Pose(
        torch.where(valid[..., None, None], pose.R, eye), torch.where(valid[..., None], pose.t, eye[2])
    ), valid


def finite(value: Float[Tensor, "B *rest"]) -> Float[Tensor, "B *rest"]:
    """Zero in place of an item that is not finite: decompositions raise for it."""
    fine = value.isfinite().flatten(1).all(-1)
    return torch.where(fine.view(-1, *(1,) * (value.ndim - 1)), value, 0.0)
