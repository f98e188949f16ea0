import numpy as np
import pytest
import torch

from posegrad.pose import Pose
from posegrad.projection import project_points
from posegrad.train import DataConfig, PosePredictor, Source, mean_pose, measure, open_source, table
from posegrad.train.evaluation import intrinsics, true_poses
from tests.train.objects_samples import Oracle


@pytest.fixture(scope="module")
def source(dataset) -> Source:
    return open_source(DataConfig(root=dataset, keypoints=8))


def everything(source: Source) -> torch.Tensor:
    return torch.ones(len(source.test), dtype=torch.bool)


def test_ground_truth_scores_100_percent(source: Source) -> None:
    metrics = measure(true_poses(source.test), everything(source), source.objects[1], source.test)
    assert (metrics["add_01d"], metrics["projection_5px"], metrics["cm5_deg5"]) == (100, 100, 100)
    assert metrics["failed"] == 0
    assert metrics["median_rotation_deg"] < 1e-6
    assert metrics["median_translation_mm"] == 0


def test_add_turns_at_a_tenth_of_the_diameter(source: Source) -> None:
    true = true_poses(source.test)
    for share, expected in ((0.099, 100), (0.101, 0)):
        shift = torch.tensor([0, 0, share * source.objects[1].diameter])
        metrics = measure(Pose(true.R, true.t + shift), everything(source), source.objects[1], source.test)
        assert metrics["add_01d"] == expected
        assert metrics["median_translation_mm"] == pytest.approx(share * source.objects[1].diameter)


def test_failed_items_count_as_wrong(source: Source) -> None:
    ok = everything(source)
    ok[: len(ok) // 4] = False
    metrics = measure(true_poses(source.test), ok, source.objects[1], source.test)
    assert (metrics["add_01d"], metrics["failed"]) == (75, 25)


def test_mean_pose_points_at_the_box(source: Source) -> None:
    baseline = mean_pose(source.train, source.test, source.objects[1].diameter)
    R = baseline.R.numpy()
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    assert np.linalg.det(R[0]) == pytest.approx(1)
    pixels = project_points(torch.zeros(1, 3).double(), intrinsics(source.test), baseline)[:, 0].numpy()
    boxes = np.stack([item.bbox for item in source.test])
    np.testing.assert_allclose(pixels, boxes[:, :2] + boxes[:, 2:] / 2, atol=1e-6)
    ratio = baseline.t[:, 2].numpy() / np.array([item.t[2] for item in source.test])
    # The size of a visible box is a rough measure of depth, but a measure.
    assert np.all((ratio > 0.5) & (ratio < 2.5))


def test_an_oracle_scores_100_percent_through_crops_and_pnp(source: Source) -> None:
    oracle = Oracle(source)
    oracle.train()
    found = PosePredictor(oracle, source.keypoints, padding=1.3).on(source.test, batch_size=3)
    assert oracle.training
    assert found.ok.all()
    true = true_poses(source.test)
    torch.testing.assert_close(found.pose.R, true.R, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.pose.t, true.t, atol=1e-4, rtol=0)
    assert measure(found.pose, found.ok, source.objects[1], source.test)["add_01d"] == 100


def test_table_is_aligned() -> None:
    rows = {
        "posegrad": {"add_01d": 81.25, "median_rotation_deg": 1.234, "count": 300},
        "mean pose": {"add_01d": 3.0, "median_rotation_deg": float("inf"), "count": 300},
    }
    lines = table(rows).splitlines()
    assert len({len(line) for line in lines if line.strip()} - {len(lines[1].rstrip())}) == 1
    assert lines[0].split() == ["ADD-0.1d", "rotation", "images"]
    assert lines[2].split() == ["posegrad", "81.2", "1.23", "300"]
    assert lines[3].split() == ["mean", "pose", "3.0", "inf", "300"]
