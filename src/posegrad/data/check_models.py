"""Checking the meshes of a dataset and its models_info.json."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.bop_layout import MODEL_FOLDERS
from posegrad.data.check_json import read_object
from posegrad.data.errors import DatasetError
from posegrad.data.findings import Findings
from posegrad.data.mesh import load_mesh, mesh_diameter
from posegrad.data.plausibility import as_float, mesh_fault, positive, short
from posegrad.data.symmetry import symmetry_transforms

_MODEL = re.compile(r"obj_([0-9]{6})\.ply(\.gz)?")
_DIAMETER_OFF, _BOX_OFF = 0.03, 0.03
"""Of what models_info.json says, in diameters: it is made from the original meshes, models_eval are coarser."""


@dataclass
class Model:
    """What is known of an object: its vertices (V, 3), those on the outside alone, and its diameter."""

    vertices: np.ndarray | None = None
    hull: np.ndarray | None = None
    diameter: float | None = None
    absent: bool = False


@dataclass
class Models:
    """The objects by id."""

    by_id: dict[int, Model] = field(default_factory=dict)

    def get(self, object_id: int) -> Model:
        """An empty model where there is none."""
        return self.by_id.get(object_id, Model())


def check_models(root: Path, findings: Findings) -> Models:
    """Reads every mesh, and the models_info.json of every folder of models."""
    models = Models()
    folders = [root / name for name in MODEL_FOLDERS if (root / name).is_dir()]
    if not folders:
        findings.add(
            root, "models", f"no folder of meshes ({', '.join(MODEL_FOLDERS)})",
            "put obj_000001.ply, ... there, millimetres",
        )  # fmt: skip
        return models
    for folder in folders:
        infos = _read_info(folder / "models_info.json", findings)
        meshes = _meshes(folder, findings)
        findings.count("meshes", len(meshes))
        for number, path in sorted(meshes.items()):
            _check_model(number, path, infos, folder / "models_info.json", models, findings)
        for number in sorted(set(infos or {}) - set(meshes)):
            findings.note(
                folder / "models_info.json", "no mesh", f"object {number} has no mesh beside it", "add it"
            )
            diameter = positive((infos or {})[number].get("diameter"))
            models.by_id.setdefault(number, Model(diameter=diameter, absent=True))
    return models


def _read_info(path: Path, findings: Findings) -> dict[int, dict[str, Any]] | None:
    """By object id; None without a file that can be read."""
    if not path.is_file():
        if path.parent.name != "models_color":
            findings.note(path, "absent", "no such file", "diameters are computed from the meshes")
        return None
    content = read_object(path, findings)
    if content is None:
        return None
    found = {}
    for key, entry in content.items():
        if not key.isdigit() or not isinstance(entry, dict):
            findings.add(
                path, "entry", f"{key!r}: expected an object id with its properties",
                'write {"1": {"diameter": .., "min_x": .., "size_x": .., ..}}',
            )  # fmt: skip
            continue
        found[int(key)] = entry
        try:
            symmetry_transforms(entry, max_step=1.0)
        except (DatasetError, OverflowError) as error:
            what, _, fix = str(error).rstrip(".").rpartition(": ")
            findings.add(path, f"symmetry {key}", f"object {key}: {what}", fix)
    return found


def _meshes(folder: Path, findings: Findings) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := _MODEL.fullmatch(path.name):
            found[int(match[1])] = path
        elif path.suffix in (".ply", ".obj", ".stl", ".glb"):
            findings.note(
                path, "name", "is not read", "meshes are called obj_000001.ply, obj_000002.ply, ..."
            )
    return found


def _check_model(
    number: int, path: Path, infos: dict | None, info_path: Path, models: Models, findings: Findings
) -> None:
    try:
        mesh = load_mesh(path)
    except DatasetError as error:
        findings.add(path, "unreadable", _reason(error, path), "copy or download it again")
        models.by_id.setdefault(number, Model())
        return
    vertices = mesh.vertices
    if not np.isfinite(vertices).all():
        findings.add(
            path, "finite", "has vertices that are not finite", "clean the mesh: posegrad data render does"
        )
        return
    if not len(mesh.faces):
        findings.add(
            path,
            "faces",
            "has vertices only, no faces",
            "make a surface of it: outlines and rendering need faces",
        )
    diameter = mesh_diameter(vertices)
    if diameter == 0:
        findings.add(path, "size", "all vertices are in one place", "export the mesh again")
        return
    known = models.by_id.get(number)
    if infos is not None and number in infos:
        stated = positive(infos[number].get("diameter"))
        if stated is not None and (fault := mesh_fault(vertices, stated)):
            file = path if fault.what.startswith("the mesh") else info_path
            findings.add(file, f"unit {number}", f"object {number}: {fault.what}", fault.fix)
            models.by_id.setdefault(number, Model())
            return
        _check_info(number, vertices, diameter, infos[number], info_path, findings)
    elif infos is not None:
        findings.add(
            info_path, f"entry {number}", f"no entry for object {number}, whose mesh is there",
            "compute models_info.json again",
        )  # fmt: skip
    elif known is not None and known.diameter and not 0.9 < diameter / known.diameter < 1.1:
        findings.add(
            path, "other size",
            f"its diameter is {diameter:.4g} mm, that of object {number} elsewhere {known.diameter:.4g} mm",
            "make all meshes millimetres",
        )  # fmt: skip
    if not 1 <= diameter <= 10_000:
        findings.note(
            path, "plausible", f"the object's diameter is {diameter:.3g} mm",
            "BOP's unit is the millimetre; scale it if that is wrong",
        )  # fmt: skip
    if known is None or known.vertices is None:
        models.by_id[number] = Model(vertices, outside(vertices), diameter)


def _reason(error: Exception, path: Path) -> str:
    text = str(error).removeprefix(str(path)).strip()
    return text.rpartition(": ")[0] or text


def _check_info(
    object_id: int, vertices: np.ndarray, diameter: float, info: dict, path: Path, findings: Findings
) -> None:
    stated = positive(info.get("diameter"))
    if stated is None:
        given = short(info.get("diameter"))
        findings.add(
            path, f"diameter {object_id}", f"object {object_id}: diameter is {given}", f"write {diameter:.6g}"
        )
        return
    if abs(stated - diameter) > _DIAMETER_OFF * diameter:
        findings.add(
            path, f"diameter {object_id}",
            f"object {object_id}: the diameter is {stated:.4g} mm, of its mesh {diameter:.4g} mm",
            f"write {diameter:.6g}",
        )  # fmt: skip
    low, size = vertices.min(0), np.ptp(vertices, axis=0)
    for k, axis in enumerate("xyz"):
        for name, value in ((f"min_{axis}", low[k]), (f"size_{axis}", size[k])):
            if name in info and not abs(as_float(info[name]) - value) <= _BOX_OFF * diameter:
                findings.add(
                    path, f"box {object_id}",
                    f"object {object_id}: {name} is {short(info[name])}, of its mesh {value:.4g}",
                    "compute models_info.json again",
                )  # fmt: skip


def outside(vertices: np.ndarray, most: int = 2000) -> np.ndarray:
    """Vertices that are the farthest in one of many directions: enough for the box of a projection."""
    if len(vertices) <= most:
        return vertices
    directions = np.random.default_rng(0).standard_normal((most // 2, 3))
    chosen: set[int] = set()
    for part in np.array_split(directions, 50):
        values = vertices @ part.T
        chosen |= {*values.argmax(0).tolist(), *values.argmin(0).tolist()}
    return vertices[sorted(chosen)]


def check_annotated(models: Models, annotated: Iterable[int], root: Path, findings: Findings) -> None:
    """Every annotated object has a mesh, and every mesh an annotation."""
    annotated = set(annotated)
    there = {number for number, model in models.by_id.items() if not model.absent}
    for number in sorted(annotated - there):
        findings.add(
            root / MODEL_FOLDERS[0], f"mesh {number}",
            f"object {number} is annotated, but there is no obj_{number:06d}.ply", "add the dataset's models",
        )  # fmt: skip
    for number in sorted(there - annotated):
        findings.note(
            root,
            f"never {number}",
            f"object {number} has a mesh, but no annotation",
            "leave it out with --object",
        )
