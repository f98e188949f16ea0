"""Poses in boxes: the predictor, detections in place of annotated boxes, and the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import posegrad as pg
from posegrad import cli
from posegrad.data import Detection, load_image
from posegrad.nn import heatmap_moments, heatmap_spread
from posegrad.train import PosePredictor, TrainConfig, evaluate, open_source, train
from posegrad.train.detected import match
from posegrad.train.frames import frames
from posegrad.train.predictor import UNDETECTED
from posegrad.train.use_config import EvalConfig


@pytest.fixture(scope="module")
def run(two_objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two objects."""
    out = tmp_path_factory.mktemp("predictor") / "run"
    words = [
        *("train", "--data", str(two_objects), "--out", str(out), "--steps", "2", "--batch-size", "8"),
        *("--image-size", "64", "--keypoints", "8", "--backbone", "test_efficientnet", "--width", "16"),
        *("--pictures", "0", "--precision", "float32"),
    ]
    assert cli.main(words) == 0
    return out


def test_a_call_finds_what_evaluation_finds(run: Path, two_objects: Path) -> None:
    predictor = PosePredictor.load(run)
    assert predictor.object_ids == [1, 7]
    source = open_source(replace(TrainConfig().data, root=two_objects), predictor.keypoints)
    found = predictor.on(source.test)
    for k in (0, 5):
        item = source.test[k]
        camera = pg.cameras.from_opencv(torch.from_numpy(item.K), torch.zeros(4, dtype=torch.float64))
        for given in (item.K, camera):
            one = predictor(load_image(item.image_path), given, [item.bbox], [item.object_id], [0.5])
            torch.testing.assert_close(one.points2d[0], found.points2d[k], atol=1e-3, rtol=0)
            torch.testing.assert_close(one.score[0], 0.5 * found.score[k], rtol=1e-3, atol=0)
            torch.testing.assert_close(one.moments[0], found.moments[k], rtol=1e-4, atol=1e-3)
    assert torch.equal(found.ok, found.status == int(pg.Status.CONVERGED))
    assert found.covariance.isfinite().all()
    assert (found.covariance[found.ok].diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (torch.linalg.eigvalsh(found.moments) > 0).all()


def test_moments_agree_with_the_spread() -> None:
    p = torch.rand(2, 3, 8, 12, dtype=torch.float64).flatten(-2).softmax(-1).view(2, 3, 8, 12)
    moments = heatmap_moments(p, 4)
    torch.testing.assert_close(moments.diagonal(dim1=-2, dim2=-1).sqrt(), heatmap_spread(p, 4))
    v, u = torch.meshgrid(torch.arange(8.0).double(), torch.arange(12.0).double(), indexing="ij")
    mixed = 16 * ((p * u * v).sum((-2, -1)) - (p * u).sum((-2, -1)) * (p * v).sum((-2, -1)))
    torch.testing.assert_close(moments[..., 0, 1], mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((8, 8), np.uint8)}, "image: got"),
        ({"boxes": [[1, 2, 3]]}, "boxes: got shape"),
        ({"boxes": [[1, 2, 3, 0]]}, "w, h > 0"),
        ({"object_ids": None}, r"object_ids: got None, expected one of \[1, 7\]"),
        ({"object_ids": [3]}, "object_ids: got 3"),
        ({"object_ids": [1, 1]}, "object_ids: got 2, expected 1"),
        ({"camera": np.eye(4)}, "camera: got"),
    ],
)
def test_wrong_calls(run: Path, change: dict, message: str) -> None:
    call = {"image": np.zeros((80, 80, 3), np.uint8), "camera": np.eye(3), "boxes": [[9, 9, 20, 20]]}
    with pytest.raises(ValueError, match=message):
        PosePredictor.load(run)(**{**call, "object_ids": [1], **change})


def test_no_boxes_no_poses(run: Path) -> None:
    found = PosePredictor.load(run)(np.zeros((80, 80, 3), np.uint8), np.eye(3), [])
    assert (len(found), found.pose.R.shape, found.moments.shape) == (0, (0, 3, 3), (0, 8, 2, 2))


def test_a_hopeless_item_is_not_ok(run: Path) -> None:
    predictor = PosePredictor.load(run)
    image, bad = np.zeros((80, 80, 3), np.uint8), np.diag([0.0, 90, 1])  # a focal length of zero
    found = predictor(image, bad, [[9, 9, 20, 20]], [1])
    assert not found.ok.any()
    assert (found.score == 0).all()
    assert (found.covariance == 0).all()
    assert found.pose.t.isfinite().all()


def _entries(items: list, score: float = 0.9) -> list[dict]:
    return [
        {
            "scene_id": item.scene_id,
            "image_id": item.image_id,
            "category_id": item.object_id,
            "bbox": item.bbox.tolist(),
            "score": score,
            "time": 0.1,
        }
        for item in items
    ]


def test_evaluation_on_detections(run: Path, two_objects: Path, tmp_path: Path) -> None:
    source = open_source(replace(TrainConfig().data, root=two_objects))
    plain = evaluate(EvalConfig(run=run))
    path = tmp_path / "detections.json"
    worse = [{**entry, "bbox": [0, 0, 9, 9], "score": 0.1} for entry in _entries(source.test)]
    path.write_text(json.dumps(worse + _entries(source.test)))
    exact = evaluate(EvalConfig(run=run, detections=path))
    assert exact.objects == plain.objects  # the true boxes win, and give what annotated ones give
    path.write_text(json.dumps(_entries(source.test[1:])))
    lacking = evaluate(EvalConfig(run=run, detections=path))
    assert lacking.objects["1"]["posegrad"]["undetected"] == 25
    assert lacking.objects["7"]["posegrad"]["undetected"] == 0
    assert lacking.objects["1"]["posegrad"]["failed"] >= 25
    assert "undetected" in lacking.table
    assert json.loads((run / "evaluation.json").read_text())["boxes"] == str(path)


def test_several_instances_take_the_best_detections(two_objects: Path) -> None:
    item = open_source(replace(TrainConfig().data, root=two_objects)).test[0]
    left, right = (replace(item, bbox=np.array([x, 0.0, 10, 10])) for x in (0, 50))

    def detection(x: float, score: float) -> Detection:
        return Detection(item.scene_id, item.image_id, item.object_id, np.array([x, 0.0, 10, 10]), score)

    found = match([left, right], [detection(20, 0.1), detection(2, 0.5), detection(49, 0.9)])
    assert {row: d.score for row, d in found.items()} == {0: 0.5, 1: 0.9}
    assert {row: d.score for row, d in match([left, right], [detection(49, 0.9)]).items()} == {1: 0.9}


def test_placing_leaves_the_others_undetected(run: Path, two_objects: Path) -> None:
    source = open_source(replace(TrainConfig().data, root=two_objects))
    found = PosePredictor.load(run).on(source.test[:2]).placed([3, 1], 4)
    assert (found.status[[0, 2]] == UNDETECTED).all()
    assert not found.ok[[0, 2]].any()
    assert torch.equal(found.pose.R[0], torch.eye(3).double())
    assert found.points2d.isfinite().all()


def test_predict_on_a_dataset(run: Path, two_objects: Path, tmp_path: Path, capsys) -> None:
    folder = two_objects / "test" / "000001" / "rgb"
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(folder), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "8 poses" in printed or "converged" in printed
    lines = (tmp_path / "poses.csv").read_text().splitlines()
    assert lines[0] == "scene_id,im_id,obj_id,score,R,t,time"
    assert {tuple(line.split(",")[:2]) for line in lines[1:]} <= {("1", str(k)) for k in range(8)}
    assert len(list(tmp_path.glob("000001_*_poses.png"))) == 8
    assert float(lines[1].split(",")[-1]) > 0


def test_predict_leaves_out_damaged_pictures(run: Path, two_objects: Path, tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    shutil.copytree(two_objects, root)
    pictures = sorted((root / "test" / "000001" / "rgb").iterdir())
    pictures[2].write_bytes(pictures[2].read_bytes()[:300])
    words = ["predict", str(run), str(pictures[0].parent), "--out", str(tmp_path / "out"), "--no-pictures"]
    assert cli.main(words) == 2
    assert f"{pictures[2].name}" in (error := capsys.readouterr().err)
    assert "or pass --skip-bad" in error
    assert cli.main([*words, "--skip-bad"]) == 0
    assert f"left out: {pictures[2]}" in capsys.readouterr().out
    lines = (tmp_path / "out" / "poses.csv").read_text().splitlines()[1:]
    assert "2" not in {line.split(",")[1] for line in lines}


def test_predict_on_other_images(run: Path, two_objects: Path, tmp_path: Path) -> None:
    source = next((two_objects / "test" / "000001" / "rgb").iterdir())
    image = tmp_path / f"frame_12{source.suffix}"
    shutil.copy(source, image)
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps({"fx": 280, "fy": 280, "cx": 79.5, "cy": 59.5, "width": 160, "height": 120}))
    words = ["predict", str(run), str(image), "--out", str(tmp_path / "out"), "--camera", str(camera)]
    assert cli.main([*words, "--box", "50", "30", "60", "60", "--object", "7"]) == 0
    boxed = (tmp_path / "out" / "poses.csv").read_text().splitlines()
    assert boxed[1].startswith("0,12,7,")
    entry = {"scene_id": 0, "image_id": 12, "category_id": 7, "bbox": [50, 30, 60, 60]}
    other = {**entry, "image_id": 3}
    (tmp_path / "d.json").write_text(json.dumps([entry, other, {**entry, "score": 0.01}]))
    words += ["--detections", str(tmp_path / "d.json"), "--min-score", "0.1"]
    assert cli.main(words) == 0
    detected = (tmp_path / "out" / "poses.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in detected] == [line.rpartition(",")[0] for line in boxed]
    assert cv2.imread(str(tmp_path / "out" / "frame_12_poses.png")) is not None


def test_distortion_that_is_left_out_is_told(run: Path, two_objects: Path, tmp_path: Path, capsys) -> None:
    image = next((two_objects / "test" / "000001" / "rgb").iterdir())
    camera = tmp_path / "camera.json"
    parameters = {"f": 280, "cx": 79.5, "cy": 59.5, "k1": -0.3, "k2": 0}
    camera.write_text(json.dumps({"parameters": parameters, "image_size": [160, 120]}))
    words = ["predict", str(run), str(image), "--out", str(tmp_path / "out"), "--camera", str(camera)]
    assert cli.main(words) == 0
    assert "its distortion (k1) was left out" in capsys.readouterr().out


@pytest.mark.parametrize("side", [1e-9, 1e6, 1e12, 1e300])
def test_a_box_of_impossible_size_is_not_an_error(run: Path, side: float) -> None:
    K = np.array([[280.0, 0, 79.5], [0, 280, 59.5], [0, 0, 1]])
    found = PosePredictor.load(run)(np.zeros((120, 160, 3), np.uint8), K, [[5, 5, side, side]], [7])
    assert found.pose.R.isfinite().all()
    assert found.pose.t.isfinite().all()
    assert 0 <= float(found.score) < 0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "camera is not known: give --camera"),
        (("--K", "280", "280", "79", "59"), "give --detections FILE, or --box"),
        (("--K", "280", "280", "79", "59", "--box", "1", "2", "3", "4"), "say what is in it with --object"),
        (("--K", "280", "280", "79", "59", "--object", "3"), "--object: got 3"),
        (("--K", "280", "280", "999", "59", "--box", "1", "2", "3", "4", "--object", "1"), "principal point"),
        (("--K", "280", "280", "79", "59", "--box", "1", "2", "0", "4"), "--box: got 1.0 2.0 0.0 4.0"),
        (
            ("--camera", "small.json", "--box", "1", "2", "3", "4", "--object", "1"),
            "is for images of 16 x 12 px",
        ),
        (("--camera", "empty.json"), 'expected numbers "fx"'),
        (("--detections", "empty.json", "--K", "280", "280", "79", "59"), "expected a list"),
        (("--detections", "long.json", "--K", "280", "280", "79", "59"), "truncated or not JSON"),
        (("--min-score", "nan"), "--min-score: got nan"),
    ],
)
def test_what_predict_cannot_do(
    run: Path, two_objects: Path, tmp_path: Path, monkeypatch, capsys, options: tuple, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = next((two_objects / "test" / "000001" / "rgb").iterdir())
    shutil.copy(source, f"a{source.suffix}")
    Path("empty.json").write_text("{}")
    Path("long.json").write_text("9" * 5000)
    Path("small.json").write_text('{"fx": 28, "fy": 28, "cx": 8, "cy": 6, "width": 16, "height": 12}')
    capsys.readouterr()
    assert cli.main(["predict", str(run), f"a{source.suffix}", *options]) == 2
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 1
    assert expected in message[0]


def test_ids_of_images_outside_of_a_dataset(tmp_path: Path) -> None:
    for name in ("b3.png", "a7.png"):
        (tmp_path / name).write_bytes(b"")
    assert [f.image_id for f in frames([tmp_path])] == [7, 3]
    (tmp_path / "c.png").write_bytes(b"")
    assert [(f.scene_id, f.image_id) for f in frames([tmp_path])] == [(0, 0), (0, 1), (0, 2)]
    again = [tmp_path / "b3.png", tmp_path, tmp_path / "b3.png"]
    assert [f.path.name for f in frames(again)] == ["b3.png", "a7.png", "c.png"]


def test_training_writes_the_poses_of_the_test_images(config: TrainConfig) -> None:
    train(config)
    assert (
        (config.run.out / "poses.csv").read_text().startswith("scene_id,im_id,obj_id,score,R,t,time\n1,0,1,")
    )
