"""One item from the user's arrays into rows, in the units it is solved in, with a verdict on its input.

As :mod:`posegrad.problems.door` and :mod:`posegrad.problems.conditioning` do it for a batch of tensors. Points that are
masked or of weight zero are left out.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import block, jit
from posegrad.kernels.jit import doubles, flags, helper, inlined, integers, singles
from posegrad.kernels.losses import SQUARED
from posegrad.kernels.passes import LANES, POINT, RHO1, WEIGHT
from posegrad.optim.status import Status

CONVERGED, DEGENERATE, TOO_FEW_POINTS = map(int, (Status.CONVERGED, Status.DEGENERATE, Status.TOO_FEW_POINTS))
NOT_FINITE, BAD_WEIGHTS, BAD_CAMERA, BAD_INIT, BAD_LOSS = map(
    int, (Status.NOT_FINITE, Status.BAD_WEIGHTS, Status.BAD_CAMERA, Status.BAD_INIT, Status.BAD_LOSS)
)
#: places of an item's units among float64 numbers: centre (3) and scales, robust scale squared and shape
CENTRE, SIZE, FOCAL, WEIGHT_UNIT, SQUARE, SHAPE, NUM_UNITS = 0, 3, 4, 5, 6, 7, 8

_EPS, _SMALLEST = 2.220446049250313e-16, 2.2250738585072014e-308
_COLLINEAR_ROUNDINGS, _COLLINEAR_AT_MOST = 8.0, 1e-2  # as in posegrad.problems.pnp


@inlined
def read(address, at, single):
    """A number of a float64 or float32 array."""
    return doubles(address)[at] if single == 0 else float(singles(address)[at])


@helper
def gather(address, start, step, single, kept, indexed, count, row_at):
    """A strided column to a row; NaN if any of it is not finite, else 0."""
    row, index = doubles(row_at), integers(kept)
    bad = 0.0
    if single == 0:
        source = doubles(address + 8 * start)
        if indexed:
            for i in range(count):
                row[i] = source[index[i] * step]
        else:
            for i in range(count):
                row[i] = source[i * step]
    else:
        narrow = singles(address + 4 * start)
        if indexed:
            for i in range(count):
                row[i] = narrow[index[i] * step]
        else:
            for i in range(count):
                row[i] = narrow[i * step]
    for i in range(count):
        bad += 0.0 * row[i]
    return bad


@inlined
def padded(count):
    """The number of points and of copies that fill up the last vector."""
    return (count + LANES - 1) // LANES * LANES


@helper
def or_one(scale):
    """1 in place of a scale that is none."""
    return scale if scale > 0.0 and scale < math.inf else 1.0


@helper
def condition_item(block_at, item, rows_at, pitch, kept_at, camera_at, units_at, general, everything):
    """Fill rows, camera and units.

    Returns the status, how many points are used, how many are not masked (those of weight zero come last, and are in
    the rows if ``everything``), and whether ``kept`` tells which they are: else they are as the user gave them.
    """
    b = integers(block_at)
    count, indexed = b[block.COUNT], False
    row = 8 * pitch
    kept = integers(kept_at)
    if b[block.MASK] != 0:
        mask, step = flags(b[block.MASK] + item * b[block.MASK + 1]), b[block.MASK + 2]
        left = 0
        for i in range(count):
            kept[left] = i
            left += 1 if mask[i * step] != 0 else 0
        indexed, count = left < count, left
    bad = 0.0
    for array, first, length in ((block.PIXELS, 0, 2), (block.POINTS, POINT, 3)):
        for k in range(length):
            start = item * b[array + 1] + k * b[array + 3]
            bad += gather(
                b[array], start, b[array + 2], b[array + 4], kept_at, indexed, count, rows_at + (first + k) * row
            )
    status, enough, largest = CONVERGED, count, 1.0
    if b[block.WEIGHTS] != 0:
        bad += gather_weights(block_at, item, rows_at, pitch, kept_at, indexed, count)
        invalid, enough, largest, zeros = judge_weights(block_at, rows_at, pitch, count)
        used = count
        if zeros > 0:
            used = zeros_last(rows_at, pitch, kept_at, indexed, count, b[block.WEIGHTS] == 1)
            indexed = True
        if enough < b[block.LEAST]:
            status = TOO_FEW_POINTS
    else:
        invalid, used = False, count
        ones = doubles(rows_at + WEIGHT * row)
        for i in range(count):
            ones[i] = 1.0
        if count < b[block.LEAST]:
            status = TOO_FEW_POINTS
    unit = doubles(units_at)
    unit[WEIGHT_UNIT] = or_one(largest)
    bad_camera, off = load_camera(block_at, item, camera_at, units_at)
    bad += off
    if bad_camera:
        status = BAD_CAMERA
    if b[block.INIT_R] != 0:
        rotation, off = judge_init(block_at, item)
        bad += off
        if not rotation:
            status = BAD_INIT
    if load_loss(block_at, item, units_at):
        status = BAD_LOSS
    if invalid:
        status = BAD_WEIGHTS
    if not bad == 0.0:
        status = NOT_FINITE
    if status == CONVERGED:
        rounding, matrices = doubles(block_at)[block.POINTS_EPS], b[block.WEIGHTS] > 1
        if scale_rows(rows_at, pitch, used, count if everything else used, units_at, rounding, general, matrices):
            status = DEGENERATE
    return status, used, count, indexed


@helper
def gather_weights(block_at, item, rows_at, pitch, kept_at, indexed, count):
    """The weights to rows: xx, or xx, xy, yy for two kinds."""
    b = integers(block_at)
    kind, address, step, single = b[block.WEIGHTS], b[block.WEIGHTS + 1], b[block.WEIGHTS + 3], b[block.WEIGHTS + 6]
    start, down, along = item * b[block.WEIGHTS + 2], b[block.WEIGHTS + 4], b[block.WEIGHTS + 5]
    xx = rows_at + 8 * WEIGHT * pitch
    xy, yy = xx + 8 * pitch, xx + 16 * pitch
    bad = gather(address, start, step, single, kept_at, indexed, count, xx)
    if kind == 2:
        bad += gather(address, start + down, step, single, kept_at, indexed, count, yy)
        cross = doubles(xy)
        for i in range(count):
            cross[i] = 0.0
    if kind == 3:
        bad += gather(address, start + along, step, single, kept_at, indexed, count, xy)
        bad += gather(address, start + down, step, single, kept_at, indexed, count, yy)
        upper, lower = doubles(xy), doubles(yy)
        for i in range(count):
            upper[i] = 0.5 * (upper[i] + lower[i])
        bad += gather(address, start + down + along, step, single, kept_at, indexed, count, yy)
    return bad


@helper
def judge_weights(block_at, rows_at, pitch, count):
    """Whether one is negative or not positive semi-definite; how many count, the largest, how many are zero."""
    b, numbers = integers(block_at), doubles(block_at)
    row = 8 * pitch
    xx, xy, yy = (
        doubles(rows_at + WEIGHT * row),
        doubles(rows_at + (WEIGHT + 1) * row),
        doubles(rows_at + (WEIGHT + 2) * row),
    )
    invalid, enough, zeros, largest = 0, 0, 0, 0.0
    tiny, rounding = numbers[block.TINY], -4.0 * numbers[block.EPS]
    if b[block.WEIGHTS] == 1:
        for i in range(count):
            w = xx[i]
            invalid += 1 if w < 0.0 else 0
            enough += 1 if w > tiny else 0
            zeros += 1 if w == 0.0 else 0
            largest = max(largest, w)
    else:
        for i in range(count):
            a, m, c = xx[i], xy[i], yy[i]
            w = 0.5 * (a + c)
            sum_square = (a + c) * (a + c)
            wrong = (a < 0.0) or (c < 0.0) or (a * c - m * m < rounding * sum_square)
            invalid += 1 if wrong else 0
            enough += 1 if w > tiny else 0
            zeros += 1 if w == 0.0 else 0
            largest = max(largest, w)
    return invalid > 0, enough, largest, zeros


@helper
def zeros_last(rows_at, pitch, kept_at, indexed, count, numbers):
    """Move the points of weight zero behind the others; how many others there are. (Of numbers there is no row yy.)"""
    rows, kept = doubles(rows_at), integers(kept_at)
    xx, yy = doubles(rows_at + 8 * WEIGHT * pitch), doubles(rows_at + 8 * (WEIGHT + 2) * pitch)
    if not indexed:
        for i in range(count):
            kept[i] = i
    used = 0
    for i in range(count):
        if xx[i] != 0.0 or (not numbers and yy[i] != 0.0):
            for k in range(RHO1):
                at = k * pitch
                rows[at + used], rows[at + i] = rows[at + i], rows[at + used]
            kept[used], kept[i] = kept[i], kept[used]
            used += 1
    return used


@helper
def load_camera(block_at, item, camera_at, units_at):
    """Coefficients in units of the focal length; whether a focal length is zero, and 0 or NaN."""
    b, c, unit = integers(block_at), doubles(camera_at), doubles(units_at)
    start, single, bad = item * b[block.CAMERA + 1], b[block.CAMERA + 2], 0.0
    for k in range(8):
        offset = b[block.CAMERA + 3 + k]
        c[k] = read(b[block.CAMERA], start + offset, single) if offset >= 0 else 0.0
        bad += 0.0 * c[k]
    missing = c[0] == 0.0 or c[1] == 0.0
    focal = or_one(math.sqrt(abs(c[0])) * math.sqrt(abs(c[1])))
    unit[FOCAL] = focal
    for k in range(b[block.NUM_PIXEL]):
        c[k] /= focal
    c[8] = read(b[block.LIMIT], item * b[block.LIMIT + 1], b[block.LIMIT + 2]) if b[block.LIMIT] != 0 else 0.0
    return missing, bad


@helper
def load_loss(block_at, item, units_at):
    """The robust scale squared in the item's units, and the shape; whether one is out of its range."""
    b, unit = integers(block_at), doubles(units_at)
    if b[block.LOSS] == SQUARED:
        unit[SQUARE], unit[SHAPE] = 1.0, 0.0
        return False
    scale = read(b[block.SCALE], item * b[block.SCALE + 1], b[block.SCALE + 2])
    alpha = 0.0
    if b[block.ALPHA] != 0:
        alpha = read(b[block.ALPHA], item * b[block.ALPHA + 1], b[block.ALPHA + 2])
    square = scale * scale
    unit[SQUARE], unit[SHAPE] = square / (unit[FOCAL] * unit[FOCAL] * unit[WEIGHT_UNIT]), alpha
    return not (scale > 0.0 and square >= _SMALLEST and square < math.inf and alpha < math.inf)


@helper
def judge_init(block_at, item):
    """Whether the initial rotation is one to a tenth, and 0 or NaN."""
    b = integers(block_at)
    bad = 0.0
    start, single = item * b[block.INIT_R + 1], b[block.INIT_R + 4]
    address, down, along = b[block.INIT_R], b[block.INIT_R + 2], b[block.INIT_R + 3]
    r00, r01, r02 = read(address, start, single), read(address, start + along, single), read(address, start + 2 * along, single)
    start += down
    r10, r11, r12 = read(address, start, single), read(address, start + along, single), read(address, start + 2 * along, single)
    start += down
    r20, r21, r22 = read(address, start, single), read(address, start + along, single), read(address, start + 2 * along, single)
    for r in (r00, r01, r02, r10, r11, r12, r20, r21, r22):
        bad += 0.0 * r
    start, step = item * b[block.INIT_T + 1], b[block.INIT_T + 2]
    for k in range(3):
        bad += 0.0 * read(b[block.INIT_T], start + k * step, b[block.INIT_T + 3])
    off = max(
        max(abs(r00 * r00 + r01 * r01 + r02 * r02 - 1.0), abs(r10 * r10 + r11 * r11 + r12 * r12 - 1.0)),
        abs(r20 * r20 + r21 * r21 + r22 * r22 - 1.0),
    )
    off = max(off, abs(r00 * r10 + r01 * r11 + r02 * r12))
    off = max(off, abs(r00 * r20 + r01 * r21 + r02 * r22))
    off = max(off, abs(r10 * r20 + r11 * r21 + r12 * r22))
    determinant = (
        r00 * (r11 * r22 - r12 * r21) + r01 * (r12 * r20 - r10 * r22) + r02 * (r10 * r21 - r11 * r20)
    )
    return off < 0.1 and determinant > 0.0, bad


@helper
def scale_rows(rows_at, pitch, count, total, units_at, rounding, general, matrices):
    """Centre and scale everything by the first ``count`` points, and fill up behind the last of all; whether the points lie on a line, up to their rounding."""
    unit = doubles(units_at)
    row = 8 * pitch
    u, v = doubles(rows_at), doubles(rows_at + row)
    a, b, d = doubles(rows_at + 2 * row), doubles(rows_at + 3 * row), doubles(rows_at + 4 * row)
    xx, xy, yy = doubles(rows_at + 5 * row), doubles(rows_at + 6 * row), doubles(rows_at + 7 * row)
    s0 = s1 = s2 = 0.0
    for i in range(count):
        s0 += a[i]
        s1 += b[i]
        s2 += d[i]
    c0, c1, c2 = s0 / count, s1 / count, s2 / count
    c0 = c0 if abs(c0) < math.inf else 0.0
    c1 = c1 if abs(c1) < math.inf else 0.0
    c2 = c2 if abs(c2) < math.inf else 0.0
    spread = 0.0
    for i in range(count):
        e0, e1, e2 = a[i] - c0, b[i] - c1, d[i] - c2
        spread += e0 * e0 + e1 * e1 + e2 * e2
    size = or_one(math.sqrt(spread / count))
    unit[CENTRE], unit[CENTRE + 1], unit[CENTRE + 2], unit[SIZE] = c0, c1, c2, size
    small, pixel, weight = 1.0 / size, 1.0 / unit[FOCAL], 1.0 / unit[WEIGHT_UNIT]
    for i in range(total):
        a[i] = (a[i] - c0) * small
        b[i] = (b[i] - c1) * small
        d[i] = (d[i] - c2) * small
        u[i] *= pixel
        v[i] *= pixel
        xx[i] *= weight
    p00 = p01 = p02 = p11 = p12 = p22 = 0.0
    for i in range(count):
        e0, e1, e2 = a[i], b[i], d[i]
        p00 += e0 * e0
        p01 += e0 * e1
        p02 += e0 * e2
        p11 += e1 * e1
        p12 += e1 * e2
        p22 += e2 * e2
    if matrices:
        for i in range(total):
            xy[i] *= weight
            yy[i] *= weight
    elif general:
        for i in range(total):
            xy[i] = 0.0
            yy[i] = xx[i]
    for i in range(total, padded(total)):
        u[i], v[i], a[i], b[i], d[i] = u[0], v[0], a[0], b[0], d[0]
        xx[i] = xy[i] = yy[i] = 0.0
    # the scatter has trace 1; its second eigenvalue is about half of 1 - tr(scatter^2)
    trace = (p00 + p11 + p22) / count
    square = p00 * p00 + p11 * p11 + p22 * p22 + 2.0 * (p01 * p01 + p02 * p02 + p12 * p12)
    second = 0.5 * (trace * trace - square / count / count)
    limit = _COLLINEAR_ROUNDINGS * rounding * (1.0 + math.sqrt(c0 * c0 + c1 * c1 + c2 * c2) / size)
    limit = min(limit, _COLLINEAR_AT_MOST)
    return second < max(limit * limit, 64.0 * _EPS)


SIGNATURE = types.int64(*[types.int64] * 9)
#: ``(address, (block, item, rows, pitch, kept, camera, units, found, mode))``
condition = jit.calling(SIGNATURE)
#: modes: bits
GENERAL, EVERYTHING = 1, 2


def compile_condition() -> Any:
    """:func:`condition_item`, to be called by address: returns the status and writes the rest to ``found``."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def conditioned(block_at, item, rows_at, pitch, kept_at, camera_at, units_at, found_at, mode):
        source  # noqa: B018
        general, everything = mode & GENERAL != 0, mode & EVERYTHING != 0
        status, used, count, indexed = condition_item(
            block_at, item, rows_at, pitch, kept_at, camera_at, units_at, general, everything
        )
        found = integers(found_at)
        found[0], found[1], found[2] = used, count, 1 if indexed else 0
        return status

    return conditioned
