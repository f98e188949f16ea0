"""What every robust loss has: evaluation, units, validity; and the scale most of them have."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree

Formula = tuple[Any, Any, Any]  # value, first and second derivative by u


class Rho(NamedTuple):
    """A loss and its derivatives by the squared residual s.

    >>> import posegrad as pg
    >>> pg.robust.Huber(1.0).evaluate(torch.tensor([4.0]))
    Rho(value=tensor([3.]), first=tensor([0.5000]), second=tensor([-0.0625]))
    """

    value: Float[Tensor, "*batch N"]
    first: Float[Tensor, "*batch N"]
    second: Float[Tensor, "*batch N"]


@dataclass(frozen=True, eq=False)
class RobustLoss:
    """A loss ``rho(s)`` of the squared residual; its parameters are the fields of a frozen dataclass.

    One of your own is a subclass of :class:`Scaled` with a formula, or of this with the three methods.

    >>> import posegrad as pg
    >>> pg.robust.Huber(2.0).in_units_of(torch.tensor(2.0)).scale
    tensor(1., dtype=torch.float64)
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        _pytree.register(cls)

    def evaluate(self, s: Float[Tensor, "*batch N"]) -> Rho:
        """``rho(s), rho'(s), rho''(s)`` for s (..., N) >= 0, in the dtype of s; parameters broadcast over N.

        All three are differentiable, by the parameters too.
        """
        raise NotImplementedError

    def in_units_of(self, factor: Float[Tensor, "*batch"]) -> Self:
        """The same loss for residuals divided by ``factor`` (...): ``rho(s / f^2; c / f) = rho(s; c) / f^2``."""
        raise NotImplementedError

    def invalid(self) -> Bool[Tensor, "*batch"]:
        """(...) True for items with a parameter outside of its range."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, init=False)
class Scaled(RobustLoss):
    """A loss with a scale: ``rho(s) = c^2 unit(s / c^2)``.

    A loss of your own is a subclass with ``unit(u)``, which returns value, first and second derivative.

    Args:
        scale: c > 0 in units of sqrt(s), a number or a tensor (...). Its square must not over- or underflow.

    >>> class Welsch(Scaled):
    ...     name = "welsch"
    ...     @staticmethod
    ...     def unit(u):
    ...         e = torch.exp(-u)
    ...         return 1 - e, e, -e
    >>> Welsch(2.0).evaluate(torch.tensor([0.0, 4.0])).value
    tensor([0.0000, 2.5285])
    """

    unit: ClassVar[Callable[..., Formula]]

    scale: Float[Tensor, "*batch"]

    def __init__(self, scale: float | Float[Tensor, "*batch"]) -> None:
        label = type(self).__name__ + ".scale"
        if is_number(scale) and not 0 < scale < math.inf:
            raise ValueError(f"{label}: got {scale!r}, expected a number > 0")
        object.__setattr__(self, "scale", parameter(label, scale))

    def evaluate(self, s: Tensor) -> Rho:
        square = self.scale.to(s).square()[..., None]
        value, first, second = self._at(s / square)
        return Rho(square * value, first, second / square)

    def in_units_of(self, factor: Tensor) -> Self:
        return replace(self, scale=self.scale / factor)

    def invalid(self) -> Tensor:
        square = self.scale.square()
        return ~((self.scale > 0) & (square >= torch.finfo(square.dtype).tiny) & (square < math.inf))

    def _at(self, u: Tensor) -> Formula:
        return self.unit(u)


class Piecewise(Scaled):
    """One formula up to ``u = 1``, that point included, and another beyond."""

    @staticmethod
    def inlier(u: Any) -> Formula:
        raise NotImplementedError

    @staticmethod
    def outlier(u: Any) -> Formula:
        raise NotImplementedError

    def _at(self, u: Tensor) -> Formula:
        beyond = u > 1
        # each formula sees only what it is made for: the other's infinities must not enter the graph
        inner = self.inlier(torch.where(beyond, 0.0, u))
        outer = self.outlier(torch.where(beyond, u, 1.0))
        value, first, second = (
            torch.where(beyond, _full(far, u), _full(near, u)) for near, far in zip(inner, outer, strict=True)
        )
        return value, first, second


def _full(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)


def is_number(value: Any) -> bool:
    """Whether a parameter is a Python number (True and False are none)."""
    return isinstance(value, Real) and not isinstance(value, bool)


def parameter(label: str, value: Any) -> Tensor:
    """A parameter as a tensor; numbers become float64 scalars."""
    if is_number(value):
        return torch.tensor(float(value), dtype=torch.float64)
    if not isinstance(value, Tensor):
        raise TypeError(f"{label}: got {type(value).__name__}, expected a number or a torch.Tensor")
    if not value.is_floating_point():
        raise TypeError(f"{label}: got dtype {value.dtype}, expected a floating-point dtype; use .double()")
    return value
