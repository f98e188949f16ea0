"""Where a calibration's numbers are: the block that its kernel reads, an item's record, and the room for work."""

import struct
from typing import NamedTuple

from posegrad.kernels.calibration_view import NUM_COEFFICIENTS, NUM_ROWS, NUM_SUMS
from posegrad.kernels.jit import inlined

# The block's 8-byte numbers. Counts, whether the lens is a fisheye's, phase and limit of the steps; addresses of the
# three parts (calibration_view.fill, calibration_sums.add, arrow.solved), of the data and of room for work
POINTS, VIEWS, PARAMS, FREE, WIDE, PHASE, MAX_STEPS = range(7)
FILL, ADD, SOLVE, PIXELS_AT, POINTS_AT, WEIGHTS_AT, NORMALS_AT, ADMITTED_AT = range(7, 15)
RECORDS_AT, NUMBERS_AT, ROLES_AT, WORK_AT, WORK_SIZE = range(15, 20)
# ... and float64: squared radius of the lens's field, and settings of the solver and of the search
FIELD, TOLERANCE, SMALL_DECREASE, SMALL_DECREMENT, MAX_DAMPING, FIRST_NEWTON_DAMPING, SINGULAR = range(20, 27)
ALIKE, ODD, ODD_FLOOR, SIGMAS, LONGEST = range(27, 32)
BLOCK = struct.Struct("=20q12d")
#: Gauss-Newton steps, Newton steps, or both as long as nothing out of the ordinary is seen
DESCEND, FINISH, COURSE = range(3)
#: numbers of an item: damping and its growth, steps, whether it is done, whether all points lie in the lens's field,
#: and of the whole course the decrement and whether it ended in a minimum beyond doubt
DAMPING, GROWTH, STEPS, DONE, FEASIBLE, DECREMENT, PLAIN, NUM_NUMBERS = range(8)

#: places of what has a fixed size: coefficients, a pose, another, what no row of a view holds; the farthest point
CAMERA, POSE, MOVED, SUMS = 0, NUM_COEFFICIENTS, NUM_COEFFICIENTS + 12, NUM_COEFFICIENTS + 24
LARGEST = SUMS + NUM_SUMS
_FIXED = LARGEST + 1


class Work(NamedTuple):
    """Addresses of a kernel's room for work."""

    fixed: int
    places: int
    delta: int
    damped: int
    trial: int
    rows: int
    elimination: int
    diagonal: int
    squares: int


@inlined
def record_size(P, V, F):
    """Numbers of an item's record."""
    return P + 14 * V + F + 6 * V + F * F + 6 * F * V + 36 * V


@inlined
def work_at(start, N, V, P, F):
    """Where each part of the room is."""
    places = start + 8 * _FIXED
    delta = places + 8 * (F + 6)
    damped = delta + 8 * (F + 6 * V)
    trial = damped + 8 * (F + 6 * V)
    rows = trial + 8 * record_size(P, V, F)
    elimination = rows + 8 * N * NUM_ROWS
    diagonal = elimination + 8 * (F * F + V * (36 + 6 * (F + 1)))
    return Work(start, places, delta, damped, trial, rows, elimination, diagonal, diagonal + 16 * (F + 6))


def work_size(N, V, P, F):
    """Numbers of the room."""
    return work_at(0, N, V, P, F).squares // 8 + V
