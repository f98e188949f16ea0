from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import trimesh

from posegrad.data import DatasetError, DatasetFileError, Mesh, load_mesh, mesh_diameter
from posegrad.data.mesh import encode_ply, simplify_mesh


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("colored", [True, False])
@pytest.mark.parametrize("suffix", [".ply", ".ply.gz"])
def test_ply_round_trip_is_exact(tmp_path: Path, single: bool, colored: bool, suffix: str) -> None:
    rng = np.random.default_rng(0)
    vertices = rng.standard_normal((20, 3)) * 100
    if single:
        vertices = vertices.astype(np.float32).astype(np.float64)
    colors = rng.integers(0, 256, (20, 3), dtype=np.uint8) if colored else None
    mesh = Mesh(vertices, rng.permuted(np.tile(np.arange(20), (9, 1)), axis=1)[:, :3], colors)
    raw = encode_ply(mesh)
    assert (b"property float x" in raw) == single
    path = tmp_path / ("mesh" + suffix)
    path.write_bytes(gzip.compress(raw) if suffix.endswith("gz") else raw)
    loaded = load_mesh(path)
    np.testing.assert_array_equal(loaded.vertices, mesh.vertices)
    np.testing.assert_array_equal(loaded.faces, mesh.faces)
    if colors is None:
        assert loaded.colors is None
    else:
        np.testing.assert_array_equal(loaded.colors, colors)


def test_load_mesh_failures_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match=r"No mesh file .*absent\.ply") as caught:
        load_mesh(tmp_path / "absent.ply")
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("No mesh file")
    good = encode_ply(Mesh(np.random.default_rng(0).standard_normal((50, 3)), np.arange(48).reshape(-1, 3)))
    for name, content in (
        ("cut.ply", good[:300]),
        ("text.ply", b"hello"),
        ("cut.ply.gz", gzip.compress(good)[:90]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=name):
            load_mesh(tmp_path / name)


def test_mesh_checks_its_arrays() -> None:
    with pytest.raises(ValueError, match="vertices"):
        Mesh(np.zeros((3, 2)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="faces"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))
    with pytest.raises(ValueError, match="colors"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize("kind", ["cloud", "needle", "ball", "two", "one", "flat"])
def test_diameter_against_all_pairs(kind: str) -> None:
    points = np.random.default_rng(3).standard_normal((1500, 3))
    points = {
        "cloud": points,
        "needle": points * [10, 0.1, 0.1] + 1000,
        "ball": points / np.linalg.norm(points, axis=1, keepdims=True),
        "two": points[:2],
        "one": points[:1],
        "flat": points * [1, 1, 0],
    }[kind]
    expected = max(np.linalg.norm(points - p, axis=1).max() for p in points)
    assert mesh_diameter(points) == pytest.approx(expected, rel=1e-9)


def test_simplified_mesh_keeps_vertices_and_surface() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=50.0)
    colors = np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 3), dtype=np.uint8)
    mesh = Mesh(ball.vertices, ball.faces, colors)
    coarse = simplify_mesh(mesh, 12.0)
    assert 50 < len(coarse.vertices) < len(mesh.vertices) / 4
    distance = np.linalg.norm(mesh.vertices[:, None] - coarse.vertices[None], axis=2)
    source = distance.argmin(0)
    np.testing.assert_array_equal(mesh.vertices[source], coarse.vertices)
    assert coarse.colors is not None
    np.testing.assert_array_equal(colors[source], coarse.colors)
    assert distance.min(1).max() < 12 * np.sqrt(3)
    volume = trimesh.Trimesh(coarse.vertices, coarse.faces, process=False).volume
    assert 0.85 * ball.volume < volume < ball.volume
