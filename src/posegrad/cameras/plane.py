"""Distortion of the image plane, ``d(m) = m g(|m|^2) + 2 (q . m) m + q |m|^2``, with its derivatives.

``q = (p2, p1)`` holds Brown's tangential (decentring) coefficients: with m = (a, b) and s = a^2 + b^2 their terms are
``(2 p1 a b + p2 (s + 2 a^2), 2 p2 a b + p1 (s + 2 b^2))``. The derivative of d is symmetric,

    D = h I + n m^T + m n^T,   h = g + 2 q . m,   n = g' m + 2 q,

and the second derivative of ``<w, d>`` is, with ``e = 2 (g' m + q)``,

    w e^T + e w^T + (w . e) I + 4 g'' (w . m) m m^T.

Plain scalar arithmetic that calls nothing, as the profiles.
"""

from typing import Any, NamedTuple


class Distortion(NamedTuple):
    """``d(m) = (u, v)`` and its derivative ``[[aa, ab], [ab, bb]]``."""

    u: Any
    v: Any
    aa: Any
    ab: Any
    bb: Any


def distorted(a: Any, b: Any, s: Any, g: Any, tangential: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """``d(m)`` alone."""
    if tangential is None:
        return a * g, b * g
    p1, p2 = tangential
    h = g + 2 * (p2 * a + p1 * b)
    return a * h + p2 * s, b * h + p1 * s


def distortion(a: Any, b: Any, s: Any, g: Any, g1: Any, tangential: tuple[Any, Any] | None) -> Distortion:
    """``d(m)`` and its derivative, from g and g'."""
    if tangential is None:
        na, nb = g1 * a, g1 * b
        cross = 2 * na * b
        return Distortion(a * g, b * g, g + 2 * na * a, cross, g + 2 * nb * b)
    p1, p2 = tangential
    qa, qb = 2 * p2, 2 * p1
    h = g + (qa * a + qb * b)
    na, nb = g1 * a + qa, g1 * b + qb
    return Distortion(a * h + p2 * s, b * h + p1 * s, h + 2 * na * a, na * b + nb * a, h + 2 * nb * b)


def curvature(
    a: Any, b: Any, g1: Any, g2: Any, tangential: tuple[Any, Any] | None, wu: Any, wv: Any
) -> tuple[Any, Any, Any]:
    """Second derivative of ``wu d_u + wv d_v``: the entries aa, ab, bb."""
    ea, eb = 2 * g1 * a, 2 * g1 * b
    if tangential is not None:
        p1, p2 = tangential
        ea, eb = ea + 2 * p2, eb + 2 * p1
    along, across = wu * ea, wv * eb
    outer = 4 * g2 * (wu * a + wv * b)
    oa = outer * a
    return 3 * along + across + oa * a, wu * eb + wv * ea + oa * b, along + 3 * across + outer * b * b


def by_tangential(a: Any, b: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Derivative of ``d(m)`` by p1 and p2."""
    ab, aa, bb = 2 * a * b, a * a, b * b
    return (ab, aa + 3 * bb), (3 * aa + bb, ab)


def pull_by_tangential(a: Any, b: Any, wu: Any, wv: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Derivative of ``<w, d>`` by p1 and p2 and then by m."""
    cross = 2 * (b * wu + a * wv)
    return (cross, 2 * a * wu + 6 * b * wv), (6 * a * wu + 2 * b * wv, cross)
