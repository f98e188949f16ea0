"""Passes over the points of one item, for one camera family: what the solver and the gradient call by address.

The points lie in ``rows`` of equal ``pitch``, one coordinate after the other, in conditioned units (``conditioning``),
filled up with copies of weight zero to a multiple of :data:`LANES`: no pass has a remainder. A *plain* pass is for
weights that are numbers and least squares; a *general* one for information matrices, with ``rho'`` and ``rho''`` of
every point in rows.

A pass is ``(rows, pitch, count, camera, pose, u, out) -> outside``: addresses of float64, but for the second and third;
and how many points lie outside of the camera's field.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import jit
from posegrad.kernels.jit import doubles
from posegrad.kernels.lenses import Family

LANES = 8
#: rows of an item: pixel (2), point (3), weight (xx, or xx, xy, yy), rho' and rho''; for the start, ray (3) and weight
PIXEL, POINT, WEIGHT, RHO1, RHO2, BEARING, STRENGTH, NUM_ROWS = 0, 2, 5, 8, 9, 8, 11, 12
#: what the second-order pass sums: the Hessian's upper half row by row, the gradient, twice the cost
GRADIENT, COST, NUM_SUMS = 21, 27, 28
#: what the pull writes: rows by pixel, by point, by weight; and sums by coefficient
BY_PIXEL, BY_POINT, BY_WEIGHT, NUM_PULLED, NUM_COEFFICIENTS = 0, 2, 5, 8, 8

SIGNATURE = types.float64(*[types.int64] * 7)
call = jit.calling(SIGNATURE)


#: the passes in the order of the block; *plain* and *general*, Gauss-Newton and exact
SQUARES, PLAIN_GN, PLAIN_EXACT, GENERAL_GN, GENERAL_EXACT, PLAIN_PULL, GENERAL_PULL, BEARINGS = range(8)


def compile_pass(family: Family, which: int) -> Any:
    """Compile one of a family's passes, or load it from the disk."""
    if which == SQUARES:
        return _squares(family)
    if which == BEARINGS:
        return _bearings(family)
    if which in (PLAIN_PULL, GENERAL_PULL):
        return _pull(family, general=which == GENERAL_PULL)
    general, exact = which in (GENERAL_GN, GENERAL_EXACT), which in (PLAIN_EXACT, GENERAL_EXACT)
    return _quadratic(family, general=general, exact=exact)


def _bearings(family: Family) -> Any:
    source, unproject = jit.stamp(), family.unproject

    @jit.by_address(SIGNATURE)
    def bearings(rows_at, pitch, count, camera_at, pose_at, u_at, out_at):
        """Unit rays of the pixels; a pixel without one gets the weight zero."""
        _ = source
        row = 8 * pitch
        x, y, strength = doubles(rows_at), doubles(rows_at + row), doubles(rows_at + STRENGTH * row)
        a, b = doubles(rows_at + BEARING * row), doubles(rows_at + (BEARING + 1) * row)
        d, k = doubles(rows_at + (BEARING + 2) * row), doubles(camera_at)
        c = (k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8])
        for i in range(count):
            u, v, w, seen = unproject(c, x[i], y[i])
            a[i] = u if seen else 0.0
            b[i] = v if seen else 0.0
            d[i] = w if seen else 1.0
            strength[i] = strength[i] if seen else 0.0
        return 0.0

    return bearings


def _squares(family: Family) -> Any:
    """``s = r^T W r`` of every point, in the row of rho'."""
    source, image = jit.stamp(), family.image

    @jit.by_address(SIGNATURE)
    def squares(rows_at, pitch, count, camera_at, pose_at, u_at, out_at):
        _ = source
        row = 8 * pitch
        x, y = doubles(rows_at), doubles(rows_at + row)
        a, b, d = doubles(rows_at + 2 * row), doubles(rows_at + 3 * row), doubles(rows_at + 4 * row)
        wxx, wxy, wyy = doubles(rows_at + 5 * row), doubles(rows_at + 6 * row), doubles(rows_at + 7 * row)
        square = doubles(rows_at + RHO1 * row)
        p, k = doubles(pose_at), doubles(camera_at)
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        t0, t1, t2 = p[9], p[10], p[11]
        c = (k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8])
        outside = 0.0
        for i in range(count):
            X = r00 * a[i] + r01 * b[i] + r02 * d[i] + t0
            Y = r10 * a[i] + r11 * b[i] + r12 * d[i] + t1
            Z = r20 * a[i] + r21 * b[i] + r22 * d[i] + t2
            u, v, out, _, _, _, _, _, _ = image(c, X, Y, Z)
            outside += out
            u -= x[i]
            v -= y[i]
            s = u * (wxx[i] * u + 2.0 * wxy[i] * v) + wyy[i] * v * v
            square[i] = s if out == 0.0 else 0.0
        return outside

    return squares


def _quadratic(family: Family, *, general: bool, exact: bool) -> Any:
    source, image, bend = jit.stamp(), family.image, family.bend

    @jit.by_address(SIGNATURE)
    def quadratic(rows_at, pitch, count, camera_at, pose_at, u_at, out_at):
        """Sums of ``S, [q]x S, [q]x S [q]x^T`` and ``f, q x f`` with S and f the second and the first derivative of the
        cost by the point in the camera, q = R z; if exact, plus ``f . (w x (w x q))``, the retraction's own."""
        _ = source
        row = 8 * pitch
        x, y = doubles(rows_at), doubles(rows_at + row)
        a, b, d = doubles(rows_at + 2 * row), doubles(rows_at + 3 * row), doubles(rows_at + 4 * row)
        wxx, wxy, wyy = doubles(rows_at + 5 * row), doubles(rows_at + 6 * row), doubles(rows_at + 7 * row)
        rho1, rho2 = doubles(rows_at + RHO1 * row), doubles(rows_at + RHO2 * row)
        p, k, sums = doubles(pose_at), doubles(camera_at), doubles(out_at)
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        t0, t1, t2 = p[9], p[10], p[11]
        c = (k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8])
        h00 = h01 = h02 = h03 = h04 = h05 = h11 = h12 = h13 = h14 = h15 = h22 = h23 = h24 = h25 = 0.0
        h33 = h34 = h35 = h44 = h45 = h55 = g0 = g1 = g2 = g3 = g4 = g5 = cost = outside = 0.0
        for i in range(count):
            q0 = r00 * a[i] + r01 * b[i] + r02 * d[i]
            q1 = r10 * a[i] + r11 * b[i] + r12 * d[i]
            q2 = r20 * a[i] + r21 * b[i] + r22 * d[i]
            X, Y, Z = q0 + t0, q1 + t1, q2 + t2
            u, v, out, u0, u1, u2, v0, v1, v2 = image(c, X, Y, Z)
            outside += out
            u -= x[i]
            v -= y[i]
            if general:
                # W J and W r, times rho'
                k1 = rho1[i]
                xx, xy, yy = k1 * wxx[i], k1 * wxy[i], k1 * wyy[i]
                wu, wv = xx * u + xy * v, xy * u + yy * v
                m0, m1, m2 = xx * u0 + xy * v0, xx * u1 + xy * v1, xx * u2 + xy * v2
                n0, n1, n2 = xy * u0 + yy * v0, xy * u1 + yy * v1, xy * u2 + yy * v2
            else:
                w = wxx[i]
                wu, wv = w * u, w * v
                cost += wu * u + wv * v
                m0, m1, m2, n0, n1, n2 = w * u0, w * u1, w * u2, w * v0, w * v1, w * v2
            f0, f1, f2 = u0 * wu + v0 * wv, u1 * wu + v1 * wv, u2 * wu + v2 * wv
            s00, s01, s02 = u0 * m0 + v0 * n0, u0 * m1 + v0 * n1, u0 * m2 + v0 * n2
            s11, s12, s22 = u1 * m1 + v1 * n1, u1 * m2 + v1 * n2, u2 * m2 + v2 * n2
            if exact:
                b00, b01, b02, b11, b12, b22 = bend(c, X, Y, Z, wu, wv)
                s00, s01, s02 = s00 + b00, s01 + b01, s02 + b02
                s11, s12, s22 = s11 + b11, s12 + b12, s22 + b22
                if general:
                    # f holds rho' already, and the term is 2 rho'' (J^T W r) (J^T W r)^T
                    k2 = 2.0 * rho2[i]
                    y0, y1 = wxx[i] * u + wxy[i] * v, wxy[i] * u + wyy[i] * v
                    e0, e1, e2 = u0 * y0 + v0 * y1, u1 * y0 + v1 * y1, u2 * y0 + v2 * y1
                    s00, s01, s02 = s00 + k2 * e0 * e0, s01 + k2 * e0 * e1, s02 + k2 * e0 * e2
                    s11, s12, s22 = s11 + k2 * e1 * e1, s12 + k2 * e1 * e2, s22 + k2 * e2 * e2
            # [q]x S
            a00, a01, a02 = q1 * s02 - q2 * s01, q1 * s12 - q2 * s11, q1 * s22 - q2 * s12
            a10, a11, a12 = q2 * s00 - q0 * s02, q2 * s01 - q0 * s12, q2 * s02 - q0 * s22
            a20, a21, a22 = q0 * s01 - q1 * s00, q0 * s11 - q1 * s01, q0 * s12 - q1 * s02
            h33 += s00
            h34 += s01
            h35 += s02
            h44 += s11
            h45 += s12
            h55 += s22
            h03 += a00
            h04 += a01
            h05 += a02
            h13 += a10
            h14 += a11
            h15 += a12
            h23 += a20
            h24 += a21
            h25 += a22
            h00 += q1 * a02 - q2 * a01
            h01 += q2 * a00 - q0 * a02
            h02 += q0 * a01 - q1 * a00
            h11 += q2 * a10 - q0 * a12
            h12 += q0 * a11 - q1 * a10
            h22 += q0 * a21 - q1 * a20
            g3 += f0
            g4 += f1
            g5 += f2
            g0 += q1 * f2 - q2 * f1
            g1 += q2 * f0 - q0 * f2
            g2 += q0 * f1 - q1 * f0
            if exact:
                # (f q^T + q f^T) / 2 - (f . q) I
                h00 -= f1 * q1 + f2 * q2
                h11 -= f0 * q0 + f2 * q2
                h22 -= f0 * q0 + f1 * q1
                h01 += 0.5 * (f0 * q1 + f1 * q0)
                h02 += 0.5 * (f0 * q2 + f2 * q0)
                h12 += 0.5 * (f1 * q2 + f2 * q1)
        sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = h00, h01, h02, h03, h04, h05
        sums[6], sums[7], sums[8], sums[9], sums[10] = h11, h12, h13, h14, h15
        sums[11], sums[12], sums[13], sums[14] = h22, h23, h24, h25
        sums[15], sums[16], sums[17], sums[18], sums[19], sums[20] = h33, h34, h35, h44, h45, h55
        sums[21], sums[22], sums[23], sums[24], sums[25], sums[26] = g0, g1, g2, g3, g4, g5
        if not general:
            sums[27] = cost
        return outside

    return quadratic


def _pull(family: Family, *, general: bool) -> Any:
    source, image, bend, pull = jit.stamp(), family.image, family.bend, family.pull

    @jit.by_address(SIGNATURE)
    def pulled(rows_at, pitch, count, camera_at, pose_at, u_at, out_at):
        """Minus the derivatives of ``<u, gradient>`` by pixel, point and weight, as rows; their sums by coefficient.

        With ``m = u_w x q + u_t`` the point's motion, ``d = J m`` that of its image and s = r^T W r, its share is
        ``rho'(s) r^T W d``: e is its derivative by the residual, h by d.
        """
        _ = source
        row = 8 * pitch
        x, y = doubles(rows_at), doubles(rows_at + row)
        a, b, d = doubles(rows_at + 2 * row), doubles(rows_at + 3 * row), doubles(rows_at + 4 * row)
        wxx, wxy, wyy = doubles(rows_at + 5 * row), doubles(rows_at + 6 * row), doubles(rows_at + 7 * row)
        rho1, rho2 = doubles(rows_at + RHO1 * row), doubles(rows_at + RHO2 * row)
        px, py = doubles(out_at), doubles(out_at + row)
        pa, pb, pd = doubles(out_at + 2 * row), doubles(out_at + 3 * row), doubles(out_at + 4 * row)
        pxx, pxy, pyy = doubles(out_at + 5 * row), doubles(out_at + 6 * row), doubles(out_at + 7 * row)
        sums = doubles(out_at + NUM_PULLED * row)
        p, k, along = doubles(pose_at), doubles(camera_at), doubles(u_at)
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        t0, t1, t2 = p[9], p[10], p[11]
        w0, w1, w2, m0, m1, m2 = along[0], along[1], along[2], along[3], along[4], along[5]
        c = (k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8])
        c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = 0.0
        for i in range(count):
            q0 = r00 * a[i] + r01 * b[i] + r02 * d[i]
            q1 = r10 * a[i] + r11 * b[i] + r12 * d[i]
            q2 = r20 * a[i] + r21 * b[i] + r22 * d[i]
            X, Y, Z = q0 + t0, q1 + t1, q2 + t2
            mx, my, mz = w1 * q2 - w2 * q1 + m0, w2 * q0 - w0 * q2 + m1, w0 * q1 - w1 * q0 + m2
            # a point of weight zero may lie outside, or so far off that its motion overflows: look at one at rest on
            # the axis instead, and give it no gradient
            inside = (image(c, X, Y, Z)[2] == 0.0) & (abs(mx) + abs(my) + abs(mz) < math.inf)
            X, Y, Z = X if inside else 0.0, Y if inside else 0.0, Z if inside else 1.0
            mx, my, mz = mx if inside else 0.0, my if inside else 0.0, mz if inside else 0.0
            u, v, _, u0, u1, u2, v0, v1, v2 = image(c, X, Y, Z)
            u = u - x[i] if inside else 0.0
            v = v - y[i] if inside else 0.0
            du, dv = u0 * mx + u1 * my + u2 * mz, v0 * mx + v1 * my + v2 * mz
            if general:
                k1, k2 = rho1[i], rho2[i]
                wu, wv = wxx[i] * u + wxy[i] * v, wxy[i] * u + wyy[i] * v
                along_image = wu * du + wv * dv
                twice = 2.0 * k2 * along_image
                eu = twice * wu + k1 * (wxx[i] * du + wxy[i] * dv)
                ev = twice * wv + k1 * (wxy[i] * du + wyy[i] * dv)
                hu, hv = k1 * wu, k1 * wv
                bent = k2 * along_image
                pxx[i] = -(bent * u * u + k1 * u * du)
                pyy[i] = -(bent * v * v + k1 * v * dv)
                pxy[i] = -(bent * u * v + 0.5 * k1 * (u * dv + v * du))
            else:
                w = wxx[i]
                eu, ev, hu, hv = w * du, w * dv, w * u, w * v
                pxx[i] = -(u * du + v * dv)
            px[i] = eu
            py[i] = ev
            # by the point: J^T e + (second derivative of h . pixel) m + (J^T h) x u_w, turned back
            b00, b01, b02, b11, b12, b22 = bend(c, X, Y, Z, hu, hv)
            f0, f1, f2 = u0 * hu + v0 * hv, u1 * hu + v1 * hv, u2 * hu + v2 * hv
            l0 = u0 * eu + v0 * ev + b00 * mx + b01 * my + b02 * mz + f1 * w2 - f2 * w1
            l1 = u1 * eu + v1 * ev + b01 * mx + b11 * my + b12 * mz + f2 * w0 - f0 * w2
            l2 = u2 * eu + v2 * ev + b02 * mx + b12 * my + b22 * mz + f0 * w1 - f1 * w0
            pa[i] = -(r00 * l0 + r10 * l1 + r20 * l2)
            pb[i] = -(r01 * l0 + r11 * l1 + r21 * l2)
            pd[i] = -(r02 * l0 + r12 * l1 + r22 * l2)
            d0, d1, d2, d3, d4, d5, d6, d7 = pull(c, X, Y, Z, mx, my, mz, eu, ev, hu, hv)
            c0 -= d0
            c1 -= d1
            c2 -= d2
            c3 -= d3
            c4 -= d4
            c5 -= d5
            c6 -= d6
            c7 -= d7
        sums[0], sums[1], sums[2], sums[3] = c0, c1, c2, c3
        sums[4], sums[5], sums[6], sums[7] = c4, c5, c6, c7
        return 0.0

    return pulled
