"""The minimisation of calibrations: :mod:`posegrad.problems.calibration_solver` item by item, in compiled float64.

An item is a *record* of numbers, the iterate and the second-order model of the cost there, in this order: parameters
(P), rotations (V, 3, 3), translations (V, 3), which views take part (V), each view's cost (V), gradient by the free
parameters (F) and by the poses (V, 6), and the Hessian's corner (F, F), cross (V, F, 6) and blocks (V, 6, 6).
"""

from typing import Any, NamedTuple

from posegrad.kernels import arrow, calibration_sums, calibration_view, jit
from posegrad.kernels import calibration_layout as layout
from posegrad.kernels.calibration_layout import record_size, work_at
from posegrad.kernels.calibration_steps import iterate
from posegrad.kernels.calibration_verdict import is_ordinary, is_plain_minimum
from posegrad.kernels.jit import doubles, integers


class Compiled(NamedTuple):
    """The entry point; its parts, whose addresses go into the block and which are to be kept alive."""

    entry: Any
    parts: tuple[Any, Any, Any]


def compile_calibration() -> Compiled:
    """Compile the kernel, or load it from the disk."""
    source = jit.stamp()
    parts = calibration_view.compile_fill(), calibration_sums.compile_add(), arrow.compile_solve()

    @jit.entry
    def calibrate(block_at, first, last, slot):
        """A phase of the items from ``first`` up to ``last``, in place."""
        _ = source
        b = integers(block_at)
        V, P, F, phase = b[layout.VIEWS], b[layout.PARAMS], b[layout.FREE], b[layout.PHASE]
        size = record_size(P, V, F)
        work = work_at(b[layout.WORK_AT] + 8 * b[layout.WORK_SIZE] * slot, b[layout.POINTS], V, P, F)
        for item in range(first, last):
            record_at = b[layout.RECORDS_AT] + 8 * size * item
            state_at = b[layout.NUMBERS_AT] + 8 * layout.NUM_NUMBERS * item
            state = doubles(state_at)
            ordinary = True
            for exact in range(1 if phase == layout.FINISH else 0, 1 if phase == layout.DESCEND else 2):
                if phase == layout.COURSE and exact == 1:
                    ordinary = is_ordinary(block_at, work, item, record_at, state[layout.FEASIBLE] != 0.0)
                    if not ordinary:
                        break
                    state[layout.DAMPING], state[layout.GROWTH], state[layout.DONE] = 0.0, 10.0, 0.0
                iterate(block_at, work, item, record_at, state_at, exact)
            if phase == layout.COURSE and ordinary and state[layout.FEASIBLE] != 0.0:
                plain, decrement = is_plain_minimum(block_at, work, item, record_at)
                state[layout.PLAIN], state[layout.DECREMENT] = 1.0 if plain else 0.0, decrement

    return Compiled(calibrate, parts)
