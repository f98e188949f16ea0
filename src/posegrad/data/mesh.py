"""Triangle meshes in millimetres, and their PLY files."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.errors import DatasetError, DatasetFileError


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in its object frame.

    Args:
        vertices: (V, 3) float64, millimetres.
        faces: (F, 3) int64, indices into `vertices`, counter-clockwise seen from outside.
        colors: (V, 3) uint8 RGB, or None.

    Raises:
        ValueError: for other shapes, or indices out of range.

    >>> tetrahedron = Mesh(40 * np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]]))
    >>> tetrahedron.vertices.shape, tetrahedron.faces.shape
    ((4, 3), (4, 3))
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices, dtype=np.float64)
        faces = np.asarray(self.faces, dtype=np.int64).reshape(-1, 3)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
            raise ValueError(f"vertices: expected (V, 3) with V >= 1, got shape {vertices.shape}.")
        if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise ValueError(
                f"faces: expected indices in [0, {len(vertices)}), got {faces.min()}..{faces.max()}."
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        if self.colors is not None:
            colors = np.asarray(self.colors, dtype=np.uint8)
            if colors.shape != vertices.shape:
                raise ValueError(f"colors: expected {vertices.shape} like vertices, got {colors.shape}.")
            object.__setattr__(self, "colors", colors)


def load_mesh(path: str | Path) -> Mesh:
    """Reads a PLY mesh (`.ply` or `.ply.gz`, ascii or binary); vertex order is kept.

    Raises:
        DatasetError: not a readable PLY mesh; DatasetFileError (also a FileNotFoundError): no such file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mesh.ply"
    ...     _ = path.write_bytes(encode_ply(Mesh(40 * np.eye(3), np.array([[0, 1, 2]]))))
    ...     load_mesh(path).vertices[0]
    array([40.,  0.,  0.])
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise DatasetFileError(f"No mesh file {path}: check the path or download the dataset's models.")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        loaded: Any = trimesh.load_mesh(io.BytesIO(raw), file_type="ply", process=False)
        colors = np.array(loaded.visual.vertex_colors)[:, :3] if loaded.visual.kind == "vertex" else None
        return Mesh(np.array(loaded.vertices), np.array(loaded.faces), colors)
    except Exception as error:  # trimesh raises many types on a damaged file
        raise DatasetError(
            f"{path} is not a readable PLY mesh ({type(error).__name__}: {error}): copy or download it again."
        ) from error


def encode_ply(mesh: Mesh) -> bytes:
    """The mesh as a binary PLY; coordinates are stored as float where that is exact, else as double."""
    single = np.array_equal(mesh.vertices.astype(np.float32).astype(np.float64), mesh.vertices)
    kind, dtype = ("float", "<f4") if single else ("double", "<f8")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    header += [f"property {kind} {axis}" for axis in "xyz"]
    fields: list[tuple] = [("position", dtype, (3,))]
    if mesh.colors is not None:
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
        fields.append(("color", "u1", (3,)))
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header"]
    vertices = np.empty(len(mesh.vertices), dtype=fields)
    vertices["position"] = mesh.vertices
    if mesh.colors is not None:
        vertices["color"] = mesh.colors
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("index", "<i4", (3,))])
    faces["count"], faces["index"] = 3, mesh.faces
    return ("\n".join(header) + "\n").encode() + vertices.tobytes() + faces.tobytes()


def mesh_diameter(vertices: np.ndarray) -> float:
    """The largest distance between two vertices, exact, in the vertices' unit.

    Only pairs that can be the farthest are compared: |a - b| >= L needs |a - c| + |b - c| >= L.

    >>> mesh_diameter(np.array([[0.0, 0, 0], [3, 0, 0], [3, 4, 0]]))
    5.0
    """
    points = np.unique(np.asarray(vertices, dtype=np.float64), axis=0)
    if len(points) < 2:
        return 0.0
    center = (points.min(0) + points.max(0)) / 2
    radius = np.linalg.norm(points - center, axis=1)
    best, start = 0.0, points[radius.argmax()]
    for _ in range(4):  # farthest-of-farthest sweeps: a lower bound, usually the answer
        distance = np.linalg.norm(points - start, axis=1)
        best, start = max(best, float(distance.max())), points[distance.argmax()]
    order = np.argsort(-radius)
    candidates, radius = points[order], radius[order]
    squares, largest = (candidates**2).sum(1), best**2
    for i in range(0, len(candidates), 512):
        if 2 * radius[i] < best:
            break
        # partners farther out than those of this chunk were compared before
        stop = int(np.searchsorted(-radius, radius[i] - best + 1e-9 * best, side="right"))
        if stop <= i:
            continue
        chunk, others = candidates[i : i + 512], candidates[i:stop]
        pair = squares[i : i + 512, None] + squares[None, i:stop] - 2 * chunk @ others.T
        j, k = np.unravel_index(pair.argmax(), pair.shape)
        largest = max(largest, float(((chunk[j] - others[k]) ** 2).sum()))
    return float(np.sqrt(largest))


def simplify_mesh(mesh: Mesh, cell: float) -> Mesh:
    """A coarser mesh of the same surface: one of the original vertices per occupied grid cell of side `cell`.

    The vertex nearest to its cell's mean is kept, with its colour; faces that collapse are dropped.
    """
    keys = np.floor((mesh.vertices - mesh.vertices.min(0)) / cell).astype(np.int64)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = int(group.max()) + 1
    members = np.bincount(group, minlength=count)
    means = (
        np.stack([np.bincount(group, mesh.vertices[:, k], count) for k in range(3)], axis=1)
        / members[:, None]
    )
    away = ((mesh.vertices - means[group]) ** 2).sum(1)
    order = np.lexsort((away, group))  # by group, nearest to the mean first
    kept = order[np.r_[0, np.cumsum(members)[:-1]]]
    faces = group[mesh.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return Mesh(mesh.vertices[kept], faces[whole], None if mesh.colors is None else mesh.colors[kept])
