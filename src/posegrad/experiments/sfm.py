"""Structure from the projections of several views: the second experiment of the paper."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import posegrad as pg
from posegrad.experiments.alignment import align, aligned_error
from posegrad.experiments.config import ExperimentConfig
from posegrad.experiments.descent import Descent, TrackedPnP, descend, far_away
from posegrad.experiments.network import ConstantVGG
from posegrad.experiments.report import Report, cost, cost_sentence
from posegrad.experiments.scenes import Scene, solid_scene
from posegrad.train.evaluation import aligned
from posegrad.train.files import check_writable, write_json
from posegrad.viz.convergence import plot_structure

__all__ = ["Reconstruction", "SfmConfig", "half_spaces", "reconstruct", "run_sfm"]


@dataclass(frozen=True, kw_only=True)
class SfmConfig(ExperimentConfig):
    """Structure and poses from the projections of 12 views: the structure is predicted by an untrained VGG-11.

    The loss is the sum of the squares, over the points that each view sees, of the structure's projections under the
    pose of each view, which PnP finds for the structure predicted so far. View i sees the points on one side of the
    median of one coordinate, both in a cycle of six. The structure is determined up to a similarity.
    """

    out: Path = Path("runs/sfm")
    """Run folder."""
    points: int = 1000
    """Points of the structure."""
    views: int = 12
    """Cameras."""
    steps: int = 1000
    """Most steps."""
    loss_below: float = 1e-10
    """Ends the run, px^2."""
    stall: float = 1e-12
    """A step that lowers the loss by less, px^2, counts as stalled; the 20th ends the run."""
    lr: float = 1e-3
    """Of Adam on the network."""
    focal: float = 5e-4
    """Focal length, px."""
    far: float = 99.0
    """Depth of the start poses, which are the identity otherwise."""
    pnp: Literal["all", "visible"] = "all"
    """Points that PnP is given. The paper's code masks the loss alone, so that its poses know every projection;
    "visible" hides what a view does not see from PnP, too."""
    start: Literal["identity", "global"] = "identity"
    """Poses of the first step: the paper's, refined, or the best there are."""
    mirror: bool = True
    """Go on from the mirror image of the structure, once, when a run has stalled above its limit: seen from afar,
    structure and mirror image look nearly alike, and half of the runs end in the wrong one. Not in the paper's code."""

    QUICK: ClassVar[dict[str, Any]] = {"points": 200, "steps": 400, "loss_below": 2e-11, "stall": 2e-13}


_STALLS = 20


@dataclass(frozen=True)
class Reconstruction:
    """One run: how it went, the structure (N, 3) before and after, the poses, and what it cost."""

    descent: Descent
    first: Float[Tensor, "N 3"]
    last: Float[Tensor, "N 3"]
    pose: pg.Pose
    aligned_errors: list[float]
    cost: dict[str, float]
    mirrored_at: int | None


def run_sfm(config: SfmConfig) -> Report:
    """Runs it; writes sfm.json and sfm.png.

    Raises:
        RunError: settings or data that cannot be used, in one sentence.
    """
    config = config.settled()
    check_writable(config.out)
    scene = solid_scene(config.data, config.points, config.views)
    run = reconstruct(config, scene)
    measured = _measure(run, scene, config)
    numbers = {"settings": config.to_dict(), "scene": scene.source, "run": measured}
    write_json(config.out / "sfm.json", numbers)
    first, last = (align(x, scene.points3d).act(x) for x in (run.first, run.last))
    plot_structure(
        run.descent.losses, run.aligned_errors, scene.points3d, first, last, config.out / "sfm.png"
    )
    return Report(numbers, _table(measured), config.out)


def half_spaces(points3d: Float[Tensor, "N 3"], views: int) -> Bool[Tensor, "V N"]:
    """Which points each view sees: those at or above, then those below the median of x, of y, of z, and again."""
    above = points3d >= points3d.median(0).values
    return torch.stack([above[:, view % 6 // 2] == (view % 2 == 0) for view in range(views)])


def reconstruct(config: SfmConfig, scene: Scene) -> Reconstruction:
    """The loop; the network starts with weights of ``config.seed``."""
    f = config.focal
    K = torch.tensor([[f, 0, 0], [0, f, 0], [0, 0, 1]], dtype=torch.float64)
    points2d = pg.project_points(scene.points3d, K, scene.pose)
    seen = half_spaces(scene.points3d, config.views)
    mask = seen if config.pnp == "visible" else None
    model = ConstantVGG(3 * config.points, seed=config.seed)
    optimizer = torch.optim.Adam(model.groups(config.lr), fused=True)
    solve = TrackedPnP(far_away(config.far, config.views) if config.start == "identity" else None)
    structures, errors = [], []

    def loss_of() -> Tensor:
        points3d = model().double().view(-1, 3)
        solution = solve(points2d, points3d, K, mask)
        kept = seen & solution.ok[:, None]
        structures[1:] = [points3d.detach()]
        errors.append(aligned_error(points3d.detach(), scene.points3d))
        residual = pg.reprojection_residuals(points2d, points3d, K, solution.pose)
        squares = torch.where(kept, residual.square().sum(-1), 0.0).sum()
        return squares * (seen.sum() / kept.sum())  # a view without a pose must not make the sum smaller

    def stalled(losses: list[float]) -> bool:
        falls = (before - after for before, after in itertools.pairwise(losses))
        return sum(0 < fall < config.stall for fall in falls) >= _STALLS

    limits = {"loss_below": config.loss_below, "stalled": stalled}
    result, mirrored_at = descend(loss_of, optimizer, steps=config.steps, label="SfM", **limits), None
    left = config.steps - len(result.losses)
    if config.mirror and left > 0 and not result.reached:
        mirrored_at = len(result.losses)
        model.negate(slice(2, None, 3), optimizer)
        solve.forget()
        result += descend(loss_of, optimizer, steps=left, label="SfM, mirrored", **limits)
    return Reconstruction(
        result,
        structures[0],
        structures[-1],
        solve.latest,
        errors,
        cost(result, solve, config.points),
        mirrored_at,
    )


def _measure(run: Reconstruction, scene: Scene, config: SfmConfig) -> dict[str, Any]:
    """Errors of structure and poses at the end, and what it cost."""
    similarity = align(run.last, scene.points3d)
    turn = pg.so3.log(run.pose.R @ (scene.pose.R @ similarity.R).mT).norm(dim=-1) * 180 / torch.pi
    losses = run.descent.losses
    visible = config.points * config.views / 2
    return {
        "steps": len(losses),
        "first_loss": losses[0],
        "loss": losses[-1],
        "reached": run.descent.reached,
        "rms_mrad": 1e3 * (losses[-1] / visible) ** 0.5 / config.focal,
        "aligned_error": run.aligned_errors[-1],
        "first_aligned_error": run.aligned_errors[0],
        "aligned_error_of_the_mirror_image": aligned_error(run.last, scene.points3d, reflect=True),
        "median_rotation_deg": float(turn.median()),
        "mirrored_at": run.mirrored_at,
        **run.cost,
    }


def _table(row: dict[str, Any]) -> str:
    mirrored = "never" if row["mirrored_at"] is None else f"at step {row['mirrored_at']}"
    lines = [
        ["steps", f"{row['steps']}"],
        ["replaced by its mirror image", mirrored],
        ["loss at the start, px^2", f"{row['first_loss']:.2e}"],
        ["loss at the end, px^2", f"{row['loss']:.2e}"],
        ["RMS residual, mrad", f"{row['rms_mrad']:.2g}"],
        ["structure off after the best similarity, %", f"{100 * row['aligned_error']:.1f}"],
        ["its mirror image off, %", f"{100 * row['aligned_error_of_the_mirror_image']:.1f}"],
        ["rotations off, median, degrees", f"{row['median_rotation_deg']:.2f}"],
    ]
    return f"{aligned([['', 'SfM'], *lines])}\n{cost_sentence(row)}"
