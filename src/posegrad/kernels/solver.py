"""The solve of an item: Levenberg-Marquardt, then Newton, then the verdict; in conditioned units.

Step by step as :mod:`posegrad.optim.levenberg_marquardt` does it for a batch of tensors, with two passes over the
points spared: where the Gauss-Newton phase is about to end, its last trial is summed with the exact Hessian at once;
and the last Newton step, below the tolerance, is taken without looking at where it leads.
"""

import math
from typing import Any

from numba import types

from posegrad.kernels import block, jit, passes
from posegrad.kernels.conditioning import CONVERGED, DEGENERATE
from posegrad.kernels.inputs import NUM_UNITS, SHAPE, SQUARE
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.linear import diagonal, scaled_eigenvalues, solve
from posegrad.kernels.losses import evaluate
from posegrad.kernels.passes import COST, GRADIENT, NUM_SUMS
from posegrad.optim.status import Status

MAX_STEPS, SADDLE, INFEASIBLE = map(int, (Status.MAX_STEPS, Status.SADDLE, Status.INFEASIBLE))

_EPS, _SMALLEST = 2.220446049250313e-16, 2.2250738585072014e-308
_SMALL_DECREASE, _SMALL_DECREMENT, _MAX_DAMPING, _FIRST_NEWTON_DAMPING = 1e-2, 1e-6, 1e12, 1e-6

#: places of what an item needs beside its rows, among float64 numbers
POSE, TRIAL, SUMS, TRIAL_SUMS, DELTA, DAMPED, CAMERA, UNITS = 0, 12, 24, 52, 80, 86, 92, 101
FOUND, WORK, CANDIDATES = 101 + NUM_UNITS, 104 + NUM_UNITS, 188 + NUM_UNITS
#: a candidate of the search; and the most: four starts, eight by angle, four that fit three points
NUM_CANDIDATE, MOST_CANDIDATES = 46, 16
NUM_WORK = CANDIDATES + MOST_CANDIDATES * NUM_CANDIDATE


@helper
def evaluate_at(block_at, rows_at, pitch, count, work, pose_at, sums_at, exact, general):
    """Sums at a pose; whether all points lie in the field and the cost is finite."""
    table = integers(block_at + 8 * block.PASSES)
    camera_at, unit, total = work + 8 * CAMERA, doubles(work + 8 * UNITS), 0.0
    if general:
        first, second = rows_at + 8 * passes.RHO1 * pitch, rows_at + 8 * passes.RHO2 * pitch
        passes.call(table[0], (rows_at, pitch, count, camera_at, pose_at, 0, sums_at))
        b = integers(block_at)
        total = evaluate(b[block.EVALUATE], (b[block.LOSS], unit[SQUARE], unit[SHAPE], count, first, second))
    which = 1 + (2 if general else 0) + (1 if exact else 0)
    outside = passes.call(table[which], (rows_at, pitch, count, camera_at, pose_at, 0, sums_at))
    sums = doubles(sums_at)
    sums[COST] = 0.5 * (total if general else sums[COST])
    return outside == 0.0 and sums[COST] < math.inf


@helper
def retract(pose_at, delta_at, trial_at):
    """``R <- cayley(w) R, t <- t + dt``."""
    p, d, q = doubles(pose_at), doubles(delta_at), doubles(trial_at)
    x, y, z = d[0], d[1], d[2]
    f = 1.0 / (1.0 + 0.25 * (x * x + y * y + z * z))
    xx, yy, zz, xy, xz, yz = 0.5 * x * x, 0.5 * y * y, 0.5 * z * z, 0.5 * x * y, 0.5 * x * z, 0.5 * y * z
    for k in range(3):
        a, b, c = p[k], p[3 + k], p[6 + k]
        q[k] = a + f * (-(yy + zz) * a + (xy - z) * b + (xz + y) * c)
        q[3 + k] = b + f * ((xy + z) * a - (xx + zz) * b + (yz - x) * c)
        q[6 + k] = c + f * ((xz - y) * a + (yz + x) * b - (xx + yy) * c)
    q[9], q[10], q[11] = p[9] + d[3], p[10] + d[4], p[11] + d[5]


@helper
def copy(target_at, source_at, count):
    """``count`` numbers from one place to another."""
    target, source = doubles(target_at), doubles(source_at)
    for k in range(count):
        target[k] = source[k]


@helper
def damp(sums_at, damping, damped_at):
    """``damping diag(H)``: a diagonal entry that is not positive counts by its magnitude."""
    sums, damped = doubles(sums_at), doubles(damped_at)
    largest = 0.0
    for k in range(6):
        damped[k] = abs(sums[diagonal(k)])
        largest = max(largest, damped[k])
    floor = _EPS * largest + _SMALLEST
    for k in range(6):
        damped[k] = damping * max(damped[k], floor)


@helper
def step_from(sums_at, damping, work):
    """The damped step from the sums; the determinant as in ``linear.solve``, and minus the slope along the step."""
    delta, sums = doubles(work + 8 * DELTA), doubles(sums_at)
    damp(sums_at, damping, work + 8 * DAMPED)
    determinant = solve(sums_at, work + 8 * DAMPED, sums_at + 8 * GRADIENT, work + 8 * DELTA)
    squared = 0.0
    for k in range(6):
        squared += sums[GRADIENT + k] * delta[k]
        delta[k] = -delta[k]
    return determinant, max(squared, 0.0)


@helper
def noise(cost):
    """What a cost may rise by rounding."""
    return 64.0 * _EPS * (cost + math.sqrt(cost) + _EPS)


@helper
def descend(block_at, rows_at, pitch, count, work, general, max_steps, damping, growth, steps):
    """The Gauss-Newton phase. Returns damping, growth, the steps in all, whether it ended, and whether the sums at the
    pose are exact already."""
    pose_at, trial_at, sums_at, next_at = (
        work + 8 * POSE,
        work + 8 * TRIAL,
        work + 8 * SUMS,
        work + 8 * TRIAL_SUMS,
    )
    sums, trial = doubles(sums_at), doubles(next_at)
    delta, damped = doubles(work + 8 * DELTA), doubles(work + 8 * DAMPED)
    done = False
    for _ in range(max_steps):
        determinant, squared = step_from(sums_at, damping, work)
        positive, cost = determinant > 0.0, sums[COST]
        predicted = squared
        for k in range(6):
            predicted += damped[k] * delta[k] * delta[k]
        predicted = 0.5 * max(predicted, _SMALLEST)
        drop, ending, accepted = 0.0, False, False
        if positive:
            retract(pose_at, work + 8 * DELTA, trial_at)
            ending = predicted < _SMALL_DECREASE * cost
            feasible = evaluate_at(block_at, rows_at, pitch, count, work, trial_at, next_at, ending, general)
            drop = cost - trial[COST]
            accepted = feasible and drop >= -noise(cost)
            done = math.sqrt(squared) <= _SMALL_DECREMENT * (1.0 + math.sqrt(2.0 * cost))
        # a step that damping cut short says nothing about how close the minimum is
        done = done or (accepted and drop < _SMALL_DECREASE * cost and damping < 1.0)
        steps += 1
        if accepted:
            gain = 2.0 * drop / predicted - 1.0
            damping *= min(max(1.0 - gain * gain * gain, 0.1), 2.0)
            growth = 2.0
            copy(pose_at, trial_at, 12)
            copy(sums_at, next_at, NUM_SUMS)
        else:
            damping *= growth
            growth *= 2.0
        done = done or damping > _MAX_DAMPING
        if done:
            return damping, growth, steps, True, accepted and ending
        if accepted and ending:
            evaluate_at(block_at, rows_at, pitch, count, work, pose_at, sums_at, False, general)
    return damping, growth, steps, False, False


@helper
def finish(block_at, rows_at, pitch, count, work, general, steps, exact):
    """The Newton phase and the verdict: status, steps in all and decrement (an upper bound)."""
    numbers, max_steps = doubles(block_at), integers(block_at)[block.MAX_STEPS]
    pose_at, trial_at, sums_at, next_at = (
        work + 8 * POSE,
        work + 8 * TRIAL,
        work + 8 * SUMS,
        work + 8 * TRIAL_SUMS,
    )
    sums, trial = doubles(sums_at), doubles(next_at)
    if not exact:
        evaluate_at(block_at, rows_at, pitch, count, work, pose_at, sums_at, True, general)
    damping = 0.0
    while steps < max_steps:
        determinant, squared = step_from(sums_at, damping, work)
        positive, cost = determinant > 0.0, sums[COST]
        tolerance = numbers[block.TOLERANCE] * (1.0 + math.sqrt(2.0 * cost))
        steps += 1
        accepted = False
        if positive:
            retract(pose_at, work + 8 * DELTA, trial_at)
            if damping == 0.0 and math.sqrt(squared) <= tolerance:
                copy(pose_at, trial_at, 12)
                if not negligible(work):
                    evaluate_at(block_at, rows_at, pitch, count, work, pose_at, sums_at, True, general)
                if well_posed(determinant, numbers[block.SINGULAR]):
                    return CONVERGED, steps, math.sqrt(squared)
                break
            feasible = evaluate_at(block_at, rows_at, pitch, count, work, trial_at, next_at, True, general)
            accepted = feasible and cost - trial[COST] >= -noise(cost)
        if accepted:
            copy(pose_at, trial_at, 12)
            copy(sums_at, next_at, NUM_SUMS)
            damping = damping / 10.0 if damping > _FIRST_NEWTON_DAMPING else 0.0
        else:
            damping = max(damping * 10.0, _FIRST_NEWTON_DAMPING)
            if damping > _MAX_DAMPING:
                break
    status = judge(integers(block_at)[block.JUDGE], (block_at, work))
    return status, steps, doubles(work + 8 * DELTA)[0]


@helper
def negligible(work):
    """Whether the last step was too short to change the Hessian: an item may move far at next to no cost."""
    d, p = doubles(work + 8 * DELTA), doubles(work + 8 * POSE)
    turn = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    shift = d[3] * d[3] + d[4] * d[4] + d[5] * d[5]
    return turn < 1e-26 and shift < 1e-26 * (p[9] * p[9] + p[10] * p[10] + p[11] * p[11])


@helper
def well_posed(determinant, singular):
    """Whether the determinant of a matrix scaled to unit diagonal alone tells that no eigenvalue is near zero: the five
    others multiply to less than (6 / 5)^5 = 2.49."""
    return determinant > 100.0 * singular


SIGNATURE = types.int64(types.int64, types.int64)
#: ``(address, (block, work))``
judge = jit.calling(SIGNATURE)


def compile_judge() -> Any:
    """Converged, saddle or degenerate by the eigenvalues of the scaled Hessian; the decrement, with ``|H|`` for H, is
    left at DELTA."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def judged(block_at, work):
        _ = source
        numbers, sums, decrement = doubles(block_at), doubles(work + 8 * SUMS), doubles(work + 8 * DELTA)
        decrement[0] = 0.0
        flat = False
        for k in range(21):
            if not abs(sums[k]) < math.inf:
                return INFEASIBLE
        lowest, nearest, square = scaled_eigenvalues(
            work + 8 * SUMS, work + 8 * (SUMS + GRADIENT), work + 8 * WORK
        )
        decrement[0] = math.sqrt(square)
        flat = nearest < numbers[block.SINGULAR]
        for k in range(6):
            flat = flat or sums[diagonal(k)] == 0.0
        if flat:
            return DEGENERATE
        if not decrement[0] <= 4.0 * numbers[block.TOLERANCE] * (1.0 + math.sqrt(2.0 * sums[COST])):
            return MAX_STEPS
        return SADDLE if lowest < 0.0 else CONVERGED

    return judged
