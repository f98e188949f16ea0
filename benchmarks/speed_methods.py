"""The methods that ``speed.py`` times: this package's backends and solvers without gradients, called item by item."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import poselib
import pycolmap
import torch
from torch import Tensor

import posegrad as pg
from posegrad.problems.fused_buffer import Buffer
from posegrad.problems.fused_layout import Job, Request
from speed_scenes import Answer, Cell, Inputs
from speed_timing import Run

Read = Callable[[Any], Answer]
Prepare = Callable[[Inputs, Cell], tuple[Run, Read]]


@dataclass(frozen=True)
class Method:
    """A name, what it can do, and ``prepare``: everything that a user would not do again at every call happens there.

    ``prepare`` gives the call to time, on the method's own kind of arrays, and what turns its result into an
    :class:`Answer`; if it raises, the method sits the cell out.
    """

    name: str
    prepare: Prepare
    inits: tuple[bool, ...] = (False, True)
    backward: tuple[bool, ...] = (False, True)
    least_points: int = 4
    dtypes: tuple[str, ...] = ("float64", "float32")
    most_batch: int = 1 << 30

    def takes(self, cell: Cell) -> bool:
        """Whether it is made for a cell."""
        return (
            cell.init in self.inits
            and cell.backward in self.backward
            and cell.points >= self.least_points
            and cell.batch <= self.most_batch
            and cell.dtype in self.dtypes
        )


Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def as_layer(solve: Solve, inputs: Inputs, cell: Cell) -> tuple[Run, Read]:
    """A call of a differentiable ``(points2d, points3d) -> (R, t)``; with the gradient, if the cell is of that kind."""
    if not cell.backward:

        def forward() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                return solve(inputs.points2d, inputs.points3d)

        return forward, lambda pose: Answer(*pose)

    def both() -> Answer:
        x, z = (value.detach().requires_grad_() for value in (inputs.points2d, inputs.points3d))
        R, t = solve(x, z)
        inputs.loss(R, t).backward()
        return Answer(R.detach(), t.detach(), x.grad, z.grad)

    return both, lambda answer: answer


def posegrad_methods() -> list[Method]:
    """One for each backend that the installed package has."""

    def method(backend: str) -> Method:
        def prepare(inputs: Inputs, cell: Cell) -> tuple[Run, Read]:
            near = inputs.near if cell.init else None

            def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
                pose = pg.solve_pnp(x, z, inputs.K, init=near, backend=backend).pose  # pyright: ignore
                return pose.R, pose.t

            return as_layer(solve, inputs, cell)

        return Method(f"posegrad {backend}", prepare)

    return [method(backend) for backend in ("kernels", "torch") if _has(backend)]


def _has(backend: str) -> bool:
    eye = torch.eye(3)
    try:
        pg.solve_pnp(torch.zeros(1, 4, 2), torch.zeros(1, 4, 3), eye, backend=backend)  # pyright: ignore
    except ValueError:
        return False
    return True


def kernel_alone() -> Method:
    """The compiled solve without the public call: its arguments are laid out and its results allocated once."""

    def prepare(inputs: Inputs, cell: Cell) -> tuple[Run, Read]:
        call = Request(
            *(inputs.points2d, inputs.points3d, inputs.K, None, None, None, inputs.near),
            *(pg.LevenbergMarquardt(), pg.Implicit()),
        )
        job = Job(call, _no_long_way)
        results = job.forward()
        block = Buffer.take().tensor  # the one that the call has just given back, as it left it
        address, kernel = block.data_ptr(), job.kernels.forward

        def run(_: Any = (block, results, job)) -> None:  # kept alive: the kernel knows their addresses
            kernel(address, 0, cell.batch, 0)

        return run, lambda _: Answer(results[0], results[1])

    return Method("kernel alone", prepare, inits=(True,), backward=(False,))


def _no_long_way(request: Request, init: pg.Pose | None) -> Any:
    raise AssertionError("calls with a start are solved by the kernel alone")


def solvers() -> list[Method]:
    """OpenCV, PoseLib and COLMAP: a loop over the items, for none of them knows batches."""
    return [
        Method(
            "OpenCV ITERATIVE",
            _opencv(cv2.SOLVEPNP_ITERATIVE, refine=False),
            backward=(False,),
            least_points=6,
        ),
        Method("OpenCV SQPNP", _opencv(cv2.SOLVEPNP_SQPNP, refine=False), inits=(False,), backward=(False,)),
        Method(
            "OpenCV SQPNP + LM", _opencv(cv2.SOLVEPNP_SQPNP, refine=True), inits=(False,), backward=(False,)
        ),
        Method("PoseLib refine", _poselib, inits=(True,), backward=(False,)),
        Method("COLMAP refine", _pycolmap, inits=(True,), backward=(False,)),
    ]


def _opencv(flag: int, refine: bool) -> Prepare:
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-12)

    def prepare(inputs: Inputs, cell: Cell) -> tuple[Run, Read]:
        x, z, K = inputs.points2d.numpy(), inputs.points3d.numpy(), inputs.K.numpy()
        start = zip(inputs.near.rotvec().double().numpy(), inputs.near.t.double().numpy(), strict=True)
        starts = [(r[:, None], t[:, None]) for r, t in start]

        def from_start() -> list[tuple[Any, Any]]:
            found = []
            for z_i, x_i, (r, t) in zip(z, x, starts, strict=True):
                _, r, t = cv2.solvePnP(z_i, x_i, K, None, r.copy(), t.copy(), True, flag)
                found.append((r, t))
            return found

        def from_none() -> list[tuple[Any, Any]]:
            found = []
            for z_i, x_i in zip(z, x, strict=True):
                _, r, t = cv2.solvePnP(z_i, x_i, K, None, flags=flag)
                if refine:
                    r, t = cv2.solvePnPRefineLM(z_i, x_i, K, None, r, t, criteria)
                found.append((r, t))
            return found

        def read(found: list[tuple[Any, Any]]) -> Answer:
            R = np.stack([cv2.Rodrigues(r)[0] for r, _ in found])
            return Answer(torch.from_numpy(R), torch.from_numpy(np.stack([t[:, 0] for _, t in found])))

        return (from_start if cell.init else from_none), read

    return prepare


def _poselib(inputs: Inputs, cell: Cell) -> tuple[Run, Read]:
    x, z = inputs.points2d.numpy(), inputs.points3d.numpy()
    (fx, _, cx), (_, fy, cy), _ = inputs.K.double().tolist()
    camera = {"model": "PINHOLE", "width": 640, "height": 480, "params": [fx, fy, cx, cy]}
    starts = []
    for R, t in zip(inputs.near.R.double().numpy(), inputs.near.t.double().numpy(), strict=True):
        pose = poselib.CameraPose()
        pose.R, pose.t = R, t
        starts.append(pose)
    options = {"loss_type": "TRIVIAL", "max_iterations": 100}

    def run() -> list[Any]:
        return [
            poselib.refine_absolute_pose(x_i, z_i, start, camera, options)[0]
            for x_i, z_i, start in zip(x, z, starts, strict=True)
        ]

    def read(found: list[Any]) -> Answer:
        R, t = np.stack([pose.R for pose in found]), np.stack([pose.t for pose in found])
        return Answer(torch.from_numpy(R), torch.from_numpy(t))

    return run, read


def _pycolmap(inputs: Inputs, cell: Cell) -> tuple[Run, Read]:
    x, z = inputs.points2d.double().numpy(), inputs.points3d.double().numpy()
    (fx, _, cx), (_, fy, cy), _ = inputs.K.double().tolist()
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[fx, fy, cx, cy])
    options = pycolmap.AbsolutePoseRefinementOptions()
    options.gradient_tolerance = 1e-6
    options.loss_function_scale = 1e6  # its loss is Cauchy's: with this scale, least squares
    R, t = inputs.near.R.double().numpy(), inputs.near.t.double().numpy()
    starts = [pycolmap.Rigid3d(pycolmap.Rotation3d(R_i), t_i) for R_i, t_i in zip(R, t, strict=True)]
    inliers = np.ones((x.shape[1], 1), bool)

    def run() -> list[Any]:
        return [
            pycolmap.refine_absolute_pose(start, x_i, z_i, inliers, camera, options)["cam_from_world"]
            for start, x_i, z_i in zip(starts, x, z, strict=True)
        ]

    def read(found: list[Any]) -> Answer:
        matrices = torch.from_numpy(np.stack([pose.matrix() for pose in found]))
        return Answer(matrices[:, :, :3], matrices[:, :, 3])

    return run, read
