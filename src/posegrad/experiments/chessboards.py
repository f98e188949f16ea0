"""Intrinsics and distortion of a real camera from photographs of a chessboard, a few of them at a time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import posegrad as pg
from posegrad.experiments.config import ExperimentConfig
from posegrad.experiments.descent import Descent, TrackedPnP, descend
from posegrad.experiments.report import Report, cost, cost_sentence
from posegrad.experiments.scenes import data_folder
from posegrad.problems.pnp import PnPSolution
from posegrad.train.errors import RunError
from posegrad.train.evaluation import aligned
from posegrad.train.files import check_writable, write_json
from posegrad.viz.convergence import plot_learned_camera

__all__ = ["ChessboardConfig", "LearnedCamera", "Views", "learn_camera", "read_views", "run_chessboards"]

_NAMES: tuple[str, ...] = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
_SIZE = (640.0, 480.0)  # of the photographs, px


@dataclass(frozen=True, kw_only=True)
class ChessboardConfig(ExperimentConfig):
    """Learn a real camera, distortion included, from the corners of a chessboard in a few views at a time.

    Nothing is known of the camera at the start: no distortion, the focal length one image width, the principal point in
    the middle. Each step draws some views, solves their poses with the camera as it is, and follows the gradient of the
    mean squared residual for the nine parameters of OpenCV's model (Adam, the step size falling to zero as a cosine).
    """

    out: Path = Path("runs/chessboards")
    """Run folder."""
    camera: Literal["left", "right"] = "left"
    """Which of the two cameras of OpenCV's sample photographs."""
    steps: int = 3000
    """Steps."""
    batch: int = 4
    """Views a step."""
    lr: float = 0.01
    """Of Adam at the start; parameters are in image widths, distortion coefficients as they are."""
    hold_out: float = 0.0
    """Share of each view's corners, drawn anew each time, that PnP does not see and the loss is of; 0: PnP sees all of
    them and the loss is of all, so that its minimum is that of a calibration."""

    QUICK: ClassVar[dict[str, Any]] = {"steps": 300, "lr": 0.02}
    MAY_BE_ZERO: ClassVar[frozenset[str]] = frozenset({"seed", "hold_out"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold_out > 0.8:
            raise RunError(f"--hold-out: got {self.hold_out}, expected at most 0.8: PnP needs corners, too")


@dataclass(frozen=True)
class Views:
    """Corners (V, N, 2) px of a board (N, 3) in squares, and OpenCV's calibration (9,) with its RMS, px."""

    points2d: Float[Tensor, "V N 2"]
    points3d: Float[Tensor, "N 3"]
    reference: Float[Tensor, " 9"]
    reference_rms: float


@dataclass(frozen=True)
class LearnedCamera:
    """One run: how it went, the parameters at each step (steps, 9), RMS over all views before and after, px."""

    descent: Descent
    values: Float[Tensor, "steps 9"]
    first_rms: float
    rms: float
    cost: dict[str, float]


def run_chessboards(config: ChessboardConfig) -> Report:
    """Runs it; writes chessboards.json and chessboards.png.

    Raises:
        RunError: settings or data that cannot be used, in one sentence.
    """
    config = config.settled()
    check_writable(config.out)
    views = read_views(config.data, config.camera)
    run = learn_camera(config, views)
    calibrated, calibrated_rms = _calibrated(views)
    rows = {
        "start": run.values[0],
        "learned": run.values[-1],
        "calibrated": calibrated,
        "OpenCV": views.reference,
    }
    rms = {
        "start": run.first_rms,
        "learned": run.rms,
        "calibrated": calibrated_rms,
        "OpenCV": views.reference_rms,
    }
    numbers = {
        "settings": config.to_dict(),
        "parameters": {name: dict(zip(_NAMES, row.tolist(), strict=True)) for name, row in rows.items()},
        "rms_px": rms,
        **run.cost,
    }
    write_json(config.out / "chessboards.json", numbers)
    curves = dict(zip(_NAMES[:4], run.values.unbind(-1), strict=False))
    references = dict(zip(_NAMES[:4], views.reference.tolist(), strict=False))
    distortions = {name: _distortion(rows[name]) for name in ("learned", "OpenCV")}
    plot_learned_camera(run.descent.losses, curves, references, distortions, config.out / "chessboards.png")
    return Report(numbers, _table(numbers), config.out)


def read_views(data: Path | None, camera: str) -> Views:
    """The corners of OpenCV's sample photographs with its calibration.

    Raises:
        RunError: they are not there, or damaged.
    """
    folder = data_folder(data)
    path = Path(folder or "DATA", "calib", "opencv_chessboard", "corners_and_golden.json")
    if not path.is_file():
        raise RunError(
            f"this experiment needs the corners of real photographs, and there is no {path}: set POSEGRAD_DATA or "
            "--data to the folder that has them"
        )
    try:
        stored = json.loads(path.read_text())
        golden = stored[camera]["calibrateCamera_default_5param"]
        K, dist = golden["K"], golden["dist"]
        return Views(
            points2d=torch.tensor(list(stored[camera]["corners"].values()), dtype=torch.float64),
            points3d=torch.tensor(stored["objp"], dtype=torch.float64),
            reference=torch.tensor([K[0][0], K[1][1], K[0][2], K[1][2], *dist], dtype=torch.float64),
            reference_rms=float(golden["rms"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error}): copy it again") from error


def learn_camera(config: ChessboardConfig, views: Views) -> LearnedCamera:
    """The loop."""
    count, corners = views.points2d.shape[:2]
    if config.batch > count:
        raise RunError(f"--batch: got {config.batch}, expected at most {count}, the number of views")
    width, height = _SIZE
    start = torch.tensor(
        [width, width, (width - 1) / 2, (height - 1) / 2, 0, 0, 0, 0, 0], dtype=torch.float64
    )
    scale = torch.tensor([width] * 4 + [1.0] * 5, dtype=torch.float64)
    moved = torch.zeros(len(_NAMES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=config.lr)
    generator = torch.Generator().manual_seed(config.seed)
    solve, values = TrackedPnP(None), []
    first_rms = _rms(solve(views.points2d, views.points3d, _camera(start)), corners)

    def loss_of() -> Tensor:
        optimizer.param_groups[0]["lr"] = config.lr * (1 + math.cos(math.pi * len(values) / config.steps)) / 2
        params = start + scale * moved
        values.append(params.detach())
        drawn = torch.randperm(count, generator=generator)[: config.batch]
        points2d, camera = views.points2d[drawn], _camera(params)
        hidden = torch.rand(config.batch, corners, generator=generator) < config.hold_out
        solution = solve(points2d, views.points3d, camera, ~hidden, items=drawn)
        residual = pg.reprojection_residuals(points2d, views.points3d, camera, solution.pose)
        judged = hidden if config.hold_out > 0 else ~hidden
        return pg.masked_mean(residual.square().sum(-1), judged & solution.ok[:, None])

    result = descend(loss_of, optimizer, steps=config.steps, loss_below=0.0, label="chessboards")
    values.append((start + scale * moved).detach())
    rms = _rms(solve(views.points2d, views.points3d, _camera(values[-1])), corners)
    return LearnedCamera(result, torch.stack(values), first_rms, rms, cost(result, solve, corners))


def _calibrated(views: Views) -> tuple[Tensor, float]:
    """Parameters (9,) and RMS of the calibration from all views at once, px."""
    width, height = map(int, _SIZE)
    solution = pg.calibrate_camera(
        views.points2d,
        views.points3d,
        model="FULL_OPENCV",
        image_size=(width, height),
        fixed=("k4", "k5", "k6"),
    )
    return solution.camera.params[: len(_NAMES)].detach(), float(solution.rms)


def _camera(params: Tensor) -> pg.cameras.FullOpenCV:
    return pg.cameras.FullOpenCV(torch.cat([params, params.new_zeros(3)]))


def _distortion(params: Tensor) -> tuple[Tensor, Tensor]:
    """Angles off the axis, degrees, and how far the distortion moves their points along the radius, px."""
    angle = torch.linspace(0, 36, 100, dtype=torch.float64)  # the corners of the image are at 36 degrees
    radius = (angle * torch.pi / 180).tan()
    k1, k2, k3 = params[[4, 5, 8]]
    square = radius.square()
    return angle, params[0] * radius * square * (k1 + square * (k2 + square * k3))


def _rms(solution: PnPSolution, corners: int) -> float:
    """Root of the mean square of the residuals of all views, px; infinite where a view has no pose."""
    square = 2 * torch.where(solution.ok, solution.cost, torch.inf)
    return float((square.mean() / corners).sqrt())


def _table(numbers: dict[str, Any]) -> str:
    rows = numbers["parameters"]
    lines = [
        [name, *(f"{row[name]:.{2 if name in _NAMES[:4] else 5}f}" for row in rows.values())]
        for name in _NAMES
    ]
    lines.append(["RMS px", *(f"{value:.6f}" for value in numbers["rms_px"].values())])
    table = aligned([["", *rows], *lines])
    return f"{table}\n{cost_sentence(numbers)}"
