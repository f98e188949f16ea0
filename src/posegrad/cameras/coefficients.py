"""Derivatives of the radial profiles by their coefficients, which calibration needs.

For a profile ``g(s; k)`` of :mod:`posegrad.cameras.profiles`: ``dg/dk_j`` and its derivative by s, and the second
derivatives by two coefficients, those that are not zero.
"""

from collections.abc import Callable
from typing import Any

import torch

from posegrad.cameras import profiles
from posegrad.cameras.elementary import tangent_ratio

# The series' first dropped term and the closed form's lost digits are both some 1e-10 here.
_FOV_SERIES_BELOW = 3e-3

#: (s, *coefficients) -> [(dg/dk_j, d^2 g/dk_j ds)], {(j, l): d^2 g/dk_j dk_l} with j <= l
ByCoefficients = Callable[..., tuple[list[tuple[Any, Any]], dict[tuple[int, int], Any]]]


def polynomial(s: Any, *k: Any) -> tuple[list[tuple[Any, Any]], dict[tuple[int, int], Any]]:
    """Of ``g = 1 + k1 s + k2 s^2 + ...``."""
    first, power = [], s * 0 + 1
    for j in range(1, len(k) + 1):
        first.append((power * s, j * power))
        power = power * s
    return first, {}


def rational(
    s: Any, k1: Any, k2: Any, k3: Any, k4: Any, k5: Any, k6: Any
) -> tuple[list[tuple[Any, Any]], dict[tuple[int, int], Any]]:
    """Of ``g = (1 + k1 s + k2 s^2 + k3 s^3) / D``, ``D = 1 + k4 s + k5 s^2 + k6 s^3``."""
    inverse = 1 / (1 + (k4 + (k5 + k6 * s) * s) * s)
    slope = (k4 + (2 * k5 + 3 * k6 * s) * s) * inverse  # D' / D
    value = (1 + (k1 + (k2 + k3 * s) * s) * s) * inverse
    value_slope = (k1 + (2 * k2 + 3 * k3 * s) * s) * inverse - value * slope
    above = []  # s^j / D
    power = inverse
    for j in range(1, 4):
        above.append((power * s, power * (j - s * slope)))
        power = power * s
    below = [(-value * a, -value_slope * a - value * a1) for a, a1 in above]
    second = {}
    for j in range(3):
        for l in range(3):
            product = above[j][0] * above[l][0]
            second[j, 3 + l] = -product
            if l >= j:
                second[3 + j, 3 + l] = 2 * value * product
    return above + below, second


def field_of_view(s: Any, omega: Any) -> tuple[list[tuple[Any, Any]], dict[tuple[int, int], Any]]:
    """Of ``omega g = atan(T r) / r`` with ``T = 2 tan(omega / 2)``, whose derivative by omega is ``T' / (1 + T^2 s)``.

    Near omega = 0, where what follows divides zero by zero, by the series ``g = 1 + a omega^2 + c omega^4``.
    """
    near = omega.abs() < _FOV_SERIES_BELOW
    w = torch.where(near, 1.0, omega)
    g, g1, _ = profiles.field_of_view(s, w)
    t = w * tangent_ratio(0.25 * w * w)
    square, slope = t * t, 1 + 0.25 * t * t
    inverse = 1 / (1 + square * s)
    b, b1 = slope * inverse, -slope * square * inverse * inverse
    b2 = t * slope * inverse * (0.5 - 2 * slope * s * inverse)
    first, first1 = (b - g) / w, (b1 - g1) / w
    second = (b2 - 2 * first) / w
    z = torch.where(near, omega, 0.0)
    a, c, c1 = 1 / 12 - s / 3, 1 / 120 - s / 12 + s * s / 5, -1 / 12 + 0.4 * s
    zz = z * z
    first = torch.where(near, z * (2 * a + 4 * zz * c), first)
    first1 = torch.where(near, z * (-2 / 3 + 4 * zz * c1), first1)
    return [(first, first1)], {(0, 0): torch.where(near, 2 * a + 12 * zz * c, second)}


#: profiles that have closed forms
BY_COEFFICIENTS: dict[profiles.Profile, ByCoefficients] = {
    profiles.identity: polynomial,
    profiles.linear: polynomial,
    profiles.quadratic: polynomial,
    profiles.quartic: polynomial,
    profiles.rational: rational,
    profiles.field_of_view: field_of_view,
}
