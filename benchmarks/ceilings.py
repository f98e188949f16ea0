"""What the machine can do, what a step of the torch operations takes of it, and what importing costs.

    OMP_NUM_THREADS=1 python benchmarks/ceilings.py [--batch 32] [--points 1000]

The machine: the rate of fused multiply-adds of a numba loop on registers (float64, one thread), and of copying an
array much larger than the caches (bytes read plus bytes written). A step: its arithmetic and the bytes that its
operations read and write, counted by a dispatch mode, and processor time, all by point; launches, which a device would
make. A pass of the kernels over 1000 points: the operations of its loop, counted in LLVM's code, where it is compiled
for one point beside eight; and its time. A call of one item with 8 points and a start: the kernel, the call without and
with a graph, and the graph's backward by the pose. Importing: medians of fresh processes. Compiling: of each family of
cameras, processor time of the first call with a gradient and without a start, which needs most, in a fresh process;
then in another, from the folder of the first.
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba.core import config
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import posegrad as pg
from posegrad.cameras import SkewPinhole
from posegrad.kernels import lenses, passes
from posegrad.optim import levenberg_marquardt as lm
from posegrad.problems.reprojection import Correspondences, Reprojection
from posegrad.testing import random_scene
from speed_methods import kernel_alone
from speed_scenes import Cell, make_inputs

_CHAINS = 64  # independent accumulators, to fill the pipelines


@numba.njit(fastmath=True)
def _multiply_add(count: int, x: float) -> float:
    sums = np.zeros(_CHAINS)
    for _ in range(count):
        for i in range(_CHAINS):
            sums[i] = sums[i] * x + 1e-9
    return sums.sum()


def best(function: Callable[[], Any], repeats: int) -> float:
    """Least processor time of a call, seconds: what else the machine does is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def machine() -> tuple[float, float]:
    """Floating-point operations and bytes a second."""
    count = 2_000_000
    flops = 2 * _CHAINS * count / best(lambda: _multiply_add(count, 0.999), 7)
    source = np.ones(32_000_000)
    target = np.empty_like(source)
    return flops, 2 * source.nbytes / best(lambda: np.copyto(target, source), 7)


class Work(TorchDispatchMode):
    """Launches, arithmetic and bytes of the operations that are not views."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.flops, self.bytes = 0, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(value.alias_info for value in func._schema.returns):
            name = func._schema.name.removeprefix("aten::")
            made = [
                v for v in (result if isinstance(result, list | tuple) else [result]) if isinstance(v, Tensor)
            ]
            read = [
                v for a in args for v in (a if isinstance(a, list | tuple) else [a]) if isinstance(v, Tensor)
            ]
            self.launches += 1
            self.bytes += sum(v.numel() * v.element_size() for v in made + read)
            self.flops += _arithmetic(name, made, read)
        return result


def _arithmetic(name: str, made: list[Tensor], read: list[Tensor]) -> int:
    if name in ("bmm", "mm"):
        return 2 * made[0].numel() * read[0].shape[-1]
    if name in ("sum", "amax", "amin", "all"):
        return read[0].numel()
    per_number = {
        "mul": 1,
        "add": 1,
        "sub": 1,
        "neg": 1,
        "reciprocal": 1,
        "abs": 1,
        "addcmul": 2,
        "linalg_cross": 3,
    }
    return per_number.get(name, 0) * sum(value.numel() for value in made)


def step(batch: int, points: int, *, exact: bool) -> dict[str, float]:
    """One step of a batch."""
    scene = random_scene(batch, points, noise=1.0)
    x, z = (value.mT.contiguous().mT for value in (scene.points2d / 600, scene.points3d))
    camera = SkewPinhole.from_matrix(scene.K[None]).in_units_of(torch.full((1,), 600.0, dtype=torch.float64))
    args = Correspondences(x, z, torch.ones_like(x[..., 0]), camera)
    settings, problem = lm.LevenbergMarquardt(), Reprojection()
    init = scene.pose.retract(torch.full((batch, 6), 0.02, dtype=torch.float64))
    state = lm.descend(problem, init, args, settings, max_steps=0)
    if exact:
        state = state._replace(quadratic=problem.quadratic(init, args, exact=True))

    def once() -> None:
        lm._step(problem, state, args, settings, exact=exact)

    with Work() as work:
        once()
    seconds, count = best(once, 30), batch * points
    return {
        "launches": work.launches,
        "flops a point": work.flops / count,
        "bytes a point": work.bytes / count,
        "ns a point": 1e9 * seconds / count,
        "us a step": 1e6 * seconds,
        "GFLOP/s": 1e-9 * work.flops / seconds,
        "GB/s": 1e-9 * work.bytes / seconds,
    }


def kernel_pass(family: str, which: int, count: int = 1000) -> dict[str, float]:
    """A pass of a family: operations, bytes and time of a point."""
    with tempfile.TemporaryDirectory() as folder:
        config.CACHE_DIR = folder  # pyright: ignore[reportAttributeAccessIssue] # one that is loaded from the disk cannot be inspected
        compiled = passes.compile_pass(getattr(lenses, family), which)
        code = compiled.inspect_llvm()
    flops = len(re.findall(r"= f(?:add|sub|mul|div|neg)\b[\w ]* double ", code))
    pitch = -(-count // passes.LANES) * passes.LANES
    scene = random_scene(1, pitch, noise=1.0)
    rows = np.ones((passes.NUM_ROWS + passes.NUM_PULLED + 1, pitch))
    rows[:2], rows[2:5] = scene.points2d[0].T / 600, scene.points3d[0].T
    camera = np.array([1.0, 1, 320 / 600, 0.4, 0, 0, 0, 0, np.inf])
    pose = np.concatenate([scene.pose.R[0].numpy().ravel(), scene.pose.t[0].numpy()])
    along, out = np.full(6, 1e-3), np.empty((passes.NUM_PULLED + 1, pitch))
    at = [array.ctypes.data for array in (camera, pose, along, out)]
    arguments = (rows.ctypes.data, pitch, pitch, *at)
    call = compiled.ctypes
    seconds = best(lambda: [call(*arguments) for _ in range(100)], 30) / 100
    size = 8 * (6 + (6 if which == passes.PLAIN_PULL else 0))
    return {
        "flops a point": flops,
        "bytes a point": size,
        "ns a point": 1e9 * seconds / pitch,
        "GFLOP/s": 1e-9 * flops * pitch / seconds,
        "GB/s": 1e-9 * size * pitch / seconds,
    }


def call() -> dict[str, float]:
    """Microseconds of the parts of a call for one item."""
    cell = Cell(1, 8, backward=False)
    inputs = make_inputs(cell)
    kernel, _ = kernel_alone().prepare(inputs, cell)
    x, z = (value.clone().requires_grad_() for value in (inputs.points2d, inputs.points3d))
    pose = pg.solve_pnp(x, z, inputs.K, init=inputs.near).pose
    by = (inputs.weight_R[None], inputs.weight_t[None])
    parts = {
        "kernel": kernel,
        "call": lambda: pg.solve_pnp(inputs.points2d, inputs.points3d, inputs.K, init=inputs.near),
        "call with a graph": lambda: pg.solve_pnp(x, z, inputs.K, init=inputs.near),
        "backward": lambda: torch.autograd.grad((pose.R, pose.t), (x, z), by, retain_graph=True),
    }
    many = 200
    return {name: 1e6 * best(lambda f=f: [f() for _ in range(many)], 15) / many for name, f in parts.items()}


def import_seconds(statement: str) -> float:
    """Processor time of a fresh interpreter that runs a statement, less that of an empty one."""

    def once(code: str) -> float:
        code = f"import time; {code}; print(time.process_time())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return float(done.stdout)

    return statistics.median(once(statement) for _ in range(5)) - once("pass")


_FIRST_CALL = """
import time, torch, posegrad as pg
from posegrad.testing import random_scene
scene = random_scene(1, 8)
x, K = scene.points2d.requires_grad_(), scene.K
K[0, 1] = 0
camera = {camera}
begin = time.process_time()
pg.solve_pnp(x, scene.points3d, camera, backend="kernels").pose.t.sum().backward()
print(time.process_time() - begin)
"""
_CAMERAS = {
    "PINHOLE": "K",
    "BROWN": "pg.cameras.from_opencv(K, torch.zeros(4).double())",
    "EQUIDISTANT": "pg.cameras.from_opencv_fisheye(K, torch.zeros(4).double())",
}


def first_call_seconds(family: str) -> tuple[float, float]:
    """Processor time of the first call of a process: compiling all that it needs, and loading it from the disk."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _FIRST_CALL.format(camera=_CAMERAS[family])]
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        times = [
            float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
            for _ in range(2)
        ]
    return times[0], times[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--points", type=int, default=1000)
    options = parser.parse_args()
    flops, bandwidth = machine()
    print(f"machine: {1e-9 * flops:.1f} GFLOP/s, {1e-9 * bandwidth:.1f} GB/s")
    for exact in (False, True):
        numbers = step(options.batch, options.points, exact=exact)
        listed = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
        print(f"{'Newton' if exact else 'Gauss-Newton'} step, {options.batch} x {options.points}: {listed}")
    names = {"Gauss-Newton": passes.PLAIN_GN, "Newton": passes.PLAIN_EXACT, "gradient": passes.PLAIN_PULL}
    for family, (name, which) in itertools.product(_CAMERAS, names.items()):
        listed = ", ".join(f"{key} {value:.3g}" for key, value in kernel_pass(family, which).items())
        print(f"kernel, {family}, {name}: {listed}", flush=True)
    print("one call, us: " + ", ".join(f"{name} {value:.3g}" for name, value in call().items()), flush=True)
    for statement in ("import torch", "import torch, posegrad", "import numba"):
        print(f"{statement}: {import_seconds(statement):.2f} s")
    for family in _CAMERAS:
        compiled, loaded = first_call_seconds(family)
        print(f"first call, {family}: {compiled:.2f} s, from the disk {loaded:.2f} s", flush=True)


if __name__ == "__main__":
    main()
