"""Scores of results files: BOP's matching by hand-made cases, its published numbers on real results."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posegrad.cli import main
from posegrad.data import (
    Annotation,
    BopDataset,
    BopWriter,
    DatasetError,
    PoseEstimate,
    PoseTarget,
    write_bop_results,
)
from posegrad.nn import adds
from posegrad.pose import Pose
from posegrad.train import bop_scores, score
from posegrad.train.scoring import _adds, count_matches
from tests.data.bop_samples import box_mesh

K = np.array([[500.0, 0, 160], [0, 500, 120], [0, 0, 1]])
HALF_TURN = np.diag([-1.0, -1, 1, 1]).ravel().tolist()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PoseEstimate]]:
    """Four pictures of two boxes, object 2 twice in each, object 5 symmetric; and the true poses as estimates."""
    root, rng, truth = tmp_path_factory.mktemp("scene"), np.random.default_rng(0), []
    with BopWriter(root, "test") as writer:
        writer.add_model(2, box_mesh())
        writer.add_model(5, box_mesh(), symmetries_discrete=[HALF_TURN])
        for image in range(4):
            labels = []
            for object_id, visible in ((2, 500), (2, 900), (5, 700)):
                R = Rotation.random(rng=rng).as_matrix()
                t = rng.uniform([-60, -60, 500], [60, 60, 900])
                labels.append(Annotation(object_id, R, t, (9, 9, 30, 30), (9, 9, 30, 30), 1000, visible))
                truth.append(PoseEstimate(1, image, object_id, visible / 1000, R, t))
            writer.add_frame(1, image, np.zeros((240, 320, 3), np.uint8), K, labels)
    counts = {2: 2, 5: 1}
    targets = [
        {"scene_id": 1, "im_id": image, "obj_id": i, "inst_count": n}
        for image in range(4)
        for i, n in counts.items()
    ]
    (root / "test_targets_bop19.json").write_text(json.dumps(targets))
    return root, truth


def test_true_poses_score_everything(scene: tuple[Path, list[PoseEstimate]]) -> None:
    root, truth = scene
    scores = bop_scores(BopDataset(root), truth)
    assert list(scores) == [2, 5, None]
    assert [scores[key].count for key in scores] == [8, 4, 12]
    for row in scores.values():
        assert (row.mssd, row.mspd, row.add, row.adds) == (1, 1, 1, 1)


def test_a_symmetric_pose_is_as_good_but_for_add(scene: tuple[Path, list[PoseEstimate]]) -> None:
    root, truth = scene
    turned = [replace(item, R=item.R @ np.diag([-1.0, -1, 1])) for item in truth]
    scores = bop_scores(BopDataset(root), turned)
    assert (scores[5].mssd, scores[5].mspd, scores[5].add, scores[5].adds) == (1, 1, 0, 1)
    assert max(scores[2].mssd, scores[2].add, scores[2].adds) < 0.5


def test_what_is_missing_or_scored_low_is_not_found(scene: tuple[Path, list[PoseEstimate]]) -> None:
    """Of two instances two estimates count: a false one of a higher score takes the place of a right one."""
    root, truth = scene
    first = [item for item in truth if item.image_id != 3]
    assert bop_scores(BopDataset(root), first)[None].mssd == pytest.approx(9 / 12)
    wrong = [replace(item, score=5.0, t=item.t + 400) for item in truth if item.score == 0.9]
    assert bop_scores(BopDataset(root), truth + wrong)[2].mssd == pytest.approx(4 / 8)
    low = [replace(item, score=-1.0) for item in wrong]
    assert bop_scores(BopDataset(root), truth + low)[2].mssd == 1


def test_the_most_visible_instances_are_the_targets(scene: tuple[Path, list[PoseEstimate]]) -> None:
    root, truth = scene
    target = [PoseTarget(1, 0, 2, count=1)]
    hidden, plain = (item for item in truth if (item.image_id, item.object_id) == (0, 2))
    assert bop_scores(BopDataset(root), [hidden], target)[None].mssd == 0
    assert bop_scores(BopDataset(root), [plain], target)[None].mssd == 1


def test_pixels_are_those_of_an_image_640_wide(scene: tuple[Path, list[PoseEstimate]]) -> None:
    """A shift of 12 px of 320 is one of 24 px, within six of the ten thresholds."""
    root, truth = scene
    target = [PoseTarget(1, 0, 5, count=1)]
    (item,) = (item for item in truth if (item.image_id, item.object_id) == (0, 5))
    corners = box_mesh().vertices @ item.R.T + item.t
    shift = 12 / (500 / corners[:, 2].min())
    moved = replace(item, t=item.t + np.array([shift, 0, 0]))
    assert bop_scores(BopDataset(root), [moved], target)[None].mspd == pytest.approx(0.6)


def test_matching_is_greedy_by_score() -> None:
    """Each estimate takes the nearest instance that is left, though another assignment would find more."""
    errors = np.array([[0.3, 0.4, 9.0], [0.35, 9.0, 9.0], [9.0, 0.1, 0.2]])
    assert count_matches(errors, [0.05, 0.15, 0.25, 0.32, 0.5]).tolist() == [0, 1, 1, 2, 2]


def test_far_apart_instances_are_matched_whatever_their_order() -> None:
    errors = np.where(np.eye(3, dtype=bool), 0.1, 5.0)
    for order in permutations(range(3)):
        assert count_matches(errors[list(order)], [0.05, 0.2]).tolist() == [0, 3]


def test_the_tree_finds_the_nearest_points() -> None:
    rng = np.random.default_rng(3)
    R = torch.from_numpy(Rotation.random(10, rng=rng).as_matrix())
    t = torch.from_numpy(20 * rng.standard_normal((10, 3)))
    vertices = 30 * rng.standard_normal((200, 3))
    pose, true = Pose(R[:5], t[:5]), Pose(R[5:], t[5:])
    expected = adds(pose, true, torch.from_numpy(vertices)).numpy()
    np.testing.assert_allclose(_adds(pose, true, vertices), expected, rtol=1e-12)


def test_without_a_list_of_targets_all_that_is_visible_is_one(
    scene: tuple[Path, list[PoseEstimate]], tmp_path: Path
) -> None:
    root, truth = scene
    for name in ("models", "test"):
        (tmp_path / name).symlink_to(root / name)
    estimates = [replace(item, t=item.t * (1 + 0.04 * item.image_id)) for item in truth]
    write_bop_results(tmp_path / "a.csv", estimates)
    report = score(tmp_path / "a.csv", tmp_path)
    assert report.scores == bop_scores(BopDataset(root), estimates)
    assert report.table.endswith("targets are all annotated instances that are at least a tenth visible")
    assert "at least a tenth" not in score(tmp_path / "a.csv", root).table


def test_wrong_files_are_named(scene: tuple[Path, list[PoseEstimate]], tmp_path: Path) -> None:
    root, truth = scene
    with pytest.raises(DatasetError, match=r"None of the 12 estimates is of one of the 8 targets"):
        bop_scores(BopDataset(root), [replace(item, scene_id=7) for item in truth])
    with pytest.raises(DatasetError, match="object 5 is not annotated in scene 1, image 9"):
        bop_scores(BopDataset(root), truth, [PoseTarget(1, i, 5, 1) for i in (0, 9)])
    with pytest.raises(DatasetError, match="list of targets is empty"):
        bop_scores(BopDataset(root), truth, [])
    (tmp_path / "targets.json").write_text('[{"im_id": 1, "obj_id": 2, "scene_id": 1}]')
    write_bop_results(tmp_path / "a.csv", truth)
    with pytest.raises(DatasetError, match=r"targets.json, entry 0: expected integers .* inst_count"):
        score(tmp_path / "a.csv", root, targets=tmp_path / "targets.json")


def test_the_command_prints_a_table(
    scene: tuple[Path, list[PoseEstimate]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, truth = scene
    write_bop_results(tmp_path / "a.csv", truth)
    assert main(["score", str(tmp_path / "a.csv"), "--data", str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["all", *["100.00"] * 4, "12"]
    assert main(["score", str(tmp_path / "none.csv"), "--data", str(root)]) == 2
    assert "No results file" in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "ar_mssd", "ar_mspd", "correct_add"),
    [
        ("megapose", 0.49411764705882344, 0.6067128027681661, 0.3529),  # published, published, computed
        ("yufuwang_keypoints", 0.588581315, 0.795155709, 0.3709),  # computed
    ],
)
def test_published_scores(
    lmo_root: Path, name: str, ar_mssd: float, ar_mspd: float, correct_add: float
) -> None:
    scores = score(lmo_root / "results" / f"{name}_lmo-test.csv", lmo_root).scores[None]
    assert scores.count == 1445
    assert scores.mssd == pytest.approx(ar_mssd, abs=1e-6)
    assert scores.mspd == pytest.approx(ar_mspd, abs=1e-6)
    assert scores.add == pytest.approx(correct_add, abs=5e-5)
