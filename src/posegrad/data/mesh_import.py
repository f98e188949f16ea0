"""Meshes of any common format, made ready for rendering: millimetres, clean, coloured vertex by vertex."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.errors import DatasetError, DatasetFileError
from posegrad.data.mesh import Mesh, mesh_diameter, simplify_mesh

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in a unit."""
PLAUSIBLE_MM = (5.0, 3000.0)
"""Diameters of objects that are not taken for a mistake of the unit."""
_MOST_FACES = 300_000
_TEXTURE_CELLS = 150
"""A texture is sampled at vertices at most 1 / 150 of the diameter apart: finer than pixels at usual distances."""
_FLAT_DEG = 30.0
"""Edges with a sharper bend are drawn as edges, the others as parts of a smooth surface."""
_MOST_CREASED_FACES = 100_000


def import_mesh(
    path: str | Path,
    unit: str | None = None,
    *,
    center: bool = False,
    note: Callable[[str], None] | None = None,
) -> Mesh:
    """Reads a PLY, OBJ, STL, GLB, ... file (whatever trimesh reads) as one mesh in millimetres.

    All parts of a scene become one mesh. Vertex colours, face colours and textures become vertex colours (finer
    triangles where a texture needs them). Faces without area, with vertices that are not finite, and vertices
    without a face are left out; a mesh of more than 300 000 faces is simplified.

    Args:
        path: the file.
        unit: of its coordinates: "mm", "cm" or "m". None: millimetres, where that makes a plausible size.
        center: move the origin to the centre of the bounding box (as in BOP); else the file's frame is kept.
        note: called with one sentence about each thing that was changed or looks odd.

    Raises:
        DatasetError: not a readable mesh, no faces, a flat or implausibly large or small object.

    >>> import tempfile
    >>> from posegrad.data.mesh import encode_ply
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "part.ply"
    ...     mesh = Mesh(0.1 * np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]]))
    ...     _ = path.write_bytes(encode_ply(mesh))
    ...     float(import_mesh(path, "m").vertices.max())
    100.0
    """
    note = note or (lambda sentence: None)
    path = Path(path)
    parts = [_colored(part, path) for part in _parts(path)]
    mesh = _joined(parts)
    kept = _clean(mesh)
    if dropped := len(mesh.faces) - len(kept.faces):
        note(
            f"{path.name}: {dropped} of {len(mesh.faces)} faces have no area or no finite corners: left out."
        )
    if not len(kept.faces):
        raise DatasetError(f"{path}: all faces are degenerate: export the mesh again.")
    if mesh.colors is None:
        note(
            f"{path.name}: no colours: rendered in one grey; a textured mesh makes pictures like photographs."
        )
    mesh = _scaled(kept, unit, path, note)
    if len(mesh.faces) > _MOST_FACES:
        mesh = _simplified(mesh, path, note)
    if center:
        middle = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
        mesh = Mesh(mesh.vertices - middle, mesh.faces, mesh.colors)
    return _creased(mesh)


def _parts(path: Path) -> list[Any]:
    import trimesh

    if not path.is_file():
        raise DatasetFileError(f"No mesh file {path}: check the path.")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path} is empty: export the mesh again.")
    try:
        scene: Any = trimesh.load_scene(path, process=False)
        geometries = scene.dump(concatenate=False)
    except Exception as error:  # trimesh raises many types, of its readers' libraries too
        text = str(error) or "no reason given"
        raise DatasetError(
            f"{path} is not a mesh that can be read ({type(error).__name__}: {text}): "
            f"export it as PLY, OBJ, STL or GLB."
        ) from error
    meshes = [g for g in geometries if isinstance(g, trimesh.Trimesh) and len(g.faces)]
    if not meshes:
        points = sum(len(getattr(g, "vertices", ())) for g in geometries)
        raise DatasetError(
            f"{path} has no faces ({points} points): it is a point cloud or empty; make a surface of it first "
            f"(Poisson reconstruction, say)."
        )
    return meshes


def _colored(part: Any, path: Path) -> Mesh:
    """A part of a scene with vertex colours, or None for colours where the file has none."""
    vertices, faces = np.asarray(part.vertices, dtype=np.float64), np.asarray(part.faces, dtype=np.int64)
    visual = part.visual
    try:
        if visual.kind == "texture" and visual.uv is not None and _image(visual.material) is not None:
            return _textured(vertices, faces, visual, path)
        if visual.kind == "face":
            colors = np.asarray(visual.face_colors)[:, :3]
            return Mesh(
                vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)), np.repeat(colors, 3, axis=0)
            )
        if visual.kind == "texture":
            visual = visual.to_color()
        defined = visual.kind == "vertex"
        return Mesh(vertices, faces, np.asarray(visual.vertex_colors)[:, :3] if defined else None)
    except (ValueError, AttributeError, TypeError, IndexError, OSError) as error:
        raise DatasetError(
            f"{path}: its colours or texture cannot be read ({error}): is the texture file beside it?"
        ) from error


def _image(material: Any) -> Any:
    return getattr(material, "image", None) or getattr(material, "baseColorTexture", None)


def _textured(vertices: np.ndarray, faces: np.ndarray, visual: Any, path: Path) -> Mesh:
    import trimesh

    uv = np.asarray(visual.uv, dtype=np.float64)
    finite = vertices[np.isfinite(vertices).all(1)]
    limit = np.linalg.norm(np.ptp(finite, axis=0)) / _TEXTURE_CELLS if len(finite) else 0.0
    for _ in range(12):
        corners = vertices[faces]
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
        long = np.flatnonzero(edges > limit)
        if not len(long) or len(faces) + 3 * len(long) > _MOST_FACES:
            break
        # neighbours that stay whole leave no gap: the new vertices lie on their straight edges
        divided: Any = trimesh.remesh.subdivide(
            vertices, faces, face_index=long, vertex_attributes={"uv": uv}
        )
        vertices, faces, attributes = divided
        uv = attributes["uv"]
    colors = np.asarray(visual.material.to_color(uv))[:, :3]
    return Mesh(vertices, faces, colors)


def _joined(parts: list[Mesh]) -> Mesh:
    starts = np.cumsum([0] + [len(p.vertices) for p in parts])
    colors = None
    if any(p.colors is not None for p in parts):
        grey = [np.full(p.vertices.shape, 200, np.uint8) if p.colors is None else p.colors for p in parts]
        colors = np.concatenate(grey)
    faces = np.concatenate([p.faces + s for p, s in zip(parts, starts[:-1], strict=True)])
    return Mesh(np.concatenate([p.vertices for p in parts]), faces, colors)


def _clean(mesh: Mesh) -> Mesh:
    """Without degenerate faces and unused vertices."""
    corners = mesh.vertices[mesh.faces]
    finite = np.isfinite(corners).reshape(-1, 9).min(axis=1)
    corners = np.where(finite[:, None, None], corners, 0.0)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    size = np.abs(corners[:, 1:] - corners[:, :1]).max((1, 2))
    return _used(mesh, finite & (area > 1e-12 * size**2))


def _used(mesh: Mesh, keep: np.ndarray) -> Mesh:
    used, faces = np.unique(mesh.faces[keep], return_inverse=True)
    if not len(used):
        return Mesh(mesh.vertices, np.zeros((0, 3)), mesh.colors)
    colors = None if mesh.colors is None else mesh.colors[used]
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3), colors)


def _scaled(mesh: Mesh, unit: str | None, path: Path, note: Callable[[str], None]) -> Mesh:
    diameter = mesh_diameter(mesh.vertices)
    size = diameter * UNITS[unit or "mm"]
    low, high = PLAUSIBLE_MM
    if not low <= size <= high:
        fitting = {name: diameter * mm for name, mm in UNITS.items() if low <= diameter * mm <= high}
        guess = " or ".join(f"--unit {name} ({_length(mm)})" for name, mm in fitting.items())
        if unit is None:
            hint = f"pass {guess}, or --unit mm if it is so" if fitting else "pass --unit if it is so"
            raise DatasetError(
                f"{path}: in millimetres the object's diameter is {_length(size)}: "
                f"{'probably in another unit; ' if fitting else ''}{hint}."
            )
        hint = f"did you mean {guess}?" if fitting else "check --unit."
        note(f"{path.name}: with --unit {unit} the object's diameter is {_length(size)}; {hint}")
    return Mesh(mesh.vertices * UNITS[unit or "mm"], mesh.faces, mesh.colors)


def _length(mm: float) -> str:
    return f"{mm / 1000:.3g} m" if mm >= 1000 else f"{mm:.3g} mm"


def _simplified(mesh: Mesh, path: Path, note: Callable[[str], None]) -> Mesh:
    diameter, cells, before = mesh_diameter(mesh.vertices), 500, len(mesh.faces)
    while len(mesh.faces) > _MOST_FACES:
        mesh = simplify_mesh(mesh, diameter / cells)
        cells = int(cells / 1.3)
    note(f"{path.name}: {before} faces simplified to {len(mesh.faces)}.")
    return _clean(mesh)


def _creased(mesh: Mesh) -> Mesh:
    """With one vertex for all corners of a place that share a smooth patch and a colour: a box is not shaded like a
    ball, nor a ball from an STL file, each face with vertices of its own, like a cut stone."""
    vertices, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces]
    patch = np.zeros(len(faces), dtype=np.int64)
    if len(faces) <= _MOST_CREASED_FACES:  # those of scans are smooth, or too fine for it to matter
        import trimesh

        welded = trimesh.Trimesh(vertices, faces, process=False)
        flat = welded.face_adjacency_angles < np.radians(_FLAT_DEG)
        patch = trimesh.graph.connected_component_labels(welded.face_adjacency[flat], node_count=len(faces))
    color = np.zeros(len(mesh.vertices), dtype=np.int64)
    if mesh.colors is not None:
        color = mesh.colors.astype(np.int64) @ [65536, 256, 1]
    corners = np.stack(
        [faces.reshape(-1), np.repeat(patch, 3), color[mesh.faces].reshape(-1)], axis=1
    ).astype(np.int64)
    unique, index = np.unique(corners, axis=0, return_inverse=True)
    colors = None if mesh.colors is None else unique[:, 2:] // [65536, 256, 1] % 256
    return Mesh(vertices[unique[:, 0]], index.reshape(-1, 3), colors)
