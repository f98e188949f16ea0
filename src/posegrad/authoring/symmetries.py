"""The symmetries that a user states of a mesh, and whether the mesh has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from posegrad.data import DatasetError, Mesh
from posegrad.data.json_files import read_json
from posegrad.data.render_objects import even_mesh
from posegrad.data.symmetry import symmetry_transforms
from posegrad.train.errors import RunError

_AXIS = re.compile(r"(?:([0-9]+)=)?([xyz])(?::([0-9]+))?")
_MISFIT = 0.05
"""A stated symmetry that moves a point farther off the mesh, in diameters, is doubted."""
_FIT = 0.03
"""An unstated one under which no point moves farther is pointed out; vertices are some 0.02 apart."""
_COLOR_FIT = 12.0
"""... if the colours agree to this many of 255 levels on average."""


def stated_symmetries(
    meshes: Mapping[int, Mesh], axes: Sequence[str], file: Path | None
) -> dict[int, dict[str, Any]]:
    """The symmetry entries of models_info.json by object id.

    Raises:
        RunError, DatasetError: an entry that cannot be read, or of no such object.
    """
    found: dict[int, dict[str, Any]] = {}
    if file is not None:
        found = _from_file(file, meshes)
    for text in axes:
        match = _AXIS.fullmatch(text)
        if match is None or (match[1] is None and len(meshes) > 1) or match[3] in ("0", "1"):
            form = "z or z:4 (a quarter of a turn)" if len(meshes) == 1 else "1=z or 1=z:4, by object id"
            raise RunError(f"--symmetric-axis: got {text}, expected an axis such as {form}")
        number = int(match[1] or next(iter(meshes)))
        if number not in meshes:
            raise RunError(f"--symmetric-axis: got object {number}, expected one of {sorted(meshes)}")
        entry = found.setdefault(number, {})
        for key, value in axis_symmetry(meshes[number], match[2], int(match[3] or 0)).items():
            entry[key] = [*entry.get(key, []), *value]
    return found


def axis_symmetry(mesh: Mesh, axis: str, turns: int) -> dict[str, Any]:
    """The entry for an axis through the centre of the box: any angle for `turns` 0, else multiples of 1 / turns."""
    direction = np.eye(3)["xyz".index(axis)]
    offset = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2 * (1 - direction)
    if turns == 0:
        return {"symmetries_continuous": [{"axis": direction.tolist(), "offset": offset.tolist()}]}
    x, y, z = direction
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrices = []
    for step in range(1, turns):
        angle, matrix = 2 * np.pi * step / turns, np.eye(4)
        R = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        matrix[:3, :3], matrix[:3, 3] = R, offset - R @ offset
        matrices.append(np.round(matrix, 12).ravel().tolist())
    return {"symmetries_discrete": matrices}


def judge_symmetries(mesh: Mesh, info: dict[str, Any]) -> list[str]:
    """Sentences on stated symmetries that the mesh lacks, and on those that it seems to have but nobody stated."""
    probe = _Probe(mesh)
    if info:
        R, t = symmetry_transforms(info, max_step=0.5)
        worst = max(probe.misfit(r, s) for r, s in zip(R, t, strict=True))
        if worst > _MISFIT:
            return [
                f"under the stated symmetry a point of the mesh moves {100 * worst:.0f} % of the diameter off it: "
                f"is it symmetric there?"
            ]
        return []
    found = []
    for axis in "xyz":
        for turns in (0, 4, 2):
            R, t = symmetry_transforms(axis_symmetry(mesh, axis, turns), max_step=0.5)
            if all(probe.same(r, s) for r, s in zip(R, t, strict=True)):
                found.append(f"{axis}:{turns}" if turns else axis)
                break
    if not found:
        return []
    return [
        f"it looks the same when turned about {', '.join(option[0] for option in found)}, yet no symmetry is stated: "
        f"--symmetric-axis {' '.join(found)}, unless something small tells the views apart."
    ]


class _Probe:
    """Points all over the surface with the colours of the nearest vertices of the mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.diameter = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))  # of the box: it is only a scale
        self.points = even_mesh(mesh, self.diameter).vertices
        self.tree = KDTree(self.points)
        self.colors = None
        if mesh.colors is not None:
            nearest = KDTree(mesh.vertices).query(self.points)[1]
            self.colors = mesh.colors[nearest].astype(np.float64)

    def misfit(self, R: np.ndarray, t: np.ndarray) -> float:
        """Largest way of a turned point to the surface, in diameters."""
        return float(self.tree.query(self.points @ R.T + t)[0].max()) / self.diameter

    def same(self, R: np.ndarray, t: np.ndarray) -> bool:
        """Shape and colours agree after the turn."""
        distance, index = self.tree.query(self.points @ R.T + t)
        if distance.max() > _FIT * self.diameter:
            return False
        return self.colors is None or np.abs(self.colors - self.colors[index]).mean() <= _COLOR_FIT


def _from_file(file: Path, meshes: Mapping[int, Mesh]) -> dict[int, dict[str, Any]]:
    content = read_json(file)
    keys = {"symmetries_discrete", "symmetries_continuous"}
    if isinstance(content, dict) and len(meshes) == 1 and keys & set(content):
        content = {str(next(iter(meshes))): content}
    found = {}
    valid = isinstance(content, dict) and all(isinstance(v, dict) and k.isdigit() for k, v in content.items())
    if not valid:
        raise DatasetError(
            f'{file}: expected {{"<object id>": {{"symmetries_discrete": [..], "symmetries_continuous": [..]}}}}.'
        )
    for key, entry in content.items():
        if int(key) not in meshes:
            raise DatasetError(f"{file}: object {key} is none of {sorted(meshes)}: correct its id.")
        symmetry_transforms(entry)  # complains about what is wrong in it
        found[int(key)] = {name: value for name, value in entry.items() if name in keys}
    return found
