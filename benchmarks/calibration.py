"""Time and RMS of calibrate_camera beside cv2.calibrateCamera, on the same 13 views in the same run.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py [--batch 32] [--repeats 30] [--clock cpu]

The views are OpenCV's left chessboard corners where POSEGRAD_DATA has them, else synthetic ones of the same size. Times
are medians and minima in milliseconds; both run from the corners alone, OpenCV with as many threads as PyTorch. The
last row is many calibrations at once. ``--clock cpu`` measures processor time, for a machine shared with others.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

import posegrad as pg
from speed_timing import CLOCKS, call_time

_SIZE = (640, 480)
_MODELS = {
    "k1 k2": ("OPENCV", ("p1", "p2"), cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST),
    "k1 k2 p1 p2": ("OPENCV", (), cv2.CALIB_FIX_K3),
    "k1 k2 p1 p2 k3": ("FULL_OPENCV", ("k4", "k5", "k6"), 0),
}


def corners() -> tuple[Tensor, Tensor, str]:
    """Pixels (13, 54, 2), the board (54, 3), and where they are from."""
    y, x = torch.meshgrid(torch.arange(6), torch.arange(9), indexing="ij")
    board = torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3).double()
    root = Path(os.environ.get("POSEGRAD_DATA", Path(__file__).parents[2] / "shared" / "data"))
    stored = root / "calib" / "opencv_chessboard" / "corners_and_golden.json"
    if stored.exists():
        found = json.loads(stored.read_text())["left"]["corners"]
        return torch.tensor(list(found.values()), dtype=torch.float64), board, "OpenCV's left chessboards"
    generator = torch.Generator().manual_seed(0)
    turn = 0.5 * torch.randn(13, 3, generator=generator).double()
    place = torch.tensor([-4.0, -2.5, 16.0]).double() + torch.randn(13, 3, generator=generator).double()
    camera = pg.cameras.OpenCV(torch.tensor([536.0, 536, 342, 235, -0.28, 0.07, 2e-3, 0.0]).double())
    points2d = pg.project_points(board, camera, pg.Pose.from_rotvec(turn, place))
    noise = 0.2 * torch.randn(points2d.shape, generator=generator).double()
    return points2d + noise, board, "synthetic views"


def times_ms(functions: list[Callable[[], object]], repeats: int, clock: str) -> list[tuple[float, float]]:
    """Median and minimum of each, called in turns."""
    spent: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for function, times in zip(functions, spent, strict=True):
            times.append(1e3 * call_time(function, CLOCKS[clock]))
    return [(statistics.median(times), min(times)) for times in spent]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32, help="calibrations of the last row")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    cv2.setNumThreads(torch.get_num_threads())
    points2d, board, origin = corners()
    image, target = list(points2d.numpy().astype(np.float32)), [board.numpy().astype(np.float32)] * 13
    print(
        f"{origin}; torch {torch.__version__}, {torch.get_num_threads()} threads, OpenCV {cv2.__version__}, "
        f"{options.clock} time"
    )
    heads = [
        "distortion", "posegrad ms", "min", "with gradient", "min", "cv2 ms", "min", "RMS posegrad", "RMS cv2",
    ]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for label, (model, fixed, flags) in _MODELS.items():

        def ours(
            x: Tensor = points2d, model: str = model, fixed: tuple[str, ...] = fixed
        ) -> pg.CalibrationSolution:
            return pg.calibrate_camera(x, board, model=model, fixed=fixed, image_size=_SIZE)

        def backward() -> None:
            x = points2d.clone().requires_grad_()
            ours(x).camera.params.sum().backward()

        def theirs(flags: int = flags) -> float:
            return cv2.calibrateCamera(target, image, _SIZE, None, None, flags=flags)[0]  # type: ignore[call-overload]

        spent = times_ms([ours, backward, theirs], options.repeats, options.clock)
        cells = [label, *(f"{value:.2f}" for pair in spent for value in pair)]
        print("| " + " | ".join([*cells, f"{ours().rms.item():.6f}", f"{theirs():.6f}"]) + " |", flush=True)
    generator = torch.Generator().manual_seed(0)
    many = points2d + 0.1 * torch.randn(options.batch, *points2d.shape, generator=generator).double()

    def batch() -> pg.CalibrationSolution:
        return pg.calibrate_camera(many, board, image_size=_SIZE)

    def loop() -> None:
        for views in many.numpy().astype(np.float32):
            cv2.calibrateCamera(target, list(views), _SIZE, None, None, flags=cv2.CALIB_FIX_K3)  # type: ignore[call-overload]

    spent = times_ms([batch, loop], max(3, options.repeats // 5), options.clock)
    (ours_ms, ours_min), (cv2_ms, cv2_min) = spent
    print(
        f"{options.batch} calibrations at once (k1 k2 p1 p2): posegrad {ours_ms:.1f} ms (min {ours_min:.1f}), "
        f"cv2 one by one {cv2_ms:.1f} ms (min {cv2_min:.1f})"
    )


if __name__ == "__main__":
    main()
