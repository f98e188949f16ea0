"""Published calibrations from their corners alone: `python examples/calibrations.py` (needs POSEGRAD_DATA)."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import posegrad as pg

_ROOT = Path(os.environ.get("POSEGRAD_DATA", Path(__file__).parents[2] / "shared" / "data")) / "calib"


def zhang() -> tuple[Tensor, Tensor]:
    """The five images of 1998, and the target."""
    folder = _ROOT / "zhang1998"
    views = [np.loadtxt(folder / f"data{i}.txt").reshape(-1, 2) for i in range(1, 6)]
    model = np.loadtxt(folder / "Model.txt").reshape(-1, 2)
    return torch.from_numpy(np.stack(views)), torch.from_numpy(np.pad(model, ((0, 0), (0, 1))))


def grid(columns: int, rows: int) -> Tensor:
    """Corners of a board, row by row."""
    y, x = np.divmod(np.arange(columns * rows), columns)
    return torch.from_numpy(np.stack([x, y, 0 * x], -1).astype(float))


def stored(name: str, *keys: str) -> Tensor:
    """Corners kept as JSON."""
    found = json.loads((_ROOT / name / "corners_and_golden.json").read_text())
    for key in keys:
        found = found[key]
    return torch.tensor(list(found.values()), dtype=torch.float64)


def main() -> None:
    left, right = (stored("opencv_chessboard", side, "corners") for side in ("left", "right"))
    fisheye = stored("boofcv_fisheye_chessboard", "corners")
    sets = [
        ("Zhang 1998, k1 k2", *zhang(), "OPENCV", ("p1", "p2"), (640, 480), 0.336889083),
        ("OpenCV left, none", left, grid(9, 6), "PINHOLE", (), (640, 480), 1.555404),
        ("OpenCV left, k1 k2", left, grid(9, 6), "OPENCV", ("p1", "p2"), (640, 480), 0.418195),
        ("OpenCV left, k1 k2 p1 p2 k3", left, grid(9, 6), "FULL_OPENCV", ("k4", "k5", "k6"), (640, 480), 0.408695),
        ("OpenCV right, k1 k2 p1 p2 k3", right, grid(9, 6), "FULL_OPENCV", ("k4", "k5", "k6"), (640, 480), 0.458636),
        ("fisheye, Kannala-Brandt", fisheye, grid(4, 6), "OPENCV_FISHEYE", (), (640, 720), 0.317124),
    ]  # fmt: skip
    heads = ["set", "views x points", "RMS px", "reference", "steps", "fx", "fy", "cx", "cy", "distortion"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for label, points2d, points3d, model, fixed, size, reference in sets:
        found = pg.calibrate_camera(points2d, points3d, model=model, fixed=fixed, image_size=size)
        pairs = list(zip(found.camera.params.tolist(), found.std.tolist(), strict=True))
        pixels = [f"{value:.2f} ± {std:.2f}" for value, std in pairs[:4]]
        rest = ", ".join(f"{value:.4f} ± {std:.4f}" for value, std in pairs[4:] if std > 0)
        shape = f"{points2d.shape[0]} x {points2d.shape[1]}"
        cells = [label, shape, f"{found.rms.item():.6f}", f"{reference:.6f}", str(found.num_steps.item())]
        print("| " + " | ".join([*cells, *pixels, rest or "none"]) + " |")


if __name__ == "__main__":
    main()
