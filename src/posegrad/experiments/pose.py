"""Keypoints that make a pose: the first experiment of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

import posegrad as pg
from posegrad.experiments.config import ExperimentConfig
from posegrad.experiments.descent import Descent, TrackedPnP, descend, far_away
from posegrad.experiments.network import ConstantVGG
from posegrad.experiments.report import Report, cost, duration
from posegrad.experiments.scenes import Scene, cube_scene
from posegrad.train.evaluation import aligned
from posegrad.train.files import check_writable, write_json
from posegrad.viz.convergence import KeypointTrack, plot_keypoint_tracks

__all__ = ["KeypointRun", "PoseConfig", "learn_keypoints", "run_pose"]


@dataclass(frozen=True, kw_only=True)
class PoseConfig(ExperimentConfig):
    """Find keypoints whose pose is the wanted one: optimised directly, and predicted by an untrained VGG-11.

    The loss is the mean square, in px^2, of the projections under the keypoints' pose off the wanted ones, plus lambda
    times that of the same projections off the keypoints: with lambda = 0 the pose converges and the keypoints do not.
    """

    out: Path = Path("runs/pose")
    """Run folder."""
    steps: int = 2000
    """Most steps of each run."""
    loss_below: float = 1e-3
    """Ends a run, px^2."""
    lr: float = 4e-6
    """Of Adam on the network."""
    keypoint_lr: float = 0.2
    """Of gradient descent on the keypoints themselves."""
    noise: float = 100.0
    """Standard deviation of the start of these, px."""
    focal: float = 300.0
    """Focal length, px."""
    centre: float = 128.0
    """Both coordinates of the principal point, px."""
    far: float = 99.0
    """Depth of the start pose, which is the identity otherwise."""

    QUICK: ClassVar[dict[str, Any]] = {"steps": 300, "lr": 2e-5}


@dataclass(frozen=True)
class KeypointRun:
    """One run: how it went, and where keypoints and projections were at each step, (steps, N, 2) px."""

    label: str
    descent: Descent
    cost: dict[str, float]
    keypoints: Tensor
    projections: Tensor
    pose: pg.Pose


def run_pose(config: PoseConfig) -> Report:
    """Runs the four cases; writes pose.json and pose.png.

    Raises:
        RunError: settings or data that cannot be used, in one sentence.
    """
    config = config.settled()
    check_writable(config.out)
    scene = cube_scene(config.data)
    runs = [
        learn_keypoints(config, scene, network=network, weight=weight)
        for network in (False, True)
        for weight in (1.0, 0.0)
    ]
    target = _project(config, scene)
    rows = {run.label: _measure(run, scene, target) for run in runs}
    numbers = {"settings": config.to_dict(), "scene": scene.source, "runs": rows}
    write_json(config.out / "pose.json", numbers)
    tracks = [KeypointTrack(run.label, run.descent.losses, run.keypoints, run.projections) for run in runs]
    plot_keypoint_tracks(tracks, target[0], config.out / "pose.png")
    return Report(numbers, _table(rows), config.out)


def learn_keypoints(config: PoseConfig, scene: Scene, *, network: bool, weight: float) -> KeypointRun:
    """One run; ``weight`` is lambda."""
    target, K = _project(config, scene), _matrix(config)
    count = len(scene.points3d)
    if network:
        model = ConstantVGG(2 * count, seed=config.seed)
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.groups(config.lr), fused=True)

        def predict() -> Tensor:
            return model().double().view(1, count, 2)
    else:
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(config.seed)).double()
        keypoints = (target + config.noise * noise).requires_grad_()
        optimizer = torch.optim.SGD([keypoints], lr=config.keypoint_lr)

        def predict() -> Tensor:
            return keypoints

    solve = TrackedPnP(far_away(config.far, 1))
    seen, projected = [], []

    def loss_of() -> Tensor:
        points2d = predict()
        pose = solve(points2d, scene.points3d, K).pose
        projection = pg.project_points(scene.points3d, K, pose)
        seen.append(points2d.detach()[0].clone())
        projected.append(projection.detach()[0])
        return (projection - target).square().mean() + weight * (projection - points2d).square().mean()

    label = f"{'VGG-11' if network else 'keypoints'}, lambda = {weight:g}"
    result = descend(loss_of, optimizer, steps=config.steps, loss_below=config.loss_below, label=label)
    keypoints, projections = torch.stack(seen), torch.stack(projected)
    return KeypointRun(label, result, cost(result, solve, count), keypoints, projections, solve.latest)


def _measure(run: KeypointRun, scene: Scene, target: Tensor) -> dict[str, Any]:
    """Errors of pose and keypoints at the end, and what it cost."""
    turn = pg.so3.log(run.pose.R @ scene.pose.R.mT).norm() * 180 / torch.pi
    shift = (run.pose.t - scene.pose.t).norm() / scene.pose.t.norm()
    return {
        "steps": len(run.descent.losses),
        "loss": run.descent.losses[-1],
        "reached": run.descent.reached,
        "rotation_deg": float(turn),
        "translation_share": float(shift),
        "projections_rms_px": _rms(run.projections[-1] - target[0]),
        "keypoints_rms_px": _rms(run.keypoints[-1] - target[0]),
        "keypoints_moved_rms_px": _rms(run.keypoints[-1] - run.keypoints[0]),
        **run.cost,
    }


def _rms(residual: Tensor) -> float:
    return float(residual.square().sum(-1).mean().sqrt())


def _table(rows: dict[str, dict[str, Any]]) -> str:
    head = [
        "",
        "steps",
        "loss px^2",
        "pose deg",
        "pose % of t",
        "projections px",
        "keypoints px",
        "time",
        "CPU",
        "original",
    ]
    lines = [
        [
            label,
            f"{row['steps']}",
            f"{row['loss']:.2e}",
            f"{row['rotation_deg']:.2g}",
            f"{100 * row['translation_share']:.2g}",
            f"{row['projections_rms_px']:.2g}",
            f"{row['keypoints_rms_px']:.2g}",
            duration(row["seconds"]),
            duration(row["cpu_seconds"]),
            duration(row["seconds_of_the_original"]),
        ]
        for label, row in rows.items()
    ]
    return aligned([head, *lines])


def _project(config: PoseConfig, scene: Scene) -> Tensor:
    """Where the keypoints should be, (1, N, 2) px."""
    return pg.project_points(scene.points3d, _matrix(config), scene.pose)


def _matrix(config: PoseConfig) -> Tensor:
    f, c = config.focal, config.centre
    return torch.tensor([[f, 0, c], [0, f, c], [0, 0, 1]], dtype=torch.float64)
