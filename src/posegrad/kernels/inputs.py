"""The user's arrays of one item: read into rows, and judged; as :mod:`posegrad.problems.door` does for a batch."""

import math

from posegrad.kernels import block
from posegrad.kernels.jit import doubles, helper, inlined, integers, singles
from posegrad.kernels.losses import SQUARED
from posegrad.kernels.passes import RHO1, WEIGHT

#: places of an item's units among float64 numbers: centre (3) and scales, robust scale squared and shape; and how far
#: the points are off a line, squared, in these units
CENTRE, SIZE, FOCAL, WEIGHT_UNIT, SQUARE, SHAPE, WIDTH, NUM_UNITS = 0, 3, 4, 5, 6, 7, 8, 9

_SMALLEST = 2.2250738585072014e-308


@inlined
def read(address, at, single):
    """A number of a float64 or float32 array."""
    return doubles(address)[at] if single == 0 else float(singles(address)[at])


@inlined
def infinite(value):
    """1 for a number that is not finite, else 0. (A sum of zero times everything overflows: sums are reordered.)"""
    return 0.0 if abs(value) < math.inf else 1.0


@helper
def gather(address, start, step, single, kept, indexed, count, row_at):
    """A strided column to a row; how many numbers of it are not finite."""
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
        bad += infinite(row[i])
    return bad


@helper
def or_one(scale):
    """1 in place of a scale that is none."""
    return scale if scale > 0.0 and scale < math.inf else 1.0


@helper
def gather_weights(block_at, item, rows_at, pitch, kept_at, indexed, count):
    """The weights to rows: xx, or xx, xy, yy for two kinds."""
    b = integers(block_at)
    kind, address, step, single = (
        b[block.WEIGHTS],
        b[block.WEIGHTS + 1],
        b[block.WEIGHTS + 3],
        b[block.WEIGHTS + 6],
    )
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
    """Coefficients in units of the focal length; whether one is zero, and how many numbers are not finite."""
    b, c, unit = integers(block_at), doubles(camera_at), doubles(units_at)
    start, single, bad = item * b[block.CAMERA + 1], b[block.CAMERA + 2], 0.0
    for k in range(8):
        offset = b[block.CAMERA + 3 + k]
        c[k] = read(b[block.CAMERA], start + offset, single) if offset >= 0 else 0.0
        bad += infinite(c[k])
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
    """Whether the initial rotation is one to a tenth, and how many numbers are not finite."""
    b = integers(block_at)
    bad = 0.0
    start, single = item * b[block.INIT_R + 1], b[block.INIT_R + 4]
    address, down, along = b[block.INIT_R], b[block.INIT_R + 2], b[block.INIT_R + 3]
    r00, r01, r02 = (
        read(address, start, single),
        read(address, start + along, single),
        read(address, start + 2 * along, single),
    )
    start += down
    r10, r11, r12 = (
        read(address, start, single),
        read(address, start + along, single),
        read(address, start + 2 * along, single),
    )
    start += down
    r20, r21, r22 = (
        read(address, start, single),
        read(address, start + along, single),
        read(address, start + 2 * along, single),
    )
    for r in (r00, r01, r02, r10, r11, r12, r20, r21, r22):
        bad += infinite(r)
    start, step = item * b[block.INIT_T + 1], b[block.INIT_T + 2]
    for k in range(3):
        bad += infinite(read(b[block.INIT_T], start + k * step, b[block.INIT_T + 3]))
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
