"""Which camera models the kernels know, and the kernels: compiled, or loaded from the disk, when first asked for.

>>> MODELS[cameras.Radial].coefficients  # f, f, cx, cy, k1, k2
(0, 0, 1, 2, 3, 4, -1, -1)
"""

import os
import threading
from collections.abc import Callable
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
    """Entry points, which take a block of :mod:`posegrad.kernels.block`; and the addresses that go into it."""

    forward: Any
    backward: Any
    parts: tuple[int, ...]


_lock = threading.RLock()
_ready: dict[tuple[str, bool, bool, bool], Kernels] = {}
_compiled: dict[Any, Any] = {}  # what is called by address has to be kept alive
_further = False


def _unlock() -> None:
    """A child forked while another thread compiled would wait for that thread for ever."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def compile_further() -> None:
    """From now on, kernels that search have the further starts, which few items need and which take seconds to
    compile."""
    global _further
    with _lock:
        if not _further:
            _further = True
            _ready.clear()


def kernels_of(family: str, general: bool, search: bool, backward: bool) -> Kernels:
    """The kernels of a family; raises ImportError without numba.

    Args:
        family: of :data:`MODELS`.
        general: weights of several numbers, or a robust loss.
        search: there is no init.
        backward: there will be a gradient. What a call does not need is not compiled for it.
    """
    found = _ready.get((family, general, search, backward))
    return _compile(family, general, search, backward) if found is None else found


def _compile(family: str, general: bool, searching: bool, differentiable: bool) -> Kernels:
    from numba.core import config

    if getattr(config, "DISABLE_JIT", False):
        raise ImportError("NUMBA_DISABLE_JIT is set")
    from posegrad.kernels import (
        backward,
        conditioning,
        forward,
        lenses,
        losses,
        p3p,
        passes,
        search,
        solver,
        start,
    )

    def once(key: Any, build: Callable[..., Any], *args: Any) -> Any:
        if key not in _compiled:
            _compiled[key] = build(*args)
        return _compiled[key]

    wanted = {passes.PLAIN_GN, passes.PLAIN_EXACT}
    if general:
        wanted = {passes.SQUARES, passes.GENERAL_GN, passes.GENERAL_EXACT}
    if searching:
        wanted.add(passes.BEARINGS)
    if differentiable:
        wanted.add(passes.GENERAL_PULL if general else passes.PLAIN_PULL)
    parts: tuple[tuple[bool, Callable[..., Any], tuple[Any, ...]], ...] = (
        (True, conditioning.compile_condition, ()),
        (general, losses.compile_evaluate, ()),
        (True, solver.compile_judge, ()),
        (searching, search.compile_search, ()),
        (searching, start.compile_start, (False,)),
        (searching and _further, start.compile_start, (True,)),
        (searching and _further, p3p.compile_p3p, ()),
    )
    with _lock:
        model = getattr(lenses, family)
        addresses = [
            once((family, which), passes.compile_pass, model, which).address if which in wanted else 0
            for which in range(passes.BEARINGS + 1)
        ]
        addresses += [
            once((build, *args), build, *args).address if wanted else 0 for wanted, build, args in parts
        ]
        entries = once(forward, forward.compile_forward), None
        if differentiable:
            entries = entries[0], once(backward, backward.compile_backward)
        _ready[family, general, searching, differentiable] = Kernels(*entries, tuple(addresses))
        return _ready[family, general, searching, differentiable]
