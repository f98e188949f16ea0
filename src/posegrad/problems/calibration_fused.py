"""The minimisation of a calibration by the compiled kernel: plain float64 tensors on the CPU, weights that are numbers,
least squares, and the models that the kernel knows. All else is left to :mod:`posegrad.problems.calibration_solver`."""

import ctypes
import functools
import threading
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

from posegrad import cameras
from posegrad.cameras import Camera, lenses
from posegrad.cameras.field import whole
from posegrad.kernels import pool
from posegrad.optim.arrow import Arrow
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import calibration_solver as solver
from posegrad.problems.calibration_problem import ArrowQuadratic, Calibrated, Calibration, Observations
from posegrad.problems.calibration_solver import State
from posegrad.robust import Squared

_NAMES = ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "", "k4", "k5", "k6", "p1", "p2")
_FISHEYE_NAMES = ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4", "", "", "", "", "")
MODELS: tuple[type[Camera], ...] = (
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
    """The layout of what it reads, and the kernel; or None where there is no numba."""
    with _lock:
        if not _kernels:
            try:
                from numba.core import config

                if getattr(config, "DISABLE_JIT", False):
                    raise ImportError("NUMBA_DISABLE_JIT is set")
                from posegrad.kernels import calibration, calibration_layout
            except ImportError:
                _kernels.append(None)
            else:
                _kernels.append((calibration_layout, calibration.compile_calibration()))
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
        problem.model in MODELS
        and not problem.bounded
        and isinstance(args.loss, Squared)
        and args.weights.ndim == 3
        and args.points2d.numel() > 0
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
    max_steps: int,
    steps: Tensor | None = None,
    done: Tensor | None = None,
) -> State:
    """As :func:`calibration_solver.begin` and :func:`calibration_solver.descend`."""
    numbers = _numbers(variable, settings)
    if steps is not None:
        numbers[:, 2] = steps
    if done is not None:
        numbers[:, 3] = done
    return _Run(problem, variable, args, replace(settings, max_steps=max_steps), numbers).state("DESCEND")


def finished(problem: Calibration, state: State, args: Observations, settings: LevenbergMarquardt) -> State:
    """As :func:`calibration_solver.finish`."""
    numbers = _numbers(state.variable, settings)
    numbers[:, 0], numbers[:, 1], numbers[:, 2] = 0.0, 10.0, state.steps
    return _Run(problem, state.variable, args, settings, numbers).state("FINISH")


class Ordinary(NamedTuple):
    """What the whole course asks beside: the views that should take part, the normals of their targets' planes, and
    what is out of the ordinary, see :class:`posegrad.problems.calibration_search.Search`."""

    admitted: Float[Tensor, "B V"]
    normals: Float[Tensor, "B V 3"]
    alike: float
    odd: float
    odd_floor: float


def course(
    problem: Calibration,
    variable: Calibrated,
    args: Observations,
    settings: LevenbergMarquardt,
    ordinary: Ordinary,
) -> Solution | None:
    """From a start to the minimum; None if anything on the way of any item calls for a second look."""
    numbers = _numbers(variable, settings)
    state = _Run(problem, variable, args, settings, numbers).state("COURSE", ordinary)
    if not bool((numbers[:, 6] > 0).all()):
        return None
    status = torch.full_like(state.steps, int(Status.CONVERGED))
    packed = state.model.hessian.packed()
    return Solution(state.variable, status, state.model.cost, state.steps, numbers[:, 5], packed)


def _numbers(variable: Calibrated, settings: LevenbergMarquardt) -> Tensor:
    """Of each item, see :mod:`posegrad.kernels.calibration_layout`: at first, damping and its growth."""
    start = (settings.initial_damping, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return torch.tensor(start, dtype=torch.float64).repeat(variable.params.shape[0], 1)


class _Run:
    """A call of the kernel."""

    def __init__(
        self,
        problem: Calibration,
        variable: Calibrated,
        args: Observations,
        settings: LevenbergMarquardt,
        numbers: Tensor,
    ) -> None:
        self.problem, self.settings, self.numbers = problem, settings, numbers
        size, P = variable.params.shape
        self.size, self.P = size, P
        self.V, self.N = args.points2d.shape[1:3]
        self.data = tuple(x.contiguous() for x in (args.points2d, args.points3d, args.weights))
        V, F = self.V, len(problem.free)
        # the order of a record, see posegrad.kernels.calibration
        self.widths = (P, 9 * V, 3 * V, V, V, F, 6 * V, F * F, 6 * F * V, 36 * V)
        pose = variable.pose
        start = (variable.params, pose.R, pose.t, variable.used)
        model = variable.params.new_zeros(size, sum(self.widths[4:]))
        self.records = torch.cat([*(x.reshape(size, -1) for x in start), model], 1)

    def state(self, phase: str, ordinary: Ordinary | None = None) -> State:
        """Run it."""
        layout, kernel, size = *_kernel(), self.size
        length = layout.work_size(self.N, self.V, self.P, len(self.problem.free))
        parts = pool.parts_of(size, size * self.V * self.N * _POINT)
        work = torch.empty(parts * length, dtype=torch.float64)
        block = self._block(layout, getattr(layout, phase), kernel.parts, work, length, ordinary)
        pool.run(kernel.entry, ctypes.addressof(block), size, parts)
        V, F = self.V, len(self.problem.free)
        parts_of_record = self.records.split(self.widths, 1)
        params, R, t, used, view_cost, by_params, by_poses, corner, cross, blocks = parts_of_record
        damping, growth, steps, done, feasible = self.numbers.unbind(1)[:5]
        hessian = Arrow(corner.view(size, F, F), cross.view(size, V, F, 6), blocks.view(size, V, 6, 6))
        model = ArrowQuadratic(view_cost, by_params, by_poses.view(size, V, 6), hessian, feasible > 0)
        variable = Calibrated(params, Pose(R.view(size, V, 3, 3), t.view(size, V, 3)), used)
        return State(variable, model, damping, growth, steps.to(torch.int64), done > 0)

    def _block(
        self, layout: Any, phase: int, parts: Any, work: Tensor, length: int, ordinary: Ordinary | None
    ) -> Any:
        """All that the kernel reads, see :mod:`posegrad.kernels.calibration_layout`."""
        model, free, settings = self.problem.model, self.problem.free, self.settings
        roles = _roles(model, free)
        extra = (0, 0), (0.0, 0.0, 0.0)
        if ordinary is not None:
            self.extra = ordinary.normals.contiguous(), ordinary.admitted.contiguous()
            extra = tuple(x.data_ptr() for x in self.extra), ordinary[2:]
        return ctypes.create_string_buffer(
            layout.BLOCK.pack(
                *(self.N, self.V, self.P, len(free), model.wide, phase, settings.max_steps),
                *(part.address for part in parts),
                *(x.data_ptr() for x in self.data),
                *extra[0],
                *(x.data_ptr() for x in (self.records, self.numbers, roles, work)),
                length,
                whole(_LARGEST[model.wide], torch.float64),
                solver.relative_tolerance(settings, torch.float64),
                *(solver.SMALL_DECREASE, solver.SMALL_DECREMENT),
                *(solver.MAX_DAMPING, solver.FIRST_NEWTON_DAMPING),
                solver.singular_below(settings, torch.float64),
                *extra[1],
                *(solver.SIGMAS, solver.LONGEST),
            )
        )
