from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posegrad.data import (
    BopDataset,
    CropDataset,
    Instance,
    Mesh,
    NovelViews,
    crop_affine,
    encode_image,
    extract_crop,
    load_image,
    procedural_object,
    texture_mesh,
)
from posegrad.data.raycast import RayCaster

K = np.array([[560.0, 0, 159.5], [0, 560, 119.5], [0, 0, 1]])
# of a box whose corners are counted in binary: the corners of a side, in turn, seen from outside
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
GREY = np.array([90.0, 100, 110])


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return procedural_object(5, spacing=2.0)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """From a rotation vector in degrees."""
    return cv2.Rodrigues(np.radians([x, y, z]))[0]


def photograph(mesh: Mesh, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The mesh's own colours before grey, without light, (240, 320, 3) uint8: the same surface is always the same."""
    hits = RayCaster(mesh).cast(K, R, t, (0, 0, 320, 240), 2)
    layer = np.tile(GREY, (480, 640, 1))
    layer[hits.mask] = 255 * hits.albedo
    return np.round(cv2.resize(layer, (320, 240), interpolation=cv2.INTER_AREA)).astype(np.uint8)


def instance(mesh: Mesh, R: np.ndarray, path: Path, t: np.ndarray | None = None) -> Instance:
    t = np.array([15.0, -10.0, 520.0]) if t is None else t
    pixels = (mesh.vertices @ R.T + t) @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    box = np.concatenate([pixels.min(0), np.ptp(pixels, axis=0)])
    path.write_bytes(encode_image(photograph(mesh, R, t), "png"))
    return Instance(1, 0, 1, path, K, R, t, box, 1.0)


def test_without_a_move_the_crop_stays_the_photograph(mesh: Mesh, tmp_path: Path) -> None:
    item = instance(mesh, rotation(100, 20, -30), tmp_path / "a.png")
    image = load_image(item.image_path)
    affine = crop_affine(item.bbox[:2] + item.bbox[2:] / 2, 1.3 * item.bbox[2:].max(), 128, 0.3)
    drawn = NovelViews(mesh).draw(image, item, item, affine, 128).astype(float)
    difference = np.abs(drawn - extract_crop(image, affine, 128)).mean(2)
    assert difference.mean() < 1.5
    assert np.median(difference[difference > 0]) < 4  # the object's edge is drawn, not copied


def test_a_new_view_is_what_a_camera_there_sees(mesh: Mesh, tmp_path: Path) -> None:
    views = NovelViews(mesh, angle_deg=25)
    item = instance(mesh, rotation(100, 20, -30), tmp_path / "a.png")
    image, rng = load_image(item.image_path), np.random.default_rng(0)
    errors = []
    for _ in range(8):
        moved = views.move(item, rng)
        affine = crop_affine(moved.bbox[:2] + moved.bbox[2:] / 2, 1.3 * moved.bbox[2:].max(), 128, -0.2)
        truth = extract_crop(photograph(mesh, moved.R, moved.t), affine, 128).astype(float)
        drawn = np.abs(views.draw(image, item, moved, affine, 128) - truth).mean(2)
        still = np.abs(extract_crop(image, affine, 128) - truth).mean(2)
        errors.append([drawn.mean(), still.mean()])
        assert drawn.mean() < 2.5  # resampling, and the soft edge
    drawn, still = np.mean(errors, axis=0)
    assert drawn < 0.35 * still


def test_a_move_turns_the_object_about_its_centre(mesh: Mesh, tmp_path: Path) -> None:
    views = NovelViews(mesh, angle_deg=25)
    item = instance(mesh, rotation(100, 20, -30), tmp_path / "a.png")
    center, rng = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2, np.random.default_rng(1)
    angles = []
    for _ in range(50):
        moved = views.move(item, rng)
        np.testing.assert_allclose(moved.R @ center + moved.t, item.R @ center + item.t, atol=1e-9)
        np.testing.assert_allclose(moved.R @ moved.R.T, np.eye(3), atol=1e-12)
        angles.append(np.degrees(np.arccos((np.trace(moved.R @ item.R.T) - 1) / 2)))
        pixels = (mesh.vertices @ moved.R.T + moved.t) @ K.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        # all of it is visible: the box is that of the projected mesh
        whole = [*pixels.min(0), *np.ptp(pixels, axis=0)]
        np.testing.assert_allclose(moved.bbox, whole, atol=1e-9)
    half = replace(item, bbox=item.bbox * (1, 1, 0.5, 1))
    bbox = views.move(half, np.random.default_rng(2)).bbox
    whole = views.move(half, np.random.default_rng(2), whole=True).bbox
    np.testing.assert_allclose(bbox, whole * (1, 1, 0.5, 1), atol=1e-9)
    assert 20 < max(angles) <= 25
    assert min(angles) < 5


def test_the_texture_comes_from_the_photographs(mesh: Mesh, tmp_path: Path) -> None:
    smooth = 127 + 100 * np.sin(mesh.vertices / 15)
    mesh = Mesh(mesh.vertices, mesh.faces, smooth.astype(np.uint8))
    turns = [(a, 0, 0) for a in range(0, 360, 30)] + [(0, a, 0) for a in range(0, 360, 30)]
    items = [instance(mesh, rotation(*turn), tmp_path / f"{k}.png") for k, turn in enumerate(turns)]
    blind = load_image(items[3].image_path).copy()
    blind[:] = (255, 0, 255)  # another object in front of one view
    items[3].image_path.write_bytes(encode_image(blind, "png"))
    textured = texture_mesh(Mesh(mesh.vertices, mesh.faces), items)
    assert textured.colors is not None
    truth = 127 + 100 * np.sin(textured.vertices / 15)
    difference = np.abs(textured.colors - truth).mean(1)
    assert np.median(difference) < 2
    assert np.percentile(difference, 95) < 6


def test_what_no_photograph_sees_gets_the_median(mesh: Mesh, tmp_path: Path) -> None:
    painted = Mesh(mesh.vertices, mesh.faces, np.tile(np.uint8([10, 200, 60]), (len(mesh.vertices), 1)))
    textured = texture_mesh(painted, [instance(painted, rotation(90, 0, 0), tmp_path / "a.png")])
    assert textured.colors is not None
    np.testing.assert_array_equal(np.unique(textured.colors, axis=0), [[10, 200, 60]])
    away = instance(painted, rotation(90, 0, 0), tmp_path / "b.png", np.array([4000.0, 0, 520]))
    np.testing.assert_array_equal(np.unique(np.array(texture_mesh(painted, [away]).colors)), [127])


def test_a_coarse_mesh_is_divided_without_changing_its_shape(tmp_path: Path) -> None:
    box = Mesh(
        40.0 * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]),
        np.array([(a, b, c) for a, b, c, _ in QUADS] + [(a, c, d) for a, _, c, d in QUADS]),
    )
    fine = texture_mesh(box, [instance(box, rotation(20, 30, 0), tmp_path / "a.png")])
    corners = fine.vertices[fine.faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    assert np.median(edges) < 80 / 70
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    assert np.linalg.norm(normals, axis=1).sum() == pytest.approx(6 * 80**2)
    assert np.einsum("ij,ij->", corners.mean(1), normals) / 3 == pytest.approx(80**3)  # still turned outwards
    np.testing.assert_allclose(np.abs(fine.vertices).max(1), 40)
    assert len(fine.vertices) == len(fine.faces) // 2 + 2  # closed: Euler's formula


def test_under_a_light_the_colours_are_those_of_the_mesh(mesh: Mesh, tmp_path: Path) -> None:
    item = instance(mesh, rotation(100, 20, -30), tmp_path / "a.png")
    affine = crop_affine(item.bbox[:2] + item.bbox[2:] / 2, 1.3 * item.bbox[2:].max(), 128)
    red = Mesh(mesh.vertices, mesh.faces, np.tile(np.uint8([100, 0, 0]), (len(mesh.vertices), 1)))
    image, green = load_image(item.image_path), np.full((128, 128, 3), (0, 250, 0), dtype=np.uint8)
    views = NovelViews(red)
    dark, lit = (
        views.draw(image, item, item, affine, 128, background=green, light=np.array([0, 0, z])).astype(int)
        for z in (0.0, -0.5)
    )
    assert tuple(dark[64, 64]) == (100, 0, 0)
    assert tuple(dark[0, 0]) == (0, 250, 0)
    inside = dark[..., 1] == 0
    assert inside.mean() > 0.2
    # the light comes from the camera: nothing gets darker, what faces it by half brighter
    assert (lit[inside][:, 0] >= 100).all()
    assert 140 < lit[inside][:, 0].max() <= 150


def test_crops_from_novel_views_are_reproducible_and_carry_their_pose(toy_root: Path) -> None:
    data = BopDataset(toy_root, "train")
    items, mesh = data.instances(1), data.load_mesh(1)
    options = {"size": 64, "padding": 1.3, "seed": 3}
    first, again = (CropDataset(items, novel_views=NovelViews(mesh, share=0.5), **options) for _ in range(2))
    plain = CropDataset(items, **options)
    changed = 0
    for epoch in range(3):
        for crops in (first, again):
            crops.set_epoch(epoch)
        for index in reversed(range(len(items))):
            a, b, p = first[index], again[index], plain[index]
            assert all(torch.equal(a[name], b[name]) for name in a)
            same = torch.equal(a["R"], p["R"])
            assert torch.equal(a["image"], p["image"]) == same
            changed += not same
    assert 0.3 < changed / (3 * len(items)) < 0.7
