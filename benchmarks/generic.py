"""Generic least squares on PnP, beside the tuned path of this package, Theseus and PyPose on the same residual.

    PYTHONPATH=src python benchmarks/generic.py [--cells 1x8 32x8 32x100 256x100] [--repeat 7]

All start at the same poses and minimise the same function ``project(pose, points3d) - points2d`` with derivatives by
automatic differentiation (the tuned path: closed forms), float64, one thread. Peers are timed where they can be
imported: ``theseus-ai`` (with ``torchlie`` and ``torchkin``) and ``pypose``, found on ``PYTHONPATH``, for example
installed by ``pip install --target FOLDER --no-deps``. Times are CPU milliseconds of the process, the least of the
repeats; ``off`` is the largest difference of a translation from the minimum, relative to its length: who stops early is
not as accurate.
"""

import argparse
import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import Scene, random_scene

Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # pixels, points -> R, t


def residual(pose: pg.Pose, args: tuple[Tensor, ...]) -> Tensor:
    """What everyone minimises."""
    return pg.reprojection_residuals(args[0], args[1], args[2], pose)


def tuned(scene: Scene, start: pg.Pose) -> Solve:
    """solve_pnp with its closed forms."""

    def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        pose = pg.solve_pnp(x, z, scene.K, init=start, backend="torch").pose
        return pose.R, pose.t

    return solve


def generic(scene: Scene, start: pg.Pose) -> Solve:
    """least_squares with the residual alone."""

    def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        pose = pg.least_squares(residual, start, (x, z, scene.K[None])).variable
        return pose.R, pose.t

    return solve


def theseus(th: Any, scene: Scene, start: pg.Pose) -> Solve:
    """Levenberg-Marquardt with implicit differentiation, as its tutorials set it up; ends when it has converged."""
    names = ("x", "z", "K")
    values = (scene.points2d, scene.points3d, scene.K.expand(len(scene.points2d), 3, 3).contiguous())
    first = torch.cat([start.R, start.t[..., None]], -1)
    pose = th.SE3(tensor=first.clone(), name="pose")
    given = [th.Variable(value, name=name) for name, value in zip(names, values, strict=True)]

    def error(optim_vars: Any, aux_vars: Any) -> Tensor:
        T = optim_vars[0].tensor
        x, z, K = (variable.tensor for variable in aux_vars)
        return residual(pg.Pose(T[..., :3], T[..., 3]), (x, z, K)).flatten(-2)

    cost = th.AutoDiffCostFunction(
        [pose], error, 2 * scene.points2d.shape[1], cost_weight=th.ScaleCostWeight(torch.ones(1, 1).double()),
        aux_vars=given,
    )  # fmt: skip
    objective = th.Objective(dtype=torch.float64)
    objective.add(cost)
    layer = th.TheseusLayer(th.LevenbergMarquardt(objective, max_iterations=20))
    settings = {"backward_mode": "implicit", "adaptive_damping": True, "damping": 1e-4}

    def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        inputs = {"pose": first, "x": x, "z": z, "K": values[2]}
        found, _ = layer.forward(inputs, optimizer_kwargs=settings)
        return found["pose"][..., :3], found["pose"][..., 3]

    return solve


def pypose(pp: Any, scene: Scene, start: pg.Pose) -> Solve:
    """Its Levenberg-Marquardt, ten steps with a trust-region strategy; it has no gradient of the answer."""

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pose = pp.Parameter(pp.mat2SE3(start.matrix(), check=False))

        def forward(self, *given: Tensor) -> Tensor:
            T = self.pose.matrix()
            return residual(pg.Pose(T[..., :3, :3], T[..., :3, 3]), given)

    def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        module = Module()
        optimiser = pp.optim.LM(module, strategy=pp.optim.strategy.TrustRegion())
        for _ in range(10):
            optimiser.step(input=(x.detach(), z.detach(), scene.K))
        T = module.pose.matrix().detach()
        return T[..., :3, :3], T[..., :3, 3]

    return solve


def milliseconds(run: Callable[[], Any], repeat: int) -> float:
    """CPU time of the process, the least of several."""
    run()
    times = []
    for _ in range(repeat):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def imported(name: str) -> Any:
    """A peer, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def main() -> None:
    """Print one line for each cell and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells", nargs="+", default=["1x8", "32x8", "32x100", "256x100"], help="batch x points"
    )
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    th, pp = imported("theseus"), imported("pypose")
    if missing := [name for name, module in (("theseus", th), ("pypose", pp)) if module is None]:
        print(f"not found: {', '.join(missing)}")
    for cell in options.cells:
        batch, points = map(int, cell.split("x"))
        scene = random_scene(batch, points, noise=1.0)
        generator = torch.Generator().manual_seed(1)
        start = scene.pose.retract(0.05 * torch.randn(batch, 6, generator=generator, dtype=torch.float64))
        methods: dict[str, Solve] = {"tuned": tuned(scene, start), "generic": generic(scene, start)}
        if th is not None:
            methods["Theseus"] = theseus(th, scene, start)
        if pp is not None and batch * batch * points <= 400_000:  # its Jacobian is dense over the whole batch
            methods["PyPose"] = pypose(pp, scene, start)
        report(cell, methods, scene, options.repeat)


def report(cell: str, methods: dict[str, Solve], scene: Scene, repeat: int) -> None:
    """Times and ratios to the generic layer."""
    truth = methods["tuned"](scene.points2d, scene.points3d)[1]
    x, z = (value.clone().requires_grad_() for value in (scene.points2d, scene.points3d))
    rows = []
    for name, solve in methods.items():
        off = (
            ((solve(scene.points2d, scene.points3d)[1] - truth).norm(dim=-1) / truth.norm(dim=-1))
            .max()
            .item()
        )

        def forward(solve: Solve = solve) -> None:
            solve(scene.points2d, scene.points3d)

        def both(solve: Solve = solve) -> None:
            R, t = solve(x, z)
            torch.autograd.grad(R.sum() + t.sum(), (x, z))

        backward = milliseconds(both, repeat) if name != "PyPose" else float("nan")
        rows.append((name, milliseconds(forward, repeat), backward, off))
    base = {row[0]: row for row in rows}["generic"]
    for name, forward_ms, both_ms, off in rows:
        print(
            f"{cell:>8} {name:8} forward {forward_ms:8.1f} ms ({forward_ms / base[1]:5.2f} x generic)   "
            f"with backward {both_ms:8.1f} ms ({both_ms / base[2]:5.2f} x)   off {off:.0e}"
        )


if __name__ == "__main__":
    main()
