"""The backward kernel: gradients of a range of items by implicit differentiation, from the answer of the forward one.

With the cotangent pulled back to the tangent, v: solve ``H u = v``, then one pass for ``-d<u, g>/d`` of all data.
"""

import math
from typing import Any

import numpy as np

from posegrad.kernels import block, jit, passes
from posegrad.kernels.conditioning import EVERYTHING, GENERAL, condition, padded
from posegrad.kernels.forward import write
from posegrad.kernels.inputs import FOCAL, SHAPE, SIZE, SQUARE, WEIGHT_UNIT, read
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.linear import entry, solve
from posegrad.kernels.losses import SQUARED, evaluate
from posegrad.kernels.passes import BY_PIXEL, BY_POINT, BY_WEIGHT, NUM_COEFFICIENTS, NUM_PULLED, NUM_ROWS
from posegrad.kernels.solver import (
    CAMERA,
    DAMPED,
    DELTA,
    FOUND,
    NUM_WORK,
    POSE,
    SUMS,
    TRIAL,
    UNITS,
    copy,
    evaluate_at,
)

_SMALLEST, _FARTHEST = 2.2250738585072014e-308, 1e150


@helper
def pull_back(block_at, item, work):
    """The gradient by R and t in the conditioned tangent, at DAMPED: ``R <- exp(w) R``, ``t = size t' - R centre``."""
    b, p, unit, v = (
        integers(block_at),
        doubles(work + 8 * POSE),
        doubles(work + 8 * UNITS),
        doubles(work + 8 * DAMPED),
    )
    A, t = doubles(work + 8 * TRIAL), doubles(work + 8 * (TRIAL + 9))
    if b[block.COTANGENT_T] != 0:
        start, step = item * b[block.COTANGENT_T + 1], b[block.COTANGENT_T + 2]
        for k in range(3):
            t[k] = read(b[block.COTANGENT_T], start + k * step, b[block.COTANGENT_T + 3])
    else:
        t[0] = t[1] = t[2] = 0.0
    for k in range(9):
        A[k] = 0.0
    if b[block.COTANGENT_R] != 0:
        start, single = item * b[block.COTANGENT_R + 1], b[block.COTANGENT_R + 4]
        for i in range(3):
            row = start + i * b[block.COTANGENT_R + 2]
            for j in range(3):
                g = read(b[block.COTANGENT_R], row + j * b[block.COTANGENT_R + 3], single)
                for k in range(3):
                    A[3 * i + k] += g * p[3 * k + j]
    c0 = p[0] * unit[0] + p[1] * unit[1] + p[2] * unit[2]
    c1 = p[3] * unit[0] + p[4] * unit[1] + p[5] * unit[2]
    c2 = p[6] * unit[0] + p[7] * unit[1] + p[8] * unit[2]
    v[0] = A[7] - A[5] - (c1 * t[2] - c2 * t[1])
    v[1] = A[2] - A[6] - (c2 * t[0] - c0 * t[2])
    v[2] = A[3] - A[1] - (c0 * t[1] - c1 * t[0])
    v[3], v[4], v[5] = unit[SIZE] * t[0], unit[SIZE] * t[1], unit[SIZE] * t[2]


@helper
def bound(work, gain):
    """Scale u down to the bound on ``sqrt((u^T A u) / (v^T A^-1 v))``, with the Gauss-Newton matrix A at SUMS; not
    where that is singular."""
    A, u, v, other = (
        doubles(work + 8 * SUMS),
        doubles(work + 8 * DELTA),
        doubles(work + 8 * DAMPED),
        doubles(work + 8 * TRIAL),
    )
    response = reference = 0.0
    for i in range(6):
        response += A[entry(i, i)] * u[i] * u[i]
        for j in range(i + 1, 6):
            response += 2.0 * A[entry(i, j)] * u[i] * u[j]
    for k in range(6):
        other[6 + k] = 0.0
    if solve(work + 8 * SUMS, work + 8 * (TRIAL + 6), work + 8 * DAMPED, work + 8 * TRIAL) == 0.0:
        return
    for k in range(6):
        reference += v[k] * other[k]
    excess = response / max(gain * gain * reference, _SMALLEST)
    if excess > 1.0:
        for k in range(6):
            u[k] /= math.sqrt(excess)


@helper
def scatter(block_at, field, item, slot, width, first, pulled_at, pitch, kept_at, indexed, count, scale):
    """Rows of the pull to a gradient (items, points, width), or added to one that items share."""
    b, kept = integers(block_at), integers(kept_at)
    address, single = b[field], b[field + 3]
    start = item * b[field + 1] + slot * b[field + 2]
    shared, total = b[field + 1] == 0, b[block.COUNT]
    if indexed and not shared:
        for i in range(total * width):
            write(address, start + i, single, 0.0)
    target = doubles(address + 8 * start)
    for k in range(width):
        row = doubles(pulled_at + 8 * (first + k) * pitch)
        if shared:
            for i in range(count):
                target[(kept[i] if indexed else i) * width + k] += scale * row[i]
        elif single == 0:
            for i in range(count):
                target[(kept[i] if indexed else i) * width + k] = scale * row[i]
        else:
            for i in range(count):
                write(address, start + (kept[i] if indexed else i) * width + k, 1, scale * row[i])


@helper
def scatter_weights(block_at, item, slot, pulled_at, pitch, kept_at, indexed, count, scale):
    """As ``scatter``: numbers from xx + yy, one per axis from xx and yy, symmetric matrices from xx, xy, yy."""
    b = integers(block_at)
    xx, xy, yy = (
        doubles(pulled_at + 8 * BY_WEIGHT * pitch),
        doubles(pulled_at + 8 * (BY_WEIGHT + 1) * pitch),
        doubles(pulled_at + 8 * (BY_WEIGHT + 2) * pitch),
    )
    kind, first, width = b[block.WEIGHTS], BY_WEIGHT, 1
    general = b[block.WEIGHTS] > 1 or b[block.LOSS] != SQUARED
    if kind == 1 and general:
        for i in range(count):
            xx[i] += yy[i]
    elif kind == 2:
        width = 2
        for i in range(count):
            xy[i] = yy[i]
    elif kind == 3:
        # xx, xy, xy, yy: the row of the last point coordinate has been read and is free
        width, first = 4, BY_WEIGHT - 1
        before = doubles(pulled_at + 8 * (BY_WEIGHT - 1) * pitch)
        for i in range(count):
            before[i], xx[i] = xx[i], xy[i]
    scatter(
        block_at,
        block.BY_WEIGHTS,
        item,
        slot,
        width,
        first,
        pulled_at,
        pitch,
        kept_at,
        indexed,
        count,
        scale,
    )


@helper
def scatter_camera(block_at, item, slot, pulled_at, pitch, focal):
    """Sums by coefficient to the user's parameters."""
    b, sums = integers(block_at), doubles(pulled_at + 8 * NUM_PULLED * pitch)
    target = doubles(b[block.BY_CAMERA] + 8 * (item * b[block.BY_CAMERA + 1] + slot * b[block.BY_CAMERA + 2]))
    for k in range(NUM_COEFFICIENTS):
        at = b[block.BY_CAMERA_PARAMETERS + 1 + k]
        if at >= 0:
            target[at] += sums[k] / focal if k < b[block.NUM_PIXEL] else sums[k]


@helper
def zero(block_at, field, item, count):
    """The gradient of an item that failed."""
    b = integers(block_at)
    if b[field] != 0 and b[field + 1] != 0:
        for k in range(count):
            write(b[field], item * b[field + 1] + k, b[field + 3], 0.0)


@helper
def bring_near(rows_at, pitch, first, last):
    """Pixels of weight zero no farther off than their square can be computed: a zero times it, in whatever order, is to
    be zero."""
    for k in range(2):
        x = doubles(rows_at + 8 * k * pitch)
        for i in range(first, last):
            x[i] = min(max(x[i], -_FARTHEST), _FARTHEST)


@helper
def pull_item(block_at, item, slot, rows_at, pulled_at, pitch, kept_at, work):
    """The gradients of one item."""
    b, unit, u = integers(block_at), doubles(work + 8 * UNITS), doubles(work + 8 * DELTA)
    state, total = b[block.STATE] + 8 * block.NUM_STATE * item, b[block.COUNT]
    zero(block_at, block.BY_CAMERA, item, b[block.BY_CAMERA_PARAMETERS])
    if doubles(state)[block.STATE_OK] == 0.0:
        zero(block_at, block.BY_PIXELS, item, 2 * total)
        zero(block_at, block.BY_POINTS, item, 3 * total)
        kind = b[block.WEIGHTS]
        zero(block_at, block.BY_WEIGHTS, item, (1 if kind == 1 else 2 if kind == 2 else 4) * total)
        return
    general = b[block.WEIGHTS] > 1 or b[block.LOSS] != SQUARED
    mode = GENERAL if general else 0
    camera_at, units_at, found_at = work + 8 * CAMERA, work + 8 * UNITS, work + 8 * FOUND
    where = (camera_at, units_at, found_at)
    pose_at = work + 8 * POSE
    copy(pose_at, state, 12)
    gain, gauss_newton = doubles(block_at)[block.MAX_GAIN], b[block.GAUSS_NEWTON] != 0
    if gauss_newton or gain > 0.0:
        # without the points of weight zero, which may lie where they have no image
        condition(b[block.CONDITION], (block_at, item, rows_at, pitch, kept_at, *where, mode))
        count = padded(integers(found_at)[0])
        evaluate_at(block_at, rows_at, pitch, count, work, pose_at, work + 8 * SUMS, False, general)
    condition(b[block.CONDITION], (block_at, item, rows_at, pitch, kept_at, *where, mode + EVERYTHING))
    weighty, used, indexed = integers(found_at)[0], integers(found_at)[1], integers(found_at)[2] != 0
    count = padded(used)
    if general:
        bring_near(rows_at, pitch, weighty, used)
        first, second = rows_at + 8 * passes.RHO1 * pitch, rows_at + 8 * passes.RHO2 * pitch
        passes.call(b[block.PASSES], (rows_at, pitch, count, camera_at, pose_at, 0, work))
        evaluate(b[block.EVALUATE], (b[block.LOSS], unit[SQUARE], unit[SHAPE], count, first, second))
    pull_back(block_at, item, work)
    hessian = work + 8 * SUMS if gauss_newton else state + 8 * block.STATE_HESSIAN
    for k in range(6):
        u[k] = 0.0
    solve(hessian, work + 8 * DELTA, work + 8 * DAMPED, work + 8 * DELTA)
    if gain > 0.0:
        bound(work, gain)
    passes.call(
        b[block.PASSES + (6 if general else 5)],
        (rows_at, pitch, count, camera_at, pose_at, work + 8 * DELTA, pulled_at),
    )
    where = (pulled_at, pitch, kept_at, indexed, used)
    if b[block.BY_PIXELS] != 0:
        scatter(block_at, block.BY_PIXELS, item, slot, 2, BY_PIXEL, *where, 1.0 / unit[FOCAL])
    if b[block.BY_POINTS] != 0:
        scatter(block_at, block.BY_POINTS, item, slot, 3, BY_POINT, *where, 1.0 / unit[SIZE])
    if b[block.BY_WEIGHTS] != 0:
        scatter_weights(block_at, item, slot, *where, 1.0 / unit[WEIGHT_UNIT])
    if b[block.BY_CAMERA] != 0:
        scatter_camera(block_at, item, slot, pulled_at, pitch, unit[FOCAL])


def compile_backward() -> Any:
    """The kernel ``(block, first, last, slot)``: what items share is added to the slot's own copy of the gradient."""
    source = jit.stamp()

    @jit.entry
    def backward(block_at, first, last, slot):
        _ = source
        pitch = padded(max(integers(block_at)[block.COUNT], 1))
        rows, pulled = np.empty(NUM_ROWS * pitch + 8), np.empty(NUM_PULLED * pitch + NUM_COEFFICIENTS + 8)
        kept, work = np.empty(pitch + 1, np.int64), np.empty(NUM_WORK)
        rows_at, pulled_at = (rows.ctypes.data + 63) // 64 * 64, (pulled.ctypes.data + 63) // 64 * 64
        for item in range(first, last):
            pull_item(block_at, item, slot, rows_at, pulled_at, pitch, kept.ctypes.data, work.ctypes.data)
        rows[0] = work[0] = pulled[0] = (
            0.0  # so long they are in use: kernels know them by their address alone
        )
        kept[0] = 0

    return backward
