"""One item from the user's arrays into rows, in the units it is solved in, with a verdict on its input.

As :mod:`posegrad.problems.conditioning` does it for a batch of tensors. Points that are masked or of weight zero are
left out.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import block, jit
from posegrad.kernels.inputs import (
    CENTRE,
    FOCAL,
    SIZE,
    WEIGHT_UNIT,
    WIDTH,
    gather,
    gather_weights,
    judge_init,
    judge_weights,
    load_camera,
    load_loss,
    or_one,
    zeros_last,
)
from posegrad.kernels.jit import doubles, flags, helper, inlined, integers
from posegrad.kernels.passes import LANES, POINT, WEIGHT
from posegrad.optim.status import Status

CONVERGED, DEGENERATE, TOO_FEW_POINTS = map(int, (Status.CONVERGED, Status.DEGENERATE, Status.TOO_FEW_POINTS))
NOT_FINITE, BAD_WEIGHTS, BAD_CAMERA, BAD_INIT, BAD_LOSS = map(
    int, (Status.NOT_FINITE, Status.BAD_WEIGHTS, Status.BAD_CAMERA, Status.BAD_INIT, Status.BAD_LOSS)
)
_EPS = 2.220446049250313e-16
_COLLINEAR_ROUNDINGS, _COLLINEAR_AT_MOST = 8.0, 1e-2  # as in posegrad.problems.pnp


@inlined
def padded(count):
    """The number of points and of copies that fill up the last vector."""
    return (count + LANES - 1) // LANES * LANES


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
                b[array],
                start,
                b[array + 2],
                b[array + 4],
                kept_at,
                indexed,
                count,
                rows_at + (first + k) * row,
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
    if bad > 0.0:
        status = NOT_FINITE
    if status == CONVERGED:
        rounding, matrices = doubles(block_at)[block.POINTS_EPS], b[block.WEIGHTS] > 1
        total = count if everything else used
        if scale_rows(rows_at, pitch, used, total, units_at, rounding, general, matrices):
            status = DEGENERATE
    return status, used, count, indexed


@helper
def scale_rows(rows_at, pitch, count, total, units_at, rounding, general, matrices):
    """Centre and scale everything by the first ``count`` points, and fill up behind the last of all.

    Returns whether the points lie on a line, up to their rounding.
    """
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
    unit[WIDTH] = second
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
        _ = source
        general, everything = mode & GENERAL != 0, mode & EVERYTHING != 0
        status, used, count, indexed = condition_item(
            block_at, item, rows_at, pitch, kept_at, camera_at, units_at, general, everything
        )
        found = integers(found_at)
        found[0], found[1], found[2] = used, count, 1 if indexed else 0
        return status

    return conditioned
