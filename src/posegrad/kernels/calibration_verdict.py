"""Whether a calibration is an ordinary one, which needs no second look: otherwise it is done again by torch operations,
view by view where need be, see :mod:`posegrad.problems.calibration_search`."""

import math

from posegrad.kernels import arrow, calibration_sums
from posegrad.kernels import calibration_layout as layout
from posegrad.kernels import calibration_view as view
from posegrad.kernels.calibration_layout import FREE, PARAMS, POINTS, VIEWS
from posegrad.kernels.calibration_steps import fill, set_camera, step
from posegrad.kernels.jit import doubles, helper, integers
from posegrad.kernels.solver import copy

_SAMPLES = 128
_BEYOND = 1.02  # the field is looked at up to this many times the farthest point's radius


@helper
def is_ordinary(block_at, work, item, record_at, feasible):
    """Whether all admitted views take part, fit about as well as the others, and better than mirrored."""
    b, settings = integers(block_at), doubles(block_at)
    N, V, P = b[POINTS], b[VIEWS], b[PARAMS]
    record, squares = doubles(record_at), doubles(work.squares)
    weights, admitted = (
        doubles(b[layout.WEIGHTS_AT] + 8 * N * V * item),
        doubles(b[layout.ADMITTED_AT] + 8 * V * item),
    )
    if not feasible:
        return False
    set_camera(block_at, record_at, work)
    count = 0
    for v in range(V):
        used, cost = record[P + 12 * V + v] > 0.0, record[P + 13 * V + v]
        if used != (admitted[v] > 0.0):
            return False
        squares[v] = -1.0
        if not used:
            continue
        total = 0.0
        for i in range(N):
            total += weights[N * v + i]
        squares[v] = cost / total
        count += 1
        mirror(block_at, work, item, v, record_at)
        fill(block_at, work, item, v, 0)
        residual_at = work.rows + 8 * view.RESIDUAL * N
        if 0.5 * calibration_sums.dot(residual_at, residual_at, 2 * N) < settings[layout.ALIKE] * cost:
            return False
    worst = 0.0
    for v in range(V):
        worst = max(worst, squares[v])
    # the median is below where fewer than half of the views, and it, are
    if worst > settings[layout.ODD_FLOOR]:
        below = 0
        for v in range(V):
            below += 1 if squares[v] >= 0.0 and worst > settings[layout.ODD] * squares[v] else 0
        return below < (count + 1) // 2
    return count > 0


@helper
def mirror(block_at, work, item, v, record_at):
    """A view's pose with the plane of its target mirrored about the line of sight."""
    b, record, pose = integers(block_at), doubles(record_at), doubles(work.fixed + 8 * layout.POSE)
    V, P = b[VIEWS], b[PARAMS]
    n = doubles(b[layout.NORMALS_AT] + 24 * (V * item + v))
    R, t = P + 9 * v, P + 9 * V + 3 * v
    copy(work.fixed + 8 * (layout.POSE + 9), record_at + 8 * t, 3)
    square = record[t] * record[t] + record[t + 1] * record[t + 1] + record[t + 2] * record[t + 2]
    for j in range(3):
        for k in range(3):
            # R (I - 2 n n^T), then (I - 2 s s^T) of it
            across = (
                2.0
                * n[k]
                * (record[R + 3 * j] * n[0] + record[R + 3 * j + 1] * n[1] + record[R + 3 * j + 2] * n[2])
            )
            pose[3 * j + k] = record[R + 3 * j + k] - across
    for k in range(3):
        along = (
            2.0 * (record[t] * pose[k] + record[t + 1] * pose[3 + k] + record[t + 2] * pose[6 + k]) / square
        )
        for j in range(3):
            pose[3 * j + k] -= along * record[t + j]


@helper
def is_plain_minimum(block_at, work, item, record_at):
    """Whether a record is a minimum beyond doubt, in the field of the camera; and the decrement."""
    b, settings, record = integers(block_at), doubles(block_at), doubles(record_at)
    N, V, P, F = b[POINTS], b[VIEWS], b[PARAMS], b[FREE]
    cost, residuals, unknowns = 0.0, 0, F
    weights = doubles(b[layout.WEIGHTS_AT] + 8 * N * V * item)
    for v in range(V):
        cost += record[P + 13 * V + v]
        if record[P + 12 * V + v] > 0.0:
            unknowns += 6
            for i in range(N):
                residuals += 2 if weights[N * v + i] > 0.0 else 0
    positive, squared, _ = step(block_at, work, record_at, 0.0)
    decrement = math.sqrt(squared)
    if not positive or decrement > 4.0 * settings[layout.TOLERANCE] * (1.0 + math.sqrt(2.0 * cost)):
        return False, decrement
    # the smallest eigenvalue of a scaled matrix is at least one over the trace of its inverse
    enough = 1.0 / (4.0 * settings[layout.SINGULAR])
    corner = P + 20 * V + F
    blocks, diagonal = corner + F * F + 6 * F * V, doubles(work.diagonal)
    scale = doubles(work.damped)
    for v in range(V):
        for k in range(6):
            scale[k] = record[blocks + 36 * v + 7 * k]
        if not arrow.inverse_diagonal(work.elimination + 8 * (F * F + 36 * v), 6, scale, diagonal) < enough:
            return False, decrement
    for k in range(F):
        scale[k] = record[corner + (F + 1) * k]
    if not arrow.inverse_diagonal(work.elimination, F, scale, diagonal) < enough or residuals < unknowns:
        return False, decrement
    variance = 2.0 * cost / max(residuals - unknowns, 1)
    roles, longest = integers(b[layout.ROLES_AT]), settings[layout.LONGEST]
    for k in range(2):
        column = roles[view.NUM_COEFFICIENTS + k]
        if column >= 0:
            square = record[roles[k]] * record[roles[k]]
            deviation = settings[layout.SIGMAS] * settings[layout.SIGMAS] * variance * diagonal[column]
            if deviation > square or square > longest * longest or square * longest * longest < 1.0:
                return False, decrement
    set_camera(block_at, record_at, work)
    return is_one_to_one(work.fixed, doubles(work.fixed)[layout.LARGEST]), decrement


@helper
def is_one_to_one(camera_at, square):
    """Whether the derivative of the distortion is positive definite, as :func:`posegrad.cameras.field.fold` has it, on
    a disc of this squared radius in the ideal image."""
    k = doubles(camera_at)
    n1, n2, n3, n4, d1, d2, d3 = k[4], k[5], k[6], k[7], k[8], k[9], k[10]
    p = math.sqrt(k[11] * k[11] + k[12] * k[12])
    width = _BEYOND * math.sqrt(square) / _SAMPLES
    before = slope_before = 0.0
    for i in range(_SAMPLES + 1):
        r = width * i
        s, x = r * r, p * r
        denominator = 1.0 + (d1 + (d2 + d3 * s) * s) * s
        inverse = 1.0 / denominator
        bottom = d1 + (2.0 * d2 + 3.0 * d3 * s) * s
        g = (1.0 + (n1 + (n2 + (n3 + n4 * s) * s) * s) * s) * inverse
        g1 = (n1 + (2.0 * n2 + (3.0 * n3 + 4.0 * n4 * s) * s) * s - g * bottom) * inverse
        g2 = 2.0 * n2 + (6.0 * n3 + 12.0 * n4 * s) * s - 2.0 * g1 * bottom - g * (2.0 * d2 + 6.0 * d3 * s)
        radial = g + 2.0 * s * g1
        c = max(-(radial + 3.0 * g) / (16.0 * x), -1.0) if x > 0.0 else -1.0
        worst = (radial + 6.0 * x * c) * (g + 2.0 * x * c) - 4.0 * x * x * (1.0 - c * c)
        if not (denominator > 0.0 and radial > 6.0 * x and g > 2.0 * x and worst > 0.0):
            return False
        value, slope = radial - 6.0 * x, (2.0 * r * (3.0 * g1 + 2.0 * s * g2 * inverse) - 6.0 * p) * width
        if i > 0 and slope_before < 0.0 < slope:
            part = slope_before / (slope_before - slope)
            if 0.5 * (before + value) + 0.25 * (slope_before * part - slope * (1.0 - part)) < 0.0:
                return False
        before, slope_before = value, slope
    return True
