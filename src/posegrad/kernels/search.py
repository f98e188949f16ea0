"""The best of several minima, from the starts of ``start``, as :mod:`posegrad.problems.search` looks for it.

Three points, whose exact fits follow rules of their own, items without a feasible start, with outliers to a robust loss
and very noisy ones, whose best minimum may lie elsewhere, are left to the long way.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import block, jit, passes
from posegrad.kernels.conditioning import CONVERGED
from posegrad.kernels.inputs import WIDTH
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.losses import SQUARED
from posegrad.kernels.passes import COST, NUM_SUMS
from posegrad.kernels.solver import (
    CAMERA,
    CANDIDATES,
    FOUND,
    NUM_CANDIDATE,
    POSE,
    SUMS,
    UNITS,
    copy,
    descend,
    evaluate_at,
    finish,
)
from posegrad.kernels.start import start

#: what the status of an item says that is left to others
PENDING = -1
# As in posegrad.problems.search.
_FIRST_STEPS, _FAR, _NEAR, _TRIAL_STEPS, _HOPELESS, _NEARLY_AS_GOOD = 3, 1000.0, 0.03, 10, 10.0, 1.1
_EXACT, _SAME, _NOISY = 1e-20, 0.02, 0.125
# As in posegrad.problems.annealing.
_OUTLIER_WEIGHT = 0.1
#: places in a candidate: pose, sums, cost, damping, growth, steps, whether it ended, whether its sums are exact
_SUMS, _COST, _DAMPING, _GROWTH, _STEPS, _DONE, _SUMS_EXACT = 12, 40, 41, 42, 43, 44, 45


@helper
def search_item(block_at, rows_at, pitch, count, used, work, general):
    """The best minimum, at POSE, and its sums: status, steps, decrement."""
    b, candidates = integers(block_at), work + 8 * CANDIDATES
    if used == 3:
        return PENDING, 0, 0.0
    found = start(
        b[block.START],
        (block_at, rows_at, pitch, count, work + 8 * CAMERA, candidates, 1 if general else 0),
    )
    # spread them out, the last first
    for k in range(found - 1, -1, -1):
        copy(candidates + 8 * NUM_CANDIDATE * k, candidates + 96 * k, 12)
    assess(block_at, rows_at, pitch, count, work, general, found)
    if b[block.LOSS] != SQUARED and outliers(block_at, rows_at, pitch, count, work, found):
        return PENDING, 0, 0.0
    feasible = refine(block_at, rows_at, pitch, count, work, general, found)
    if not feasible:
        return PENDING, 0, 0.0
    best = best_of(candidates, found)
    if noisy(rows_at, pitch, count, used, work, general, candidates + 8 * NUM_CANDIDATE * best):
        return PENDING, 0, 0.0
    lowest = doubles(candidates + 8 * NUM_CANDIDATE * best)[_COST]
    status, steps, decrement = finish_candidate(block_at, rows_at, pitch, count, work, general, best)
    # those nearly as good elsewhere may be better in the end
    first = candidates + 8 * NUM_CANDIDATE * best
    copy(first, work + 8 * POSE, 12)
    copy(first + 8 * _SUMS, work + 8 * SUMS, NUM_SUMS)
    kept, cost = best, doubles(work + 8 * SUMS)[COST] if status == CONVERGED else math.inf
    for k in range(found):
        other = candidates + 8 * NUM_CANDIDATE * k
        rival = doubles(other)[_COST] <= _NEARLY_AS_GOOD * lowest and lowest > _EXACT
        if k != best and rival and not alike(first, other):
            its_status, its_steps, its_decrement = finish_candidate(
                block_at, rows_at, pitch, count, work, general, k
            )
            if its_status == CONVERGED and doubles(work + 8 * SUMS)[COST] < cost:
                status, steps, decrement, kept = its_status, its_steps, its_decrement, k
                cost = doubles(work + 8 * SUMS)[COST]
                copy(other, work + 8 * POSE, 12)
                copy(other + 8 * _SUMS, work + 8 * SUMS, NUM_SUMS)
    kept_at = candidates + 8 * NUM_CANDIDATE * kept
    copy(work + 8 * POSE, kept_at, 12)
    copy(work + 8 * SUMS, kept_at + 8 * _SUMS, NUM_SUMS)
    return status, steps, decrement


@helper
def assess(block_at, rows_at, pitch, count, work, general, found):
    """The cost of every candidate where it starts, infinite where that is not feasible."""
    numbers, candidates = doubles(block_at), work + 8 * CANDIDATES
    pose_at, sums_at = work + 8 * POSE, work + 8 * SUMS
    for k in range(found):
        at = candidates + 8 * NUM_CANDIDATE * k
        c = doubles(at)
        copy(pose_at, at, 12)
        feasible = evaluate_at(block_at, rows_at, pitch, count, work, pose_at, sums_at, False, general)
        copy(at + 8 * _SUMS, sums_at, NUM_SUMS)
        c[_COST] = doubles(sums_at)[COST] if feasible else math.inf
        c[_DAMPING], c[_GROWTH], c[_STEPS], c[_SUMS_EXACT] = numbers[block.DAMPING], 2.0, 0.0, 0.0
        c[_DONE] = 0.0 if feasible else 1.0


@helper
def outliers(block_at, rows_at, pitch, count, work, found):
    """Whether the best start has an outlier, or is none; see :mod:`posegrad.problems.annealing`."""
    candidates, pose_at = work + 8 * CANDIDATES, work + 8 * POSE
    best, lowest = -1, math.inf
    for k in range(found):
        cost = doubles(candidates + 8 * NUM_CANDIDATE * k)[_COST]
        if cost < lowest:
            best, lowest = k, cost
    if best < 0:
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
def refine(block_at, rows_at, pitch, count, work, general, found):
    """Some steps of every candidate, fewer of those that look hopeless; whether one is feasible at all."""
    candidates, max_steps = work + 8 * CANDIDATES, integers(block_at)[block.MAX_STEPS]
    pose_at, sums_at = work + 8 * POSE, work + 8 * SUMS
    total = strength_of_all(rows_at, pitch, count, general)
    lowest = math.inf
    for phase in range(2):
        lowest = math.inf
        for k in range(found):
            lowest = min(lowest, doubles(candidates + 8 * NUM_CANDIDATE * k)[_COST])
        for k in range(found):
            at = candidates + 8 * NUM_CANDIDATE * k
            c = doubles(at)
            if phase == 0:
                lost = c[_COST] > _FAR * lowest and c[_COST] > 0.5 * _NEAR * _NEAR * total
            else:
                lost = c[_COST] > _HOPELESS * lowest
            if lost:
                c[_DONE] = 1.0
            limit = min(_FIRST_STEPS if phase == 0 else _TRIAL_STEPS, max_steps - int(c[_STEPS]))
            if c[_DONE] == 0.0 and limit > 0:
                copy(pose_at, at, 12)
                copy(sums_at, at + 8 * _SUMS, NUM_SUMS)
                damping, growth, steps, done, exact = descend(
                    *(block_at, rows_at, pitch, count, work, general, limit),
                    *(c[_DAMPING], c[_GROWTH], int(c[_STEPS])),
                )
                copy(at, pose_at, 12)
                copy(at + 8 * _SUMS, sums_at, NUM_SUMS)
                c[_COST], c[_DAMPING], c[_GROWTH], c[_STEPS] = doubles(sums_at)[COST], damping, growth, steps
                c[_DONE], c[_SUMS_EXACT] = 1.0 if done else 0.0, 1.0 if exact else 0.0
    return lowest < math.inf


@helper
def strength_of_all(rows_at, pitch, count, general):
    """The sum of the weights."""
    xx, yy = doubles(rows_at + 8 * passes.WEIGHT * pitch), doubles(rows_at + 8 * (passes.WEIGHT + 2) * pitch)
    total = 0.0
    for i in range(count):
        total += 0.5 * (xx[i] + yy[i]) if general else xx[i]
    return total


@helper
def noisy(rows_at, pitch, count, used, work, general, best_at):
    """Whether the noise, carried to the object's distance, is not small against the object's width."""
    c = doubles(best_at)
    distance = c[9] * c[9] + c[10] * c[10] + c[11] * c[11]
    # of 2 N numbers the fit takes 6
    spread = strength_of_all(rows_at, pitch, count, general) * max(used - 3.0, 0.5) / used
    return 2.0 * c[_COST] * distance > _NOISY * _NOISY * doubles(work + 8 * UNITS)[WIDTH] * spread


@helper
def best_of(candidates, found):
    """Of least cost; among exact fits the one whose centroid is farthest away."""
    best, least = 0, math.inf
    for k in range(found):
        c = doubles(candidates + 8 * NUM_CANDIDATE * k)
        key = c[_COST]
        if key <= _EXACT:
            key = -math.sqrt(c[9] * c[9] + c[10] * c[10] + c[11] * c[11])
        if key < least:
            best, least = k, key
    return best


@helper
def finish_candidate(block_at, rows_at, pitch, count, work, general, which):
    """The Newton phase of a candidate, at POSE and SUMS."""
    at = work + 8 * (CANDIDATES + NUM_CANDIDATE * which)
    c = doubles(at)
    copy(work + 8 * POSE, at, 12)
    copy(work + 8 * SUMS, at + 8 * _SUMS, NUM_SUMS)
    return finish(block_at, rows_at, pitch, count, work, general, int(c[_STEPS]), c[_SUMS_EXACT] != 0.0)


@helper
def alike(first_at, second_at):
    """Whether two poses lead to the same minimum."""
    a, b = doubles(first_at), doubles(second_at)
    turn = shift = size = 0.0
    for k in range(9):
        turn += (a[k] - b[k]) * (a[k] - b[k])  # 8 sin^2(angle / 2)
    for k in range(9, 12):
        shift += (a[k] - b[k]) * (a[k] - b[k])
        size += a[k] * a[k]
    return turn < 2.0 * _SAME * _SAME and shift < _SAME * _SAME * size


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
