"""Training images of further datasets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from posegrad import cli
from posegrad.data import CropDataset, DatasetError, Mesh, load_mesh
from posegrad.data.mesh import encode_ply
from posegrad.train import DataConfig, TrainConfig, open_source
from posegrad.train.errors import RunError
from posegrad.train.feed import Feed
from posegrad.train.identity import data_hash
from posegrad.train.sampler import Batches


@pytest.fixture
def renders(dataset: Path, tmp_path: Path) -> Path:
    """A second dataset of the same object, with pictures of its own."""
    root = tmp_path / "renders"
    shutil.copytree(dataset, root)
    shutil.rmtree(root / "test")
    return root


def test_they_are_added_to_the_training_images_only(dataset: Path, renders: Path) -> None:
    plain = open_source(DataConfig(root=dataset, keypoints=8))
    source = open_source(DataConfig(root=dataset, keypoints=8, extra_data=(renders, renders)))
    assert plain.extra == []
    assert len(source.extra) == 2 * len(plain.train)
    assert all(renders in item.image_path.parents for item in source.extra)
    assert [item.image_path for item in source.test] == [item.image_path for item in plain.test]
    assert len({data_hash(plain), data_hash(source)}) == 2


def test_a_batch_takes_them_from_their_own_dataset(dataset: Path, renders: Path) -> None:
    source = open_source(DataConfig(root=dataset, keypoints=8, extra_data=(renders,)))
    parts = [CropDataset(source.train[:6], size=32), CropDataset(source.extra[6:10], size=32)]
    batches = Batches(6, 4, seed=0, extra=4, extra_share=0.25)
    for skip_bad in (False, True):
        feed = Feed(parts, batches, workers=0, device=torch.device("cpu"), skip_bad=skip_bad)
        for _, batch in zip(range(8), batches, strict=False):
            crops = feed.next().crops
            for row, (_, index) in enumerate(batch):
                whole = parts[0][index] if index < 6 else parts[1][index - 6]
                assert torch.equal(crops["image"][row], whole["image"])


def test_another_mesh_or_object_is_one_line(dataset: Path, renders: Path) -> None:
    path = renders / "models_eval" / "obj_000001.ply"
    mesh = load_mesh(path)
    path.write_bytes(encode_ply(Mesh(mesh.vertices + np.array([0.0, 5, 0]), mesh.faces)))
    with pytest.raises(RunError, match="differs by 5 mm from that of --data: use the same mesh"):
        open_source(DataConfig(root=dataset, keypoints=8, extra_data=(renders,)))
    scene = renders / "train" / "000001" / "scene_gt.json"
    frames = json.loads(scene.read_text())
    for item in (item for frame in frames.values() for item in frame):
        item["obj_id"] = 3
    scene.write_text(json.dumps(frames))
    with pytest.raises(RunError, match=r"has objects \[3\], none of \[1\]: leave it out, or"):
        open_source(DataConfig(root=dataset, keypoints=8, extra_data=(renders,)))
    with pytest.raises(DatasetError, match=r"No dataset folder .*: pass with --extra-data where it is now"):
        open_source(DataConfig(root=dataset, keypoints=8, extra_data=(renders / "absent",)))


def test_held_out_images_among_them_are_refused(dataset: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [0, 1, 2], "test": [3, 4]}))
    link = tmp_path / "elsewhere"
    link.symlink_to(dataset)
    for root in (dataset, link):
        with pytest.raises(
            RunError, match=r"--extra-data \S+: has 2 of the held-out images, \S+/000003\.jpg"
        ):
            open_source(DataConfig(root=dataset, split=split, keypoints=8, extra_data=(root,)))


def test_settings(tmp_path: Path) -> None:
    config = TrainConfig(data=DataConfig(extra_data=(tmp_path / "a", tmp_path / "b"), extra_share=0.3))
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(RunError, match=r"--extra-share: got 1\.0"):
        DataConfig(extra_share=1.0)


def test_a_run_with_them_is_evaluated_without_them(dataset: Path, renders: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [
        *("train", "--data", str(dataset), "--extra-data", str(renders), "--extra-share", "0.75"),
        *("--out", str(out), "--image-size", "64", "--keypoints", "8", "--backbone", "test_efficientnet"),
        *("--width", "16", "--steps", "3", "--batch-size", "8", "--pictures", "0", "--threads", "1"),
        *("--novel-views", "0.5"),
    ]
    assert cli.main(words) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["training"]["extra_images"] == metrics["training"]["images"] == 24
    assert "trained on 48" in (out / "report.html").read_text()
    shutil.rmtree(renders)
    assert cli.main(["eval", str(out)]) == 0
