"""The block of 8-byte numbers from which a kernel reads everything: addresses, strides, settings.

One argument in place of forty, and one compiled kernel for all layouts and dtypes: an array is its address, strides in
elements (zero where it is shared by the batch) and whether it is float32. :mod:`posegrad.problems.fused` writes it.
"""

import struct
from itertools import accumulate

_FIELDS = {
    "COUNT": 1,  # points of an item
    "PASSES": 8,  # addresses of the camera family's passes
    # addresses of conditioning.condition, losses.evaluate, solver.judge, search.search, start.start, the same by angle,
    # p3p.p3p
    "PARTS": 7,
    "PIXELS": 5,  # address, strides by item, point, coordinate; single
    "POINTS": 5,  # likewise
    # kind (0 none, 1 numbers, 2 per axis, 3 matrices), address, strides by item, point, row, column; single
    "WEIGHTS": 7,
    "MASK": 3,  # address (0: none), strides by item, point
    "CAMERA": 11,  # address, stride by item, single; offsets of the coefficients, -1 where one is zero
    "NUM_PIXEL": 1,  # how many of the coefficients are in pixels
    "WIDE": 1,  # whether points beside and behind the camera may be in its field
    "LIMIT": 3,  # squared radius of the field: address (0: none), stride by item, single
    "INIT_R": 5,  # address (0: none), strides by item, row, column; single
    "INIT_T": 4,  # address, strides by item, coordinate; single
    "LOSS": 1,  # its number in losses.NAMES
    "SCALE": 3,  # address (0: none), stride by item, single
    "ALPHA": 3,  # likewise
    "MAX_STEPS": 1,
    "LEAST": 1,  # points that an item must have
    # float64: of the solver; epsilon and root of the smallest number of the points' dtype, epsilon of points3d's
    "DAMPING": 1,
    "TOLERANCE": 1,
    "SINGULAR": 1,
    "EPS": 1,
    "TINY": 1,
    "POINTS_EPS": 1,
    # integers again; the outputs of the forward pass are contiguous
    "OUT_SINGLE": 1,
    "OUT": 7,  # addresses: R, t, status, cost, steps, decrement, Hessian
    "STATE": 1,  # address: what the gradient needs, float64
    "PENDING": 1,  # set where an item is left to others, see search
    # the backward pass alone
    "COTANGENT_R": 5,  # as INIT_R
    "COTANGENT_T": 4,  # as INIT_T
    "GAUSS_NEWTON": 1,  # whether the adjoint's Hessian is
    "BY_PIXELS": 4,  # gradients, contiguous: address (0: not wanted), strides by item and by slot, single
    "BY_POINTS": 4,
    "BY_WEIGHTS": 4,
    "BY_CAMERA": 4,  # float64, in the order of the user's parameters; how many, and which each coefficient is
    "BY_CAMERA_PARAMETERS": 9,
    "MAX_GAIN": 1,  # float64; 0: none
}
_OFFSETS = dict(zip(_FIELDS, accumulate(_FIELDS.values(), initial=0), strict=False))
SIZE = sum(_FIELDS.values())

COUNT, PASSES, PIXELS, POINTS = (_OFFSETS[name] for name in ("COUNT", "PASSES", "PIXELS", "POINTS"))
CONDITION, EVALUATE, JUDGE, SEARCH, START, START_BY_ANGLE, P3P = range(
    _OFFSETS["PARTS"], _OFFSETS["PARTS"] + 7
)
WEIGHTS, MASK, CAMERA, NUM_PIXEL = (_OFFSETS[name] for name in ("WEIGHTS", "MASK", "CAMERA", "NUM_PIXEL"))
WIDE, LIMIT, INIT_R, INIT_T = (_OFFSETS[name] for name in ("WIDE", "LIMIT", "INIT_R", "INIT_T"))
LOSS, SCALE, ALPHA = (_OFFSETS[name] for name in ("LOSS", "SCALE", "ALPHA"))
MAX_STEPS, LEAST = (_OFFSETS[name] for name in ("MAX_STEPS", "LEAST"))
DAMPING, TOLERANCE, SINGULAR, EPS = (_OFFSETS[name] for name in ("DAMPING", "TOLERANCE", "SINGULAR", "EPS"))
TINY, POINTS_EPS, OUT_SINGLE, OUT = (_OFFSETS[name] for name in ("TINY", "POINTS_EPS", "OUT_SINGLE", "OUT"))
STATE, PENDING = (_OFFSETS[name] for name in ("STATE", "PENDING"))
COTANGENT_R, COTANGENT_T = (_OFFSETS[name] for name in ("COTANGENT_R", "COTANGENT_T"))
GAUSS_NEWTON, BY_PIXELS, BY_POINTS = (_OFFSETS[name] for name in ("GAUSS_NEWTON", "BY_PIXELS", "BY_POINTS"))
BY_WEIGHTS, BY_CAMERA, MAX_GAIN = (_OFFSETS[name] for name in ("BY_WEIGHTS", "BY_CAMERA", "MAX_GAIN"))
BY_CAMERA_PARAMETERS = _OFFSETS["BY_CAMERA_PARAMETERS"]

#: how the two passes' parts of the block are written
FORWARD = struct.Struct(f"={DAMPING}q6d{COTANGENT_R - OUT_SINGLE}q")
BACKWARD = struct.Struct(f"={MAX_GAIN - COTANGENT_R}qd")

#: state of an item: conditioned pose (12), the user's translation (3), upper half of the conditioned Hessian (21), and
#: whether it converged
STATE_T, STATE_HESSIAN, STATE_OK, NUM_STATE = 12, 15, 36, 37
