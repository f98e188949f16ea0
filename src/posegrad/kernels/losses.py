"""Robust losses in scalar arithmetic: a switch outside of the loop over the points.

The formulas are those of :mod:`posegrad.robust`, functions of ``u = s / c^2``.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import jit
from posegrad.kernels.jit import doubles, helper, inlined

#: losses by their code
NAMES = ("squared", "huber", "soft_l1", "cauchy", "geman_mcclure", "tukey", "truncated", "barron")
SQUARED, HUBER, SOFT_L1, CAUCHY, GEMAN_MCCLURE, TUKEY, TRUNCATED, BARRON = range(8)
_EPS = 2.220446049250313e-16


@helper
def evaluate_row(kind, square, alpha, count, first_at, second_at):
    """In place, s -> rho'(s) in the first row; rho''(s) in the second; the sum of ``rho(s) - rho(0) = rho(s)``.

    ``square`` is the scale's. Copies of weight zero have s = 0, which costs nothing.
    """
    first, second = doubles(first_at), doubles(second_at)
    total = 0.0
    if kind == SQUARED:
        for i in range(count):
            total += first[i]
            first[i] = 1.0
            second[i] = 0.0
        return total
    inverse = 1.0 / square
    if kind == HUBER:
        for i in range(count):
            u = first[i] * inverse
            root = math.sqrt(max(u, 1.0))
            beyond = u > 1.0
            total += 2.0 * root - 1.0 if beyond else u
            first[i] = 1.0 / root
            second[i] = -0.5 * inverse / (root * u) if beyond else 0.0
    elif kind == SOFT_L1:
        for i in range(count):
            u = first[i] * inverse
            root = math.sqrt(1.0 + u)
            total += 2.0 * u / (1.0 + root)
            first[i] = 1.0 / root
            second[i] = -0.5 * inverse / (root * (1.0 + u))
    elif kind == CAUCHY:
        for i in range(count):
            u = first[i] * inverse
            r = 1.0 / (1.0 + u)
            total += math.log1p(u)
            first[i] = r
            second[i] = -r * r * inverse
    elif kind == GEMAN_MCCLURE:
        for i in range(count):
            u = first[i] * inverse
            r = 1.0 / (1.0 + u)
            total += u * r
            first[i] = r * r
            second[i] = -2.0 * r * r * r * inverse
    elif kind == TUKEY:
        for i in range(count):
            u = min(first[i] * inverse, 1.0)
            rest = 1.0 - u
            total += u * (1.0 - u * (1.0 - u / 3.0))
            first[i] = rest * rest
            second[i] = -2.0 * rest * inverse
    elif kind == TRUNCATED:
        for i in range(count):
            u = first[i] * inverse
            total += min(u, 1.0)
            first[i] = 0.0 if u > 1.0 else 1.0
            second[i] = 0.0
    else:
        for i in range(count):
            value, first[i], bend = _barron(first[i] * inverse, alpha)
            total += value
            second[i] = bend * inverse
    return total * square


@inlined
def _barron(u, alpha):
    alpha = max(alpha, -1.0 / _EPS)
    gap = abs(alpha - 2.0)
    b, half_sign = max(gap, _EPS), 0.5 if alpha > 2.0 else -0.5
    if not gap > _EPS:
        half_sign = (alpha / 2.0 - 1.0) / _EPS
    L = math.log1p(u / b) if u < b else math.log(u + b) - math.log(b)
    exponent = (alpha / 2.0 - 1.0) * L
    if alpha >= 1.0:
        value = 2.0 / alpha * (u * math.exp(exponent) + b * math.expm1(exponent))
    else:
        x = alpha * L / 2.0
        value = b * L * (math.expm1(x) / x if abs(x) > 1e-300 else 1.0)
    return value, math.exp(exponent), half_sign * math.exp(exponent - L)


SIGNATURE = types.float64(types.int64, types.float64, types.float64, types.int64, types.int64, types.int64)
#: ``(address, (kind, square, alpha, count, first, second))``
evaluate = jit.calling(SIGNATURE)


def compile_evaluate() -> Any:
    """:func:`evaluate_row`, to be called by address."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def evaluated(kind, square, alpha, count, first_at, second_at):
        _ = source
        return evaluate_row(kind, square, alpha, count, first_at, second_at)

    return evaluated
