from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from posegrad.data import (
    BopDataset,
    DatasetError,
    Mesh,
    RenderConfig,
    farthest_point_keypoints,
    load_image,
    render_dataset,
    toy_dataset,
)
from posegrad.data.placing import Target, random_pose
from posegrad.data.raycast import RayCaster
from posegrad.data.render import render_frame
from posegrad.data.toy import default_cache

from .conftest import TINY

PLAIN = RenderConfig(train_frames=3, test_frames=1, occluded_share=0)


def target(mesh: Mesh, distance: tuple[float, float] = PLAIN.distance) -> Target:
    return Target(1, RayCaster(mesh), 100.0, distance, np.zeros(3), 0.6)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_layout_and_boxes(toy_root: Path) -> None:
    for split, count in (("train", TINY.train_frames), ("test", TINY.test_frames)):
        dataset = BopDataset(toy_root, split)
        assert dataset.object_ids == [1]
        assert dataset.diameter(1) == 100
        instances = dataset.instances(1)
        assert len(instances) == count
        assert all(item.visibility >= TINY.min_visibility for item in instances)
        vertices = dataset.load_mesh(1, "models").vertices
        info = json.loads((toy_root / split / "000001/scene_gt_info.json").read_text())
        for item in instances:
            assert load_image(item.image_path).shape == (240, 320, 3)
            camera = vertices @ item.R.T + item.t
            pixels = (camera @ item.K.T)[:, :2] / camera[:, 2:]
            x, y, w, h = info[str(item.image_id)][0]["bbox_obj"]
            np.testing.assert_allclose(np.r_[pixels.min(0), pixels.max(0)], [x, y, x + w, y + h], atol=1.6)
            bx, by, bw, bh = item.bbox
            assert bx >= x
            assert by >= y
            assert bx + bw <= x + w
            assert by + bh <= y + h
            assert x > 0
            assert x + w < 319
            assert 400 <= item.t[2] <= 700
            assert -item.R[2, 2] >= 0  # seen from above


def test_occluded_share_and_visibility(toy_root: Path) -> None:
    info = json.loads((toy_root / "train/000001/scene_gt_info.json").read_text())
    shares = [frame[0]["visib_fract"] for frame in info.values()]
    assert 2 <= sum(share < 1 for share in shares) <= 12
    for frame in info.values():
        assert frame[0]["visib_fract"] == frame[0]["px_count_visib"] / frame[0]["px_count_all"]


def test_models_fit_together(toy_root: Path) -> None:
    dataset = BopDataset(toy_root, "test")
    fine, coarse = dataset.load_mesh(1, "models"), dataset.load_mesh(1)
    assert len(coarse.vertices) < len(fine.vertices) / 4
    assert {tuple(v) for v in coarse.vertices} <= {tuple(v) for v in fine.vertices}
    camera = json.loads((toy_root / "camera.json").read_text())
    assert (camera["fx"], camera["cx"], camera["width"]) == (560.0, 159.5, 320)


def colored_box() -> Mesh:
    """A box whose six faces have their own vertices and colours."""
    vertices, faces, colors = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            u, v = np.roll(np.eye(3), axis, axis=1)[1:] * [[1], [sign]]
            n = np.roll(np.eye(3), axis, axis=1)[0] * sign
            start = len(vertices)
            vertices += [25 * (n + a * u + b * v) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
            colors += [np.full(3, 40 + 20 * (2 * axis + (sign + 1) // 2))] * 4
    return Mesh(np.array(vertices), np.array(faces), np.array(colors))


def test_ray_casting_a_box_against_geometry() -> None:
    caster = RayCaster(colored_box())
    K, R, t = np.array([[200.0, 0, 31.5], [0, 200.0, 31.5], [0, 0, 1]]), np.eye(3), np.array([0.0, 0, 225.0])
    window = caster.window(K, R, t, 64, 64)
    # the near face is 50 mm wide at depth 200: 50 px, from 6.5 to 56.5
    assert window[0] <= 6
    assert window[2] >= 58
    hits = caster.cast(K, R, t, (0, 0, 64, 64), 2)
    assert hits.mask.shape == (128, 128)
    assert hits.mask.sum() == 100 * 100
    np.testing.assert_allclose(hits.normal, np.broadcast_to([0, 0, -1], hits.normal.shape), atol=1e-6)
    np.testing.assert_allclose(hits.albedo, 120 / 255, atol=1e-6)  # the face at z = -25: axis 2, sign -1
    np.testing.assert_allclose(np.linalg.norm(hits.direction, axis=1), 1, atol=1e-6)


def test_visible_keypoints_are_inside_the_mask() -> None:
    mesh = colored_box()
    caster = RayCaster(mesh)
    keypoints = farthest_point_keypoints(mesh.vertices, 8) * 0.9
    inside = 0
    config = dataclasses.replace(PLAIN, occluded_share=1.0).frames
    for index in range(6):
        frame = render_frame([target(mesh)], [caster], config, np.random.default_rng([1, index]))
        (label,) = frame.annotations
        camera = keypoints @ label.R.T + label.t
        pixels = np.round((camera @ config.K.T)[:, :2] / camera[:, 2:]).astype(int)
        (whole,) = render_frame([target(mesh)], [], config, np.random.default_rng([1, index])).annotations
        assert whole.mask_visib is not None
        assert label.mask_visib is not None
        np.testing.assert_array_equal(whole.R, label.R)
        assert whole.mask_visib[
            pixels[:, 1], pixels[:, 0]
        ].all()  # all are within the box, so within its silhouette
        assert (label.mask_visib & ~whole.mask_visib).sum() == 0
        assert label.px_count_visib == label.mask_visib.sum()
        assert label.px_count_all == whole.mask_visib.sum()
        rows, columns = np.nonzero(label.mask_visib)
        assert tuple(label.bbox_visib) == (columns.min(), rows.min(), np.ptp(columns), np.ptp(rows))
        inside += label.px_count_visib < label.px_count_all
    assert inside >= 5


def test_only_the_masked_pixels_show_the_object() -> None:
    """Frames of two differently coloured boxes, from the same stream, differ inside the mask only."""
    box = colored_box()
    assert box.colors is not None
    other = Mesh(box.vertices, box.faces, 255 - box.colors)
    for index in range(4):
        first, second = (
            render_frame([target(m)], [], PLAIN.frames, np.random.default_rng(index)) for m in (box, other)
        )
        assert first.image.dtype == np.uint8
        (label,) = first.annotations
        assert label.mask_visib is not None
        mask = label.mask_visib.astype(np.uint8)
        changed = (first.image != second.image).any(-1)
        grown, shrunk = (
            cv2.dilate(mask, np.ones((7, 7))),
            cv2.erode(mask, np.ones((3, 3))),
        )  # a blur may widen it
        assert not changed[grown == 0].any()
        assert changed[shrunk == 1].mean() > 0.95


@pytest.mark.parametrize("viewpoints", ["hemisphere", "sphere"])
def test_poses_cover_their_range(viewpoints: str) -> None:
    config = RenderConfig(viewpoints=viewpoints, distance=(4, 10))
    rng = np.random.default_rng(0)
    thing = target(colored_box(), config.distance)
    poses = [random_pose(thing, config.frames, rng) for _ in range(600)]
    R, t = np.stack([p[0] for p in poses]), np.stack([p[1] for p in poses])
    np.testing.assert_allclose(np.linalg.det(R), 1)
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    assert 400 <= t[:, 2].min() < 420
    assert 980 < t[:, 2].max() <= 1000
    height = -R[:, 2, 2]  # the camera's direction in the object frame is -R^T e_z; its z part
    if viewpoints == "hemisphere":
        assert height.min() >= 0
        assert height.mean() == pytest.approx(0.5, abs=0.04)
        upright, _ = random_pose(thing, dataclasses.replace(config, in_plane_deg=0).frames, rng)
        assert upright[1, 2] < 0  # the object's z axis points up in the picture
        assert abs(upright[0, 2]) < 1e-12
    else:
        assert height.mean() == pytest.approx(0, abs=0.08)
    center = t[:, :2] / t[:, 2:]
    assert np.ptp(center * config.focal, axis=0).min() > 60


def test_streams_differ_between_splits_and_seeds(toy_root: Path) -> None:
    train, test = (BopDataset(toy_root, split).instances(1) for split in ("train", "test"))
    poses = [item.R for item in (*train, *test)]
    assert min(np.abs(a - b).max() for k, a in enumerate(poses) for b in poses[:k]) > 1e-3


def test_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    for workers in (1, 3):
        render_dataset(tmp_path / str(workers), PLAIN, workers=workers, progress=False)
    one, three = contents(tmp_path / "1"), contents(tmp_path / "3")
    assert len(one) > 10
    assert one == three


@pytest.mark.parametrize(
    ("split", "frame", "t", "visibility", "mean"),
    [
        ("train", 13, (-77.900821, 7.852283, 635.512251), 0.883145, (107.29845, 110.15349, 107.01694)),
        ("test", 3, (7.102237, -16.266787, 500.490241), 0.668508, (129.86083, 130.28589, 123.00117)),
    ],
)
def test_the_embedded_dataset_stays_as_it_is(
    toy_root: Path, split: str, frame: int, t: tuple, visibility: float, mean: tuple
) -> None:
    """Its cache and published results are named by the settings: other content needs another RENDERER_VERSION."""
    item = BopDataset(toy_root, split).instances(1)[frame]
    np.testing.assert_allclose(item.t, t, atol=1e-6)
    assert item.visibility == pytest.approx(visibility, abs=1e-6)
    np.testing.assert_allclose(load_image(item.image_path).mean((0, 1)), mean, atol=0.01)


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fake(root: Path, config: RenderConfig, **_: object) -> None:
        calls.append(config)
        (root / "done").write_text("x")

    monkeypatch.setattr("posegrad.data.toy.render_dataset", fake)
    first = toy_dataset(tmp_path / "cache", PLAIN, progress=False)
    assert toy_dataset(tmp_path / "cache", PLAIN, progress=False) == first
    assert len(calls) == 1
    assert toy_dataset(tmp_path / "cache", dataclasses.replace(PLAIN, seed=2), progress=False) != first
    assert len(calls) == 2
    assert sorted(p.name[:4] for p in (tmp_path / "cache").iterdir()) == ["toy-", "toy-"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: Path, config: RenderConfig, **_: object) -> None:
        (root / "half").write_text("x")
        raise KeyboardInterrupt

    monkeypatch.setattr("posegrad.data.toy.render_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy_dataset(tmp_path / "cache", PLAIN, progress=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_losing_a_race_takes_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = toy_dataset_name(tmp_path, monkeypatch)

    def slow(root: Path, config: RenderConfig, **_: object) -> None:
        final.mkdir()
        (final / "winner").write_text("x")
        (root / "loser").write_text("x")

    monkeypatch.setattr("posegrad.data.toy.render_dataset", slow)
    assert toy_dataset(tmp_path, PLAIN, progress=False) == final
    assert [p.name for p in final.iterdir()] == ["winner"]
    assert list(tmp_path.iterdir()) == [final]


def toy_dataset_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr("posegrad.data.toy.render_dataset", lambda root, config, **_: None)
        final = toy_dataset(tmp_path, PLAIN, progress=False)
    final.rmdir()
    return final


def test_cache_folder_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("POSEGRAD_CACHE", raising=False)
    assert default_cache() == tmp_path / ".cache" / "posegrad"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "posegrad"
    monkeypatch.setenv("POSEGRAD_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    (tmp_path / "mine").write_text("a file, not a folder")
    with pytest.raises(DatasetError, match="POSEGRAD_CACHE"):
        toy_dataset(config=PLAIN, progress=False)


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match="viewpoints"):
        RenderConfig(viewpoints="below")
    with pytest.raises(ValueError, match=r"320 x 240 px frames"):
        RenderConfig(distance=(2.0, 7.0))
    with pytest.raises(ValueError, match="near <= far"):
        RenderConfig(distance=(7.0, 4.0))
