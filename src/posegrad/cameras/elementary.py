"""The few functions beyond + - * / that camera models need, smooth where textbook forms divide zero by zero.

Each is a function of a squared radius or angle with a Taylor series near zero, so that all derivatives are right on
the optical axis, and none is NaN.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Of the squared tangent. The first dropped term of the series is below 1e-20 there, and the recursion used above it
# loses three digits of a second derivative, which is multiplied by the same small number wherever it counts.
_ARCTAN_SERIES_BELOW = 1e-3
_SINC_SERIES_BELOW = 0.04  # squared angle; as in so3
_TAN_SERIES_BELOW = 1e-3  # squared angle


def arctan_ratio(
    square: Float[Tensor, "..."], z: Float[Tensor, "..."], order: int = 2
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """``A = atan2(rho, z) / rho`` and its first and second derivative by ``square = rho^2``, those up to ``order``.

    Away from the axis, with ``n^2 = rho^2 + z^2``: ``A' = (z / n^2 - A) / (2 rho^2)`` and
    ``A'' = -(z / n^4 + 3 A') / (2 rho^2)``. Near it the highest comes from its series in ``(rho / z)^2``, and the
    same equations, solved for the lower ones, divide by nothing small. Differentiable any number of times.

    Args:
        square: squared distance from the axis, >= 0.
        z: along the axis, any sign; not zero where ``square`` is.
        order: 0, 1 or 2.
    """
    near = (square < _ARCTAN_SERIES_BELOW * z * z) & (z > 0)
    inverse = torch.where(near, z, 1.0).reciprocal()
    t = torch.where(near, square, 0.0) * inverse * inverse
    far_square = torch.where(near, 1.0, square)
    rho = far_square.sqrt()
    value = torch.atan2(rho, z) / rho
    if order == 0:
        series = 1 - t * (1 / 3 - t * (1 / 5 - t * (1 / 7 - t * (1 / 9 - t * (1 / 11 - t / 13)))))
        return torch.where(near, series * inverse, value), None, None
    n_inverse = (square + z * z).reciprocal()
    slope = z * n_inverse
    half = 0.5 / far_square
    first = (slope - value) * half
    if order == 1:
        series = 1 / 3 - t * (2 / 5 - t * (3 / 7 - t * (4 / 9 - t * (5 / 11 - t * (6 / 13 - t * (7 / 15))))))
        first = torch.where(near, -series * inverse**3, first)
        return torch.where(near, slope - 2 * square * first, value), first, None
    bend = slope * n_inverse
    series = 2 / 5 - t * (
        6 / 7 - t * (12 / 9 - t * (20 / 11 - t * (30 / 13 - t * (42 / 15 - t * (56 / 17)))))
    )
    second = torch.where(near, series * inverse**5, -(bend + 3 * first) * half)
    first = torch.where(near, -(bend + 2 * square * second) / 3, first)
    return torch.where(near, slope - 2 * square * first, value), first, second


def sine_and_cosine(square: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """``sin(s) / s`` and ``cos(s)`` of the squared angle."""
    small = square < _SINC_SERIES_BELOW
    angle = torch.where(small, 1.0, square).sqrt()
    s = torch.where(small, square, 0.0)
    sinc = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72 * (1 - s / 110))))
    cosine = 1 - s / 2 * (1 - s / 12 * (1 - s / 30 * (1 - s / 56 * (1 - s / 90 * (1 - s / 132)))))
    return torch.where(small, sinc, angle.sin() / angle), torch.where(small, cosine, angle.cos())


def tangent_ratio(square: Float[Tensor, "..."]) -> Tensor:
    """``tan(s) / s`` of the squared angle."""
    small = square < _TAN_SERIES_BELOW
    angle = torch.where(small, 1.0, square).sqrt()
    s = torch.where(small, square, 0.0)
    series = 1 + s * (1 / 3 + s * (2 / 15 + s * (17 / 315 + s * (62 / 2835 + s * (1382 / 155925)))))
    return torch.where(small, series, angle.tan() / angle)
