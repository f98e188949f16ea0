"""One view of a calibration: its share of the cost, of the gradient and of the Hessian, in scalar arithmetic.

Every model that the kernel knows is one of thirteen coefficients: ``fx, fy, cx, cy``, those of the radial profile
``(1 + n1 s + ... + n4 s^4) / (1 + d1 s + d2 s^2 + d3 s^3)``, tangential ``p1, p2``; before a perspective or an
equidistant lens. The formulas are those of :mod:`posegrad.cameras.distorted`, where they stand for tensors.

Derivatives are written to rows first, a column of the Jacobian after the other, each the u of all points and then the
v, times the root of the weight: the Hessian is then made of dot products.
"""

import math
from typing import Any

from numba import types

from posegrad.cameras import plane
from posegrad.kernels import jit
from posegrad.kernels.jit import doubles, inlined
from posegrad.kernels.lenses import arctan_ratio

_distortion, _curvature = inlined(plane.distortion), inlined(plane.curvature)
_by_tangential, _pull_by_tangential = inlined(plane.by_tangential), inlined(plane.pull_by_tangential)

FX, FY, CX, CY, TOP, BOTTOM, P1, P2, NUM_COEFFICIENTS = 0, 1, 2, 3, 4, 8, 11, 12, 13
#: of the view's rows, each one number per point: R z, then columns of two rows for residual, coefficients and pose; for
#: the exact Hessian three rows by point for every coefficient, six of its second derivative and three of its first
TURNED, RESIDUAL, JACOBIAN = 0, 3, 5
POSE = JACOBIAN + 2 * NUM_COEFFICIENTS
MIXED = POSE + 12
SECOND = MIXED + 3 * NUM_COEFFICIENTS
PULL = SECOND + 6
NUM_ROWS = PULL + 3
#: what no row holds: sums of ``along s^m / D^2`` and the same times twice the profile, m = 2 to 7; the largest s
FARTHEST, NUM_SUMS = 12, 13
SIGNATURE = types.float64(*[types.int64] * 7, types.float64, *[types.int64] * 3)
call_fill = jit.calling(SIGNATURE)
_TINY = 1.4916681462400413e-154  # the root of float64's smallest normal number


@inlined
def _lens(x, y, z, wide):
    """The lens's scale A and its derivatives by z and ``s = x^2 + y^2``: A, s, ss, z, zz, sz."""
    if wide != 0:
        square = x * x + y * y
        n = 1.0 / (square + z * z)
        A, by_s, by_ss = arctan_ratio(square, z)
        return A, by_s, by_ss, -n, 2.0 * z * n * n, n * n
    A = 1.0 / z
    return A, 0.0, 0.0, -A * A, 2.0 * A * A * A, 0.0


@inlined
def _images(x, y, z, wide, limit):
    """Whether the lens images a point."""
    square = x * x + y * y
    if wide != 0:
        theta, size = math.atan2(math.sqrt(square), z), square + z * z
        return theta * theta < limit and size > _TINY and size < 1.0 / _TINY
    return z > _TINY and square < limit * (z * z)


@inlined
def _lift(mixed, i, n, coefficient, ea, eb, x, y, A, turn, by_z):
    """From a derivative by the ideal image to one by the point."""
    along = ea * x + eb * y
    at = 3 * coefficient * n + i
    mixed[at] = A * ea + turn * along * x
    mixed[at + n] = A * eb + turn * along * y
    mixed[at + 2 * n] = by_z * along


def compile_fill() -> Any:
    """Compile what writes a view's rows, or load it from the disk."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def fill(
        pixels_at, points_at, weights_at, count, camera_at, pose_at, wide, limit, exact, rows_at, sums_at
    ):
        """Write a view's rows; how many points lie outside of the lens's field, whose squared radius is ``limit``."""
        _ = source
        row = 8 * count
        pixels, points, weights = doubles(pixels_at), doubles(points_at), doubles(weights_at)
        k, p, powers = doubles(camera_at), doubles(pose_at), doubles(sums_at)
        rows, jacobian = doubles(rows_at), doubles(rows_at + JACOBIAN * row)
        mixed, second = doubles(rows_at + MIXED * row), doubles(rows_at + SECOND * row)
        pose, pull = doubles(rows_at + POSE * row), doubles(rows_at + PULL * row)
        n = count
        fx, fy, cx, cy, n1, n2, n3, n4 = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]
        d1, d2, d3, tangential = k[8], k[9], k[10], (k[11], k[12])
        for j in range(NUM_SUMS):
            powers[j] = 0.0
        outside = farthest = 0.0
        for i in range(n):
            z0, z1, z2 = points[3 * i], points[3 * i + 1], points[3 * i + 2]
            q0 = p[0] * z0 + p[1] * z1 + p[2] * z2
            q1 = p[3] * z0 + p[4] * z1 + p[5] * z2
            q2 = p[6] * z0 + p[7] * z1 + p[8] * z2
            x, y, z = q0 + p[9], q1 + p[10], q2 + p[11]
            weight = weights[i]
            inside = _images(x, y, z, wide, limit)
            if not inside:
                outside += 1.0 if weight != 0.0 else 0.0
                x, y, z = 0.0, 0.0, 1.0
            root = math.sqrt(weight)
            A, by_s, by_ss, by_z, by_zz, by_sz = _lens(x, y, z, wide)
            a, b = x * A, y * A
            s = a * a + b * b
            farthest = max(farthest, s if weight != 0.0 else 0.0)
            inverse = 1.0 / (1.0 + (d1 + (d2 + d3 * s) * s) * s)
            bottom = d1 + (2.0 * d2 + 3.0 * d3 * s) * s
            g = (1.0 + (n1 + (n2 + (n3 + n4 * s) * s) * s) * s) * inverse
            g1 = (n1 + (2.0 * n2 + (3.0 * n3 + 4.0 * n4 * s) * s) * s - g * bottom) * inverse
            d = _distortion(a, b, s, g, g1, tangential)
            ru, rv = fx * d.u + cx - pixels[2 * i], fy * d.v + cy - pixels[2 * i + 1]
            rows[i], rows[n + i], rows[2 * n + i] = q0, q1, q2
            rows[RESIDUAL * n + i], rows[(RESIDUAL + 1) * n + i] = root * ru, root * rv
            # by the point in the camera
            ua, ub, va, vb = fx * d.aa, fx * d.ab, fy * d.ab, fy * d.bb
            u_along, v_along = ua * x + ub * y, va * x + vb * y
            u0, u1, u2 = A * ua + 2.0 * by_s * u_along * x, A * ub + 2.0 * by_s * u_along * y, by_z * u_along
            v0, v1, v2 = A * va + 2.0 * by_s * v_along * x, A * vb + 2.0 * by_s * v_along * y, by_z * v_along
            pose[i], pose[n + i] = root * (q1 * u2 - q2 * u1), root * (q1 * v2 - q2 * v1)
            pose[2 * n + i], pose[3 * n + i] = root * (q2 * u0 - q0 * u2), root * (q2 * v0 - q0 * v2)
            pose[4 * n + i], pose[5 * n + i] = root * (q0 * u1 - q1 * u0), root * (q0 * v1 - q1 * v0)
            pose[6 * n + i], pose[7 * n + i] = root * u0, root * v0
            pose[8 * n + i], pose[9 * n + i] = root * u1, root * v1
            pose[10 * n + i], pose[11 * n + i] = root * u2, root * v2
            # by the coefficients
            jacobian[i], jacobian[n + i] = root * d.u, 0.0
            jacobian[2 * n + i], jacobian[3 * n + i] = 0.0, root * d.v
            jacobian[4 * n + i], jacobian[5 * n + i] = root, 0.0
            jacobian[6 * n + i], jacobian[7 * n + i] = 0.0, root
            ax, by = root * fx * a, root * fy * b
            power = inverse
            for j in range(4):
                power = power * s
                at = 2 * (TOP + j) * n + i
                jacobian[at], jacobian[at + n] = ax * power, by * power
                if j < 3:
                    at = 2 * (BOTTOM + j) * n + i
                    jacobian[at], jacobian[at + n] = -ax * power * g, -by * power * g
            (u_p1, v_p1), (u_p2, v_p2) = _by_tangential(a, b)
            ax, by = root * fx, root * fy
            at = 2 * P1 * n + i
            jacobian[at], jacobian[at + n] = ax * u_p1, by * v_p1
            jacobian[at + 2 * n], jacobian[at + 3 * n] = ax * u_p2, by * v_p2
            if exact != 0:
                wu, wv = weight * ru, weight * rv
                fu, fv = fx * wu, fy * wv
                pull[i], pull[n + i], pull[2 * n + i] = (
                    u0 * wu + v0 * wv,
                    u1 * wu + v1 * wv,
                    u2 * wu + v2 * wv,
                )
                # second derivative by the point
                g2 = (
                    2.0 * n2
                    + (6.0 * n3 + 12.0 * n4 * s) * s
                    - 2.0 * g1 * bottom
                    - g * (2.0 * d2 + 6.0 * d3 * s)
                )
                aa, ab, bb = _curvature(a, b, g1, g2 * inverse, tangential, fu, fv)
                ca, cb = d.aa * fu + d.ab * fv, d.ab * fu + d.bb * fv
                qa, qb = aa * x + ab * y, ab * x + bb * y
                c_along, q_along = ca * x + cb * y, qa * x + qb * y
                radial = 2.0 * (by_s * by_s * q_along + by_ss * c_along)
                ea, eb = 2.0 * by_s * (A * qa + ca) + radial * x, 2.0 * by_s * (A * qb + cb) + radial * y
                around, deep = 2.0 * by_s * c_along, 2.0 * (by_s * by_z * q_along + by_sz * c_along)
                second[i] = A * A * aa + 2.0 * ea * x + around
                second[n + i] = A * A * ab + ea * y + eb * x
                second[2 * n + i] = by_z * (A * qa + ca) + deep * x
                second[3 * n + i] = A * A * bb + 2.0 * eb * y + around
                second[4 * n + i] = by_z * (A * qb + cb) + deep * y
                second[5 * n + i] = by_z * by_z * q_along + by_zz * c_along
                # by coefficient and point: by the ideal image first
                turn = 2.0 * by_s
                _lift(mixed, i, n, FX, wu * d.aa, wu * d.ab, x, y, A, turn, by_z)
                _lift(mixed, i, n, FY, wv * d.ab, wv * d.bb, x, y, A, turn, by_z)
                _lift(mixed, i, n, CX, 0.0, 0.0, x, y, A, turn, by_z)
                _lift(mixed, i, n, CY, 0.0, 0.0, x, y, A, turn, by_z)
                along, slope, power, below = fu * a + fv * b, bottom * inverse, inverse, inverse * inverse * s
                for j in range(4):
                    h1 = power * (j + 1.0 - s * slope)
                    power = power * s
                    r = 2.0 * h1 * along
                    _lift(mixed, i, n, TOP + j, fu * power + r * a, fv * power + r * b, x, y, A, turn, by_z)
                    if j < 3:
                        r, h = -2.0 * (g1 * power + g * h1) * along, -g * power
                        _lift(mixed, i, n, BOTTOM + j, fu * h + r * a, fv * h + r * b, x, y, A, turn, by_z)
                (ea, eb), (ha, hb) = _pull_by_tangential(a, b, fu, fv)
                _lift(mixed, i, n, P1, ea, eb, x, y, A, turn, by_z)
                _lift(mixed, i, n, P2, ha, hb, x, y, A, turn, by_z)
                for j in range(6):
                    below = below * s
                    powers[j] += along * below
                    powers[6 + j] += 2.0 * g * along * below
        powers[FARTHEST] = farthest
        return outside

    return fill
