"""Variables made of several, and which manifold a variable is on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posegrad.manifolds.base import Manifold
from posegrad.manifolds.rotations import SE3
from posegrad.manifolds.vectors import Euclidean
from posegrad.pose import Pose


@dataclass(frozen=True)
class Product(Manifold):
    """A tuple, list or dict of variables, each on its own manifold; the tangents one after the other.

    Args:
        parts: a tuple of the parts' manifolds, in the order of the variable's values.

    >>> from posegrad.manifolds import Positive, Sphere
    >>> Product((Positive(), Sphere())).dimension((torch.ones(1, 1), torch.tensor([[1.0, 0.0]])))
    2
    """

    parts: tuple[Manifold, ...]

    def dimension(self, variable: Any) -> int:
        return sum(part.dimension(own) for part, own in self._pairs(variable))

    def retract(self, variable: Any, delta: Tensor) -> Any:
        return _like(variable, [part.retract(own, d) for part, own, d in self._divided(variable, delta)])

    def near(self, variable: Any, delta: Tensor) -> Any:
        return _like(variable, [part.near(own, d) for part, own, d in self._divided(variable, delta)])

    def contains(self, variable: Any) -> Tensor:
        return torch.stack([part.contains(own) for part, own in self._pairs(variable)]).all(0)

    def project(self, variable: Any) -> Any:
        return _like(variable, [part.project(own) for part, own in self._pairs(variable)])

    def harmless(self, variable: Any) -> Any:
        return _like(variable, [part.harmless(own) for part, own in self._pairs(variable)])

    def size(self, variable: Any) -> Tensor:
        return torch.cat([part.size(own) for part, own in self._pairs(variable)], -1)

    def _divided(self, variable: Any, delta: Tensor) -> Iterator[tuple[Manifold, Any, Tensor]]:
        first = 0
        for part, own in self._pairs(variable):
            last = first + part.dimension(own)
            yield part, own, delta[:, first:last]
            first = last

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

    def near(self, variable: Any, delta: Tensor) -> Any:
        return manifold_of(variable, self.given).near(variable, delta)

    def contains(self, variable: Any) -> Tensor:
        return manifold_of(variable, self.given).contains(variable)

    def project(self, variable: Any) -> Any:
        return manifold_of(variable, self.given).project(variable)

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

    >>> from posegrad.manifolds import Positive
    >>> manifold_of((torch.zeros(1, 3), Pose.identity(1)))
    Product(parts=(Euclidean(), SE3()))
    >>> manifold_of({"scale": torch.ones(1, 1), "x": torch.ones(1, 2)}, {"scale": Positive()})
    Product(parts=(Positive(), Euclidean()))
    """
    if isinstance(given, Manifold):
        given.dimension(variable)
        return given
    if not isinstance(given, tuple | list | dict | None):
        raise TypeError(f"manifold: got {given!r}, expected an instance such as pg.manifolds.SO3()")
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


def _values(variable: Any) -> list[Any]:
    return list(variable.values()) if isinstance(variable, dict) else list(variable)


def _like(variable: Any, values: list[Any]) -> Any:
    if isinstance(variable, dict):
        return dict(zip(variable, values, strict=True))
    return type(variable)(*values) if hasattr(variable, "_fields") else type(variable)(values)
