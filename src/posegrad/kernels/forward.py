"""The forward kernel: a range of items from the user's arrays to the solution's."""

import math
from typing import Any

import numpy as np

from posegrad.kernels import block, jit
from posegrad.kernels.conditioning import CONVERGED, GENERAL, NOT_FINITE, condition, padded
from posegrad.kernels.inputs import CENTRE, FOCAL, SIZE, WEIGHT_UNIT, read
from posegrad.kernels.jit import doubles, helper, inlined, integers, singles
from posegrad.kernels.linear import entry
from posegrad.kernels.losses import SQUARED
from posegrad.kernels.passes import COST, NUM_ROWS
from posegrad.kernels.search import search
from posegrad.kernels.solver import (
    CAMERA,
    FOUND,
    INFEASIBLE,
    NUM_WORK,
    POSE,
    SUMS,
    TRIAL,
    UNITS,
    WORK,
    copy,
    descend,
    evaluate_at,
    finish,
)

_LARGEST, _LARGEST_SINGLE = 1.7976931348623157e308, 3.4028234663852886e38
_ROUNDS_TO_INFINITY = 3.4028235677973366e38  # the least float64 number that does as float32


@helper
def start_given(block_at, item, work):
    """The initial pose, its rotation made orthonormal, in the item's units; True."""
    b, p, unit = integers(block_at), doubles(work + 8 * POSE), doubles(work + 8 * UNITS)
    start, single = item * b[block.INIT_R + 1], b[block.INIT_R + 4]
    for i in range(3):
        for j in range(3):
            p[3 * i + j] = read(
                b[block.INIT_R], start + i * b[block.INIT_R + 2] + j * b[block.INIT_R + 3], single
            )
    normalise(work + 8 * POSE)
    start, step = item * b[block.INIT_T + 1], b[block.INIT_T + 2]
    for i in range(3):
        t = read(b[block.INIT_T], start + i * step, b[block.INIT_T + 3])
        for j in range(3):
            t += p[3 * i + j] * unit[CENTRE + j]
        p[9 + i] = t / unit[SIZE]
    return True


@helper
def normalise(rotation_at):
    """A rotation close to the matrix, by its quaternion: where the steps start need not be the closest one."""
    R = doubles(rotation_at)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = R[0], R[1], R[2], R[3], R[4], R[5], R[6], R[7], R[8]
    # the best conditioned row of 4 q q^T
    a, b, c, d = 1.0 + r00 + r11 + r22, 1.0 + r00 - r11 - r22, 1.0 - r00 + r11 - r22, 1.0 - r00 - r11 + r22
    if a >= b and a >= c and a >= d:
        w, x, y, z = a, r21 - r12, r02 - r20, r10 - r01
    elif b >= c and b >= d:
        w, x, y, z = r21 - r12, b, r10 + r01, r02 + r20
    elif c >= d:
        w, x, y, z = r02 - r20, r10 + r01, c, r21 + r12
    else:
        w, x, y, z = r10 - r01, r02 + r20, r21 + r12, d
    f = 2.0 / (w * w + x * x + y * y + z * z)
    R[0], R[1], R[2] = 1.0 - f * (y * y + z * z), f * (x * y - z * w), f * (x * z + y * w)
    R[3], R[4], R[5] = f * (x * y + z * w), 1.0 - f * (x * x + z * z), f * (y * z - x * w)
    R[6], R[7], R[8] = f * (x * z - y * w), f * (y * z + x * w), 1.0 - f * (x * x + y * y)


@inlined
def write(address, at, single, value):
    """A number to a float64 or float32 array; the largest one where it overflows, 0 for NaN."""
    if value != value:
        value = 0.0
    if single == 0:
        doubles(address)[at] = min(max(value, -_LARGEST), _LARGEST)
    else:
        singles(address)[at] = min(max(value, -_LARGEST_SINGLE), _LARGEST_SINGLE)


@helper
def set_ahead(work):
    """The pose of an item that failed: the identity, one unit ahead."""
    p = doubles(work + 8 * POSE)
    for k in range(12):
        p[k] = 0.0
    p[0] = p[4] = p[8] = p[11] = 1.0


@helper
def restore_hessian(work, scale):
    """The Hessian in the user's tangent and units, (36) at WORK: ``dt' = ([w]x R centre + dt) / size``."""
    p, unit, h = doubles(work + 8 * POSE), doubles(work + 8 * UNITS), doubles(work + 8 * SUMS)
    full, C = doubles(work + 8 * WORK), doubles(work + 8 * (WORK + 36))
    for i in range(6):
        for j in range(i, 6):
            full[6 * i + j] = full[6 * j + i] = h[entry(i, j)] * scale
    inverse = 1.0 / unit[SIZE]
    c0 = inverse * (p[0] * unit[0] + p[1] * unit[1] + p[2] * unit[2])
    c1 = inverse * (p[3] * unit[0] + p[4] * unit[1] + p[5] * unit[2])
    c2 = inverse * (p[6] * unit[0] + p[7] * unit[1] + p[8] * unit[2])
    # minus the cross-product matrix; columns first, then rows
    C[0], C[1], C[2], C[3], C[4], C[5], C[6], C[7], C[8] = 0.0, c2, -c1, -c2, 0.0, c0, c1, -c0, 0.0
    for i in range(6):
        x, y, z = full[6 * i + 3], full[6 * i + 4], full[6 * i + 5]
        for j in range(3):
            full[6 * i + j] += x * C[j] + y * C[3 + j] + z * C[6 + j]
            full[6 * i + 3 + j] *= inverse
    for j in range(6):
        x, y, z = full[18 + j], full[24 + j], full[30 + j]
        for i in range(3):
            full[6 * i + j] += x * C[i] + y * C[3 + i] + z * C[6 + i]
            full[18 + 6 * i + j] *= inverse


@helper
def translate(work, single):
    """The translation in the user's units, at TRIAL; whether the dtype of the output has such numbers."""
    p, unit, t = doubles(work + 8 * POSE), doubles(work + 8 * UNITS), doubles(work + 8 * TRIAL)
    limit, fits = math.inf if single == 0 else _ROUNDS_TO_INFINITY, True
    for i in range(3):
        centre = p[3 * i] * unit[0] + p[3 * i + 1] * unit[1] + p[3 * i + 2] * unit[2]
        t[i] = unit[SIZE] * p[9 + i] - centre
        fits = fits and abs(t[i]) < limit
    return fits


@helper
def hand_back(block_at, item, work, status, cost, steps, decrement):
    """Write the answer of an item in the user's units, and what its gradient needs."""
    b, p, unit = integers(block_at), doubles(work + 8 * POSE), doubles(work + 8 * UNITS)
    single, out = b[block.OUT_SINGLE], integers(block_at + 8 * block.OUT)
    state, t = b[block.STATE] + 8 * block.NUM_STATE * item, doubles(work + 8 * TRIAL)
    if not translate(work, single):
        status = status if status < 0 else NOT_FINITE
        set_ahead(work)
        t[0], t[1], t[2] = 0.0, 0.0, 1.0
    for k in range(9):
        write(out[0], 9 * item + k, single, p[k])
    for i in range(3):
        doubles(state)[block.STATE_T + i] = t[i]
        write(out[1], 3 * item + i, single, t[i])
    integers(out[2])[item], integers(out[4])[item] = status, steps
    scale = unit[FOCAL] * unit[FOCAL] * unit[WEIGHT_UNIT]
    write(out[3], item, single, cost * scale)
    write(out[5], item, single, decrement * math.sqrt(scale))
    copy(state, work + 8 * POSE, 12)
    copy(state + 8 * block.STATE_HESSIAN, work + 8 * SUMS, 21)
    doubles(state)[block.STATE_OK] = 1.0 if status == CONVERGED else 0.0
    full = doubles(work + 8 * WORK)
    if status == CONVERGED:
        restore_hessian(work, scale)
        for k in range(36):
            write(out[6], 36 * item + k, single, full[k])
    else:
        for k in range(36):
            write(out[6], 36 * item + k, single, 0.0)


@helper
def solve_item(block_at, item, rows_at, pitch, kept_at, work):
    """One item from start to end."""
    b, numbers, unit, sums = (
        integers(block_at),
        doubles(block_at),
        doubles(work + 8 * UNITS),
        doubles(work + 8 * SUMS),
    )
    general = b[block.WEIGHTS] > 1 or b[block.LOSS] != SQUARED
    unit[0], unit[1], unit[2], unit[SIZE] = 0.0, 0.0, 0.0, 1.0
    camera_at, units_at, found_at = work + 8 * CAMERA, work + 8 * UNITS, work + 8 * FOUND
    mode = GENERAL if general else 0
    status = condition(
        b[block.CONDITION],
        (block_at, item, rows_at, pitch, kept_at, camera_at, units_at, found_at, mode),
    )
    cost, decrement, steps = 0.0, 0.0, 0
    if status == CONVERGED:
        used = integers(found_at)[0]
        count = padded(used)
        pose_at, sums_at = work + 8 * POSE, work + 8 * SUMS
        if b[block.INIT_R] == 0:
            where = (block_at, rows_at, pitch, count, used, work, 1 if general else 0)
            status = search(b[block.SEARCH], where)
            steps, decrement, cost = integers(found_at)[0], doubles(found_at)[1], sums[COST]
            if status < 0:  # not the answer yet, see search
                b[block.PENDING] = 1
                cost = 0.0
        elif start_given(block_at, item, work) and evaluate_at(
            block_at, rows_at, pitch, count, work, pose_at, sums_at, False, general
        ):
            _, _, steps, _, exact = descend(
                *(block_at, rows_at, pitch, count, work, general),
                *(b[block.MAX_STEPS], numbers[block.DAMPING], 2.0, 0),
            )
            status, steps, decrement = finish(block_at, rows_at, pitch, count, work, general, steps, exact)
            cost = sums[COST]
        else:
            status = INFEASIBLE
    if status != CONVERGED:
        set_ahead(work)
    hand_back(block_at, item, work, status, cost, steps, decrement)


def compile_forward() -> Any:
    """The kernel ``(block, first, last, slot)``."""
    source = jit.stamp()

    @jit.entry
    def forward(block_at, first, last, slot):
        _ = source
        pitch = padded(max(integers(block_at)[block.COUNT], 1))
        rows, kept, work = np.empty(NUM_ROWS * pitch + 8), np.empty(pitch + 1, np.int64), np.empty(NUM_WORK)
        rows_at = (rows.ctypes.data + 63) // 64 * 64
        for item in range(first, last):
            solve_item(block_at, item, rows_at, pitch, kept.ctypes.data, work.ctypes.data)
        rows[0] = work[0] = 0.0  # so long they are in use: kernels know them by their address alone
        kept[0] = 0

    return forward
