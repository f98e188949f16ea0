"""The minimisation of a calibration by the compiled kernel: plain float64 tensors on the CPU, weights that are numbers,
least squares, and the models that the kernel knows. All else is left to :mod:`posegrad.problems.calibration_solver`."""

import functools
import threading
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

from posegrad import cameras
from posegrad.cameras import Camera, lenses
from posegrad.cameras.field import whole
from posegrad.kernels import pool
from posegrad.optim.arrow import Arrow
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.pose import Pose
from posegrad.problems import calibration_solver as solver
from posegrad.problems.calibration_problem import ArrowQuadratic, Calibrated, Calibration, Observations
from posegrad.problems.calibration_solver import State
from posegrad.robust import Squared

_NAMES = ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "", "k4", "k5", "k6", "p1", "p2")
_FISHEYE_NAMES = ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4", "", "", "", "", "")
_MODELS: tuple[type[Camera], ...] = (
    cameras.SimplePinhole,
    cameras.Pinhole,
    cameras.SimpleRadial,
    cameras.Radial,
    cameras.OpenCV,
    cameras.FullOpenCV,
    cameras.SimpleFisheye,
    cameras.Fisheye,
    cameras.SimpleRadialFisheye,
    cameras.RadialFisheye,
    cameras.OpenCVFisheye,
)
# Radius of the lens's field in the ideal image: of perspective ones, of fisheyes.
_LARGEST = (lenses.MAX_RADIUS, torch.pi)
# Nanoseconds of one thread for a point of a view, all steps together.
_POINT = 4000
_lock = threading.RLock()
_kernels: list[Any] = []


def _kernel() -> Any:
    """The module and the kernel, or None where there is no numba."""
    with _lock:
        if not _kernels:
            try:
                from numba.core import config

                if getattr(config, "DISABLE_JIT", False):
                    raise ImportError("NUMBA_DISABLE_JIT is set")
                from posegrad.kernels import calibration
            except ImportError:
                _kernels.append(None)
            else:
                _kernels.append((calibration, calibration.compile_calibration()))
        return _kernels[0]


@functools.cache
def _roles(model: type[Camera], free: tuple[int, ...]) -> Tensor:
    """For each coefficient of the kernel which parameter it is, -1 if none (zero); then which of the free ones."""
    names = model.parameter_names
    known = _FISHEYE_NAMES if model.wide else _NAMES
    own = [{"fx": "f", "fy": "f", "k1": "k"}.get(name, name) if name not in names else name for name in known]
    roles = [names.index(name) if name in names else -1 for name in own]
    return torch.tensor([*roles, *(free.index(role) if role in free else -1 for role in roles)])


def serves(problem: Calibration, variable: Calibrated, args: Observations) -> bool:
    """Whether the kernel can minimise these."""
    tensors = (args.points2d, args.points3d, args.weights, variable.params, variable.pose.R, variable.pose.t)
    return (
        problem.model in _MODELS
        and not problem.bounded
        and isinstance(args.loss, Squared)
        and args.weights.ndim == 3
        and torch._C._len_torch_dispatch_stack() == 0
        and all(
            type(x) is Tensor
            and x.dtype == torch.float64
            and x.device.type == "cpu"
            and not x.requires_grad
            and not _functorch.is_functorch_wrapped_tensor(x)
            for x in tensors
        )
        and _kernel() is not None
    )


def descended(
    problem: Calibration,
    variable: Calibrated,
    args: Observations,
    settings: LevenbergMarquardt,
    steps: Tensor | None = None,
    done: Tensor | None = None,
) -> State:
    """As :func:`calibration_solver.begin` and :func:`calibration_solver.descend`."""
    numbers = variable.params.new_zeros(variable.params.shape[0], 5)
    numbers[:, 0], numbers[:, 1] = settings.initial_damping, 2.0
    if steps is not None:
        numbers[:, 2] = steps
    if done is not None:
        numbers[:, 3] = done
    return _run(problem, variable, args, settings, numbers, exact=False)


def finished(problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt) -> State:
    """As :func:`calibration_solver.finish`."""
    numbers = state.damping.new_zeros(state.damping.shape[0], 5)
    numbers[:, 1], numbers[:, 2] = 10.0, state.steps
    return _run(problem, state.variable, args, settings, numbers, exact=True)


def _run(
    problem: Calibration,
    variable: Calibrated,
    args: Observations,
    settings: LevenbergMarquardt,
    numbers: Tensor,
    *,
    exact: bool,
) -> State:
    """One phase. The numbers of an item: damping, growth, steps, done, whether all points lie in the lens's field."""
    calibration, kernel = _kernel()
    size, P = variable.params.shape
    V, N = args.points2d.shape[1:3]
    F, wide = len(problem.free), problem.model.wide
    pixels, points, weights = (x.contiguous() for x in (args.points2d, args.points3d, args.weights))
    widths = (P, 9 * V, 3 * V, V, V, F, 6 * V, F * F, 6 * F * V, 36 * V)
    pose = variable.pose
    records = torch.empty(size, sum(widths), dtype=torch.float64)
    params, R, t, used, view_cost, by_params, by_poses, corner, cross, blocks = records.split(widths, -1)
    for target, source in ((params, variable.params), (R, pose.R), (t, pose.t), (used, variable.used)):
        target.copy_(source.view(size, -1) if source.is_contiguous() else source.reshape(size, -1))
    roles, field = _roles(problem.model, problem.free), whole(_LARGEST[wide], torch.float64)
    length = calibration.scratch_size(N, V, P, F)
    parts = pool.parts_of(size, size * V * N * _POINT)
    scratch = torch.empty(parts * length, dtype=torch.float64)
    block = bytearray(
        calibration.BLOCK.pack(
            *(N, V, P, F, wide, exact, settings.max_steps),
            *(x.data_ptr() for x in (pixels, points, weights, records, numbers, roles, scratch)),
            *(length, field, solver.relative_tolerance(settings, torch.float64)),
            *(solver.SMALL_DECREASE, solver.SMALL_DECREMENT),
            *(solver.MAX_DAMPING, solver.FIRST_NEWTON_DAMPING),
        )
    )
    held = torch.frombuffer(block, dtype=torch.uint8)
    pool.run(kernel, held.data_ptr(), size, parts)
    damping, growth, steps, done, feasible = numbers.unbind(-1)
    by_view = (size, V)
    model = ArrowQuadratic(
        view_cost,
        by_params,
        by_poses.unflatten(-1, (V, 6)),
        Arrow(
            corner.unflatten(-1, (F, F)),
            cross.unflatten(-1, (V, F, 6)),
            blocks.unflatten(-1, (V, 6, 6)),
        ),
        feasible > 0,
    )
    moved = Pose(R.unflatten(-1, (V, 3, 3)), t.unflatten(-1, (V, 3)))
    return State(
        Calibrated(params, moved, used), model, damping, growth, steps.to(torch.int64), done > 0
    )
