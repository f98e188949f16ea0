"""The point sets and poses of the paper's public demos, or the package's own of the same kind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import posegrad as pg
from posegrad.data import farthest_point_keypoints, procedural_object
from posegrad.data.procedural import random_rotation
from posegrad.train.errors import RunError

__all__ = ["Scene", "cube_scene", "data_folder", "solid_scene"]

_DEMO = Path("pose6d", "bpnp_demo")
# The demos' factor from the duck's units to those of the poses.
_DUCK_UNIT = 5.86e-6
# RMS distance of the duck's points from their mean, then; the package's object is made as large.
_RADIUS = 0.15


@dataclass(frozen=True)
class Scene:
    """Points (N, 3) and poses of V cameras, float64, one unit; and in words where they come from."""

    points3d: Float[Tensor, "N 3"]
    pose: pg.Pose
    source: str


def data_folder(given: Path | None) -> Path | None:
    """The folder of published data: the one given, else $POSEGRAD_DATA, else ../shared/data if it is there.

    Raises:
        RunError: a folder that was named does not exist.
    """
    named = [("--data", given), ("POSEGRAD_DATA", os.environ.get("POSEGRAD_DATA"))]
    for name, value in named:
        if value:
            folder = Path(value).expanduser()
            if not folder.is_dir():
                raise RunError(f"{name}: no folder {folder}; name the one that holds pose6d/ and calib/")
            return folder
    beside = Path("..", "shared", "data")
    return beside if beside.is_dir() else None


def cube_scene(data: Path | None) -> Scene:
    """The 8 corners of the cube [-1, 1]^3 and one camera."""
    demo = _demo(data)
    if demo is not None:
        return Scene(
            _read(demo / "cube.mat", "pts3d"), _pose(demo, 1), "cube and pose 0 of the paper's demos"
        )
    corners = torch.cartesian_prod(*3 * [torch.tensor([-1.0, 1.0], dtype=torch.float64)])
    return Scene(corners, _own_pose(1), "a cube, and a pose of the package's own")


def solid_scene(data: Path | None, points: int, views: int) -> Scene:
    """Points on an object and cameras about it, which is small against its distance."""
    demo = _demo(data)
    if demo is not None:
        duck = _read(demo / "duck_mesh.mat", "pts3d")
        poses = _read(demo / "poses.mat", "poses")
        for name, wanted, there in (("points", points, len(duck)), ("views", views, len(poses))):
            if wanted > there:
                raise RunError(f"--{name}: got {wanted}, expected at most {there}, as {demo} has")
        return Scene(duck[:points] * _DUCK_UNIT, _pose(demo, views), "duck and poses of the paper's demos")
    vertices = procedural_object(0, spacing=2.0).vertices
    if points > len(vertices):
        raise RunError(
            f"--points: got {points}, expected at most {len(vertices)}, as the package's object has"
        )
    chosen = torch.from_numpy(farthest_point_keypoints(vertices, points))
    chosen = chosen - chosen.mean(0)
    return Scene(
        _RADIUS * chosen / chosen.square().sum(-1).mean().sqrt(),
        _own_pose(views),
        "object and poses of the package's own",
    )


def _demo(data: Path | None) -> Path | None:
    folder = data_folder(data)
    if folder is None:
        return None
    if (folder / _DEMO).is_dir():
        return folder / _DEMO
    if data is not None:
        raise RunError(
            f"--data: {folder} has no folder {_DEMO}; leave --data out to use the package's own points"
        )
    return None


def _read(path: Path, name: str) -> Tensor:
    from scipy.io import loadmat

    try:
        return torch.from_numpy(np.asarray(loadmat(path)[name], dtype=np.float64))
    except Exception as error:  # of many types on a damaged file
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {error}): copy it again") from error


def _pose(demo: Path, views: int) -> pg.Pose:
    rows = _read(demo / "poses.mat", "poses")[:views]
    return pg.Pose.from_rotvec(rows[:, :3], rows[:, 3:])


def _own_pose(views: int) -> pg.Pose:
    """Any rotation, 4 to 20 units away, off the axis by at most a twentieth of the distance (seed 0)."""
    rng = np.random.default_rng(0)
    R = np.stack([random_rotation(rng) for _ in range(views)])
    away = np.r_[4.7, rng.uniform(4, 20, views - 1)]
    aside = rng.uniform(-0.05, 0.05, (views, 2)) * away[:, None]
    return pg.Pose(torch.from_numpy(R), torch.from_numpy(np.column_stack([aside, away])))
