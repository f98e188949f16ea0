"""Poses to start from, without an initial one: the minima of the object-space cost, as :mod:`posegrad.minimal.sqpnp`.

``sum_i w_i |(I - v_i v_i^T) (R z_i + t)|^2`` is, with t eliminated, a quadratic form omega of the nine entries of R. It is
minimised by damped Newton steps on SO(3) from the 24 rotations of the cube, all at once, a lane each.
"""

import itertools
import math
from typing import Any

import numpy as np
from numba import types

from posegrad.kernels import block, jit, passes
from posegrad.kernels.jit import doubles, helper, inlined, integers
from posegrad.kernels.passes import BEARING, POINT, STRENGTH, WEIGHT

NUM_STARTS, NUM_CANDIDATES, _STEPS = 24, 4, 12
_COSINE = math.cos(math.radians(5.0))  # candidates that are nearer to each other are one
#: places among the numbers a start needs: sums, form, translation as a form of R, rotations, their cost, damping, new ones
_OMEGA, _SHIFT, _ROTATIONS, _COSTS, _DAMPINGS, _TRIALS, NUM_NUMBERS = 64, 145, 172, 388, 412, 436, 652


def _cube() -> tuple[tuple[float, ...], ...]:
    """The 24 rotations of the cube, entry by entry."""
    rotations = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            R = np.zeros((3, 3))
            R[range(3), order] = signs
            if np.linalg.det(R) > 0:
                rotations.append(R.ravel())
    return tuple(tuple(float(x) for x in column) for column in np.array(rotations).T)


_CUBE = np.array(_cube())


@helper
def sum_forms(rows_at, pitch, count, sums_at):
    """Sums of ``w (I - v v^T)`` (6) times 1, z and z z^T (10), of ``w v`` (3) and w."""
    row = 8 * pitch
    a, b, d = doubles(rows_at + POINT * row), doubles(rows_at + (POINT + 1) * row), doubles(rows_at + (POINT + 2) * row)
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
            n[_SHIFT + 3 * k + m] = f * (a00 * t0 + a01 * t1 + a02 * t2)
            n[_SHIFT + 9 + 3 * k + m] = f * (a01 * t0 + a11 * t1 + a12 * t2)
            n[_SHIFT + 18 + 3 * k + m] = f * (a02 * t0 + a12 * t1 + a22 * t2)
    for j in range(3):
        for m in range(3):
            for k in range(3):
                at = 10 * upper(j, k)
                for p in range(3):
                    value = n[at + 4 + upper(m, p)]
                    for i in range(3):
                        value -= n[10 * upper(i, j) + 1 + m] * n[_SHIFT + 9 * i + 3 * k + p]
                    n[_OMEGA + 9 * (3 * j + m) + 3 * k + p] = value / total
    return True


@inlined
def times(o, at, x, y, z):
    """A 3x3 block of the form, times a vector."""
    return (
        o[at] * x + o[at + 1] * y + o[at + 2] * z,
        o[at + 9] * x + o[at + 10] * y + o[at + 11] * z,
        o[at + 18] * x + o[at + 19] * y + o[at + 20] * z,
    )


@inlined
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def plus(a, b, c):
    return a[0] + b[0] + c[0], a[1] + b[1] + c[1], a[2] + b[2] + c[2]


@inlined
def less(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@inlined
def newton_step(o, A, B, C, damping):
    """Cost at the rotation with rows A, B, C, and the damped step: Newton's where its matrix is positive definite, else
    Gauss-Newton's; at most a radian."""
    # omega r, row by row, and D[k][l] = row k of R . row l of omega r
    rA = plus(times(o, 0, A[0], A[1], A[2]), times(o, 3, B[0], B[1], B[2]), times(o, 6, C[0], C[1], C[2]))
    rB = plus(times(o, 27, A[0], A[1], A[2]), times(o, 30, B[0], B[1], B[2]), times(o, 33, C[0], C[1], C[2]))
    rC = plus(times(o, 54, A[0], A[1], A[2]), times(o, 57, B[0], B[1], B[2]), times(o, 60, C[0], C[1], C[2]))
    d00, d01, d02 = dot(A, rA), dot(A, rB), dot(A, rC)
    d10, d11, d12 = dot(B, rA), dot(B, rB), dot(B, rC)
    d20, d21, d22 = dot(C, rA), dot(C, rB), dot(C, rC)
    cost = d00 + d11 + d22
    g0, g1, g2 = d12 - d21, d20 - d02, d01 - d10
    # omega K_l r for the turns K_0 R = (0, -C, B), K_1 R = (C, 0, -A), K_2 R = (-B, A, 0)
    y0 = less(times(o, 33, B[0], B[1], B[2]), times(o, 30, C[0], C[1], C[2]))
    z0 = less(times(o, 60, B[0], B[1], B[2]), times(o, 57, C[0], C[1], C[2]))
    x1 = less(times(o, 0, C[0], C[1], C[2]), times(o, 6, A[0], A[1], A[2]))
    y1 = less(times(o, 27, C[0], C[1], C[2]), times(o, 33, A[0], A[1], A[2]))
    z1 = less(times(o, 54, C[0], C[1], C[2]), times(o, 60, A[0], A[1], A[2]))
    x2 = less(times(o, 3, A[0], A[1], A[2]), times(o, 0, B[0], B[1], B[2]))
    y2 = less(times(o, 30, A[0], A[1], A[2]), times(o, 27, B[0], B[1], B[2]))
    z2 = less(times(o, 57, A[0], A[1], A[2]), times(o, 54, B[0], B[1], B[2]))
    p00, p01, p02 = dot(B, z0) - dot(C, y0), dot(B, z1) - dot(C, y1), dot(B, z2) - dot(C, y2)
    p11, p12 = dot(C, x1) - dot(A, z1), dot(C, x2) - dot(A, z2)
    p22 = dot(A, y2) - dot(B, x2)
    h00, h11, h22 = p00 + d00 - cost + damping, p11 + d11 - cost + damping, p22 + d22 - cost + damping
    h01, h02, h12 = p01 + 0.5 * (d01 + d10), p02 + 0.5 * (d02 + d20), p12 + 0.5 * (d12 + d21)
    minor = h00 * h11 - h01 * h01
    c00, c01, c02 = h11 * h22 - h12 * h12, h02 * h12 - h01 * h22, h01 * h12 - h02 * h11
    determinant = h00 * c00 + h01 * c01 + h02 * c02
    newton = h00 > 0.0 and minor > 0.0 and determinant > 0.0
    h00, h11, h22 = h00 if newton else p00 + damping, h11 if newton else p11 + damping, h22 if newton else p22 + damping
    h01, h02, h12 = h01 if newton else p01, h02 if newton else p02, h12 if newton else p12
    c00, c01, c02 = h11 * h22 - h12 * h12, h02 * h12 - h01 * h22, h01 * h12 - h02 * h11
    c11, c12, c22 = h00 * h22 - h02 * h02, h01 * h02 - h00 * h12, h00 * h11 - h01 * h01
    f = -1.0 / max(h00 * c00 + h01 * c01 + h02 * c02, 1e-300)
    s0, s1, s2 = f * (c00 * g0 + c01 * g1 + c02 * g2), f * (c01 * g0 + c11 * g1 + c12 * g2), f * (
        c02 * g0 + c12 * g1 + c22 * g2
    )
    length = math.sqrt(s0 * s0 + s1 * s1 + s2 * s2)
    f = 1.0 / max(length, 1.0)
    return cost, f * s0, f * s1, f * s2


@helper
def take_steps(numbers_at):
    """Newton steps of all starts; a step that does not lower the cost is taken back, and the next one damped more."""
    n = doubles(numbers_at)
    o, R, T = doubles(numbers_at + 8 * _OMEGA), doubles(numbers_at + 8 * _ROTATIONS), doubles(numbers_at + 8 * _TRIALS)
    costs, dampings = doubles(numbers_at + 8 * _COSTS), doubles(numbers_at + 8 * _DAMPINGS)
    trace = 0.0
    for k in range(9):
        trace += o[10 * k]
    for l in range(NUM_STARTS):
        dampings[l], costs[l] = 1e-3 * trace, math.inf  # a tenth of it for the first step
    for k in range(9):
        for l in range(NUM_STARTS):
            T[NUM_STARTS * k + l] = R[NUM_STARTS * k + l] = _CUBE[k, l]
    # each round: the step at every trial; where the trial is better it is where to go on from, and its step is kept
    for _ in range(_STEPS + 1):
        for l in range(NUM_STARTS):
            a0, a1, a2, a3, a4 = T[l], T[24 + l], T[48 + l], T[72 + l], T[96 + l]
            a5, a6, a7, a8 = T[120 + l], T[144 + l], T[168 + l], T[192 + l]
            cost, _, _, _ = newton_step(o, (a0, a1, a2), (a3, a4, a5), (a6, a7, a8), 0.0)
            better = cost <= costs[l]
            b0, b1, b2, b3, b4 = R[l], R[24 + l], R[48 + l], R[72 + l], R[96 + l]
            b5, b6, b7, b8 = R[120 + l], R[144 + l], R[168 + l], R[192 + l]
            a0, a1, a2 = a0 if better else b0, a1 if better else b1, a2 if better else b2
            a3, a4, a5 = a3 if better else b3, a4 if better else b4, a5 if better else b5
            a6, a7, a8 = a6 if better else b6, a7 if better else b7, a8 if better else b8
            R[l], R[24 + l], R[48 + l], R[72 + l], R[96 + l] = a0, a1, a2, a3, a4
            R[120 + l], R[144 + l], R[168 + l], R[192 + l] = a5, a6, a7, a8
            costs[l] = cost if better else costs[l]
            damping = dampings[l] * (0.1 if better else 8.0)
            dampings[l] = damping
            _, x, y, z = newton_step(o, (a0, a1, a2), (a3, a4, a5), (a6, a7, a8), damping)
            f = 1.0 / (1.0 + 0.25 * (x * x + y * y + z * z))
            xx, yy, zz, xy, xz, yz = 0.5 * x * x, 0.5 * y * y, 0.5 * z * z, 0.5 * x * y, 0.5 * x * z, 0.5 * y * z
            k0, k1, k2 = -(yy + zz), xy - z, xz + y
            k3, k4, k5 = xy + z, -(xx + zz), yz - x
            k6, k7, k8 = xz - y, yz + x, -(xx + yy)
            T[l] = a0 + f * (k0 * a0 + k1 * a3 + k2 * a6)
            T[24 + l] = a1 + f * (k0 * a1 + k1 * a4 + k2 * a7)
            T[48 + l] = a2 + f * (k0 * a2 + k1 * a5 + k2 * a8)
            T[72 + l] = a3 + f * (k3 * a0 + k4 * a3 + k5 * a6)
            T[96 + l] = a4 + f * (k3 * a1 + k4 * a4 + k5 * a7)
            T[120 + l] = a5 + f * (k3 * a2 + k4 * a5 + k5 * a8)
            T[144 + l] = a6 + f * (k6 * a0 + k7 * a3 + k8 * a6)
            T[168 + l] = a7 + f * (k6 * a1 + k7 * a4 + k8 * a7)
            T[192 + l] = a8 + f * (k6 * a2 + k7 * a5 + k8 * a8)


@helper
def choose(numbers_at, candidates_at):
    """The best rotations that differ and have the centroid in front, with their translations; how many there are."""
    n, costs = doubles(numbers_at), doubles(numbers_at + 8 * _COSTS)
    R, found = doubles(numbers_at + 8 * _ROTATIONS), doubles(candidates_at)
    for l in range(NUM_STARTS):
        t = translation(numbers_at, l)
        # the centroid is the origin; a plane's poses come in pairs, one of each behind the camera
        if not n[60] * t[0] + n[61] * t[1] + n[62] * t[2] > 0.0 or not abs(t[0]) + abs(t[1]) + abs(t[2]) < math.inf:
            costs[l] = math.inf
    count = 0
    while count < NUM_CANDIDATES:
        best = 0
        for l in range(NUM_STARTS):
            if costs[l] < costs[best]:
                best = l
        if not costs[best] < math.inf:
            break
        for k in range(9):
            found[12 * count + k] = R[NUM_STARTS * k + best]
        t = translation(numbers_at, best)
        found[12 * count + 9], found[12 * count + 10], found[12 * count + 11] = t[0], t[1], t[2]
        for l in range(NUM_STARTS):
            trace = 0.0
            for k in range(9):
                trace += found[12 * count + k] * R[NUM_STARTS * k + l]
            if 0.5 * (trace - 1.0) > _COSINE:
                costs[l] = math.inf
        count += 1
    return count


@helper
def translation(numbers_at, l):
    """The best translation for a rotation."""
    shift, R = doubles(numbers_at + 8 * _SHIFT), doubles(numbers_at + 8 * _ROTATIONS)
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
    a, b, d = doubles(rows_at + POINT * row), doubles(rows_at + (POINT + 1) * row), doubles(rows_at + (POINT + 2) * row)
    nearest = math.inf
    for i in range(count):
        nearest = min(nearest, p[6] * a[i] + p[7] * b[i] + p[8] * d[i] + p[11])
    if nearest <= 1e-3:
        p[11] += 0.1 - nearest


SIGNATURE = types.int64(*[types.int64] * 7)
#: ``(address, (block, rows, pitch, count, work's camera, candidates, general))``
start = jit.calling(SIGNATURE)


def compile_start() -> Any:
    """Candidates of an item in rows; how many there are."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def started(block_at, rows_at, pitch, count, camera_at, candidates_at, general):
        source  # noqa: B018
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
            take_steps(numbers_at)
            found = choose(numbers_at, candidates_at)
        if b[block.WIDE] == 0:
            for k in range(found):
                push_forward(rows_at, pitch, count, candidates_at + 96 * k)
        numbers[0] = 0.0  # so long it is in use
        return found

    return started
