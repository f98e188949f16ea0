"""The problems of ``accuracy.py``: every kind of scene a pose solver meets, each drawn from a stream of its own.

Problem ``i`` of a cell depends on the cell's name and ``i`` alone, so that any cell can be run by itself and a longer
run begins with the problems of a shorter one. Objects are of half side 1 (RMS radius about 1), f = 600.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

Array = NDArray[np.float64]

SHAPES = ("general", "frontal", "tilted", "nearly-planar", "needle", "far", "wide", "origin", "micro", "mega")
POINTS = (3, 4, 5, 6, 8, 12, 50, 500)
NOISES = (0, 1, 5)
FOCAL, CENTRE = 600.0, np.array([320.0, 240.0])
K = torch.tensor([[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]], dtype=torch.float64)
_PLANES, _UNITS = ("frontal", "tilted", "nearly-planar"), {"micro": 1e-6, "mega": 1e6}


@dataclass(frozen=True)
class Cell:
    """One cell of the table; ``noise`` is the standard deviation in pixels."""

    shape: str
    points: int
    noise: int

    def __str__(self) -> str:
        return f"{self.shape}/{self.points}/{self.noise}"


def all_cells() -> Iterator[Cell]:
    return itertools.starmap(Cell, itertools.product(SHAPES, POINTS, NOISES))


@dataclass(frozen=True)
class Problems:
    """A batch, float64; every tenth problem has weights in 1/4 to 4 and, from 5 points on, a tenth masked out."""

    points2d: Tensor
    points3d: Tensor
    weights: Tensor
    mask: Tensor
    R: Tensor
    t: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, items: slice) -> "Problems":
        return Problems(*(getattr(self, field.name)[items] for field in fields(self)))


def stream(cell: Cell, index: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose of one problem."""
    key = zlib.crc32(f"{cell} {purpose}".encode())
    return np.random.Generator(np.random.Philox(key=np.array([key, index], np.uint64)))


def make_problems(cell: Cell, indices: range) -> Problems:
    """Problems of a cell by their numbers."""
    items = [_problem(cell, index) for index in indices]
    return Problems(*(torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True)))


def _problem(cell: Cell, index: int) -> tuple[Array, ...]:
    rng = stream(cell, index, "scene")
    if cell.shape == "wide":
        in_camera = _wide_points(rng, cell.points)
        # the object's own frame is any other
        R, centre = Rotation.random(None, rng).as_matrix(), in_camera.mean(0)
        z, t = (in_camera - centre) @ R, centre
    else:
        z, R, t = _object(rng, cell.shape, cell.points), _orientation(rng, cell.shape, index), _position(rng)
        t = t * (100 / t[2] if cell.shape == "far" else 1)
        in_camera = z @ R.T + t
    if cell.shape == "origin":
        offset = rng.standard_normal(3)
        offset *= 1e4 / np.linalg.norm(offset)
        z, t = z + offset, t - R @ offset
    unit = _UNITS.get(cell.shape, 1.0)
    z, t = z * unit, t * unit
    x = FOCAL * in_camera[:, :2] / in_camera[:, 2:] + CENTRE + cell.noise * rng.standard_normal((len(z), 2))
    weights, mask = np.ones(len(z)), np.ones(len(z), bool)
    if index % 10 == 0:
        weights = 4.0 ** rng.uniform(-1, 1, len(z))
        if len(z) >= 5:
            mask[rng.permutation(len(z))[: max(1, len(z) // 10)]] = False
            x, z = np.where(mask[:, None], x, np.nan), np.where(mask[:, None], z, np.nan)
    return x, z, weights, mask, R, t


def _object(rng: np.random.Generator, shape: str, count: int) -> Array:
    """Random points of a cube, drawn again while they are close to a line (a needle: to a thinner one)."""
    thickness = {"needle": (0.02, 0.02, 1), "nearly-planar": (1, 1, 0.01)}.get(shape, (1, 1, 1))
    thickness = (1, 1, 0) if shape in ("frontal", "tilted") else thickness
    while True:
        z = rng.uniform(-1, 1, (count, 3)) * thickness
        extent = np.linalg.svd(z - z.mean(0), compute_uv=False)
        if extent[1] > 0.3 * min(thickness[0], 1) * extent[0]:
            return z


def _orientation(rng: np.random.Generator, shape: str, index: int) -> Array:
    """Planes at the tilt their name says, either face ahead; needles at least 25 degrees off the line of sight."""
    spin = Rotation.from_euler("z", rng.uniform(-180, 180), degrees=True)
    if shape in _PLANES:
        low, high = {"frontal": (0, 5), "tilted": (30, 65), "nearly-planar": (0, 65)}[shape]
        tilt = 0.0 if shape == "frontal" and index % 2 else rng.uniform(low, high)
        face = Rotation.from_euler("x", 180 * int(rng.integers(2)), degrees=True)
        azimuth = Rotation.from_euler("z", rng.uniform(-180, 180), degrees=True)
        return (azimuth * Rotation.from_euler("x", tilt, degrees=True) * face * spin).as_matrix()
    if shape == "needle":
        lean = Rotation.from_euler(
            "x", np.degrees(np.arccos(rng.uniform(-1, 1) * np.cos(np.radians(25)))), degrees=True
        )
        return (Rotation.from_euler("z", rng.uniform(-180, 180), degrees=True) * lean * spin).as_matrix()
    return Rotation.random(None, rng).as_matrix()


def _position(rng: np.random.Generator) -> Array:
    distance = rng.uniform(4, 8)
    return np.array([*(rng.uniform(-1, 1, 2) * distance / 6), distance])


def _wide_points(rng: np.random.Generator, count: int) -> Array:
    """Points 1 to 3 away all over a field of view of 100 to 140 degrees, the first three at its rim."""
    half = np.radians(rng.uniform(50, 70))
    off_axis = half * np.sqrt(rng.uniform(0, 1, count))
    azimuth = rng.uniform(-np.pi, np.pi, count)
    off_axis[:3] = half * rng.uniform(0.9, 1, 3)
    azimuth[:3] = azimuth[0] + np.radians([0, 120, 240]) + rng.uniform(-0.5, 0.5, 3)
    side = np.sin(off_axis)
    rays = np.stack([side * np.cos(azimuth), side * np.sin(azimuth), np.cos(off_axis)], -1)
    return rng.uniform(1, 3, (count, 1)) * rays
