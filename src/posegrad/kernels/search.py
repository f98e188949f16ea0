"""The best of several minima, as :mod:`posegrad.problems.search` looks for it.

Items without a feasible start and those with outliers to a robust loss, which are annealed, are left to the long way.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import block, jit, passes
from posegrad.kernels.candidates import (
    ALL,
    EXACT,
    FEW,
    FINISHED,
    MORE,
    OWN_COST,
    STATE,
    WANTED,
    alike,
    assess,
    assess_pushed,
    best_of,
    finish_candidate,
    hand_over,
    lowest_of,
    rank,
    refine,
    strength_of_all,
)
from posegrad.kernels.conditioning import CONVERGED
from posegrad.kernels.inputs import WIDTH
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.losses import SQUARED
from posegrad.kernels.p3p import p3p
from posegrad.kernels.solver import (
    CAMERA,
    CANDIDATES,
    FOUND,
    NUM_CANDIDATE,
    POSE,
    SUMS,
    UNITS,
    copy,
    evaluate_at,
)
from posegrad.kernels.start import push_forward, start

#: what the status of an item says that is left to others; that needs parts which are not compiled yet
PENDING, UNCOMPILED = -1, -2
# As in posegrad.problems.search, starts and annealing.
_NEARLY_AS_GOOD, _NOT_MUCH_WORSE, _NOISY, _OUTLIER_WEIGHT = 1.1, 2.0, 0.125, 0.1


@helper
def search_item(block_at, rows_at, pitch, count, used, work, general):
    """The best minimum, at POSE, and its sums: status, steps, decrement."""
    b, candidates = integers(block_at), work + 8 * CANDIDATES
    wide = b[block.WIDE] != 0
    first = found = kept = 0
    factor = _NEARLY_AS_GOOD
    # the usual starts; then, for items that need them, others
    for more in range(2):
        if more == 0:
            found = start(
                b[block.START],
                (block_at, rows_at, pitch, count, work + 8 * CAMERA, candidates, 1 if general else 0),
            )
        else:
            if b[block.START_BY_ANGLE] == 0:
                return UNCOMPILED, 0, 0.0
            found = further_starts(block_at, rows_at, pitch, count, used, work, general, found)
        for k in range(found):
            c = doubles(candidates + 8 * NUM_CANDIDATE * k)
            if k >= first:
                assess(block_at, rows_at, pitch, count, work, general, k)
            if more == 1 and not c[OWN_COST] < math.inf:
                if not wide:
                    push_forward(rows_at, pitch, count, candidates + 8 * NUM_CANDIDATE * k)
                assess_pushed(block_at, rows_at, pitch, count, work, general, k)
        if more == 1:
            refine(block_at, rows_at, pitch, count, work, general, found, ALL)
            break
        if b[block.LOSS] != SQUARED and outliers(block_at, rows_at, pitch, count, work, found):
            return PENDING, 0, 0.0
        refine(block_at, rows_at, pitch, count, work, general, found, FEW)
        refine(block_at, rows_at, pitch, count, work, general, found, MORE)
        if used > 3 and not noisy(rows_at, pitch, count, used, work, general, found):
            break
        first, factor = found, _NOT_MUCH_WORSE
    best = best_of(rows_at, pitch, candidates, found)
    if found == 0 or not doubles(candidates + 8 * NUM_CANDIDATE * best)[OWN_COST] < math.inf:
        return PENDING, 0, 0.0
    want_rivals(candidates, found, best, factor)
    least, status, steps, decrement = math.inf, 0, 0, 0.0
    for others in range(2):
        for k in range(found):
            c = doubles(candidates + 8 * NUM_CANDIDATE * k)
            if others == 1 and c[STATE] != FINISHED and c[OWN_COST] < math.inf:
                c[STATE] = WANTED
            if c[STATE] == WANTED:
                its, its_steps, its_decrement = finish_candidate(
                    block_at, rows_at, pitch, count, work, general, k
                )
                key = (
                    rank(rows_at, pitch, candidates + 8 * NUM_CANDIDATE * k) if its == CONVERGED else math.inf
                )
                if key < least or (k == best and least == math.inf):
                    kept, least, status, steps, decrement = k, key, its, its_steps, its_decrement
        # the lowest cost can be on the way to a point in the camera's centre, where there is no minimum
        if least < math.inf:
            break
    hand_over(work, kept)
    return status, steps, decrement


@helper
def further_starts(block_at, rows_at, pitch, count, used, work, general, found):
    """Minima by angle and, for three points, what fits them, behind the candidates so far; how many there are now."""
    b, candidates = integers(block_at), work + 8 * CANDIDATES
    there = candidates + 8 * NUM_CANDIDATE * found
    found += start(
        b[block.START_BY_ANGLE],
        (block_at, rows_at, pitch, count, work + 8 * CAMERA, there, 1 if general else 0),
    )
    if used == 3:
        found += p3p(b[block.P3P], (rows_at, pitch, candidates + 8 * NUM_CANDIDATE * found))
    return found


@helper
def want_rivals(candidates, found, best, factor):
    """The best is to be refined to the end, and so is what is elsewhere and within a factor of its cost: it may be
    better then."""
    first = candidates + 8 * NUM_CANDIDATE * best
    lowest = doubles(first)[OWN_COST]
    doubles(first)[STATE] = WANTED
    for k in range(found):
        other = candidates + 8 * NUM_CANDIDATE * k
        c = doubles(other)
        if c[OWN_COST] <= factor * lowest and lowest > EXACT and not alike(first, other):
            c[STATE] = WANTED


@helper
def outliers(block_at, rows_at, pitch, count, work, found):
    """Whether the best start has an outlier, or is none; see :mod:`posegrad.problems.annealing`."""
    candidates, pose_at = work + 8 * CANDIDATES, work + 8 * POSE
    best = lowest_of(candidates, found)
    if found == 0 or not doubles(candidates + 8 * NUM_CANDIDATE * best)[OWN_COST] < math.inf:
        return True
    copy(pose_at, candidates + 8 * NUM_CANDIDATE * best, 12)
    evaluate_at(block_at, rows_at, pitch, count, work, pose_at, work + 8 * SUMS, False, True)
    first = doubles(rows_at + 8 * passes.RHO1 * pitch)
    xx, yy = doubles(rows_at + 8 * passes.WEIGHT * pitch), doubles(rows_at + 8 * (passes.WEIGHT + 2) * pitch)
    number = 0
    for i in range(count):
        number += 1 if first[i] < _OUTLIER_WEIGHT and xx[i] + yy[i] > 0.0 else 0
    return number > 0


@helper
def noisy(rows_at, pitch, count, used, work, general, found):
    """Whether the noise, carried to the object's distance, is not small against the object's width; or no candidate is
    feasible."""
    candidates = work + 8 * CANDIDATES
    c = doubles(candidates + 8 * NUM_CANDIDATE * lowest_of(candidates, found))
    if found == 0 or not c[OWN_COST] < math.inf:
        return True
    distance = c[9] * c[9] + c[10] * c[10] + c[11] * c[11]
    # of 2 N numbers the fit takes 6
    spread = strength_of_all(rows_at, pitch, count, general) * max(used - 3.0, 0.5) / used
    return 2.0 * c[OWN_COST] * distance > _NOISY * _NOISY * doubles(work + 8 * UNITS)[WIDTH] * spread


SIGNATURE = types.int64(*[types.int64] * 7)
#: ``(address, (block, rows, pitch, count, used, work, general))``
search = jit.calling(SIGNATURE)


def compile_search() -> Any:
    """:func:`search_item`, to be called by address: returns the status; steps and decrement are left at FOUND."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def searched(block_at, rows_at, pitch, count, used, work, general):
        _ = source
        status, steps, decrement = search_item(block_at, rows_at, pitch, count, used, work, general != 0)
        integers(work + 8 * FOUND)[0] = steps
        doubles(work + 8 * FOUND)[1] = decrement
        return status

    return searched
