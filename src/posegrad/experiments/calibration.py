"""Intrinsics from one view of known points: the third experiment of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

import posegrad as pg
from posegrad.experiments.config import ExperimentConfig
from posegrad.experiments.descent import Descent, TrackedPnP, descend, far_away
from posegrad.experiments.report import Report, cost, cost_sentence
from posegrad.experiments.scenes import Scene, cube_scene
from posegrad.train.evaluation import aligned
from posegrad.train.files import check_writable, write_json
from posegrad.viz.convergence import plot_parameters

__all__ = ["CalibrationConfig", "Intrinsics", "learn_intrinsics", "run_calibration"]

_NAMES: tuple[str, ...] = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(ExperimentConfig):
    """Focal lengths and principal point from the projections of 8 points by one camera.

    (fx, fy, cx, cy) = 1000 sigmoid(theta); the loss is the sum of the squared residuals under the pose that PnP finds
    with the intrinsics learned so far.
    """

    out: Path = Path("runs/calibration")
    """Run folder."""
    steps: int = 2000
    """Most steps."""
    loss_below: float = 1e-3
    """Ends the run, px^2."""
    lr: float = 1e-5
    """Of gradient descent on theta."""
    spread: float = 1.1
    """Standard deviation of theta at the start."""
    fx: float = 800.0
    """The true camera, px."""
    fy: float = 700.0
    """The true camera, px."""
    cx: float = 400.0
    """The true camera, px."""
    cy: float = 300.0
    """The true camera, px."""
    far: float = 999.0
    """Depth of the start pose, which is the identity otherwise."""

    QUICK: ClassVar[dict[str, Any]] = {"steps": 600}


@dataclass(frozen=True)
class Intrinsics:
    """One run: how it went, (fx, fy, cx, cy) at each step (steps, 4) px, the pose, and what it cost."""

    descent: Descent
    values: Float[Tensor, "steps 4"]
    pose: pg.Pose
    cost: dict[str, float]


def run_calibration(config: CalibrationConfig) -> Report:
    """Runs it; writes calibration.json and calibration.png.

    Raises:
        RunError: settings or data that cannot be used, in one sentence.
    """
    config = config.settled()
    check_writable(config.out)
    scene = cube_scene(config.data)
    run = learn_intrinsics(config, scene)
    truth = _truth(config)
    measured = _measure(run, scene, truth)
    numbers = {"settings": config.to_dict(), "scene": scene.source, "run": measured}
    write_json(config.out / "calibration.json", numbers)
    curves = dict(zip(_NAMES, run.values.unbind(-1), strict=True))
    references = dict(zip(_NAMES, truth.tolist(), strict=True))
    plot_parameters(run.descent.losses, curves, references, config.out / "calibration.png")
    return Report(numbers, _table(measured), config.out)


def learn_intrinsics(config: CalibrationConfig, scene: Scene) -> Intrinsics:
    """The loop; theta starts at random numbers of ``config.seed``."""
    points2d = pg.project_points(scene.points3d, pg.cameras.Pinhole(_truth(config)), scene.pose)
    generator = torch.Generator().manual_seed(config.seed)
    theta = (config.spread * torch.randn(4, generator=generator).double()).requires_grad_()
    optimizer = torch.optim.SGD([theta], lr=config.lr)
    solve = TrackedPnP(far_away(config.far, 1))
    values = []

    def loss_of() -> Tensor:
        params = 1000 * theta.sigmoid()
        values.append(params.detach())
        camera = pg.cameras.Pinhole(params)
        pose = solve(points2d, scene.points3d, camera).pose
        return pg.reprojection_residuals(points2d, scene.points3d, camera, pose).square().sum()

    result = descend(
        loss_of, optimizer, steps=config.steps, loss_below=config.loss_below, label="calibration"
    )
    return Intrinsics(result, torch.stack(values), solve.latest, cost(result, solve, len(scene.points3d)))


def _measure(run: Intrinsics, scene: Scene, truth: Tensor) -> dict[str, Any]:
    """Errors of camera and pose at the end, and what it cost."""
    turn = pg.so3.log(run.pose.R @ scene.pose.R.mT).norm() * 180 / torch.pi
    return {
        "steps": len(run.descent.losses),
        "first_loss": run.descent.losses[0],
        "loss": run.descent.losses[-1],
        "reached": run.descent.reached,
        "start": dict(zip(_NAMES, run.values[0].tolist(), strict=True)),
        "found": dict(zip(_NAMES, run.values[-1].tolist(), strict=True)),
        "true": dict(zip(_NAMES, truth.tolist(), strict=True)),
        "rotation_deg": float(turn),
        **run.cost,
    }


def _table(row: dict[str, Any]) -> str:
    lines = [[name, *(f"{row[of][name]:.2f}" for of in ("start", "found", "true"))] for name in _NAMES]
    loss = f"loss {row['first_loss']:.3g} -> {row['loss']:.2e} px^2 in {row['steps']} steps"
    table = aligned([["px", "start", "found", "true"], *lines])
    return f"{table}\n{loss}; rotation off by {row['rotation_deg']:.2g} degrees\n{cost_sentence(row)}"


def _truth(config: CalibrationConfig) -> Tensor:
    return torch.tensor([config.fx, config.fy, config.cx, config.cy], dtype=torch.float64)
