"""Which camera models the kernels know, and the kernels themselves: compiled, or loaded from the disk, when first asked for.

>>> family_of(pg.cameras.Radial).coefficients
(0, 0, 1, 2, 3, 4, -1, -1)
"""

import threading
from typing import Any, NamedTuple

from posegrad import cameras
from posegrad.cameras import Camera


class Model(NamedTuple):
    """A camera model: its family, and for each of the family's coefficients the parameter that it is (-1: zero)."""

    family: str
    coefficients: tuple[int, ...]
    num_pixel: int


_PINHOLE, _BROWN, _EQUIDISTANT = "PINHOLE", "BROWN", "EQUIDISTANT"
_0 = -1
#: coefficients of pinholes are (fx, fy, cx, cy, skew), of the others (fx, fy, cx, cy) and four of the distortion
MODELS: dict[type[Camera], Model] = {
    cameras.SimplePinhole: Model(_PINHOLE, (0, 0, 1, 2, _0, _0, _0, _0), 5),
    cameras.Pinhole: Model(_PINHOLE, (0, 1, 2, 3, _0, _0, _0, _0), 5),
    cameras.SkewPinhole: Model(_PINHOLE, (0, 1, 2, 3, 4, _0, _0, _0), 5),
    cameras.SimpleRadial: Model(_BROWN, (0, 0, 1, 2, 3, _0, _0, _0), 4),
    cameras.Radial: Model(_BROWN, (0, 0, 1, 2, 3, 4, _0, _0), 4),
    cameras.OpenCV: Model(_BROWN, (0, 1, 2, 3, 4, 5, 6, 7), 4),
    cameras.SimpleFisheye: Model(_EQUIDISTANT, (0, 0, 1, 2, _0, _0, _0, _0), 4),
    cameras.Fisheye: Model(_EQUIDISTANT, (0, 1, 2, 3, _0, _0, _0, _0), 4),
    cameras.SimpleRadialFisheye: Model(_EQUIDISTANT, (0, 0, 1, 2, 3, _0, _0, _0), 4),
    cameras.RadialFisheye: Model(_EQUIDISTANT, (0, 0, 1, 2, 3, 4, _0, _0), 4),
    cameras.OpenCVFisheye: Model(_EQUIDISTANT, (0, 1, 2, 3, 4, 5, 6, 7), 4),
}
#: of a calibration matrix: rows and columns of the coefficients
MATRIX = Model(_PINHOLE, (0, 4, 2, 5, 1, _0, _0, _0), 5)


class Kernels(NamedTuple):
    """``forward`` and ``backward`` take a block of :mod:`posegrad.kernels.block`, into which the parts' addresses go."""

    forward: Any
    backward: Any
    parts: tuple[int, ...]


_lock = threading.RLock()
_compiled: dict[str, Kernels] = {}
_common: list[Any] = []  # the two entry points and the parts of all families
_passes: list[Any] = []  # called by address: to be kept alive


def kernels_of(family: str) -> Kernels:
    """The kernels of a family; raises ImportError without numba."""
    found = _compiled.get(family)
    if found is not None:
        return found
    with _lock:
        if family not in _compiled:
            from posegrad.kernels import backward, conditioning, forward, lenses, losses, passes, solver, start

            if not _common:
                _common.extend((forward.compile_forward(), backward.compile_backward()))
                _common.extend((conditioning.compile_condition(), losses.compile_evaluate()))
                _common.extend((solver.compile_judge(), start.compile_start()))
            compiled = passes.compile_passes(getattr(lenses, family))
            _passes.append(compiled)
            addresses = tuple(each.address for each in (*compiled, *_common[2:]))
            _compiled[family] = Kernels(_common[0], _common[1], addresses)
        return _compiled[family]
