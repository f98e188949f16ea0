from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posegrad.data import DatasetError, box_keypoints, farthest_point_keypoints, read_keypoints


def naive(points: np.ndarray, count: int) -> np.ndarray:
    """The definition, with all pairwise distances."""
    pairs = ((points[:, None] - points[None]) ** 2).sum(-1)
    chosen = [int(((points - points.mean(0)) ** 2).sum(1).argmax())]
    for _ in range(count - 1):
        chosen.append(int(pairs[:, chosen].min(1).argmax()))
    return points[chosen]


@pytest.mark.parametrize("seed", range(5))
def test_matches_the_naive_definition(seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((300, 3)) * [50, 30, 10] + [7, -3, 1000]
    result = farthest_point_keypoints(points, 20)
    np.testing.assert_array_equal(result, naive(points, 20))
    np.testing.assert_array_equal(result[:8], farthest_point_keypoints(points, 8))


def test_box_corners_come_first_and_ties_go_to_the_lowest_index() -> None:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    points = np.vstack([corners, corners * 0.5])
    result = farthest_point_keypoints(points, 8)
    np.testing.assert_array_equal(result[0], corners[0])
    np.testing.assert_array_equal(result[1], corners[7])
    assert {tuple(row) for row in result} == {tuple(row) for row in corners}


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="vertices: expected"):
        farthest_point_keypoints(np.zeros((4, 2)), 2)
    with pytest.raises(ValueError, match="finite"):
        farthest_point_keypoints(np.array([[0, 0, np.nan]]), 1)
    with pytest.raises(ValueError, match="only 2 distinct"):
        farthest_point_keypoints(np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, 0]]), 3)
    with pytest.raises(ValueError, match="at least 1"):
        farthest_point_keypoints(np.zeros((4, 3)), 0)


CUBE = 100.0 * np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) + 20
FOUR = [[20, 20, 20], [120, 20, 20], [20, 120, 20], [20, 20, 120]]


def test_the_box_has_its_corners_and_centre() -> None:
    rng = np.random.default_rng(0)
    points = box_keypoints(np.vstack([CUBE, 20 + 100 * rng.random((50, 3))]))
    np.testing.assert_array_equal(points[:8], CUBE)
    np.testing.assert_array_equal(points[8], [70, 70, 70])


@pytest.mark.parametrize("content", [FOUR, {"5": FOUR}, {"lmo": {"5": FOUR}, "tless": {"5": [[1, 2, 3]]}}])
def test_the_forms_of_a_keypoint_file(tmp_path: Path, content: object) -> None:
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert read_keypoints(tmp_path / "k.json", {5: CUBE}, dataset="lmo_bop")[5].tolist() == FOUR


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FOUR, "plain list does not say which of the objects"),
        ({"5": FOUR}, "no keypoints for object 6, only for 5"),
        ({"5": FOUR, "6": [*FOUR, [70, 70, 70]]}, "got 4 for object 5, 5 for object 6"),
        ({"5": FOUR[:3], "6": FOUR[:3]}, "got 3 keypoints, PnP needs at least 4"),
        ({"5": FOUR, "6": [[p / 1000 for p in point] for point in FOUR]}, "object 6: .*not metres"),
        ({"5": FOUR, "6": [[p * 1000 for p in point] for point in FOUR]}, "from the centre of the mesh"),
        ({"5": FOUR, "6": [*FOUR[:3], [20, 20, float("nan")]]}, "not finite"),
        ({"5": FOUR, "6": [*FOUR[:3], [20, 20]]}, "expected 3 numbers, got 2"),
        ({"5": FOUR, "6": {}}, "expected a list"),
        ({"tless": {"5": FOUR}}, "none is 'lmo_bop'"),
        ("far", "expected"),
    ],
)
def test_a_keypoint_file_that_cannot_be_used(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "k.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message) as error:
        read_keypoints(tmp_path / "k.json", {5: CUBE, 6: CUBE}, dataset="lmo_bop")
    assert "k.json" in str(error.value)
