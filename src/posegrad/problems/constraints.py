"""Poses of which a part is known for certain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.pose import Pose

_AXES = "xyz"


@dataclass(frozen=True, eq=False, kw_only=True)
class PoseConstraint:
    """Hard constraints for :func:`solve_pnp`: what is given here is kept exactly, the rest is solved for.

    Values are constants: no gradient goes to them.

    Args:
        rotation: (..., 3, 3) the whole rotation is known.
        gravity: ``(in_world, in_camera)``, two directions (..., 3) of any length > 0: ``R in_world`` points along
            ``in_camera``, as with an inertial sensor. Left is the turn about it (yaw).
        translation: (..., 3) known translation, in the unit of the points.
        axes: which of its components are known, "xyz" or a part of it.

    Raises:
        TypeError, ValueError: for wrong shapes, both rotation and gravity, or nothing left to solve for.

    >>> PoseConstraint(gravity=(torch.tensor([0.0, 0, -1]), torch.tensor([0.0, 1, 0]))).dimension
    4
    """

    rotation: Float[Tensor, "*batch 3 3"] | None = None
    gravity: tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]] | None = None
    translation: Float[Tensor, "*batch 3"] | None = None
    axes: str = _AXES

    def __post_init__(self) -> None:
        if self.rotation is not None and self.gravity is not None:
            raise ValueError("PoseConstraint: got rotation and gravity, expected one of them")
        if self.gravity is not None and len(self.gravity) != 2:
            raise ValueError(
                f"PoseConstraint.gravity: got {len(self.gravity)} entries, expected two directions: in the world, "
                "in the camera"
            )
        for name, value, tail in self.tensors():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise TypeError(
                    f"PoseConstraint.{name}: got {value!r}, expected a floating-point torch.Tensor"
                )
            if tuple(value.shape[-len(tail) :]) != tail:
                raise ValueError(
                    f"PoseConstraint.{name}: got shape {tuple(value.shape)}, expected (..., {str(tail)[1:]}"
                )
        if not self.axes or self.axes not in ("x", "y", "z", "xy", "xz", "yz", "xyz"):
            raise ValueError(
                f"PoseConstraint.axes: got {self.axes!r}, expected letters of 'xyz' in this order"
            )
        if self.rotation is None and self.gravity is None and self.translation is None:
            raise ValueError("PoseConstraint: got nothing, expected rotation, gravity or translation")
        if self.dimension == 0:
            raise ValueError(
                "PoseConstraint: rotation and translation are all known, nothing is left to solve for"
            )

    @property
    def dimension(self) -> int:
        """Degrees of freedom that are left."""
        turns = 0 if self.rotation is not None else 1 if self.gravity is not None else 3
        return turns + 3 - (len(self.axes) if self.translation is not None else 0)

    def held(self, flat: Callable[[Tensor, int], Tensor], like: Float[Tensor, "B 3"]) -> "Held":
        """As tensors of a flat batch, detached: ``flat(tensor, trailing)`` makes them."""
        eye = torch.eye(3, dtype=like.dtype, device=like.device).expand(like.shape[0], 3, 3)
        a, b = self.gravity or (None, None)
        return Held(
            rotation=eye if self.rotation is None else flat(self.rotation.detach(), 2),
            in_world=eye[:, 0] if a is None else flat(a.detach(), 1),
            in_camera=eye[:, 0] if b is None else flat(b.detach(), 1),
            translation=like if self.translation is None else flat(self.translation.detach(), 1),
        )

    def tensors(self) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        """Name, value and trailing shape of what is given."""
        found = []
        if self.rotation is not None:
            found.append(("rotation", self.rotation, (3, 3)))
        if self.gravity is not None:
            found += [(f"gravity[{i}]", direction, (3,)) for i, direction in enumerate(self.gravity)]
        if self.translation is not None:
            found.append(("translation", self.translation, (3,)))
        return found


class Held(NamedTuple):
    """A constraint as tensors of the flat batch: what of them counts is told by :class:`Kind`."""

    rotation: Float[Tensor, "B 3 3"]
    in_world: Float[Tensor, "B 3"]
    in_camera: Float[Tensor, "B 3"]
    translation: Float[Tensor, "B 3"]

    def invalid(self, kind: "Kind") -> Bool[Tensor, " B"]:
        """Where something is held that is no rotation, no direction or not finite."""
        t = torch.where(kind.chosen(self.translation.device), self.translation, 0.0)
        good = t.isfinite().all(-1) & so3.is_rotation(self.rotation)
        for direction in (self.in_world, self.in_camera):
            length = direction.square().sum(-1)
            good = good & length.isfinite() & (length > torch.finfo(length.dtype).tiny)
        return ~good

    def keep(self, good: Bool[Tensor, " B"]) -> "Held":
        """Elsewhere something harmless; rotations exact."""
        eye = torch.eye(3, dtype=self.rotation.dtype, device=self.rotation.device)
        R = so3.normalise(torch.where(good[:, None, None], self.rotation, eye))
        rest = (torch.where(good[:, None], value, eye[0]) for value in self[1:])
        return Held(R, *rest)


@dataclass(frozen=True)
class Kind:
    """Which parts of a pose are held."""

    turn: str = "free"  # or "about" (gravity), "none"
    axes: str = ""  # of the translation, held

    @classmethod
    def of(cls, constraint: PoseConstraint | None) -> "Kind":
        if constraint is None:
            return cls()
        turn = (
            "none"
            if constraint.rotation is not None
            else "about"
            if constraint.gravity is not None
            else "free"
        )
        return cls(turn, constraint.axes if constraint.translation is not None else "")

    @property
    def dimension(self) -> int:
        """Degrees of freedom that are left."""
        return {"free": 3, "about": 1, "none": 0}[self.turn] + 3 - len(self.axes)

    def chosen(self, device: torch.device) -> Bool[Tensor, " 3"]:
        """Which components of the translation are held."""
        return torch.tensor([axis in self.axes for axis in _AXES], device=device)

    def onto(self, pose: Pose, held: Held) -> Pose:
        """The pose with its held parts as they must be, the others as little changed as can be."""
        R, t = pose.R, pose.t
        if self.turn == "none":
            R = held.rotation
        elif self.turn == "about":
            there = (R @ held.in_world[..., None]).squeeze(-1)
            R = so3.between(there, held.in_camera) @ R
        if self.axes:
            t = torch.where(self.chosen(t.device), held.translation, t)
        return Pose(R, t)

    def basis(self, held: Held) -> Float[Tensor, "B 6 K"]:
        """Directions of the tangent [rotation, translation] in which the pose may move."""
        size = held.translation.shape[0]
        eye = torch.eye(6, dtype=held.translation.dtype, device=held.translation.device).expand(size, 6, 6)
        columns = [eye[..., :3]] if self.turn == "free" else []
        if self.turn == "about":
            axis = held.in_camera / held.in_camera.square().sum(-1, keepdim=True).sqrt()
            columns.append(torch.cat([axis, torch.zeros_like(axis)], -1)[..., None])
        columns += [eye[..., 3 + i : 4 + i] for i, axis in enumerate(_AXES) if axis not in self.axes]
        return torch.cat(columns, -1)
