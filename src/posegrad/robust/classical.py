"""The robust losses with a scale alone, and least squares, which has none."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from posegrad.robust.base import Formula, Piecewise, Rho, RobustLoss, Scaled


@dataclass(frozen=True, eq=False)
class Squared(RobustLoss):
    """Least squares: ``rho(s) = s``. What no loss means.

    >>> Squared().evaluate(torch.tensor([0.0, 4.0])).value
    tensor([0., 4.])
    """

    name: ClassVar[str] = "squared"

    def evaluate(self, s: Tensor) -> Rho:
        return Rho(s, torch.ones_like(s), torch.zeros_like(s))

    def in_units_of(self, factor: Tensor) -> Self:
        return self

    def invalid(self) -> Tensor:
        return torch.zeros((), dtype=torch.bool)


@dataclass(frozen=True, eq=False, init=False)
class Huber(Piecewise):
    """Squares up to the scale, distances beyond: ``rho(u) = u`` for u <= 1, else ``2 sqrt(u) - 1``.

    Convex: adds no local minimum. An outlier pulls with the force of a residual at the scale, however far it is. At
    u = 1 value and slope are continuous; ``rho''`` jumps from 0 to -1/2 and is 0 there.

    Reference: Huber, Ann. Math. Stat. 35 (1964); ``HuberLoss`` of Ceres, ``huber`` of SciPy.

    >>> Huber(2.0).evaluate(torch.tensor([1.0, 16.0])).value
    tensor([ 1., 12.])
    """

    name: ClassVar[str] = "huber"

    @staticmethod
    def inlier(u: Any) -> Formula:
        """Up to u = 1."""
        return u, 1.0, 0.0

    @staticmethod
    def outlier(u: Any) -> Formula:
        """Beyond u = 1."""
        root = u**0.5
        first = 1 / root
        return 2 * root - 1, first, -0.5 * first / u


@dataclass(frozen=True, eq=False, init=False)
class SoftL1(Scaled):
    """A smooth Huber loss: ``rho(u) = 2 (sqrt(1 + u) - 1)``. Convex.

    Reference: Charbonnier et al., ICIP 1994 ("pseudo-Huber"); ``SoftLOneLoss`` of Ceres, ``soft_l1`` of SciPy. Barron's
    loss at alpha = 1.

    >>> SoftL1(1.0).evaluate(torch.tensor([0.0, 3.0])).value
    tensor([0., 2.])
    """

    name: ClassVar[str] = "soft_l1"

    @staticmethod
    def unit(u: Any) -> Formula:
        """Value and derivatives at u = s / scale^2."""
        root = (1 + u) ** 0.5
        first = 1 / root
        return 2 * u / (1 + root), first, -0.5 * first / (1 + u)


@dataclass(frozen=True, eq=False, init=False)
class Cauchy(Scaled):
    """``rho(u) = log(1 + u)``: the pull of an outlier fades like one over its distance, and never ends.

    Not convex: wants a start at which most residuals are small. Barron's loss at alpha = 0 and this scale over sqrt(2).

    Reference: Zhang, "Parameter estimation techniques" (1997), table 1; ``CauchyLoss`` of Ceres, ``cauchy`` of SciPy.

    >>> Cauchy(1.0).evaluate(torch.tensor([0.0, 1.0])).first
    tensor([1.0000, 0.5000])
    """

    name: ClassVar[str] = "cauchy"

    @staticmethod
    def unit(u: Any) -> Formula:
        """Value and derivatives at u = s / scale^2."""
        first = 1 / (1 + u)
        return torch.log1p(u), first, -first * first


@dataclass(frozen=True, eq=False, init=False)
class GemanMcClure(Scaled):
    """``rho(u) = u / (1 + u)``: an outlier costs at most scale^2, and its pull fades like its distance cubed.

    Not convex. Barron's loss at alpha = -2 and half this scale.

    Reference: Geman & McClure, Bull. ISI 52 (1987); Zhang, "Parameter estimation techniques" (1997), table 1.

    >>> GemanMcClure(1.0).evaluate(torch.tensor([0.0, 1.0])).value
    tensor([0.0000, 0.5000])
    """

    name: ClassVar[str] = "geman_mcclure"

    @staticmethod
    def unit(u: Any) -> Formula:
        """Value and derivatives at u = s / scale^2."""
        r = 1 / (1 + u)
        return u / (1 + u), r * r, -2 * r * r * r


@dataclass(frozen=True, eq=False, init=False)
class Tukey(Piecewise):
    """Tukey's biweight: ``rho(u) = (1 - (1 - u)^3) / 3`` for u <= 1, else 1/3.

    Residuals beyond the scale do not count at all, and get no gradient; an item with too few others is degenerate. Not
    convex. At u = 1 value, slope and second derivative are continuous.

    Reference: Beaton & Tukey, Technometrics 16 (1974); ``TukeyLoss`` of Ceres.

    >>> Tukey(1.0).evaluate(torch.tensor([0.0, 0.5, 9.0])).first
    tensor([1.0000, 0.2500, 0.0000])
    """

    name: ClassVar[str] = "tukey"

    @staticmethod
    def inlier(u: Any) -> Formula:
        """Up to u = 1."""
        rest = 1 - u
        return u * (1 - u * (1 - u / 3)), rest * rest, -2 * rest

    @staticmethod
    def outlier(u: Any) -> Formula:
        """Beyond u = 1."""
        return 1 / 3, 0.0, 0.0


@dataclass(frozen=True, eq=False, init=False)
class Truncated(Piecewise):
    """Truncated squares: ``rho(u) = min(u, 1)``, the cost of MSAC.

    Residuals beyond the scale do not count, all others count in full: at the minimum it is the least-squares fit to
    its own inliers. The slope jumps from 1 to 0 at u = 1 and is 1 there; the gradient of a fit knows nothing of points
    about to change sides.

    Reference: Torr & Zisserman, "MLESAC", CVIU 78 (2000); ``TRUNCATED`` of PoseLib.

    >>> Truncated(1.0).evaluate(torch.tensor([0.5, 1.0, 9.0])).first
    tensor([1., 1., 0.])
    """

    name: ClassVar[str] = "truncated"

    @staticmethod
    def inlier(u: Any) -> Formula:
        """Up to u = 1."""
        return u, 1.0, 0.0

    @staticmethod
    def outlier(u: Any) -> Formula:
        """Beyond u = 1."""
        return 1.0, 0.0, 0.0
