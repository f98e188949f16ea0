"""Camera families in scalar arithmetic: image, derivatives, and how the parameters act; all points of all items alike.

A family has eight coefficients ``c[:8]`` and the squared radius of its field ``c[8]``; the camera models that it serves
say which of their parameters each coefficient is (``families``). Its three functions, for a point (x, y, z) in the camera:

- ``image(c, x, y, z)``: pixel (u, v), 1.0 if the point is outside of the field (else 0.0), and the Jacobian's rows;
- ``bend(c, x, y, z, wu, wv)``: second derivative of ``wu u + wv v``, upper half;
- ``pull(c, x, y, z, mx, my, mz, eu, ev, hu, hv)``: derivative by ``c[:8]`` of ``eu u + ev v + (hu, hv) . J m``.

The formulas are those of :mod:`posegrad.cameras`, where they stand for tensors.
"""

from typing import Any, NamedTuple

from posegrad.cameras import plane, profiles
from posegrad.kernels.jit import inlined

_TINY = 1.4916681462400413e-154  # the root of float64's smallest normal number
_MIN_DEPTH_RATIO = 1e-8  # as in posegrad.cameras.pinhole


class Family(NamedTuple):
    """The three functions of a family."""

    image: Any
    bend: Any
    pull: Any


@inlined
def _pinhole_image(c, x, y, z):
    fx, fy, cx, cy, skew = c[0], c[1], c[2], c[3], c[4]
    i = 1.0 / z
    a, b = x * i, y * i
    outside = 0.0 if z > _MIN_DEPTH_RATIO * (abs(x) + abs(y)) + _TINY else 1.0
    fx, fy, skew = fx * i, fy * i, skew * i
    ub, vb = fx * a + skew * b, fy * b
    return c[0] * a + c[4] * b + cx, c[1] * b + cy, outside, fx, skew, -ub, 0.0, fy, -vb


@inlined
def _pinhole_bend(c, x, y, z, wu, wv):
    i = 1.0 / z
    a, b, ii = x * i, y * i, i * i
    m0 = c[0] * wu * ii
    m1 = (c[4] * wu + c[1] * wv) * ii
    return 0.0, 0.0, -m0, 0.0, -m1, 2.0 * (m0 * a + m1 * b)


@inlined
def _pinhole_pull(c, x, y, z, mx, my, mz, eu, ev, hu, hv):
    i = 1.0 / z
    a, b = x * i, y * i
    da, db = (mx - a * mz) * i, (my - b * mz) * i
    return eu * a + hu * da, ev * b + hv * db, eu, ev, eu * b + hu * db, 0.0, 0.0, 0.0


PINHOLE = Family(_pinhole_image, _pinhole_bend, _pinhole_pull)
