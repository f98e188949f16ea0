"""What every manifold has."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

NEAR = 0.1  # how far off its manifold a start may be


class Manifold(ABC):
    """What a solver needs to know of the set that a variable is taken from. A frozen dataclass without tensors."""

    @abstractmethod
    def dimension(self, variable: Any) -> int:
        """Of an item's tangent. Raises ValueError for shapes that are no variable of this manifold."""

    @abstractmethod
    def retract(self, variable: Any, delta: Float[Tensor, "B D"]) -> Any:
        """Move along the tangent."""

    def near(self, variable: Any, delta: Float[Tensor, "B D"]) -> Any:
        """The same up to the second order at zero, for derivatives there, if that takes fewer operations."""
        return self.retract(variable, delta)

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


def checked_tensor(variable: Any, manifold: Manifold) -> Tensor:
    """The variable, if it is a tensor with the batch in front."""
    if not isinstance(variable, Tensor):
        raise TypeError(f"{type(manifold).__name__}: got {type(variable).__name__}, expected a torch.Tensor")
    if variable.ndim < 1:
        raise ValueError(f"{type(manifold).__name__}: got a tensor without dimensions, expected (B, ...)")
    return variable


def all_of(flags: Tensor) -> Bool[Tensor, " B"]:
    """Of each item."""
    return flags.flatten(1).all(-1) if flags.ndim > 1 else flags


def flat(variable: Tensor) -> Float[Tensor, "B D"]:
    """All that an item has in one row."""
    return variable.flatten(1) if variable.ndim > 1 else variable[:, None]
