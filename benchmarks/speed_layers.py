"""The differentiable peers of ``speed.py``: each is timed if its package can be imported.

None is installed with this package. ``kornia``, ``pypose`` and ``theseus-ai`` (with ``torchlie`` and ``torchkin``) come
from the package index; the two others are research code, found on ``PYTHONPATH``:

- BPnP (github.com/BoChenYS/BPnP, commit f1f4f6a): its file ``BPnP.py``, with ``import kornia.geometry as kn`` for
  ``import kornia as kn`` and ``kn.axis_angle_to_rotation_matrix`` for ``kn.angle_axis_to_rotation_matrix``. It computes
  in float32, whatever it gets.
- EPro-PnP (github.com/tjiiv-cprg/EPro-PnP, commit 4241222): its folder ``EPro-PnP-6DoF/lib/ops/pnp`` as a package
  ``epropnp``, with an empty ``__init__.py`` and ``torch.linalg.solve(A, b)`` for ``torch.solve(b, A)[0]``. With its ten
  LM steps and, for gradients, its differentiable Gauss-Newton step.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import posegrad as pg
from speed_methods import Method, Prepare, Solve, as_layer
from speed_scenes import Cell, Inputs
from speed_timing import Run


def layers() -> tuple[list[Method], list[str]]:
    """The peers that can be imported, and what is missing of the others."""
    found, missing = [], []
    for module, make in (
        ("kornia", _kornia),
        ("pypose", _pypose),
        ("theseus", _theseus),
        ("epropnp.levenberg_marquardt", _epropnp),
        ("BPnP", _bpnp),
    ):
        try:
            found += make(importlib.import_module(module))
        except ImportError as error:
            missing.append(f"{module} ({error})")
    return found, missing


def _layer(solver: Callable[[Inputs, Cell], Solve]) -> Prepare:
    def prepare(inputs: Inputs, cell: Cell) -> tuple[Run, Any]:
        return as_layer(solver(inputs, cell), inputs, cell)

    return prepare


def _intrinsics(inputs: Inputs) -> Tensor:
    return inputs.K.expand(len(inputs.points2d), 3, 3).contiguous()


def _kornia(kornia: Any) -> list[Method]:
    def solver(inputs: Inputs, cell: Cell) -> Solve:
        K = _intrinsics(inputs)

        def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            matrix = kornia.geometry.solve_pnp_dlt(z, x, K)
            return matrix[:, :, :3], matrix[:, :, 3]

        return solve

    return [Method("kornia DLT", _layer(solver), inits=(False,), least_points=6)]


def _pypose(pypose: Any) -> list[Method]:
    def solver(inputs: Inputs, cell: Cell) -> Solve:
        epnp = pypose.module.EPnP(inputs.K)

        def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            matrix = epnp(z, x).matrix()
            return matrix[:, :3, :3], matrix[:, :3, 3]

        return solve

    return [Method("PyPose EPnP", _layer(solver), inits=(False,))]


def _theseus(th: Any) -> list[Method]:
    def solver(inputs: Inputs, cell: Cell) -> Solve:
        pose = th.SE3(tensor=torch.cat([inputs.near.R, inputs.near.t[..., None]], -1), name="pose")
        given = [
            th.Variable(inputs.points2d, name="x"),
            th.Variable(inputs.points3d, name="z"),
            th.Variable(_intrinsics(inputs), name="K"),
        ]

        def residual(optim_vars: Any, aux_vars: Any) -> Tensor:
            T, (x, z, K) = optim_vars[0].tensor, (variable.tensor for variable in aux_vars)
            image = (z @ T[..., :3].mT + T[..., None, :, 3]) @ K.mT
            return (image[..., :2] / image[..., 2:] - x).flatten(-2)

        one = th.ScaleCostWeight(torch.ones(1, 1, dtype=inputs.points2d.dtype))
        cost = th.AutoDiffCostFunction([pose], residual, 2 * cell.points, cost_weight=one, aux_vars=given)
        objective = th.Objective(dtype=inputs.points2d.dtype)
        objective.add(cost)
        layer = th.TheseusLayer(th.LevenbergMarquardt(objective, max_iterations=20))
        start, K = pose.tensor.clone(), given[2].tensor
        settings = {"backward_mode": "implicit", "adaptive_damping": True, "damping": 1e-4}

        def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            found, _ = layer.forward({"pose": start, "x": x, "z": z, "K": K}, optimizer_kwargs=settings)
            return found["pose"][..., :3], found["pose"][..., 3]

        return solve

    return [Method("Theseus LM", _layer(solver), inits=(True,))]


def _epropnp(lm: Any) -> list[Method]:
    camera_of = importlib.import_module("epropnp.camera").PerspectiveCamera
    cost_of = importlib.import_module("epropnp.cost_fun").HuberPnPCost

    def solver(inputs: Inputs, cell: Cell) -> Solve:
        camera, cost = camera_of(_intrinsics(inputs), z_min=0.01), cost_of(delta=1e6)
        weights = torch.ones_like(inputs.points2d)
        start = torch.cat([inputs.near.t, inputs.near.quat_wxyz()], -1) if cell.init else None
        first = None if cell.init else lm.RSLMSolver(dof=6, num_points=16, num_proposals=64, num_iter=3)
        solver = lm.LMSolver(dof=6, num_iter=10, init_solver=first)

        def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            found = solver(z, x, weights, camera, cost, pose_init=start, with_pose_opt_plus=cell.backward)
            pose = found[3] if cell.backward else found[0]
            return pg.Pose.from_quat_wxyz(pose[:, 3:], pose[:, :3]).R, pose[:, :3]

        return solve

    near = Method("EPro-PnP", _layer(solver), inits=(True,))
    return [near, Method("EPro-PnP RSLM", _layer(solver), inits=(False,), least_points=16)]


def _bpnp(bpnp: Any) -> list[Method]:
    def solver(inputs: Inputs, cell: Cell) -> Solve:
        K = inputs.K.float()
        start = torch.cat([inputs.near.rotvec(), inputs.near.t], -1).float() if cell.init else None

        def solve(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            pose = bpnp.BPnP_m3d.apply(x.float(), z.float(), K, start)
            pose = pose.to(x.dtype)
            return pg.Pose.from_rotvec(pose[:, :3], pose[:, 3:]).R, pose[:, 3:]

        return solve

    return [Method("BPnP", _layer(solver), most_batch=1024)]
