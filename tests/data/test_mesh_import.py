from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from posegrad.data import DatasetError, Mesh, mesh_diameter
from posegrad.data.mesh import encode_ply
from posegrad.data.mesh_import import import_mesh
from posegrad.data.render_objects import even_mesh

from .bop_samples import box_mesh


def write(path: Path, mesh: Mesh) -> Path:
    path.write_bytes(encode_ply(mesh))
    return path


@pytest.mark.parametrize(("unit", "factor"), [(None, 1.0), ("mm", 1.0), ("cm", 0.1), ("m", 0.001)])
def test_lengths_become_millimetres(unit: str | None, factor: float, tmp_path: Path) -> None:
    box = box_mesh()
    path = write(tmp_path / "box.ply", Mesh(factor * box.vertices, box.faces))
    notes: list[str] = []
    mesh = import_mesh(path, unit, note=notes.append)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [40, 60, 80], atol=1e-9)
    assert [note.partition(": ")[2][:10] for note in notes] == ["no colours"]


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.001, "diameter is 0.108 mm: probably in another unit; pass --unit m (108 mm)"),
        (0.02, "pass --unit cm (21.5 mm) or --unit m (2.15 m)"),
        (1000.0, "diameter is 108 m: pass --unit if it is so"),
    ],
)
def test_a_size_that_cannot_be_meant(factor: float, words: str, tmp_path: Path) -> None:
    box = box_mesh()
    path = write(tmp_path / "box.ply", Mesh(factor * box.vertices, box.faces))
    with pytest.raises(DatasetError) as error:
        import_mesh(path)
    assert words in str(error.value)
    notes: list[str] = []
    import_mesh(path, "mm", note=notes.append)  # said so: only doubted
    assert any("with --unit mm the object's diameter is" in note for note in notes)


def test_colours_of_textures(tmp_path: Path) -> None:
    """A square with a picture of two halves, as OBJ and GLB."""
    picture = np.zeros((4, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = (250, 0, 0), (0, 0, 250)
    corners = np.array([[-30.0, -30, 0], [30, -30, 0], [30, 30, 0], [-30, 30, 0]])
    square = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    uv, image = (corners[:, :2] + 30) / 60, Image.fromarray(picture)
    materials = {
        "obj": trimesh.visual.material.SimpleMaterial(image=image),
        "glb": trimesh.visual.material.PBRMaterial(baseColorTexture=image),
    }
    for suffix, material in materials.items():
        square.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
        square.export(tmp_path / f"square.{suffix}")
        mesh = import_mesh(tmp_path / f"square.{suffix}")
        assert mesh.colors is not None
        x = mesh.vertices[:, 0]
        assert (mesh.colors[x < -1] == (250, 0, 0)).all()
        assert (mesh.colors[x > 1] == (0, 0, 250)).all()
        assert len(mesh.vertices) > 5000  # fine enough for the edge between them
        np.testing.assert_allclose(mesh_diameter(mesh.vertices), 60 * np.sqrt(2))


def test_colours_of_faces_and_of_vertices(tmp_path: Path) -> None:
    box = trimesh.creation.box((40, 60, 80))
    box.visual.face_colors = np.repeat([[10, 20, 30, 255], [200, 100, 50, 255]], 6, axis=0)
    box.export(tmp_path / "faces.ply")
    mesh = import_mesh(tmp_path / "faces.ply")
    assert mesh.colors is not None
    assert {tuple(c) for c in mesh.colors[mesh.faces[0]].tolist()} == {(10, 20, 30)}
    assert {tuple(c) for c in mesh.colors[mesh.faces[-1]].tolist()} == {(200, 100, 50)}
    ball = trimesh.creation.icosphere(subdivisions=2, radius=20)
    ball.visual.vertex_colors = np.tile([7, 8, 9, 255], (len(ball.vertices), 1))
    ball.export(tmp_path / "vertices.ply")
    mesh = import_mesh(tmp_path / "vertices.ply")
    assert len(mesh.vertices) == len(ball.vertices)
    assert mesh.colors is not None
    assert {tuple(c) for c in mesh.colors.tolist()} == {(7, 8, 9)}


def test_smooth_surfaces_are_smooth_and_edges_are_edges(tmp_path: Path) -> None:
    """An STL file has vertices of its own for every face."""
    ball, box = trimesh.creation.icosphere(subdivisions=3, radius=20), trimesh.creation.box((40, 60, 80))
    ball.export(tmp_path / "ball.stl")
    box.export(tmp_path / "box.stl")
    assert len(import_mesh(tmp_path / "ball.stl").vertices) == len(ball.vertices)
    assert len(import_mesh(tmp_path / "box.stl").vertices) == 6 * 4


def test_parts_of_a_scene_stand_where_it_puts_them(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for number, x in enumerate((0.0, 100.0)):
        scene.add_geometry(
            trimesh.creation.box((20, 20, 20)), transform=trimesh.transformations.translation_matrix([x, 0, 0]),
            node_name=str(number),
        )  # fmt: skip
    scene.export(tmp_path / "two.glb")
    mesh = import_mesh(tmp_path / "two.glb")
    np.testing.assert_allclose([mesh.vertices.min(0), mesh.vertices.max(0)], [[-10] * 3, [110, 10, 10]])
    middle = import_mesh(tmp_path / "two.glb", center=True)
    np.testing.assert_allclose(middle.vertices.min(0), [-60, -10, -10])


def test_broken_parts_are_left_out(tmp_path: Path) -> None:
    box = box_mesh()
    vertices = np.vstack([box.vertices, [[np.nan, 0, 0], [1e9, 0, 0]]])
    faces = np.vstack([box.faces, [[0, 1, 8], [2, 2, 3]]])
    notes: list[str] = []
    mesh = import_mesh(write(tmp_path / "box.ply", Mesh(vertices, faces)), note=notes.append)
    assert len(mesh.faces) == 12
    assert mesh_diameter(mesh.vertices) == pytest.approx(mesh_diameter(box.vertices))
    assert notes[0].startswith("box.ply: 2 of 14 faces")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.ply", None, "No mesh file"),
        ("empty.stl", b"", "is empty"),
        ("text.obj", b"hello", "has no faces"),
        ("text.ply", b"hello", "is not a mesh that can be read"),
        ("text.xyz1", b"hello", "is not a mesh that can be read"),
        ("points.ply", encode_ply(Mesh(np.eye(3), np.zeros((0, 3)))), "point cloud"),
        ("flat.ply", encode_ply(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))), "all faces are degenerate"),
    ],
)
def test_no_mesh(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as error:
        import_mesh(tmp_path / name)
    assert words in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_heavy_mesh_is_simplified(tmp_path: Path) -> None:
    n = 400
    x, y = np.meshgrid(np.linspace(-80, 80, n), np.linspace(-60, 60, n))
    vertices = np.stack([x, y, 20 * np.sin(x / 30)], axis=-1).reshape(-1, 3)
    corner = np.arange((n - 1) * n).reshape(n - 1, n)[:, :-1].ravel()
    quads = np.stack([corner, corner + 1, corner + n + 1, corner + n], axis=1)
    heavy = Mesh(vertices, np.vstack([quads[:, :3], quads[:, [0, 2, 3]]]))
    notes: list[str] = []
    mesh = import_mesh(write(tmp_path / "heavy.ply", heavy), note=notes.append)
    assert 50_000 < len(mesh.faces) <= 300_000
    assert any("318402 faces simplified to" in note for note in notes)
    assert mesh_diameter(mesh.vertices) == pytest.approx(mesh_diameter(vertices), rel=0.01)


def test_meshes_for_evaluation_have_vertices_everywhere() -> None:
    box = box_mesh()
    diameter = mesh_diameter(box.vertices)
    mesh = even_mesh(box, diameter)
    assert 3000 < len(mesh.vertices) < 20_000
    np.testing.assert_allclose(mesh.vertices.min(0), box.vertices.min(0), atol=0.02 * diameter)
    on_surface = np.isclose(np.abs(mesh.vertices), [20, 30, 40]).any(1)
    assert on_surface.all()
