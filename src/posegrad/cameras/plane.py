"""Distortion of the image plane, ``d(m) = m g(|m|^2) + t(m)``, with its first and second derivatives.

``t(m) = (2 p1 a b + p2 (s + 2 a^2), 2 p2 a b + p1 (s + 2 b^2))`` for m = (a, b), s = a^2 + b^2: Brown's tangential
(decentring) terms. The derivative of d is a symmetric matrix. Plain scalar arithmetic, as the profiles.
"""

from typing import Any, NamedTuple


class Distortion(NamedTuple):
    """``d(m) = (u, v)`` and its derivative ``[[aa, ab], [ab, bb]]``."""

    u: Any
    v: Any
    aa: Any
    ab: Any
    bb: Any


def distorted(a: Any, b: Any, g: Any, tangential: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """``d(m)``."""
    if tangential is None:
        return a * g, b * g
    p1, p2 = tangential
    aa, ab, bb = a * a, a * b, b * b
    return a * g + 2 * p1 * ab + p2 * (3 * aa + bb), b * g + 2 * p2 * ab + p1 * (aa + 3 * bb)


def distortion(a: Any, b: Any, g: Any, g1: Any, tangential: tuple[Any, Any] | None) -> Distortion:
    """``d(m)`` and its derivative, from g and g'."""
    ga, gb = 2 * g1 * a, 2 * g1 * b
    u, v = distorted(a, b, g, tangential)
    aa, ab, bb = g + ga * a, ga * b, g + gb * b
    if tangential is not None:
        p1, p2 = tangential
        aa = aa + 2 * p1 * b + 6 * p2 * a
        ab = ab + 2 * p1 * a + 2 * p2 * b
        bb = bb + 6 * p1 * b + 2 * p2 * a
    return Distortion(u, v, aa, ab, bb)


def curvature(
    a: Any, b: Any, g1: Any, g2: Any, tangential: tuple[Any, Any] | None, wu: Any, wv: Any
) -> tuple[Any, Any, Any]:
    """Second derivative of ``wu d_u + wv d_v``: the entries aa, ab, bb."""
    dot = wu * a + wv * b
    outer, trace = 4 * g2 * dot, 2 * g1 * dot
    ha, hb = 2 * g1 * wu, 2 * g1 * wv
    aa = trace + (outer * a + 2 * ha) * a
    ab = (outer * a + ha) * b + hb * a
    bb = trace + (outer * b + 2 * hb) * b
    if tangential is not None:
        p1, p2 = tangential
        aa = aa + 6 * p2 * wu + 2 * p1 * wv
        ab = ab + 2 * p1 * wu + 2 * p2 * wv
        bb = bb + 2 * p2 * wu + 6 * p1 * wv
    return aa, ab, bb
