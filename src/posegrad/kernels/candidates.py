"""The candidates of an item's search: where they start, their cost, their way down, and which is best."""

import math

from posegrad.kernels import block, passes
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.passes import COST, NUM_SUMS, POINT
from posegrad.kernels.solver import (
    CANDIDATES,
    NUM_CANDIDATE,
    POSE,
    SUMS,
    copy,
    descend,
    evaluate_at,
    finish,
)

# As in posegrad.problems.search, ranking and starts.
_FIRST_STEPS, _FAR, _NEAR, _TRIAL_STEPS, _HOPELESS = 3, 1000.0, 0.03, 10, 10.0
EXACT, _SAME = 1e-20, 0.02
_FIRST_PUSH, _NUM_PUSHES = 0.005, 9
#: places in a candidate: pose, sums, cost, damping, growth, steps, what became of it, whether its sums are exact
_SUMS, OWN_COST, _DAMPING, _GROWTH, _STEPS, STATE, _SUMS_EXACT = 12, 40, 41, 42, 43, 44, 45
#: what became of it: on its way; at the end of the Gauss-Newton phase, or infeasible; given up; to be refined to the
#: end, and so refined
_LIVE, _DONE, _GIVEN_UP, WANTED, FINISHED = 0.0, 1.0, 2.0, 3.0, 4.0
#: rounds of refinement: some steps, more of them, and as many of all
FEW, MORE, ALL = 0, 1, 2


@helper
def assess(block_at, rows_at, pitch, count, work, general, k):
    """The cost of a candidate where it starts, infinite where that is not feasible."""
    at, pose_at, sums_at = work + 8 * (CANDIDATES + NUM_CANDIDATE * k), work + 8 * POSE, work + 8 * SUMS
    c = doubles(at)
    copy(pose_at, at, 12)
    feasible = evaluate_at(block_at, rows_at, pitch, count, work, pose_at, sums_at, False, general)
    copy(at + 8 * _SUMS, sums_at, NUM_SUMS)
    c[OWN_COST] = doubles(sums_at)[COST] if feasible else math.inf
    c[_DAMPING], c[_GROWTH], c[_STEPS], c[_SUMS_EXACT] = doubles(block_at)[block.DAMPING], 2.0, 0.0, 0.0
    c[STATE] = _LIVE if feasible else _DONE
    return feasible


@helper
def assess_pushed(block_at, rows_at, pitch, count, work, general, k):
    """Likewise, moved ahead as far as it takes to have all points in the camera's field, if anything does."""
    c = doubles(work + 8 * (CANDIDATES + NUM_CANDIDATE * k))
    z = c[11]
    distance = 1.0 + math.sqrt(c[9] * c[9] + c[10] * c[10] + z * z)
    feasible, part = False, 0.0
    for push in range(_NUM_PUSHES + 1):
        c[11] = z + part * distance
        feasible = assess(block_at, rows_at, pitch, count, work, general, k)
        if feasible:
            break
        part = _FIRST_PUSH * 2.0**push
    if not feasible:
        c[11] = z


@helper
def refine(block_at, rows_at, pitch, count, work, general, found, phase):
    """Some steps of every candidate, but for those that look hopeless (in the last round none does)."""
    candidates, max_steps = work + 8 * CANDIDATES, integers(block_at)[block.MAX_STEPS]
    pose_at, sums_at = work + 8 * POSE, work + 8 * SUMS
    lowest = doubles(candidates + 8 * NUM_CANDIDATE * lowest_of(candidates, found))[OWN_COST]
    most, floor = _HOPELESS * lowest, 0.0
    if phase == FEW:
        most = _FAR * lowest
        floor = 0.5 * _NEAR * _NEAR * strength_of_all(rows_at, pitch, count, general)
    for k in range(found):
        at = candidates + 8 * NUM_CANDIDATE * k
        c = doubles(at)
        limit = _FIRST_STEPS if phase == FEW else _TRIAL_STEPS
        if phase == ALL:
            limit += _FIRST_STEPS - int(c[_STEPS])
            if c[STATE] == _GIVEN_UP:
                c[STATE] = _LIVE
        elif c[STATE] == _LIVE and c[OWN_COST] > most and c[OWN_COST] > floor:
            c[STATE] = _GIVEN_UP
        limit = min(limit, max_steps - int(c[_STEPS]))
        if c[STATE] == _LIVE and limit > 0:
            copy(pose_at, at, 12)
            copy(sums_at, at + 8 * _SUMS, NUM_SUMS)
            damping, growth, steps, done, exact = descend(
                *(block_at, rows_at, pitch, count, work, general, limit),
                *(c[_DAMPING], c[_GROWTH], int(c[_STEPS])),
            )
            copy(at, pose_at, 12)
            copy(at + 8 * _SUMS, sums_at, NUM_SUMS)
            c[OWN_COST], c[_DAMPING], c[_GROWTH], c[_STEPS] = doubles(sums_at)[COST], damping, growth, steps
            c[STATE], c[_SUMS_EXACT] = _DONE if done else _LIVE, 1.0 if exact else 0.0


@helper
def finish_candidate(block_at, rows_at, pitch, count, work, general, k):
    """The Newton phase of a candidate: status, steps, decrement."""
    at, pose_at, sums_at = work + 8 * (CANDIDATES + NUM_CANDIDATE * k), work + 8 * POSE, work + 8 * SUMS
    c = doubles(at)
    copy(pose_at, at, 12)
    copy(sums_at, at + 8 * _SUMS, NUM_SUMS)
    status, steps, decrement = finish(
        block_at, rows_at, pitch, count, work, general, int(c[_STEPS]), c[_SUMS_EXACT] != 0.0
    )
    copy(at, pose_at, 12)
    copy(at + 8 * _SUMS, sums_at, NUM_SUMS)
    c[OWN_COST], c[STATE] = doubles(sums_at)[COST], FINISHED
    return status, steps, decrement


@helper
def hand_over(work, k):
    """A candidate's pose and sums to where the item's are."""
    at = work + 8 * (CANDIDATES + NUM_CANDIDATE * k)
    copy(work + 8 * POSE, at, 12)
    copy(work + 8 * SUMS, at + 8 * _SUMS, NUM_SUMS)


@helper
def strength_of_all(rows_at, pitch, count, general):
    """The sum of the weights."""
    xx, yy = doubles(rows_at + 8 * passes.WEIGHT * pitch), doubles(rows_at + 8 * (passes.WEIGHT + 2) * pitch)
    total = 0.0
    for i in range(count):
        total += 0.5 * (xx[i] + yy[i]) if general else xx[i]
    return total


@helper
def lowest_of(candidates, found):
    """The one of least cost."""
    best, least = 0, math.inf
    for k in range(found):
        cost = doubles(candidates + 8 * NUM_CANDIDATE * k)[OWN_COST]
        if cost < least:
            best, least = k, cost
    return best


@helper
def rank(rows_at, pitch, candidate):
    """What is least for the best: the cost; of an exact fit minus the distance of the centroid, then of two points."""
    c, points = doubles(candidate), doubles(rows_at + 8 * POINT * pitch)
    key = c[OWN_COST]
    if key <= EXACT:
        key = -math.sqrt(c[9] * c[9] + c[10] * c[10] + c[11] * c[11])
        for i in range(2):
            square = 0.0
            for k in range(3):
                y = c[9 + k]
                for j in range(3):
                    y += c[3 * k + j] * points[j * pitch + i]
                square += y * y
            key -= math.sqrt(square) * (1e-3 if i == 0 else 1e-6)
    return key


@helper
def best_of(rows_at, pitch, candidates, found):
    """The best candidate as things stand."""
    best, least = 0, math.inf
    for k in range(found):
        key = rank(rows_at, pitch, candidates + 8 * NUM_CANDIDATE * k)
        if key < least:
            best, least = k, key
    return best


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
