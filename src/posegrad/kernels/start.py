"""Poses to start from, without an initial one: the minima of the object-space cost, as :mod:`posegrad.minimal.sqpnp`.

``sum_i w_i |(I - v_i v_i^T) (R z_i + t)|^2`` is, with t eliminated, a quadratic form omega of the nine entries of R. It
is minimised by damped Newton steps on SO(3) from the 24 rotations of the cube, all at once, a lane each. By angle: the
same over the squared distance of the centroid.
"""

import math
from typing import Any

import numpy as np
from numba import types

from posegrad.kernels import block, jit, passes
from posegrad.kernels.jit import doubles, helper, inlined, integers
from posegrad.kernels.passes import BEARING, POINT, STRENGTH, WEIGHT
from posegrad.kernels.rotations import (
    COSTS,
    NUM_NUMBERS,
    NUM_STARTS,
    OMEGA,
    ROTATIONS,
    SHIFT,
    UNDER,
    take_steps,
)
from posegrad.kernels.solver import NUM_CANDIDATE

#: how many minima at most, and how many by angle
NUM_MINIMA, NUM_OTHER_MINIMA = 4, 8
_COSINE = math.cos(math.radians(5.0))  # candidates that are nearer to each other are one


@helper
def sum_forms(rows_at, pitch, count, sums_at):
    """Sums of ``w (I - v v^T)`` (6) times 1, z and z z^T (10), of ``w v`` (3) and w."""
    row = 8 * pitch
    a, b, d = (
        doubles(rows_at + POINT * row),
        doubles(rows_at + (POINT + 1) * row),
        doubles(rows_at + (POINT + 2) * row),
    )
    x, y, z = (
        doubles(rows_at + BEARING * row),
        doubles(rows_at + (BEARING + 1) * row),
        doubles(rows_at + (BEARING + 2) * row),
    )
    w, sums = doubles(rows_at + STRENGTH * row), doubles(sums_at)
    for k in range(64):
        sums[k] = 0.0
    s0 = s1 = s2 = total = 0.0
    for i in range(count):
        s0 += w[i] * x[i]
        s1 += w[i] * y[i]
        s2 += w[i] * z[i]
        total += w[i]
    sums[60], sums[61], sums[62], sums[63] = s0, s1, s2, total
    # entry by entry of the matrix: ten sums fit into registers
    for k in range(6):
        first = x if k < 3 else y if k < 5 else z
        second = x if k == 0 else y if k == 1 or k == 3 else z
        one = 1.0 if k == 0 or k == 3 or k == 5 else 0.0
        m = m0 = m1 = m2 = m00 = m01 = m02 = m11 = m12 = m22 = 0.0
        for i in range(count):
            v = w[i] * (one - first[i] * second[i])
            v0, v1, v2 = v * a[i], v * b[i], v * d[i]
            m += v
            m0 += v0
            m1 += v1
            m2 += v2
            m00 += v0 * a[i]
            m01 += v0 * b[i]
            m02 += v0 * d[i]
            m11 += v1 * b[i]
            m12 += v1 * d[i]
            m22 += v2 * d[i]
        at = 10 * k
        sums[at], sums[at + 1], sums[at + 2], sums[at + 3], sums[at + 4] = m, m0, m1, m2, m00
        sums[at + 5], sums[at + 6], sums[at + 7], sums[at + 8], sums[at + 9] = m01, m02, m11, m12, m22


@inlined
def upper(j, k):
    """Where the entry (j, k) of a symmetric 3x3 matrix is in its upper half."""
    low, high = min(j, k), max(j, k)
    return (5 - low) * low // 2 + high


@helper
def eliminate(numbers_at):
    """omega and shift (``t = -shift r``) from the sums; False where the rays do not determine t."""
    n = doubles(numbers_at)
    q00, q01, q02, q11, q12, q22 = n[0], n[10], n[20], n[30], n[40], n[50]
    a00, a01, a02 = q11 * q22 - q12 * q12, q02 * q12 - q01 * q22, q01 * q12 - q02 * q11
    a11, a12, a22 = q00 * q22 - q02 * q02, q01 * q02 - q00 * q12, q00 * q11 - q01 * q01
    determinant = q00 * a00 + q01 * a01 + q02 * a02
    total = n[63]
    if not determinant > 1e-28 * total * total * total:
        return False
    f = 1.0 / determinant
    for k in range(3):
        x, y, z = upper(0, k) * 10, upper(1, k) * 10, upper(2, k) * 10
        for m in range(3):
            t0, t1, t2 = n[x + 1 + m], n[y + 1 + m], n[z + 1 + m]
            n[SHIFT + 3 * k + m] = f * (a00 * t0 + a01 * t1 + a02 * t2)
            n[SHIFT + 9 + 3 * k + m] = f * (a01 * t0 + a11 * t1 + a12 * t2)
            n[SHIFT + 18 + 3 * k + m] = f * (a02 * t0 + a12 * t1 + a22 * t2)
    for j in range(3):
        for m in range(3):
            for k in range(3):
                at = 10 * upper(j, k)
                for p in range(3):
                    value = n[at + 4 + upper(m, p)]
                    for i in range(3):
                        value -= n[10 * upper(i, j) + 1 + m] * n[SHIFT + 9 * i + 3 * k + p]
                    n[OMEGA + 9 * (3 * j + m) + 3 * k + p] = value / total
    # how far ahead the centroid is, but for its sign: a linear form of R
    for k in range(9):
        n[UNDER + k] = n[60] * n[SHIFT + k] + n[61] * n[SHIFT + 9 + k] + n[62] * n[SHIFT + 18 + k]
    return True


@helper
def choose(numbers_at, candidates_at, most):
    """The best rotations that differ and have the centroid in front, with their translations; how many there are."""
    n, costs = doubles(numbers_at), doubles(numbers_at + 8 * COSTS)
    R = doubles(numbers_at + 8 * ROTATIONS)
    for l in range(NUM_STARTS):
        t = translation(numbers_at, l)
        # the centroid is the origin; a plane's poses come in pairs, one of each behind the camera
        if (
            not n[60] * t[0] + n[61] * t[1] + n[62] * t[2] > 0.0
            or not abs(t[0]) + abs(t[1]) + abs(t[2]) < math.inf
        ):
            costs[l] = math.inf
    count = 0
    while count < most:
        found = doubles(candidates_at + 8 * NUM_CANDIDATE * count)
        best = 0
        for l in range(NUM_STARTS):
            if costs[l] < costs[best]:
                best = l
        if not costs[best] < math.inf:
            break
        for k in range(9):
            found[k] = R[NUM_STARTS * k + best]
        t = translation(numbers_at, best)
        found[9], found[10], found[11] = t[0], t[1], t[2]
        for l in range(NUM_STARTS):
            trace = 0.0
            for k in range(9):
                trace += found[k] * R[NUM_STARTS * k + l]
            if 0.5 * (trace - 1.0) > _COSINE:
                costs[l] = math.inf
        count += 1
    return count


@helper
def translation(numbers_at, l):
    """The best translation for a rotation."""
    shift, R = doubles(numbers_at + 8 * SHIFT), doubles(numbers_at + 8 * ROTATIONS)
    x = y = z = 0.0
    for k in range(9):
        r = R[NUM_STARTS * k + l]
        x -= shift[k] * r
        y -= shift[9 + k] * r
        z -= shift[18 + k] * r
    return x, y, z


@helper
def push_forward(rows_at, pitch, count, pose_at):
    """Noise can leave a point of a good candidate behind the camera: move the object along z until none is."""
    p, row = doubles(pose_at), 8 * pitch
    a, b, d = (
        doubles(rows_at + POINT * row),
        doubles(rows_at + (POINT + 1) * row),
        doubles(rows_at + (POINT + 2) * row),
    )
    nearest = math.inf
    for i in range(count):
        nearest = min(nearest, p[6] * a[i] + p[7] * b[i] + p[8] * d[i] + p[11])
    if nearest <= 1e-3:
        p[11] += 0.1 - nearest


SIGNATURE = types.int64(*[types.int64] * 7)
#: ``(address, (block, rows, pitch, count, work's camera, candidates, general))``
start = jit.calling(SIGNATURE)


def compile_start(by_angle: bool) -> Any:
    """Candidates of an item in rows, its rays and their weights; how many candidates there are."""
    source, most = jit.stamp(), NUM_OTHER_MINIMA if by_angle else NUM_MINIMA

    @jit.by_address(SIGNATURE)
    def started(block_at, rows_at, pitch, count, camera_at, candidates_at, general):
        _ = source
        b, row = integers(block_at), 8 * pitch
        strength, xx, yy = (
            doubles(rows_at + STRENGTH * row),
            doubles(rows_at + WEIGHT * row),
            doubles(rows_at + (WEIGHT + 2) * row),
        )
        for i in range(count):
            strength[i] = 0.5 * (xx[i] + yy[i]) if general != 0 else xx[i]
        passes.call(b[block.PASSES + 7], (rows_at, pitch, count, camera_at, 0, 0, 0))
        numbers = np.empty(NUM_NUMBERS)
        numbers_at = numbers.ctypes.data
        sum_forms(rows_at, pitch, count, numbers_at)
        found = 0
        if eliminate(numbers_at):
            take_steps(numbers_at, by_angle)
            found = choose(numbers_at, candidates_at, most)
        if b[block.WIDE] == 0:
            for k in range(found):
                push_forward(rows_at, pitch, count, candidates_at + 8 * NUM_CANDIDATE * k)
        numbers[0] = 0.0  # so long it is in use
        return found

    return started
