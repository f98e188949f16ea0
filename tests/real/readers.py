"""Readers of published problems, in this package's conventions (camera axes x right, y down, z forward)."""

import bz2
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """Views of one planar target: pixels (V, N, 2), target (N, 3), K, distortion in OpenCV's order."""

    points2d: Tensor
    points3d: Tensor
    K: Tensor
    distortion: tuple[float, ...]


def read_zhang(folder: Path) -> Views:
    """Zhang's five images of 1998 with the zero-skew optimum of their calibration."""

    def corners(name: str) -> Tensor:
        return torch.from_numpy(np.loadtxt(folder / name).reshape(-1, 2))

    model = corners("Model.txt")
    return Views(
        points2d=torch.stack([corners(f"data{i}.txt") for i in range(1, 6)]),
        points3d=torch.cat([model, torch.zeros(len(model), 1).double()], 1),
        K=_matrix(832.206941, 832.242516, 304.068342, 206.372447),
        distortion=(-0.228531167, 0.191010561, 0.0, 0.0),
    )


def read_chessboard(folder: Path, side: str, calibration: str) -> Views:
    """OpenCV's ``left`` or ``right`` images under one of the calibrations stored with the corners."""
    stored = json.loads((folder / "corners_and_golden.json").read_text())
    return Views(
        points2d=torch.tensor(list(stored[side]["corners"].values()), dtype=torch.float64),
        points3d=torch.tensor(stored["objp"], dtype=torch.float64),
        K=torch.tensor(stored[side][calibration]["K"], dtype=torch.float64),
        distortion=tuple(stored[side][calibration].get("dist", [0.0] * 4)),
    )


def read_robot_board(folder: Path) -> Views:
    """Eight views of a 9 x 6 board of 23.6 mm from a camera on a robot's arm, factory calibration, metres."""
    stored = json.loads((folder / "corners_and_golden.json").read_text())
    return Views(
        points2d=torch.tensor([view["corners"] for view in stored["views"].values()], dtype=torch.float64),
        points3d=0.0236 * _grid(9, 6),
        K=torch.tensor(stored["K"], dtype=torch.float64),
        distortion=(0.0, 0.0, 0.0, 0.0),
    )


def read_fisheye(folder: Path) -> tuple[Views, Tensor]:
    """26 views through a lens wider than 180 degrees, OPENCV_FISHEYE, and known [rotation vector, translation]."""
    stored = json.loads((folder / "corners_and_golden.json").read_text())
    golden = stored["kannala_brandt4_scipy"]
    params, names = golden["fx_fy_cx_cy_k1..k4"], list(stored["corners"])
    views = Views(
        points2d=torch.tensor([stored["corners"][name] for name in names], dtype=torch.float64),
        points3d=_grid(*map(int, stored["board"].split(" ")[0].split("x"))),
        K=_matrix(*params[:4]),
        distortion=tuple(params[4:]),
    )
    return views, torch.tensor([golden["extrinsics_rvec_tvec"][name] for name in names], dtype=torch.float64)


@dataclass(frozen=True)
class Resection:
    """One camera of a bundle-adjustment problem: its pixels, its points, RADIAL (f, 0, 0, k1, k2), its stored pose."""

    points2d: np.ndarray
    points3d: np.ndarray
    params: np.ndarray
    R: np.ndarray
    t: np.ndarray


def read_bal(path: Path) -> Iterator[Resection]:
    """Cameras of a file of "Bundle Adjustment in the Large".

    There cameras look down -z with y up and ``p = -P_xy / P_z``; turning camera axes and image by half a turn about x
    makes it ``p = P_xy / P_z``.
    """
    numbers = bz2.decompress(path.read_bytes()).split()
    num_cameras, num_points, num_observations = map(int, numbers[:3])
    observations = np.array(numbers[3 : 3 + 4 * num_observations], float).reshape(-1, 4)
    rest = np.array(numbers[3 + 4 * num_observations :], float)
    cameras, points = rest[: 9 * num_cameras].reshape(-1, 9), rest[9 * num_cameras :].reshape(num_points, 3)
    turn = torch.tensor([1.0, -1, -1], dtype=torch.float64).diag()
    for index, camera in enumerate(cameras):
        mine = observations[observations[:, 0] == index]
        R = turn @ torch.linalg.matrix_exp(_hat(torch.from_numpy(camera[:3])))
        yield Resection(
            points2d=mine[:, 2:] * [1, -1],
            points3d=points[mine[:, 1].astype(int)],
            params=np.array([camera[6], 0, 0, camera[7], camera[8]]),
            R=R.numpy(),
            t=camera[3:6] * [1, -1, -1],
        )


def _matrix(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _hat(w: Tensor) -> Tensor:
    x, y, z = w.tolist()
    return w.new_tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _grid(columns: int, rows: int) -> Tensor:
    """Inner corners of a chessboard, row by row, unit squares."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3).double()
