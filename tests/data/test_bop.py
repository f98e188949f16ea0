from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posegrad.data import (
    BopDataset,
    BopWriter,
    CropDataset,
    DatasetError,
    DatasetFileError,
    farthest_point_keypoints,
    load_image,
    read_split,
)

from .bop_samples import box_mesh, write_tiny


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    written = write_tiny(tmp_path)
    dataset = BopDataset(tmp_path)
    assert dataset.object_ids == [2, 5]
    assert dataset.diameter(2) == pytest.approx(np.sqrt(40**2 + 60**2 + 80**2))
    assert dataset.diameter(5) == 37.5
    assert not dataset.is_symmetric(2)
    assert dataset.is_symmetric(5)
    assert dataset.models_info[5]["symmetries_discrete"] == [np.eye(4).ravel().tolist()]
    np.testing.assert_array_equal(dataset.load_mesh(2).vertices, box_mesh().vertices)
    np.testing.assert_array_equal(dataset.load_mesh(2).faces, box_mesh().faces)
    for number, object_id in enumerate((2, 5)):
        instances = dataset.instances(object_id)
        assert [item.image_id for item in instances] == [0, 10, 20]
        for item in instances:
            image, K, labels = written[item.image_id]
            np.testing.assert_array_equal(load_image(item.image_path), image)
            for got, expected in ((item.K, K), (item.R, labels[number].R), (item.t, labels[number].t)):
                assert got.dtype == np.float64
                np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(item.bbox, [20, 10, 25, 20])
            assert item.visibility == 0.546
            assert (item.scene_id, item.object_id) == (3, object_id)
    mask = load_image(tmp_path / "test/000003/mask_visib/000010_000001.png")[..., 0]
    np.testing.assert_array_equal(mask > 0, written[10][2][1].mask_visib)


def test_matrices_are_row_major(tmp_path: Path) -> None:
    written = write_tiny(tmp_path)
    content = json.loads((tmp_path / "test/000003/scene_gt.json").read_text())
    R = written[0][2][0].R
    assert content["0"][0]["cam_R_m2c"][:3] == R[0].tolist()
    camera = json.loads((tmp_path / "test/000003/scene_camera.json").read_text())
    assert camera["0"]["cam_K"][2] == 31.7


def test_filters_come_before_the_check_for_pictures(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "test/000003/rgb/000010.png").unlink()
    dataset = BopDataset(tmp_path)
    assert [item.image_id for item in dataset.instances(2, image_ids=[20, 0])] == [0, 20]
    with pytest.raises(DatasetFileError, match=r"1 annotated images are missing \(first: .*000010"):
        dataset.instances(2)
    with pytest.raises(DatasetError, match=r"visibility >= 0\.6"):
        dataset.instances(2, min_visibility=0.6)
    assert len(dataset.instances(2, image_ids=[0], min_visibility=0.546)) == 1


def test_absent_things_are_named(tmp_path: Path) -> None:
    write_tiny(tmp_path / "set")
    dataset = BopDataset(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"No object 7 .* present are \[2, 5\]"):
        dataset.instances(7)
    with pytest.raises(DatasetError, match=r"2 of the requested frames have no annotation .*\[4, 9999\]"):
        dataset.instances(2, image_ids=[0, 9999, 4])
    with pytest.raises(FileNotFoundError, match=r"No mesh obj_000007\.ply"):
        dataset.load_mesh(7)
    with pytest.raises(FileNotFoundError, match=r"No dataset folder .*nowhere"):
        BopDataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"No folder 'train' .*: scenes are in test."):
        BopDataset(tmp_path / "set", "train")
    with pytest.raises(FileNotFoundError, match=r"No scene folder .*models"):
        BopDataset(tmp_path / "set", "models")


@pytest.mark.parametrize("name", ["scene_gt.json", "scene_camera.json", "scene_gt_info.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_damaged_json_is_one_sentence(tmp_path: Path, name: str, damage: str) -> None:
    write_tiny(tmp_path)
    path = tmp_path / "test/000003" / name
    text = path.read_text()
    path.write_text(
        {"truncated": text[: len(text) // 2], "empty": "", "other": '{"0": [{"x": 1}], "10": [], "20": []}'}[
            damage
        ]
    )
    with pytest.raises(DatasetError, match=name) as caught:
        BopDataset(tmp_path).instances(2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_truncated_and_missing_pictures(tmp_path: Path, image_format: str) -> None:
    write_tiny(tmp_path, image_format=image_format)
    crops = CropDataset(BopDataset(tmp_path).instances(2), size=16)
    path = tmp_path / f"test/000003/rgb/000010.{image_format}"
    path.write_bytes(path.read_bytes()[:-900])
    assert crops[0]["image"].shape == (3, 16, 16)
    with pytest.raises(DatasetError, match=r"000010.* is truncated or not an image"):
        crops[1]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"No image .*000010"):
        crops[1]


def test_without_gt_info_the_box_is_that_of_the_projected_mesh(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "test/000003/scene_gt_info.json").unlink()
    (tmp_path / "models/models_info.json").unlink()
    dataset = BopDataset(tmp_path)
    assert dataset.diameter(5) == pytest.approx(np.sqrt(10**2 + 20**2 + 30**2))
    item = dataset.instances(5)[1]
    points = item.K @ (item.R @ box_mesh((10, 20, 30)).vertices.T + item.t[:, None])
    pixels = points[:2] / points[2]
    np.testing.assert_allclose(item.bbox[:2], pixels.min(1))
    np.testing.assert_allclose(item.bbox[:2] + item.bbox[2:], pixels.max(1))
    assert item.visibility == 1.0


def test_split_files(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"scene_id": 2, "train": [3, 8], "test": [17], "note": "x"}')
    assert read_split(path) == {"train": [3, 8], "test": [17]}
    for content in ("[1, 2]", '{"a": 1}', '{"train": ["x"]}', '{"train": [1'):
        path.write_text(content)
        with pytest.raises(DatasetError, match=r"split\.json"):
            read_split(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        read_split(tmp_path / "absent.json")


def test_writer_refuses_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_format"):
        BopWriter(tmp_path, "train", image_format="bmp")
    writer = BopWriter(tmp_path, "train")
    image = np.zeros((4, 4, 3), np.uint8)
    writer.add_frame(1, 0, image, np.eye(3), [])
    with pytest.raises(ValueError, match="already added"):
        writer.add_frame(1, 0, image, np.eye(3), [])
    with pytest.raises(ValueError, match="9 numbers"):
        writer.add_frame(1, 1, image, np.eye(2), [])
    with pytest.raises(ValueError, match="uint8"):
        writer.add_frame(1, 2, image.astype(float), np.eye(3), [])


@pytest.mark.real
def test_real_poses_put_the_mesh_onto_the_annotated_boxes(lmo_root: Path) -> None:
    dataset = BopDataset(lmo_root)
    split = read_split(lmo_root / "split.json")
    assert dataset.object_ids == [1, 5, 6, 8, 9, 10, 11, 12]
    info = json.loads((lmo_root / "test/000002/scene_gt_info.json").read_text())
    poses = json.loads((lmo_root / "test/000002/scene_gt.json").read_text())
    for object_id in (1, 5, 9):
        vertices = dataset.load_mesh(object_id).vertices
        assert dataset.diameter(object_id) == pytest.approx(
            np.linalg.norm(np.ptp(vertices, axis=0)), rel=0.35
        )
        instances = dataset.instances(object_id, image_ids=split["train"] + split["test"])
        assert len(instances) > 100
        errors = []
        for item in instances:
            camera = vertices @ item.R.T + item.t
            pixels = (camera @ item.K.T)[:, :2] / camera[:, 2:]
            number = [p["obj_id"] for p in poses[str(item.image_id)]].index(object_id)
            x, y, w, h = info[str(item.image_id)][number]["bbox_obj"]
            errors.append(np.abs(np.r_[pixels.min(0), pixels.max(0)] - [x, y, x + w, y + h]).max())
        assert np.median(errors) < 2.5
        assert np.quantile(errors, 0.95) < 6
    with pytest.raises(FileNotFoundError, match="annotated images are missing"):
        dataset.instances(1)
    keypoints = farthest_point_keypoints(dataset.load_mesh(1).vertices, 16)
    assert np.linalg.norm(keypoints[:, None] - keypoints[None], axis=-1).max() == pytest.approx(
        102.1, abs=1.0
    )
