"""Where a variable lives: how it moves along its tangent.

A manifold acts on a batch: tensors (B, ...) of which every item is one point of it, or several (rotations (B, N, 3, 3)
are N rotations an item). Moves ``retract(x, delta)`` are twice differentiable at ``delta = 0``, and agree there with
the exponential map up to second order: implicit differentiation needs as much.

| manifold | variable | tangent |
|---|---|---|
| :class:`Euclidean` | (B, ...) | the numbers themselves |
| :class:`SO3` | (B, ..., 3, 3) | ``R <- exp(w) R``, w (..., 3) in radians |
| :class:`SE3` | :class:`posegrad.Pose` | ``R <- exp(w) R, t <- t + dt``, [w, dt] |
| :class:`Sphere` | (B, ..., n) of length 1 | n - 1 directions at right angles to x |
| :class:`Positive` | (B, ...), > 0 | logarithms: ``x <- x exp(delta)`` |
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.pose import Pose

_NEAR = 0.1  # how far off its manifold a start may be


class Manifold(ABC):
    """What a solver needs to know of the set that a variable is taken from. A frozen dataclass without tensors."""

    @abstractmethod
    def dimension(self, variable: Any) -> int:
        """Of an item's tangent. Raises ValueError for shapes that are no variable of this manifold."""

    @abstractmethod
    def retract(self, variable: Any, delta: Float[Tensor, "B D"]) -> Any:
        """Move along the tangent."""

    @abstractmethod
    def contains(self, variable: Any) -> Bool[Tensor, " B"]:
        """Where an item is close enough to be a start; False for NaN."""

    def project(self, variable: Any) -> Any:
        """The nearest variable to one that is close."""
        return variable

    @abstractmethod
    def harmless(self, variable: Any) -> Any:
        """Some point, of this variable's shape and dtype."""

    @abstractmethod
    def size(self, variable: Any) -> Float[Tensor, "B D"]:
        """How far is far, along each axis of the tangent."""


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Numbers without a constraint: (B, ...), tangent ``x <- x + delta`` in the order of ``flatten``.

    >>> Euclidean().retract(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    def dimension(self, variable: Tensor) -> int:
        return math.prod(_tensor(variable, self).shape[1:])

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return variable + delta.reshape(delta.shape[0], *variable.shape[1:])

    def contains(self, variable: Tensor) -> Tensor:
        return _all(variable.isfinite())

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.zeros_like(variable)

    def size(self, variable: Tensor) -> Tensor:
        flat = _flat(variable)
        root = flat.square().mean(-1, keepdim=True).sqrt()
        return torch.where(root > 0, root, torch.ones_like(root)).expand_as(flat)


@dataclass(frozen=True)
class Positive(Manifold):
    """Numbers > 0: (B, ...), tangent ``x <- x exp(delta)``.

    >>> Positive().retract(torch.ones(1, 1), torch.tensor([[0.0]]))
    tensor([[1.]])
    """

    def dimension(self, variable: Tensor) -> int:
        return math.prod(_tensor(variable, self).shape[1:])

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return variable * delta.exp().reshape(delta.shape[0], *variable.shape[1:])

    def contains(self, variable: Tensor) -> Tensor:
        return _all((variable > 0) & variable.isfinite())

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.ones_like(variable)

    def size(self, variable: Tensor) -> Tensor:
        return torch.ones_like(_flat(variable))


@dataclass(frozen=True)
class Sphere(Manifold):
    """Unit vectors: (B, ..., n), n >= 2, tangent ``x <- (x + Q delta) / |x + Q delta|``.

    The columns of Q are the n - 1 axes of ``I - 2 h h^T / |h|^2`` beside the last, with ``h = x + sign(x_n) e_n``.

    >>> Sphere().retract(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0.7071, 0.0000, 0.7071]])
    """

    def dimension(self, variable: Tensor) -> int:
        if _tensor(variable, self).ndim < 2 or variable.shape[-1] < 2:
            raise ValueError(f"Sphere: got shape {tuple(variable.shape)}, expected (B, ..., n), n >= 2")
        return math.prod(variable.shape[1:-1]) * (variable.shape[-1] - 1)

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        side = torch.where(variable[..., -1:] < 0, -1.0, 1.0).to(variable)
        h = torch.cat([variable[..., :-1], variable[..., -1:] + side], -1)
        step = delta.reshape(*variable.shape[:-1], variable.shape[-1] - 1)
        along = 2 * (h[..., :-1] * step).sum(-1, keepdim=True) / h.square().sum(-1, keepdim=True)
        moved = variable + torch.cat([step, torch.zeros_like(along)], -1) - along * h
        return moved / moved.square().sum(-1, keepdim=True).sqrt()

    def contains(self, variable: Tensor) -> Tensor:
        return _all((variable.square().sum(-1).sqrt() - 1).abs() < _NEAR)

    def project(self, variable: Tensor) -> Tensor:
        return variable / variable.square().sum(-1, keepdim=True).sqrt()

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.ones_like(variable) / math.sqrt(variable.shape[-1])

    def size(self, variable: Tensor) -> Tensor:
        return torch.ones_like(_flat(variable[..., 1:]))


@dataclass(frozen=True)
class SO3(Manifold):
    """Rotation matrices: (B, ..., 3, 3), tangent ``R <- exp(w) R`` (moved by Cayley's map, the same to second order).

    >>> SO3().retract(torch.eye(3)[None], torch.zeros(1, 3))[0, 0]
    tensor([1., 0., 0.])
    """

    def dimension(self, variable: Tensor) -> int:
        if _tensor(variable, self).ndim < 3 or tuple(variable.shape[-2:]) != (3, 3):
            raise ValueError(f"SO3: got shape {tuple(variable.shape)}, expected (B, ..., 3, 3)")
        return math.prod(variable.shape[1:-1])

    def retract(self, variable: Tensor, delta: Tensor) -> Tensor:
        return so3.cayley(delta.reshape(*variable.shape[:-1])) @ variable

    def contains(self, variable: Tensor) -> Tensor:
        return _all(so3.is_rotation(variable, _NEAR))

    def project(self, variable: Tensor) -> Tensor:
        return so3.normalise(variable)

    def harmless(self, variable: Tensor) -> Tensor:
        return torch.eye(3, dtype=variable.dtype, device=variable.device).expand_as(variable).clone()

    def size(self, variable: Tensor) -> Tensor:
        return torch.ones_like(_flat(variable[..., 0]))


@dataclass(frozen=True)
class SE3(Manifold):
    """Poses: a :class:`posegrad.Pose` of batch shape (B,), tangent as in :meth:`posegrad.Pose.retract`.

    >>> SE3().retract(Pose.identity(1), torch.zeros(1, 6)).t
    tensor([[0., 0., 0.]])
    """

    def dimension(self, variable: Pose) -> int:
        if not isinstance(variable, Pose):
            raise TypeError(f"SE3: got {type(variable).__name__}, expected a pg.Pose")
        if len(variable.shape) != 1:
            raise ValueError(f"SE3: got a Pose of batch shape {tuple(variable.shape)}, expected (B,)")
        return 6

    def retract(self, variable: Pose, delta: Tensor) -> Pose:
        return Pose(so3.cayley(delta[:, :3]) @ variable.R, variable.t + delta[:, 3:])

    def contains(self, variable: Pose) -> Tensor:
        return so3.is_rotation(variable.R, _NEAR) & _all(variable.t.isfinite())

    def project(self, variable: Pose) -> Pose:
        return Pose(so3.normalise(variable.R), variable.t)

    def harmless(self, variable: Pose) -> Pose:
        return Pose(SO3().harmless(variable.R), torch.zeros_like(variable.t))

    def size(self, variable: Pose) -> Tensor:
        return torch.cat([torch.ones_like(variable.t), Euclidean().size(variable.t)], -1)


@dataclass(frozen=True)
class Product(Manifold):
    """A tuple, list or dict of variables, each on its own manifold; the tangents one after the other.

    Args:
        parts: a tuple of the parts' manifolds, in the order of the variable's values.

    >>> Product((Positive(), Sphere())).dimension((torch.ones(1, 1), torch.tensor([[1.0, 0.0]])))
    2
    """

    parts: tuple[Manifold, ...]

    def dimension(self, variable: Any) -> int:
        return sum(part.dimension(own) for part, own in self._pairs(variable))

    def retract(self, variable: Any, delta: Tensor) -> Any:
        moved, first = [], 0
        for part, own in self._pairs(variable):
            last = first + part.dimension(own)
            moved.append(part.retract(own, delta[:, first:last]))
            first = last
        return _like(variable, moved)

    def contains(self, variable: Any) -> Tensor:
        return torch.stack([part.contains(own) for part, own in self._pairs(variable)]).all(0)

    def project(self, variable: Any) -> Any:
        return _like(variable, [part.project(own) for part, own in self._pairs(variable)])

    def harmless(self, variable: Any) -> Any:
        return _like(variable, [part.harmless(own) for part, own in self._pairs(variable)])

    def size(self, variable: Any) -> Tensor:
        return torch.cat([part.size(own) for part, own in self._pairs(variable)], -1)

    def _pairs(self, variable: Any) -> "zip[tuple[Manifold, Any]]":
        return zip(self.parts, _values(variable), strict=True)


@dataclass(frozen=True)
class Inferred(Manifold):
    """Whatever :func:`manifold_of` says of the variable at hand."""

    given: Any = None

    def dimension(self, variable: Any) -> int:
        return manifold_of(variable, self.given).dimension(variable)

    def retract(self, variable: Any, delta: Tensor) -> Any:
        return manifold_of(variable, self.given).retract(variable, delta)

    def contains(self, variable: Any) -> Tensor:
        return manifold_of(variable, self.given).contains(variable)

    def harmless(self, variable: Any) -> Any:
        return manifold_of(variable, self.given).harmless(variable)

    def size(self, variable: Any) -> Tensor:
        return manifold_of(variable, self.given).size(variable)


def manifold_of(variable: Any, given: Any = None, name: str = "init") -> Manifold:
    """The manifold of a variable: as given, where it is; else SE3 for a Pose and Euclidean for a tensor.

    Args:
        variable: a tensor, a Pose, or a tuple, list or dict of those, nested at will.
        given: None, a :class:`Manifold`, or a tuple, list or dict like the variable's whose values are either.
        name: for errors.

    >>> manifold_of((torch.zeros(1, 3), Pose.identity(1)))
    Product(parts=(Euclidean(), SE3()))
    >>> manifold_of({"scale": torch.ones(1, 1), "x": torch.ones(1, 2)}, {"scale": Positive()})
    Product(parts=(Positive(), Euclidean()))
    """
    if isinstance(given, Manifold):
        given.dimension(variable)
        return given
    if given is None and isinstance(variable, Pose | Tensor):
        return SE3() if isinstance(variable, Pose) else Euclidean()
    if not isinstance(variable, tuple | list | dict) or not variable:
        wanted = "a tensor, a pg.Pose, or a tuple, list or dict of them"
        got = (
            type(variable).__name__ if given is None else f"{type(variable).__name__} with manifold {given!r}"
        )
        raise TypeError(f"{name}: got {got}, expected {wanted}")
    keys = list(variable) if isinstance(variable, dict) else list(range(len(variable)))
    if given is None:
        given = {}
    elif isinstance(given, tuple | list) and not isinstance(variable, dict) and len(given) == len(variable):
        given = dict(enumerate(given))
    elif not isinstance(given, dict) or not isinstance(variable, dict) or not set(given) <= set(variable):
        raise ValueError(f"manifold: got {given!r}, expected one of pg.manifolds or the structure of {name}")
    return Product(tuple(manifold_of(variable[key], given.get(key), f"{name}[{key!r}]") for key in keys))


def _tensor(variable: Any, manifold: Manifold) -> Tensor:
    if not isinstance(variable, Tensor):
        raise TypeError(f"{type(manifold).__name__}: got {type(variable).__name__}, expected a torch.Tensor")
    if variable.ndim < 1:
        raise ValueError(f"{type(manifold).__name__}: got a tensor without dimensions, expected (B, ...)")
    return variable


def _values(variable: Any) -> list[Any]:
    return list(variable.values()) if isinstance(variable, dict) else list(variable)


def _like(variable: Any, values: list[Any]) -> Any:
    if isinstance(variable, dict):
        return dict(zip(variable, values, strict=True))
    return type(variable)(*values) if hasattr(variable, "_fields") else type(variable)(values)


def _all(flags: Tensor) -> Bool[Tensor, " B"]:
    return flags.flatten(1).all(-1) if flags.ndim > 1 else flags


def _flat(variable: Tensor) -> Float[Tensor, "B D"]:
    return variable.flatten(1) if variable.ndim > 1 else variable[:, None]
