"""Radial profiles: how far from the centre a point of the ideal image lands, as ``g(s)`` of its squared radius s.

The point m of the ideal image moves to ``m g(|m|^2)``. A profile is a function of s and the model's radial
coefficients that returns ``g, g', g''``, derivatives by s. It is written in scalar arithmetic and the functions of
:mod:`posegrad.cameras.elementary` alone, and calls nothing else, so that one text serves tensors and compiled code.
"""

from collections.abc import Callable
from typing import Any

from posegrad.cameras.elementary import arctan_ratio, tangent_ratio

#: (s, *coefficients) -> (g, g', g''); a derivative that is constant may be a plain number
Profile = Callable[..., tuple[Any, Any, Any]]


def identity(s: Any) -> tuple[Any, Any, Any]:
    """``g = 1``: no distortion."""
    return 1.0, 0.0, 0.0


def linear(s: Any, k: Any) -> tuple[Any, Any, Any]:
    """``g = 1 + k s``."""
    return 1 + k * s, k, 0.0


def quadratic(s: Any, k1: Any, k2: Any) -> tuple[Any, Any, Any]:
    """``g = 1 + k1 s + k2 s^2``."""
    t = k2 * s
    return 1 + (k1 + t) * s, k1 + 2 * t, 2 * k2


def quartic(s: Any, k1: Any, k2: Any, k3: Any, k4: Any) -> tuple[Any, Any, Any]:
    """``g = 1 + k1 s + k2 s^2 + k3 s^3 + k4 s^4``."""
    t3, t4 = k3 * s, k4 * s
    t4s = t4 * s
    value = 1 + (k1 + (k2 + t3 + t4s) * s) * s
    first = k1 + (2 * k2 + 3 * t3 + 4 * t4s) * s
    return value, first, 2 * k2 + 6 * t3 + 12 * t4s


def rational(s: Any, k1: Any, k2: Any, k3: Any, k4: Any, k5: Any, k6: Any) -> tuple[Any, Any, Any]:
    """``g = (1 + k1 s + k2 s^2 + k3 s^3) / (1 + k4 s + k5 s^2 + k6 s^3)``."""
    t3, t6 = k3 * s, k6 * s
    inverse = 1 / (1 + (k4 + (k5 + t6) * s) * s)
    value = (1 + (k1 + (k2 + t3) * s) * s) * inverse
    # N = g D: N' = g' D + g D', N'' = g'' D + 2 g' D' + g D''
    bottom = k4 + (2 * k5 + 3 * t6) * s
    first = (k1 + (2 * k2 + 3 * t3) * s - value * bottom) * inverse
    second = (2 * k2 + 6 * t3 - 2 * first * bottom - value * (2 * k5 + 6 * t6)) * inverse
    return value, first, second


def rational_denominator(s: Any, k1: Any, k2: Any, k3: Any, k4: Any, k5: Any, k6: Any) -> Any:
    """That of :func:`rational`."""
    return 1 + (k4 + (k5 + k6 * s) * s) * s


def field_of_view(s: Any, omega: Any) -> tuple[Any, Any, Any]:
    """``g = atan(2 r tan(omega / 2)) / (r omega)``, ``r^2 = s``; even in omega, 1 at omega = 0."""
    squared = omega * omega
    ratio = tangent_ratio(0.25 * squared)  # 2 tan(omega / 2) / omega
    scale = squared * ratio * ratio
    value, first, second = arctan_ratio(scale * s, 0 * s + 1)
    return ratio * value, ratio * scale * first, ratio * scale * scale * second
