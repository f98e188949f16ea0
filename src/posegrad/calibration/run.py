"""The job of `posegrad calibrate`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from posegrad import robust
from posegrad.calibration import files
from posegrad.calibration.config import CalibrateConfig
from posegrad.calibration.corners import board_points, find_corners
from posegrad.calibration.coverage import Coverage, judge_coverage
from posegrad.data import DatasetError, load_image
from posegrad.optim.status import Status
from posegrad.problems.calibration import CalibrationSolution, calibrate_camera
from posegrad.train.errors import RunError
from posegrad.train.files import check_writable
from posegrad.viz.calibration import draw_coverage, draw_residuals

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_FEWEST = 3


@dataclass(frozen=True)
class CalibrationReport:
    """The calibration, how its views cover image and angles, and the text that says so."""

    solution: CalibrationSolution
    coverage: Coverage
    table: str


@dataclass(frozen=True)
class _Found:
    names: list[str]
    corners: np.ndarray  # (V, N, 2)
    image_size: tuple[int, int]
    missing: list[str]


def calibrate(config: CalibrateConfig) -> CalibrationReport:
    """Find the board in the images, calibrate, write files and figures.

    Raises:
        RunError: images or settings that cannot be used, in one sentence.
    """
    found = _find(config)
    check_writable(config.out)
    square, unit = config.square_size
    board = board_points(*config.board_size, square)
    solution = calibrate_camera(
        torch.from_numpy(found.corners),
        torch.from_numpy(board),
        model=config.model,
        fixed=config.fix,
        image_size=found.image_size,
        loss=robust.Huber(config.robust) if config.robust > 0 else None,
    )
    if not bool(solution.ok):
        raise RunError(f"the calibration failed: {solution.describe().partition(': ')[2]}")
    used = (solution.view_status == int(Status.CONVERGED)).numpy()
    focal = solution.camera.params[: solution.camera.num_focal]
    relative = float((solution.std[: len(focal)] / focal.abs()).max())
    coverage = judge_coverage(found.corners[used], solution.pose.R.numpy()[used], found.image_size, relative)
    written = _write(config, found, solution, coverage, unit)
    return CalibrationReport(solution, coverage, _text(config, found, solution, coverage, written))


def _find(config: CalibrateConfig) -> _Found:
    paths = _paths(config.images)
    columns, rows = config.board_size
    names, corners, missing = [], [], []
    first: tuple[Path, tuple[int, int]] | None = None
    for path in paths:
        try:
            image = load_image(path)
        except DatasetError as error:
            raise RunError(
                f"{path}: no such image, or it cannot be read ({error.__cause__ or 'missing'})"
            ) from error
        size = (image.shape[1], image.shape[0])
        first = first or (path, size)
        if size != first[1]:
            raise RunError(
                f"images differ in size: {first[0]} is {first[1][0]}x{first[1][1]}, {path} is {size[0]}x{size[1]}; "
                "calibrate each size alone"
            )
        at = find_corners(image, columns, rows)
        (names if at is not None else missing).append(path.name)
        if at is not None:
            corners.append(at)
    assert first is not None
    if len(names) < _FEWEST:
        raise RunError(
            f"--board {config.board}: found in {len(names)} of {len(paths)} images, at least {_FEWEST} are needed; "
            "count inner corners, columns x rows, and show the whole board with its white rim"
        )
    return _Found(names, np.stack(corners), first[1], missing)


def _paths(images: tuple[Path, ...]) -> list[Path]:
    paths: list[Path] = []
    for path in images:
        if path.is_dir():
            paths += sorted((p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES), key=_by_number)
        elif path.exists():
            paths.append(path)
        else:
            raise RunError(f"{path}: no such image or folder")
    if not paths:
        given = ", ".join(map(str, images)) or "none"
        raise RunError(f"no images: got {given}, expected image files or folders of them")
    return paths


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts 2.jpg before 10.jpg."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _write(
    config: CalibrateConfig, found: _Found, solution: CalibrationSolution, coverage: Coverage, unit: str
) -> list[str]:
    """Files in the output folder; their names."""
    out, camera, size = config.out, solution.camera, found.image_size
    names = camera.parameter_names
    views = [
        {
            "image": name,
            "status": Status(int(status)).name,
            "rms_px": rms,
            "rotation_vector": rotvec,
            "translation": t,
        }
        for name, status, rms, rotvec, t in zip(
            found.names,
            solution.view_status.tolist(),
            solution.view_rms.tolist(),
            solution.pose.rotvec().tolist(),
            solution.pose.t.tolist(),
            strict=True,
        )
    ]
    std = [value if np.isfinite(value) else None for value in solution.std.tolist()]
    content = {
        "model": camera.name,
        "image_size": list(size),
        "pixel_convention": "the centre of the first pixel is (0, 0)",
        "parameters": dict(zip(names, camera.params.tolist(), strict=True)),
        "standard_deviations": dict(zip(names, std, strict=True)),
        "fixed": list(config.fix),
        "rms_px": solution.rms.item(),
        "board": config.board,
        "square": config.square,
        "unit": unit,
        "views": views,
        "not_found": found.missing,
        "warnings": list(coverage.warnings),
    }
    files.write_json(out / "camera.json", content)
    written = ["camera.json"]
    if files.write_colmap(out / "cameras.txt", camera, size):
        written.append("cameras.txt")
    if files.write_opencv(out / "camera.yaml", camera, size, solution.rms.item()):
        written.append("camera.yaml")
    draw_residuals(found.corners, solution.residuals.numpy(), size, out / "residuals.png")
    draw_coverage(found.corners, coverage.cells, coverage.tilts, size, out / "coverage.png")
    return [*written, "residuals.png", "coverage.png"]


def _text(
    config: CalibrateConfig,
    found: _Found,
    solution: CalibrationSolution,
    coverage: Coverage,
    written: list[str],
) -> str:
    camera = solution.camera
    total = len(found.names) + len(found.missing)
    lines = [
        f"{camera.name}, {found.image_size[0]}x{found.image_size[1]}, "
        f"board found in {len(found.names)} of {total} images",
        f"RMS {solution.rms.item():.4f} px",
        "",
        f"{'parameter':<10} {'value':>14} {'std':>12}",
    ]
    for name, value, std in zip(
        camera.parameter_names, camera.params.tolist(), solution.std.tolist(), strict=True
    ):
        spread = "fixed" if name in config.fix else f"{std:.3g}" if np.isfinite(std) else "unknown"
        lines.append(f"{name:<10} {value:>14.6f} {spread:>12}")
    lines += ["", f"{'image':<24} {'RMS px':>8}  {'tilt':>5}"]
    tilts = iter(coverage.tilts)
    for name, rms, status in zip(
        found.names, solution.view_rms.tolist(), solution.view_status.tolist(), strict=True
    ):
        fine = status == int(Status.CONVERGED)
        lines.append(
            f"{name:<24} {rms:>8.4f}  {next(tilts):>4.0f}°" if fine else f"{name:<24} {Status(status).name}"
        )
    lines += [f"{name:<24} no board" for name in found.missing]
    lines += ["", *(f"warning: {sentence}" for sentence in coverage.warnings)]
    lines.append(f"written to {config.out}: {', '.join(written)}")
    return "\n".join(lines)
