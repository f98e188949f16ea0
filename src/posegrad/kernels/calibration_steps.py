"""Steps of a calibration's solver: the model of the cost at an iterate, the step from it, and where that leads."""

import math

from posegrad.kernels import arrow, calibration_sums
from posegrad.kernels import calibration_layout as layout
from posegrad.kernels import calibration_view as view
from posegrad.kernels.calibration_layout import FREE, PARAMS, POINTS, VIEWS, record_size
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.solver import copy, noise, retract

_EPS, _SMALLEST = 2.220446049250313e-16, 2.2250738585072014e-308


@helper
def fill(block_at, work, item, v, exact):
    """Write the rows of a view at the pose in the work; how many points lie outside of the lens's field."""
    b, numbers = integers(block_at), doubles(block_at)
    N, at = b[POINTS], item * b[VIEWS] + v
    address = b[layout.PIXELS_AT] + 16 * N * at, b[layout.POINTS_AT] + 24 * N * at
    fixed, weights_at = work.fixed, b[layout.WEIGHTS_AT] + 8 * N * at
    camera_at, pose_at, sums_at = fixed, fixed + 8 * layout.POSE, fixed + 8 * layout.SUMS
    own = (address[0], address[1], weights_at, N, camera_at, pose_at)
    return view.call_fill(
        b[layout.FILL], (*own, b[layout.WIDE], numbers[layout.FIELD], exact, work.rows, sums_at)
    )


@helper
def set_camera(block_at, record_at, work):
    """The coefficients of a record's parameters."""
    roles, record = integers(integers(block_at)[layout.ROLES_AT]), doubles(record_at)
    camera = doubles(work.fixed)
    for k in range(view.NUM_COEFFICIENTS):
        camera[k] = record[roles[k]] if roles[k] >= 0 else 0.0


@helper
def evaluate(block_at, work, item, record_at, exact):
    """The model of the cost at a record's iterate; its cost, and whether all points lie in the lens's field."""
    b, record, fixed = integers(block_at), doubles(record_at), doubles(work.fixed)
    N, V, P, F = b[POINTS], b[VIEWS], b[PARAMS], b[FREE]
    columns_at = b[layout.ROLES_AT] + 8 * view.NUM_COEFFICIENTS
    set_camera(block_at, record_at, work)
    costs = P + 13 * V
    gradient, corner = costs + V, costs + 7 * V + F
    cross, own = corner + F * F, corner + F * F + 6 * F * V
    for k in range(costs, record_size(P, V, F)):
        record[k] = 0.0
    find_columns(columns_at, work.places, N, F)
    fixed[layout.LARGEST] = 0.0
    outside, cost, pose_at = 0.0, 0.0, work.fixed + 8 * layout.POSE
    for v in range(V):
        if record[P + 12 * V + v] == 0.0:
            for k in range(6):
                record[own + 36 * v + 7 * k] = 1.0
            continue
        copy(pose_at, record_at + 8 * (P + 9 * v), 9)
        copy(pose_at + 8 * 9, record_at + 8 * (P + 9 * V + 3 * v), 3)
        outside += fill(block_at, work, item, v, exact)
        fixed[layout.LARGEST] = max(fixed[layout.LARGEST], fixed[layout.SUMS + view.FARTHEST])
        residual_at = work.rows + 8 * view.RESIDUAL * N
        record[costs + v] = 0.5 * calibration_sums.dot(residual_at, residual_at, 2 * N)
        cost += record[costs + v]
        rows = (work.rows, N, work.fixed, columns_at, work.fixed + 8 * layout.SUMS, work.places, F, exact)
        by_pose, across = gradient + F + 6 * v, cross + 6 * F * v
        calibration_sums.call_add(
            b[layout.ADD],
            (
                *rows,
                record_at + 8 * gradient,
                record_at + 8 * by_pose,
                record_at + 8 * corner,
                record_at + 8 * across,
                record_at + 8 * (own + 36 * v),
            ),
        )
    return cost, outside == 0.0 and cost < math.inf


@helper
def find_columns(columns_at, places_at, N, F):
    """Where among a view's rows the Jacobian's columns are, from the residual: of free parameters, then of the pose."""
    columns, places = integers(columns_at), integers(places_at)
    for k in range(view.NUM_COEFFICIENTS - 1, -1, -1):
        if columns[k] >= 0:
            places[columns[k]] = (view.JACOBIAN + 2 * k - view.RESIDUAL) * N
    for k in range(6):
        places[F + k] = (view.POSE + 2 * k - view.RESIDUAL) * N


@helper
def move(block_at, work, record_at):
    """The trial iterate: ``R <- cayley(w) R, t <- t + dt``, and the free parameters."""
    b, delta, trial = integers(block_at), doubles(work.delta), doubles(work.trial)
    V, P, F = b[VIEWS], b[PARAMS], b[FREE]
    roles, record = integers(b[layout.ROLES_AT]), doubles(record_at)
    copy(work.trial, record_at, P + 13 * V)
    for k in range(view.NUM_COEFFICIENTS):
        column = roles[view.NUM_COEFFICIENTS + k]
        if column >= 0:
            trial[roles[k]] = record[roles[k]] + delta[column]
    pose_at, moved_at = work.fixed + 8 * layout.POSE, work.fixed + 8 * layout.MOVED
    for v in range(V):
        R, t = 8 * (P + 9 * v), 8 * (P + 9 * V + 3 * v)
        copy(pose_at, record_at + R, 9)
        copy(pose_at + 8 * 9, record_at + t, 3)
        retract(pose_at, work.delta + 8 * (F + 6 * v), moved_at)
        copy(work.trial + R, moved_at, 9)
        copy(work.trial + t, moved_at + 8 * 9, 3)


@helper
def step(block_at, work, record_at, damping):
    """The damped step; whether there is one, minus the slope along it, and what the damping holds of it."""
    b, record = integers(block_at), doubles(record_at)
    V, P, F = b[VIEWS], b[PARAMS], b[FREE]
    gradient = P + 14 * V
    corner = gradient + F + 6 * V
    cross, blocks = corner + F * F, corner + F * F + 6 * F * V
    delta = doubles(work.delta)
    damp(record_at + 8 * corner, F, damping, work.damped)
    for v in range(V):
        damp(record_at + 8 * (blocks + 36 * v), 6, damping, work.damped + 8 * (F + 6 * v))
    matrix = record_at + 8 * corner, record_at + 8 * cross, record_at + 8 * blocks, record_at + 8 * gradient
    positive = arrow.call_solve(b[layout.SOLVE], (*matrix, F, V, work.damped, work.delta, work.elimination))
    squared = held = 0.0
    damped = doubles(work.damped)
    for k in range(F + 6 * V):
        delta[k] = -delta[k] if positive != 0 else 0.0
        squared -= record[gradient + k] * delta[k]
        held += damped[k] * delta[k] * delta[k]
    return positive != 0, max(squared, 0.0), held


@helper
def damp(matrix_at, size, damping, damped_at):
    """``damping diag(H)`` of a block: a diagonal entry that is not positive counts by its magnitude."""
    matrix, damped = doubles(matrix_at), doubles(damped_at)
    largest = 0.0
    for j in range(size):
        damped[j] = abs(matrix[(size + 1) * j])
        largest = max(largest, damped[j])
    for j in range(size):
        damped[j] = damping * max(damped[j], _EPS * largest + _SMALLEST)


@helper
def iterate(block_at, work, item, record_at, state_at, exact):
    """Gauss-Newton steps, or exact Newton steps, from a record's iterate to where they end."""
    b, settings, state = integers(block_at), doubles(block_at), doubles(state_at)
    V, P, F, limit = b[VIEWS], b[PARAMS], b[FREE], b[layout.MAX_STEPS]
    cost, feasible = evaluate(block_at, work, item, record_at, exact)
    damping, growth, steps = state[layout.DAMPING], state[layout.GROWTH], state[layout.STEPS]
    done = state[layout.DONE] != 0.0 or not feasible or (exact != 0 and steps >= limit)
    for _ in range(limit):
        if done:
            break
        positive, squared, held = step(block_at, work, record_at, damping)
        decrement, scale = math.sqrt(squared), 1.0 + math.sqrt(2.0 * cost)
        move(block_at, work, record_at)
        steps += 1.0
        if exact != 0 and positive and damping == 0.0 and decrement <= settings[layout.TOLERANCE] * scale:
            # below the tolerance: what is known at the old point holds at the new one
            copy(record_at, work.trial, P + 13 * V)
            break
        trial_cost, inside = evaluate(block_at, work, item, work.trial, exact)
        drop = cost - trial_cost
        accepted = positive and inside and drop >= -noise(cost)
        if exact != 0:
            first = settings[layout.FIRST_NEWTON_DAMPING]
            smaller, larger = damping / 10.0 if damping > first else 0.0, max(damping * 10.0, first)
        else:
            done = accepted and drop < settings[layout.SMALL_DECREASE] * cost
            done = done or (positive and decrement <= settings[layout.SMALL_DECREMENT] * scale)
            bend = 2.0 * drop / max(0.5 * (squared + held), _SMALLEST) - 1.0
            smaller, larger = damping * min(max(1.0 - bend * bend * bend, 0.1), 2.0), damping * growth
            growth = 2.0 if accepted else 2.0 * growth
        following = smaller if accepted else larger
        done = done or following > settings[layout.MAX_DAMPING] or steps >= limit
        damping = damping if done else following
        if accepted:
            cost, feasible = trial_cost, inside
            copy(record_at, work.trial, record_size(P, V, F))
    state[layout.DAMPING], state[layout.GROWTH], state[layout.STEPS] = damping, growth, steps
    state[layout.DONE], state[layout.FEASIBLE] = 1.0, 1.0 if feasible else 0.0
