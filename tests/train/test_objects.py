"""Several objects in one network: data, loss, evaluation, run folder."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posegrad.data import DatasetError
from posegrad.nn import KeypointPoseNet
from posegrad.pose import Pose
from posegrad.train import (
    DataConfig,
    LossConfig,
    PosePredictor,
    RunError,
    TrainConfig,
    compare,
    evaluate,
    mean_row,
    open_source,
    train,
)
from posegrad.train.build import training_crops
from posegrad.train.evaluation import true_poses
from posegrad.train.lookup import KeypointTable
from posegrad.train.objective import Objective
from posegrad.train.use_config import EvalConfig
from tests.train.objects_samples import Oracle


@pytest.fixture
def both(config: TrainConfig, two_objects: Path) -> TrainConfig:
    return replace(config, data=replace(config.data, root=two_objects))


def test_all_annotated_objects_unless_some_are_named(two_objects: Path) -> None:
    source = open_source(DataConfig(root=two_objects, keypoints=8))
    assert list(source.objects) == [1, 7]
    assert [item.object_id for item in source.train] == [1] * 12 + [7] * 12
    assert [model.symmetric for model in source.objects.values()] == [False, True]
    only = open_source(DataConfig(root=two_objects, keypoints=8, objects=(7,)))
    assert (list(only.objects), len(only.train), only.name) == ([7], 12, "two_objects, object 7")


def test_a_run_with_two_objects(both: TrainConfig) -> None:
    report = train(both)
    out = both.run.out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["objects"] == report.objects
    assert set(report.objects) == {"1", "7"}
    assert [rows["posegrad"]["count"] for rows in report.objects.values()] == [4, 4]
    assert "adds_01d" in report.objects["7"]["posegrad"]
    assert "adds_01d" not in report.objects["1"]["posegrad"]
    assert report.metrics["posegrad"]["count"] == 8
    lines = [line.split("  ")[0] for line in report.table.splitlines()[2:]]
    assert lines == ["object 1", "object 7", "posegrad, mean", "mean pose, mean"]
    assert list(json.loads((out / "keypoints.json").read_text())) == ["1", "7"]
    poses = list(csv.DictReader((out / "poses.csv").read_text().splitlines()))
    failed = sum(
        rows["posegrad"]["failed"] * rows["posegrad"]["count"] / 100 for rows in report.objects.values()
    )
    assert len(poses) == 8 - failed
    for row in poses:
        R = np.array(row["R"].split(), dtype=float).reshape(3, 3)
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-8)
        assert len(row["t"].split()) == 3
        assert 0 <= float(row["score"]) <= 1
        assert row["obj_id"] == ("7" if int(row["im_id"]) % 2 else "1")
    again = evaluate(EvalConfig(run=out))
    assert (again.metrics, again.objects) == (report.metrics, report.objects)
    alone = evaluate(EvalConfig(run=out, objects=(7,)))
    assert alone.metrics == alone.objects["7"] == report.objects["7"]
    with pytest.raises(RunError, match=r"--object: got 3, .* knows \[1, 7\]"):
        evaluate(EvalConfig(run=out, objects=(1, 3)))


def test_novel_views_of_two_objects(both: TrainConfig) -> None:
    both = replace(both, data=replace(both.data, novel_views=1.0, swap_background=1.0))
    (crops,) = training_crops(both, open_source(both.data))
    assert set(crops.novel_views) == {1, 7}
    for index in (0, 23):
        item = crops[index]
        assert int(item["object_id"]) == crops.instances[index].object_id
        assert not np.array_equal(item["R"].numpy(), crops.instances[index].R)


def test_an_item_is_treated_as_by_a_network_of_its_own(two_objects: Path) -> None:
    """Loss of a mixed batch = mean of the losses by two networks with the heads of one object each."""
    torch.manual_seed(0)
    settings = DataConfig(root=two_objects, keypoints=8, image_size=64, augment=0.0)
    source = open_source(settings)
    # different keypoints, or a mix-up would not show
    keypoints = {1: source.keypoints[1], 7: source.keypoints[7][::-1].copy()}
    (crops,) = training_crops(TrainConfig(data=settings), source)
    rows = [crops[k] for k in (0, 13, 2, 15)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    net = KeypointPoseNet(8, "test_efficientnet", num_objects=2, image_size=64, width=8).eval().double()
    config = LossConfig(beta_start=0.0, beta_full=0.0)
    assert net.to_confidence is not None
    with torch.no_grad():
        for head in (net.to_logits.weight, net.to_confidence.from_features, net.to_confidence.bias):
            head.normal_()
        objective = Objective(config, net, KeypointTable(keypoints))
        mixed = objective(objective.see(batch), batch, 1.0)
        counts = objective.counts(batch)
        alone = []
        for position, object_id in enumerate((1, 7)):
            single = KeypointPoseNet(8, "test_efficientnet", image_size=64, width=8).eval().double()
            state = net.state_dict()
            for name in ("to_logits.weight", "to_confidence.from_features"):
                state[name] = state[name][position : position + 1]
            state["to_confidence.bias"] = state["to_confidence.bias"].view(2, 8)[position]
            single.load_state_dict(state)
            part = {name: value[batch["object_id"] == object_id] for name, value in batch.items()}
            own = Objective(config, single, KeypointTable({object_id: keypoints[object_id]}))
            alone.append(own(own.see(part), part, 1.0, counts))
    for name in ("heatmap", "pose", "total"):
        assert float(getattr(mixed, name)) == pytest.approx(
            sum(float(getattr(a, name)) for a in alone), rel=1e-9
        )


def test_an_oracle_scores_100_percent_on_both(two_objects: Path) -> None:
    source = open_source(DataConfig(root=two_objects, keypoints_from="box"))
    found = PosePredictor(Oracle(source), source.keypoints).on(source.test, batch_size=3)
    assert found.ok.all()
    objects = compare(source, found)
    for rows in objects.values():
        assert rows["posegrad"]["add_01d"] == 100
    # exact keypoints: no residual, no uncertainty, full confidence
    assert found.covariance.abs().max() < 1e-9
    torch.testing.assert_close(found.score, torch.ones(8).double())


def test_symmetric_objects_count_by_add_s(two_objects: Path) -> None:
    source = open_source(DataConfig(root=two_objects, keypoints=8))
    true = true_poses(source.test)
    turned = true.R @ torch.diag(torch.tensor([-1.0, -1, 1])).double()
    found = PosePredictor(Oracle(source), source.keypoints).on(source.test)
    objects = compare(source, replace(found, pose=Pose(turned, true.t)))
    mean = mean_row([rows["posegrad"] for rows in objects.values()])
    one, seven = (objects[key]["posegrad"] for key in ("1", "7"))
    assert seven["adds_01d"] > seven["add_01d"]
    assert mean["add_or_adds_01d"] == pytest.approx((one["add_01d"] + seven["adds_01d"]) / 2)
    # what is off by a symmetry is not off, but in ADD
    assert (one["median_rotation_deg"], one["cm5_deg5"], one["projection_5px"]) == (pytest.approx(180), 0, 0)
    assert seven["median_rotation_deg"] < 1e-5
    assert seven["median_projection_px"] < 1e-9
    assert (seven["cm5_deg5"], seven["projection_5px"]) == (100, 100)
    assert "adds_01d" not in mean


def test_keypoints_from_a_file(both: TrainConfig, tmp_path: Path) -> None:
    chosen = [[0, 0, 0], [30, 0, 0], [0, 30, 0], [0, 0, 30], [20, 20, 20]]
    (tmp_path / "k.json").write_text(json.dumps({"1": chosen, "7": chosen}))
    source = open_source(replace(both.data, keypoints_from=str(tmp_path / "k.json")))
    assert source.keypoints[7].tolist() == chosen
    with pytest.raises(RunError, match="--keypoints-from: got nearest"):
        open_source(replace(both.data, keypoints_from="nearest"))


def test_a_bad_symmetry_is_named_with_its_dataset_and_object(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "bad"
    shutil.copytree(dataset, root)
    for path in root.glob("models*/models_info.json"):
        info = json.loads(path.read_text())
        info["1"]["symmetries_continuous"] = [{"axis": [0, 0, 0], "offset": [0, 0, 0]}]
        path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=r"/bad, object 1: symmetries_continuous\[0\]\.axis"):
        open_source(DataConfig(root=root, keypoints=8))
