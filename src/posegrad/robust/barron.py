"""Barron's general loss, whose shape is a parameter."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.robust.base import Formula, Scaled, is_number, parameter


@dataclass(frozen=True, eq=False, init=False)
class Barron(Scaled):
    """The general loss: ``rho(u) = 2 (b / alpha) ((1 + u / b)^(alpha / 2) - 1)`` with ``b = |alpha - 2|``.

    Twice Barron's, so that ``rho(s) = s + O(s^2)``. Special cases, as limits: alpha = 2 squares; 1 soft_l1;
    0 ``2 log(1 + u / 2)``, cauchy of scale sqrt(2) c; -2 ``4 u / (4 + u)``, geman_mcclure of scale 2 c;
    -inf ``2 (1 - exp(-u / 2))``, Welsch's. Convex for alpha >= 1; above 2 it grows faster than squares.

    Value and derivatives are right to rounding for every alpha, the special ones included. By alpha the loss is not
    differentiable at 2: its slope grows like ``u / 2 log(u / |alpha - 2|)`` from both sides. It is followed down to a
    distance of one machine epsilon, and ends there at a finite number. Below -1 / epsilon the gradient by alpha is 0.

    Args:
        scale: as in every loss, a number or a tensor (...).
        alpha: shape, a number or a tensor (...) that broadcasts with the scale; any real or -inf.

    Reference: Barron, "A General and Adaptive Robust Loss Function", CVPR 2019.

    >>> Barron(1.0, alpha=2.0).evaluate(torch.tensor([0.0, 4.0])).value
    tensor([0., 4.])
    """

    name: ClassVar[str] = "barron"

    alpha: Float[Tensor, "*batch"]

    def __init__(
        self, scale: float | Float[Tensor, "*batch"], alpha: float | Float[Tensor, "*batch"]
    ) -> None:
        super().__init__(scale)
        if is_number(alpha) and not alpha < math.inf:
            raise ValueError(f"Barron.alpha: got {alpha!r}, expected a real number or -inf")
        object.__setattr__(self, "alpha", parameter("Barron.alpha", alpha))

    def invalid(self) -> Tensor:
        return super().invalid() | ~(self.alpha < math.inf)

    @staticmethod
    def unit(u: Tensor, alpha: Tensor) -> Formula:
        """Value and derivatives at u = s / scale^2."""
        eps = torch.finfo(u.dtype).eps
        alpha = alpha.clamp(min=-1 / eps)
        gap = (alpha - 2).abs()
        distinct = gap > eps
        b = torch.where(distinct, gap, eps)
        half_sign = torch.where(distinct, 0.5 * (alpha - 2).sign(), (alpha / 2 - 1) / eps)
        # log(1 + u / b), without the quotient where it may overflow
        near = u < b
        L = torch.where(near, (torch.where(near, u, 0.0) / b).log1p(), (u + b).log() - b.log())
        exponent = (alpha / 2 - 1) * L
        # the first form has no cancellation where b is small, the second none where alpha is
        upper = alpha >= 1
        by_exponent = 2 / torch.where(upper, alpha, 1.0) * (u * exponent.exp() + b * exponent.expm1())
        by_logarithm = b * L * _expm1_ratio(torch.where(upper, 0.0, alpha) * L / 2)
        value = torch.where(upper, by_exponent, by_logarithm)
        return value, exponent.exp(), half_sign * (exponent - L).exp()

    def _at(self, u: Tensor) -> Formula:
        return self.unit(u, self.alpha.to(u)[..., None])


def _expm1_ratio(x: Tensor) -> Tensor:
    """``(exp(x) - 1) / x``, with a series near zero, where the quotient loses its derivatives."""
    small = x.abs() < 0.3
    y = torch.where(small, x, 0.0)
    series = torch.ones_like(y)
    for n in range(13, 1, -1):  # the first dropped term is below 1e-17
        series = 1 + y / n * series
    y = torch.where(small, 1.0, x)
    return torch.where(small, series, y.expm1() / y)
