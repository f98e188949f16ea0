"""Derivatives of the radial profiles by their coefficients, which calibration needs.

For a profile ``g(s; k)`` of :mod:`posegrad.cameras.profiles`: ``dg/dk_j`` and its derivative by s, and the second
derivatives by two coefficients, those that are not zero. Plain arithmetic that calls nothing, as the profiles.
"""

from collections.abc import Callable
from typing import Any

from posegrad.cameras import profiles

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


#: profiles that have closed forms
BY_COEFFICIENTS: dict[profiles.Profile, ByCoefficients] = {
    profiles.identity: polynomial,
    profiles.linear: polynomial,
    profiles.quadratic: polynomial,
    profiles.quartic: polynomial,
    profiles.rational: rational,
}
