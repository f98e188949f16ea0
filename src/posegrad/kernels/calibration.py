"""The steps of a calibration: :mod:`posegrad.problems.calibration_solver` item by item, in compiled float64.

An item is a *record* of numbers, the iterate and the second-order model of the cost there, in this order: parameters
(P), rotations (V, 3, 3), translations (V, 3), which views take part (V), each view's cost (V), gradient by the free
parameters (F) and by the poses (V, 6), and the Hessian's corner (F, F), cross (V, F, 6) and blocks (V, 6, 6).
"""

import math
import struct
from typing import Any

from posegrad.kernels import calibration_view as view
from posegrad.kernels import jit
from posegrad.kernels.arrow import solve
from posegrad.kernels.jit import doubles, helper, inlined, integers
from posegrad.kernels.solver import copy, noise, retract

#: the block's 8-byte numbers: counts, lens, phase, addresses; then float64: the lens's field, settings
POINTS, VIEWS, PARAMS, FREE, WIDE, EXACT, MAX_STEPS = range(7)
PIXELS_AT, POINTS_AT, WEIGHTS_AT, RECORDS_AT, NUMBERS_AT, ROLES_AT, SCRATCH_AT, SCRATCH_SIZE = range(7, 15)
FIELD, TOLERANCE, SMALL_DECREASE, SMALL_DECREMENT, MAX_DAMPING, FIRST_NEWTON_DAMPING = range(15, 21)
BLOCK = struct.Struct("=15q6d")
#: roles of the coefficients: which parameter each is (-1: zero), then which of the free ones (-1: none)
NUM_ROLES = 2 * view.NUM_COEFFICIENTS
#: numbers of an item: damping and its growth, steps, whether it is done, whether all points lie in the field
DAMPING, GROWTH, STEPS, DONE, FEASIBLE, NUM_NUMBERS = range(6)

_EPS, _SMALLEST = 2.220446049250313e-16, 2.2250738585072014e-308


@inlined
def record_size(P, V, F):
    """Of an item."""
    return P + 14 * V + F + 6 * V + F * F + 6 * F * V + 36 * V


def scratch_size(N, V, P, F):
    """Numbers that a kernel works with: a trial, a step with damping, the camera, rows of a view, an elimination."""
    steps, own = 2 * (F + 6 * V), view.NUM_COEFFICIENTS + 12 + view.NUM_POWERS + F + 6
    return record_size(P, V, F) + steps + own + N * view.NUM_ROWS + F * F + V * (36 + 6 * (F + 1))


@helper
def evaluate(block_at, item, record_at, work_at):
    """The model of the cost at a record's iterate; its cost, and whether all points lie in the lens's field."""
    b, numbers = integers(block_at), doubles(block_at)
    N, V, P, F, exact = b[POINTS], b[VIEWS], b[PARAMS], b[FREE], b[EXACT] != 0
    lens, roles = (b[WIDE] != 0, numbers[FIELD]), integers(b[ROLES_AT])
    columns_at = b[ROLES_AT] + 8 * view.NUM_COEFFICIENTS
    record, camera = doubles(record_at), doubles(work_at)
    pose_at = work_at + 8 * view.NUM_COEFFICIENTS
    powers_at, places_at = pose_at + 8 * 12, pose_at + 8 * (12 + view.NUM_POWERS)
    rows_at = places_at + 8 * (F + 6)
    pose = doubles(pose_at)
    for k in range(view.NUM_COEFFICIENTS):
        camera[k] = record[roles[k]] if roles[k] >= 0 else 0.0
    model = P + 13 * V
    for k in range(model, record_size(P, V, F)):
        record[k] = 0.0
    place(columns_at, places_at, N, F)
    outside, cost = 0, 0.0
    for v in range(V):
        gradient = model + V
        by_pose, corner = gradient + F + 6 * v, gradient + F + 6 * V
        cross, own = corner + F * F + 6 * F * v, corner + F * F + 6 * F * V + 36 * v
        if record[P + 12 * V + v] == 0.0:
            for k in range(6):
                record[own + 7 * k] = 1.0
            continue
        copy(pose_at, record_at + 8 * (P + 9 * v), 9)
        copy(pose_at + 8 * 9, record_at + 8 * (P + 9 * V + 3 * v), 3)
        at = item * V + v
        outside += view.fill(
            b[PIXELS_AT] + 16 * N * at,
            b[POINTS_AT] + 24 * N * at,
            b[WEIGHTS_AT] + 8 * N * at,
            N,
            work_at,
            pose_at,
            lens,
            exact,
            rows_at,
            powers_at,
        )
        if exact:
            view.add_pairs(rows_at, N, work_at, columns_at, powers_at, record_at + 8 * corner, F)
        view.merge(rows_at, N, columns_at, exact)
        residual_at = rows_at + 8 * view.RESIDUAL * N
        record[model + v] = 0.5 * view.dot(residual_at, residual_at, 2 * N)
        cost += record[model + v]
        view.add_products(
            residual_at,
            places_at,
            N,
            F,
            record_at + 8 * gradient,
            record_at + 8 * by_pose,
            record_at + 8 * corner,
            record_at + 8 * cross,
            record_at + 8 * own,
        )
        if exact:
            view.add_curvature(rows_at, columns_at, N, F, record_at + 8 * cross, record_at + 8 * own)
    return cost, outside == 0


@helper
def place(columns_at, places_at, N, F):
    """Where among a view's rows the columns of the Jacobian are: of the free parameters, then of the pose."""
    columns, places = integers(columns_at), integers(places_at)
    for k in range(view.NUM_COEFFICIENTS - 1, -1, -1):
        if columns[k] >= 0:
            places[columns[k]] = (view.JACOBIAN + 2 * k - view.RESIDUAL) * N
    for k in range(6):
        places[F + k] = (view.POSE + 2 * k - view.RESIDUAL) * N


@helper
def move(block_at, record_at, delta_at, trial_at, pose_at):
    """The trial iterate: ``R <- cayley(w) R, t <- t + dt``, and the free parameters."""
    b, delta, trial = integers(block_at), doubles(delta_at), doubles(trial_at)
    V, P, F = b[VIEWS], b[PARAMS], b[FREE]
    roles, record = integers(b[ROLES_AT]), doubles(record_at)
    copy(trial_at, record_at, P + 13 * V)
    for k in range(view.NUM_COEFFICIENTS):
        column = roles[view.NUM_COEFFICIENTS + k]
        if column >= 0:
            trial[roles[k]] = record[roles[k]] + delta[column]
    for v in range(V):
        R, t = 8 * (P + 9 * v), 8 * (P + 9 * V + 3 * v)
        copy(pose_at, record_at + R, 9)
        copy(pose_at + 8 * 9, record_at + t, 3)
        retract(pose_at, delta_at + 8 * (F + 6 * v), pose_at + 8 * 12)
        copy(trial_at + R, pose_at + 8 * 12, 9)
        copy(trial_at + t, pose_at + 8 * 21, 3)


@helper
def step(block_at, record_at, damping, delta_at, damped_at, work_at):
    """The damped step; whether there is one, minus the slope along it, and what the damping holds of it."""
    b, record = integers(block_at), doubles(record_at)
    V, P, F = b[VIEWS], b[PARAMS], b[FREE]
    gradient = P + 14 * V
    corner = gradient + F + 6 * V
    blocks = corner + F * F + 6 * F * V
    delta, damped = doubles(delta_at), doubles(damped_at)
    largest = 0.0
    for j in range(F):
        damped[j] = abs(record[corner + (F + 1) * j])
        largest = max(largest, damped[j])
    for j in range(F):
        damped[j] = damping * max(damped[j], _EPS * largest + _SMALLEST)
    for v in range(V):
        at, largest = F + 6 * v, 0.0
        for k in range(6):
            damped[at + k] = abs(record[blocks + 36 * v + 7 * k])
            largest = max(largest, damped[at + k])
        for k in range(6):
            damped[at + k] = damping * max(damped[at + k], _EPS * largest + _SMALLEST)
    address = record_at + 8 * corner
    positive = solve(
        address,
        address + 8 * F * F,
        address + 8 * (F * F + 6 * F * V),
        record_at + 8 * gradient,
        F,
        V,
        damped_at,
        delta_at,
        work_at,
    )
    squared = held = 0.0
    for k in range(F + 6 * V):
        delta[k] = -delta[k] if positive else 0.0
        squared -= record[gradient + k] * delta[k]
        held += damped[k] * delta[k] * delta[k]
    return positive, max(squared, 0.0), held


def compile_calibration() -> Any:
    """Compile the kernel, or load it from the disk."""
    source = jit.stamp()

    @jit.entry
    def calibrate(block_at, first, last, slot):
        """One phase of the items from ``first`` up to ``last``, in place: Gauss-Newton steps, or Newton steps."""
        _ = source
        b, settings = integers(block_at), doubles(block_at)
        N, V, P, F, exact = b[POINTS], b[VIEWS], b[PARAMS], b[FREE], b[EXACT] != 0
        size, unknowns = record_size(P, V, F), F + 6 * V
        trial_at = b[SCRATCH_AT] + 8 * b[SCRATCH_SIZE] * slot
        delta_at = trial_at + 8 * size
        damped_at = delta_at + 8 * unknowns
        work_at = damped_at + 8 * unknowns
        elimination_at = work_at + 8 * (view.NUM_COEFFICIENTS + 12 + view.NUM_POWERS + F + 6 + N * view.NUM_ROWS)
        for item in range(first, last):
            record_at = b[RECORDS_AT] + 8 * size * item
            state = doubles(b[NUMBERS_AT] + 8 * NUM_NUMBERS * item)
            cost, feasible = evaluate(block_at, item, record_at, work_at)
            damping, growth, steps = state[DAMPING], state[GROWTH], state[STEPS]
            done = state[DONE] != 0.0 or not (feasible and cost < math.inf)
            done = done or (exact and steps >= b[MAX_STEPS])
            for _ in range(b[MAX_STEPS]):
                if done:
                    break
                positive, squared, held = step(
                    block_at, record_at, damping, delta_at, damped_at, elimination_at
                )
                scale = 1.0 + math.sqrt(2.0 * cost)
                move(block_at, record_at, delta_at, trial_at, work_at)
                steps += 1.0
                if exact and positive and damping == 0.0 and math.sqrt(squared) <= settings[TOLERANCE] * scale:
                    # below the tolerance: what is known at the old point holds at the new one
                    copy(record_at, trial_at, P + 13 * V)
                    break
                trial_cost, inside = evaluate(block_at, item, trial_at, work_at)
                drop = cost - trial_cost
                accepted = positive and inside and drop >= -noise(cost)
                if exact:
                    smaller = damping / 10.0 if damping > settings[FIRST_NEWTON_DAMPING] else 0.0
                    larger = max(damping * 10.0, settings[FIRST_NEWTON_DAMPING])
                else:
                    done = accepted and drop < settings[SMALL_DECREASE] * cost
                    done = done or (positive and math.sqrt(squared) <= settings[SMALL_DECREMENT] * scale)
                    gain = drop / max(0.5 * (squared + held), _SMALLEST)
                    bend = 2.0 * gain - 1.0
                    smaller = damping * min(max(1.0 - bend * bend * bend, 0.1), 2.0)
                    larger = damping * growth
                    growth = 2.0 if accepted else 2.0 * growth
                following = smaller if accepted else larger
                done = done or following > settings[MAX_DAMPING] or steps >= b[MAX_STEPS]
                damping = damping if done else following
                if accepted:
                    cost, feasible = trial_cost, inside
                    copy(record_at, trial_at, size)
            state[DAMPING], state[GROWTH], state[STEPS], state[DONE] = damping, growth, steps, 1.0
            state[FEASIBLE] = 1.0 if feasible else 0.0

    return calibrate
