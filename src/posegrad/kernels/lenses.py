"""Camera families in scalar arithmetic: image, derivatives, and how the parameters act; all points of all items alike.

A family has eight coefficients ``c[:8]`` and the squared radius of its field ``c[8]``; the camera models that it serves
say which of their parameters each coefficient is (``families``). Its functions, for a point (x, y, z) in the camera:

- ``image(c, x, y, z)``: pixel (u, v), 1.0 if the point is outside of the field (else 0.0), and the Jacobian's rows;
- ``bend(c, x, y, z, wu, wv)``: second derivative of ``wu u + wv v``, upper half;
- ``unproject(c, u, v)``: unit ray of a pixel, and whether it has one;
- ``pull(c, x, y, z, mx, my, mz, eu, ev, hu, hv)``: derivative by ``c[:8]`` of ``eu u + ev v + (hu, hv) . J m``.

The formulas are those of :mod:`posegrad.cameras`, where they stand for tensors.
"""

import math
from typing import Any, NamedTuple

from posegrad.cameras import plane, profiles
from posegrad.kernels.jit import inlined

# written for tensors and for kernels
_distortion, _curvature = inlined(plane.distortion), inlined(plane.curvature)
_quadratic, _quartic = inlined(profiles.quadratic), inlined(profiles.quartic)

_TINY = 1.4916681462400413e-154  # the root of float64's smallest normal number
_MIN_DEPTH_RATIO = 1e-8  # as in posegrad.cameras.pinhole


class Family(NamedTuple):
    """The functions of a family."""

    image: Any
    bend: Any
    pull: Any
    unproject: Any


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


@inlined
def _pinhole_unproject(c, u, v):
    b = (v - c[3]) / c[1]
    a = (u - c[2] - c[4] * b) / c[0]
    i = 1.0 / math.sqrt(1.0 + a * a + b * b)
    return a * i, b * i, i, abs(a) + abs(b) < 1.0 / _MIN_DEPTH_RATIO


PINHOLE = Family(_pinhole_image, _pinhole_bend, _pinhole_pull, _pinhole_unproject)

_INVERSION_STEPS, _INVERTED = 40, 1e-12


@inlined
def _undistorted(c, u, v, profile, radial, tangential):
    """m with ``d(m) = (u, v)`` in the ideal image, and whether it was found: Newton's method from the centre, whose
    steps are halved as long as they leave the field or do not lower the residual. That ends at the solution, since d is
    the gradient of a strictly convex potential in the field."""
    a = b = 0.0
    length, step_a, step_b, best = 1.0, u, v, math.inf
    for _ in range(_INVERSION_STEPS):
        x, y = a + length * step_a, b + length * step_b
        s = x * x + y * y
        g, g1, _ = profile(s, radial)
        d = _distortion(x, y, s, g, g1, tangential)
        r, q = d.u - u, d.v - v
        square, determinant = r * r + q * q, d.aa * d.bb - d.ab * d.ab
        if s < c[8] and determinant > 0.0 and square <= best:
            a, b, best, length = x, y, square, 1.0
            step_a, step_b = (d.ab * q - d.bb * r) / determinant, (d.ab * r - d.aa * q) / determinant
            if step_a * step_a + step_b * step_b <= 1e-30 * (1.0 + s):
                break
        else:
            length *= 0.5
    return a, b, best <= _INVERTED * _INVERTED * (1.0 + u * u + v * v)


@inlined
def _brown_profile(s, k):
    return _quadratic(s, k[0], k[1])


@inlined
def _equidistant_profile(s, k):
    return _quartic(s, k[0], k[1], k[2], k[3])


@inlined
def _brown_image(c, x, y, z):
    fx, fy = c[0], c[1]
    outside = 0.0 if z > _TINY and x * x + y * y < c[8] * (z * z) else 1.0
    i = 1.0 / z
    a, b = x * i, y * i
    s = a * a + b * b
    g, g1, _ = _quadratic(s, c[4], c[5])
    d = _distortion(a, b, s, g, g1, (c[6], c[7]))
    ua, ub, va, vb = fx * d.aa * i, fx * d.ab * i, fy * d.ab * i, fy * d.bb * i
    return fx * d.u + c[2], fy * d.v + c[3], outside, ua, ub, -(ua * a + ub * b), va, vb, -(va * a + vb * b)


@inlined
def _brown_bend(c, x, y, z, wu, wv):
    i = 1.0 / z
    a, b = x * i, y * i
    s = a * a + b * b
    wu, wv, tangential = c[0] * wu, c[1] * wv, (c[6], c[7])
    g, g1, g2 = _quadratic(s, c[4], c[5])
    d = _distortion(a, b, s, g, g1, tangential)
    aa, ab, bb = _curvature(a, b, g1, g2, tangential, wu, wv)
    # gradient of <w, d> by m, and the second derivative along m; m = (x, y) / z
    ca, cb = d.aa * wu + d.ab * wv, d.ab * wu + d.bb * wv
    qa, qb = aa * a + ab * b, ab * a + bb * b
    ii = i * i
    zz = ii * (qa * a + qb * b + 2.0 * (ca * a + cb * b))
    return ii * aa, ii * ab, -ii * (qa + ca), ii * bb, -ii * (qb + cb), zz


@inlined
def _brown_pull(c, x, y, z, mx, my, mz, eu, ev, hu, hv):
    i = 1.0 / z
    a, b = x * i, y * i
    da, db = (mx - a * mz) * i, (my - b * mz) * i
    s, ds = a * a + b * b, 2.0 * (a * da + b * db)
    g, g1, _ = _quadratic(s, c[4], c[5])
    d = _distortion(a, b, s, g, g1, (c[6], c[7]))
    by_fx = eu * d.u + hu * (d.aa * da + d.ab * db)
    by_fy = ev * d.v + hv * (d.ab * da + d.bb * db)
    fu, fv, ku, kv = c[0] * eu, c[1] * ev, c[0] * hu, c[1] * hv
    value, slope = fu * a + fv * b + ku * da + kv * db, ku * a + kv * b
    cross, dcross = 2.0 * a * b, 2.0 * (da * b + a * db)
    by_p1 = fu * cross + fv * (s + 2.0 * b * b) + ku * dcross + kv * (ds + 4.0 * b * db)
    by_p2 = fu * (s + 2.0 * a * a) + fv * cross + ku * (ds + 4.0 * a * da) + kv * dcross
    by_k1, by_k2 = s * value + ds * slope, s * (s * value + 2.0 * ds * slope)
    return by_fx, by_fy, eu, ev, by_k1, by_k2, by_p1, by_p2


@inlined
def _brown_unproject(c, u, v):
    a, b, found = _undistorted(
        c, (u - c[2]) / c[0], (v - c[3]) / c[1], _brown_profile, (c[4], c[5]), (c[6], c[7])
    )
    i = 1.0 / math.sqrt(1.0 + a * a + b * b)
    return a * i, b * i, i, found


BROWN = Family(_brown_image, _brown_bend, _brown_pull, _brown_unproject)

_NEAR = 1e-3  # squared tangent, as in posegrad.cameras.elementary


@inlined
def _angle(rho, z):
    """``atan2(rho, z)`` for rho >= 0, without a call, so that loops vectorise (Moshier, Cephes, ``atan``)."""
    height = abs(z)
    t = min(rho, height) / max(rho, height)
    far = t > 0.4142135623730950488
    t = (t - 1.0) / (t + 1.0) if far else t
    s = t * t
    top = -8.750608600031904122785e-1 * s - 1.615753718733365076637e1
    top = (
        (top * s - 7.500855792314704667340e1) * s - 1.228866684490136173410e2
    ) * s - 6.485021904942025371773e1
    bottom = (s + 2.485846490142306297962e1) * s + 1.650270098316988542046e2
    bottom = (bottom * s + 4.328810604912902668951e2) * s + 4.853903996359136964868e2
    bottom = bottom * s + 1.945506571482613964425e2
    angle = t + t * (s * top / bottom)
    angle = angle + 0.25 * math.pi if far else angle
    angle = 0.5 * math.pi - angle if rho > height else angle
    return math.pi - angle if z < 0.0 else angle


@inlined
def arctan_ratio(square, z):
    """``A = atan2(rho, z) / rho`` and its first two derivatives by ``rho^2``, as the cameras have it for tensors."""
    near = square < _NEAR * z * z and z > 0.0
    i = 1.0 / z if near else 1.0
    t = square * i * i if near else 0.0
    far = 1.0 if near else square
    rho = math.sqrt(far)
    value = _angle(rho, z) / rho
    n = 1.0 / (square + z * z)
    slope, half = z * n, 0.5 / far
    first, bend = (slope - value) * half, slope * n
    series = 42 / 15 - t * (56 / 17)
    series = 2 / 5 - t * (6 / 7 - t * (12 / 9 - t * (20 / 11 - t * (30 / 13 - t * series))))
    second = series * i * i * i * i * i if near else -(bend + 3.0 * first) * half
    first = -(bend + 2.0 * square * second) / 3.0 if near else first
    value = slope - 2.0 * square * first if near else value
    return value, first, second


@inlined
def _equidistant_image(c, x, y, z):
    fx, fy = c[0], c[1]
    square = x * x + y * y
    size = square + z * z
    A, by_s, _ = arctan_ratio(square, z)
    a, b, by_z = x * A, y * A, -1.0 / size
    s = a * a + b * b
    # on the axis behind the camera A is infinite
    outside = 0.0 if s < c[8] and size > _TINY and size < 1.0 / _TINY else 1.0
    g, g1, _ = _quartic(s, c[4], c[5], c[6], c[7])
    d = _distortion(a, b, s, g, g1, None)
    ua, ub, va, vb = fx * d.aa, fx * d.ab, fy * d.ab, fy * d.bb
    u_along, v_along = ua * x + ub * y, va * x + vb * y
    ur, vr = 2.0 * by_s * u_along, 2.0 * by_s * v_along
    u0, u1, v0, v1 = A * ua + ur * x, A * ub + ur * y, A * va + vr * x, A * vb + vr * y
    return fx * d.u + c[2], fy * d.v + c[3], outside, u0, u1, by_z * u_along, v0, v1, by_z * v_along


@inlined
def _equidistant_bend(c, x, y, z, wu, wv):
    square = x * x + y * y
    A, by_s, by_ss = arctan_ratio(square, z)
    n = 1.0 / (square + z * z)
    by_z, by_sz = -n, n * n
    by_zz = 2.0 * z * by_sz
    a, b = x * A, y * A
    s = a * a + b * b
    wu, wv = c[0] * wu, c[1] * wv
    g, g1, g2 = _quartic(s, c[4], c[5], c[6], c[7])
    d = _distortion(a, b, s, g, g1, None)
    aa, ab, bb = _curvature(a, b, g1, g2, None, wu, wv)
    # as posegrad.cameras.distorted
    ca, cb = d.aa * wu + d.ab * wv, d.ab * wu + d.bb * wv
    qa, qb = aa * x + ab * y, ab * x + bb * y
    c_along, q_along = ca * x + cb * y, qa * x + qb * y
    radial = 2.0 * (by_s * by_s * q_along + by_ss * c_along)
    va, vb = 2.0 * by_s * (A * qa + ca) + radial * x, 2.0 * by_s * (A * qb + cb) + radial * y
    around, mixed = 2.0 * by_s * c_along, 2.0 * (by_s * by_z * q_along + by_sz * c_along)
    xx, xy = A * A * aa + 2.0 * va * x + around, A * A * ab + va * y + vb * x
    yy = A * A * bb + 2.0 * vb * y + around
    xz, yz = by_z * (A * qa + ca) + mixed * x, by_z * (A * qb + cb) + mixed * y
    return xx, xy, xz, yy, yz, by_z * by_z * q_along + by_zz * c_along


@inlined
def _equidistant_pull(c, x, y, z, mx, my, mz, eu, ev, hu, hv):
    square = x * x + y * y
    A, by_s, _ = arctan_ratio(square, z)
    along = 2.0 * by_s * (x * mx + y * my) - mz / (square + z * z)
    a, b, da, db = x * A, y * A, A * mx + x * along, A * my + y * along
    s, ds = a * a + b * b, 2.0 * (a * da + b * db)
    g, g1, _ = _quartic(s, c[4], c[5], c[6], c[7])
    d = _distortion(a, b, s, g, g1, None)
    by_fx = eu * d.u + hu * (d.aa * da + d.ab * db)
    by_fy = ev * d.v + hv * (d.ab * da + d.bb * db)
    fu, fv, ku, kv = c[0] * eu, c[1] * ev, c[0] * hu, c[1] * hv
    value, slope = fu * a + fv * b + ku * da + kv * db, ds * (ku * a + kv * b)
    s2 = s * s
    s3 = s * s2
    by_k1, by_k2 = s * value + slope, s * (s * value + 2.0 * slope)
    by_k3, by_k4 = s2 * (s * value + 3.0 * slope), s3 * (s * value + 4.0 * slope)
    return by_fx, by_fy, eu, ev, by_k1, by_k2, by_k3, by_k4


@inlined
def _equidistant_unproject(c, u, v):
    a, b, found = _undistorted(
        c, (u - c[2]) / c[0], (v - c[3]) / c[1], _equidistant_profile, (c[4], c[5], c[6], c[7]), None
    )
    angle = math.sqrt(a * a + b * b)
    f = math.sin(angle) / angle if angle > 1e-9 else 1.0
    return a * f, b * f, math.cos(angle), found


EQUIDISTANT = Family(_equidistant_image, _equidistant_bend, _equidistant_pull, _equidistant_unproject)
