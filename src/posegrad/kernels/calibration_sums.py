"""From the rows of a view of a calibration to its share of the cost's second-order model."""

from typing import Any

from numba import types

from posegrad.kernels import jit
from posegrad.kernels.calibration_view import (
    BOTTOM,
    JACOBIAN,
    MIXED,
    NUM_COEFFICIENTS,
    PULL,
    RESIDUAL,
    SECOND,
    TOP,
)
from posegrad.kernels.jit import doubles, helper, integers

SIGNATURE = types.void(*[types.int64] * 13)
call_add = jit.calling(SIGNATURE)


@helper
def dot(a_at, b_at, count):
    """``a . b``"""
    a, b = doubles(a_at), doubles(b_at)
    total = 0.0
    for i in range(count):
        total += a[i] * b[i]
    return total


@helper
def merge(rows_at, count, columns_at, exact):
    """Add up the rows of coefficients that are one parameter, in place of the first of them."""
    columns, rows = integers(columns_at), doubles(rows_at)
    for j in range(1, NUM_COEFFICIENTS):
        for l in range(j):
            if columns[j] >= 0 and columns[l] == columns[j]:
                to, at = (JACOBIAN + 2 * l) * count, (JACOBIAN + 2 * j) * count
                for i in range(2 * count):
                    rows[to + i] += rows[at + i]
                if exact:
                    to, at = (MIXED + 3 * l) * count, (MIXED + 3 * j) * count
                    for i in range(3 * count):
                        rows[to + i] += rows[at + i]
                break


@helper
def add_pairs(rows_at, count, camera_at, columns_at, powers_at, corner_at, num_free):
    """The second derivative by two coefficients, into the corner; before rows are merged."""
    columns, k, powers, corner = (
        integers(columns_at),
        doubles(camera_at),
        doubles(powers_at),
        doubles(corner_at),
    )
    row = 8 * count
    for j in range(TOP, NUM_COEFFICIENTS):
        if columns[j] < 0:
            continue
        # the image is linear in the focal lengths
        for axis in range(2):
            if columns[axis] >= 0:
                at = rows_at + (JACOBIAN + 2 * j + axis) * row
                value = dot(rows_at + (RESIDUAL + axis) * row, at, count) / k[axis]
                corner[columns[axis] * num_free + columns[j]] += value
                corner[columns[j] * num_free + columns[axis]] += value
    for l in range(3):
        below = columns[BOTTOM + l]
        if below < 0:
            continue
        for j in range(4):
            if columns[TOP + j] >= 0:
                corner[below * num_free + columns[TOP + j]] -= powers[j + l]
                corner[columns[TOP + j] * num_free + below] -= powers[j + l]
            if j < 3 and columns[BOTTOM + j] >= 0:
                corner[below * num_free + columns[BOTTOM + j]] += powers[6 + j + l]


@helper
def add_products(
    residual_at, places_at, count, num_free, gradient_at, by_pose_at, corner_at, cross_at, own_at
):
    """``J^T r`` and ``J^T J`` of the view's columns, which lie at their places after the residual."""
    places, F, length = integers(places_at), num_free, 2 * count
    gradient, by_pose, corner = doubles(gradient_at), doubles(by_pose_at), doubles(corner_at)
    cross, own = doubles(cross_at), doubles(own_at)
    for j in range(F):
        column = residual_at + 8 * places[j]
        gradient[j] += dot(column, residual_at, length)
        for l in range(j, F):
            value = dot(column, residual_at + 8 * places[l], length)
            corner[j * F + l] += value
            if l > j:
                corner[l * F + j] += value
        for k in range(6):
            cross[6 * j + k] = dot(column, residual_at + 8 * places[F + k], length)
    for j in range(6):
        column = residual_at + 8 * places[F + j]
        by_pose[j] = dot(column, residual_at, length)
        for k in range(j, 6):
            own[6 * j + k] = own[6 * k + j] = dot(column, residual_at + 8 * places[F + k], length)


@helper
def add_curvature(rows_at, columns_at, count, num_free, cross_at, own_at):
    """What the exact Hessian has beside ``J^T J`` by the pose: the projection's second derivative, the retraction's."""
    n, rows, columns = count, doubles(rows_at), integers(columns_at)
    cross, own = doubles(cross_at), doubles(own_at)
    merged = 0
    for coefficient in range(NUM_COEFFICIENTS):
        column = columns[coefficient]
        if column < 0 or (merged >> column) & 1:
            continue
        merged |= 1 << column
        at, out = (MIXED + 3 * coefficient) * n, 6 * column
        s0 = s1 = s2 = s3 = s4 = s5 = 0.0
        for i in range(n):
            q0, q1, q2 = rows[i], rows[n + i], rows[2 * n + i]
            m0, m1, m2 = rows[at + i], rows[at + n + i], rows[at + 2 * n + i]
            s0 += q1 * m2 - q2 * m1
            s1 += q2 * m0 - q0 * m2
            s2 += q0 * m1 - q1 * m0
            s3 += m0
            s4 += m1
            s5 += m2
        cross[out] += s0
        cross[out + 1] += s1
        cross[out + 2] += s2
        cross[out + 3] += s3
        cross[out + 4] += s4
        cross[out + 5] += s5
    at, force = SECOND * n, PULL * n
    a00 = a01 = a02 = a11 = a12 = a22 = b00 = b01 = b02 = b10 = b11 = b12 = b20 = b21 = b22 = 0.0
    c00 = c01 = c02 = c11 = c12 = c22 = 0.0
    for i in range(n):
        q0, q1, q2 = rows[i], rows[n + i], rows[2 * n + i]
        xx, xy, xz = rows[at + i], rows[at + n + i], rows[at + 2 * n + i]
        yy, yz, zz = rows[at + 3 * n + i], rows[at + 4 * n + i], rows[at + 5 * n + i]
        l0, l1, l2 = rows[force + i], rows[force + n + i], rows[force + 2 * n + i]
        # [q]x S
        t00, t01, t02 = q1 * xz - q2 * xy, q1 * yz - q2 * yy, q1 * zz - q2 * yz
        t10, t11, t12 = q2 * xx - q0 * xz, q2 * xy - q0 * yz, q2 * xz - q0 * zz
        t20, t21, t22 = q0 * xy - q1 * xx, q0 * yy - q1 * xy, q0 * yz - q1 * xz
        # [q]x S [q]x^T and the bend of the retraction
        along = l0 * q0 + l1 * q1 + l2 * q2
        a00 += q1 * t02 - q2 * t01 + l0 * q0 - along
        a01 += q2 * t00 - q0 * t02 + 0.5 * (l0 * q1 + l1 * q0)
        a02 += q0 * t01 - q1 * t00 + 0.5 * (l0 * q2 + l2 * q0)
        a11 += q2 * t10 - q0 * t12 + l1 * q1 - along
        a12 += q0 * t11 - q1 * t10 + 0.5 * (l1 * q2 + l2 * q1)
        a22 += q0 * t21 - q1 * t20 + l2 * q2 - along
        b00 += t00
        b01 += t01
        b02 += t02
        b10 += t10
        b11 += t11
        b12 += t12
        b20 += t20
        b21 += t21
        b22 += t22
        c00 += xx
        c01 += xy
        c02 += xz
        c11 += yy
        c12 += yz
        c22 += zz
    h = (
        a00,
        a01,
        a02,
        b00,
        b01,
        b02,
        a11,
        a12,
        b10,
        b11,
        b12,
        a22,
        b20,
        b21,
        b22,
        c00,
        c01,
        c02,
        c11,
        c12,
        c22,
    )
    k = 0
    for i in range(6):
        for j in range(i, 6):
            own[6 * i + j] += h[k]
            if j > i:
                own[6 * j + i] += h[k]
            k += 1


def compile_add() -> Any:
    """Compile what adds a view's share to the model, or load it from the disk."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def add(
        rows_at,
        count,
        camera_at,
        columns_at,
        sums_at,
        places_at,
        num_free,
        exact,
        gradient_at,
        by_pose_at,
        corner_at,
        cross_at,
        own_at,
    ):
        """The last five: addresses of the gradient by free parameters and pose; of corner, cross and own block."""
        _ = source
        if exact != 0:
            add_pairs(rows_at, count, camera_at, columns_at, sums_at, corner_at, num_free)
        merge(rows_at, count, columns_at, exact != 0)
        residual_at = rows_at + 8 * RESIDUAL * count
        add_products(
            residual_at, places_at, count, num_free, gradient_at, by_pose_at, corner_at, cross_at, own_at
        )
        if exact != 0:
            add_curvature(rows_at, columns_at, count, num_free, cross_at, own_at)

    return add
