"""The arguments of a call, and the errors that name what is wrong with them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from posegrad import _pytree
from posegrad.cameras import Camera
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.constraints import PoseConstraint
from posegrad.problems.prior import PosePrior
from posegrad.robust import RobustLoss


class Call(NamedTuple):
    """What a user gave; of the wrong type perhaps, until :meth:`check`."""

    points2d: Tensor
    points3d: Tensor
    camera: Camera
    weights: Tensor | None = None
    mask: Tensor | None = None
    loss: RobustLoss | None = None
    prior: PosePrior | None = None
    constraint: PoseConstraint | None = None
    init: Pose | None = None

    @property
    def num_points(self) -> int:
        """N."""
        return self.points2d.shape[-2]

    def check(self) -> torch.Size:
        """Raise for what is wrong; the batch shape."""
        check_points(self.points2d, self.points3d)
        check_per_point(self.weights, self.mask, self.num_points)
        for name, value, kind, wanted in (
            ("loss", self.loss, RobustLoss, "a loss of pg.robust such as pg.robust.Huber(2.0)"),
            ("prior", self.prior, PosePrior, "a pg.PosePrior"),
            ("constraint", self.constraint, PoseConstraint, "a pg.PoseConstraint"),
            ("init", self.init, Pose, "a pg.Pose (see pg.Pose.from_rotvec)"),
        ):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name}: got {type(value).__name__}, expected {wanted} or None")
        parts = self._parts()
        for name, value, _ in parts:
            if value.device != self.points2d.device and not name.startswith("loss"):
                device = self.points2d.device
                raise ValueError(
                    f"{name}: is on {value.device}, expected {device} as points2d; use .to({str(device)!r})"
                )
        shapes = {name: value.shape[: value.ndim - trailing] for name, value, trailing in parts}
        try:
            return torch.broadcast_shapes(*shapes.values())
        except RuntimeError:
            listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            hint = ""
            if self.num_points == 2 and self.weights is not None:
                hint = (
                    "; for N = 2 weights are numbers (..., N): for others, add a point that mask leaves out"
                )
            raise ValueError(
                f"batch dimensions do not broadcast against each other: {listed}{hint}"
            ) from None

    def _parts(self) -> list[tuple[str, Tensor, int]]:
        """Every tensor with its name and the number of dimensions that are not the batch's."""
        parts = [
            ("points2d", self.points2d, 2),
            ("points3d", self.points3d, 2),
            ("camera", self.camera.params, 1),
        ]
        if self.weights is not None:
            parts.append(
                ("weights", self.weights, weighting.trailing_dims(self.weights.shape, self.num_points))
            )
        if self.mask is not None:
            parts.append(("mask", self.mask, 1))
        for number, leaf in enumerate(_pytree.tree_flatten(self.loss)[0] if self.loss is not None else []):
            parts.append((f"loss parameter {number}", leaf, 0))
        if self.prior is not None:
            prior = self.prior
            parts += [("prior.pose.R", prior.pose.R, 2), ("prior.pose.t", prior.pose.t, 1)]
            parts.append(("prior.information", prior.information, 2))
        if self.constraint is not None:
            parts += [(f"constraint.{name}", v, len(tail)) for name, v, tail in self.constraint.tensors()]
        if self.init is not None:
            parts += [("init.R", self.init.R, 2), ("init.t", self.init.t, 1)]
        return parts


def check_points(points2d: Any, points3d: Any) -> None:
    """Raise for points of a wrong type or shape."""
    for name, value in (("points2d", points2d), ("points3d", points3d)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: got {type(value).__name__}, expected a torch.Tensor; use torch.as_tensor({name})"
            )
        if not value.is_floating_point():
            raise TypeError(
                f"{name}: got dtype {value.dtype}, expected a floating-point dtype; use {name}.double()"
            )
    last2d, last3d = points2d.shape[-1:], points3d.shape[-1:]
    if tuple(last2d) == (3,) and tuple(last3d) == (2,):
        raise ValueError(
            f"points2d has shape {tuple(points2d.shape)} and points3d {tuple(points3d.shape)}: the arguments are "
            "swapped; the order is points2d, points3d, camera"
        )
    for name, value, size in (("points2d", points2d, 2), ("points3d", points3d, 3)):
        if value.ndim < 2 or value.shape[-1] != size:
            raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected (..., N, {size})")
    if points2d.shape[-2] != points3d.shape[-2]:
        raise ValueError(
            f"points3d: got {points3d.shape[-2]} points, expected {points2d.shape[-2]} as in points2d "
            f"(shapes {tuple(points2d.shape)} and {tuple(points3d.shape)}); pad and use mask for missing ones"
        )


def check_per_point(weights: Any, mask: Any, count: int) -> None:
    """Raise for weights or a mask of a wrong type or shape."""
    for name, value in (("weights", weights), ("mask", mask)):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor or None")
        kinds = (1,) if name == "mask" else (1, 2, 3)
        if weighting.trailing_dims(value.shape, count) not in kinds:
            wanted = "(..., N)" if name == "mask" else "(..., N), (..., N, 2) or (..., N, 2, 2)"
            raise ValueError(
                f"{name}: got shape {tuple(value.shape)}, expected {wanted} with N = {count} as in points2d"
            )
    if weights is not None and not weights.is_floating_point():
        raise TypeError(f"weights: got dtype {weights.dtype}, expected a floating-point dtype")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(
            f"mask: got dtype {mask.dtype}, expected torch.bool (True = use the point); use mask.bool()"
        )
