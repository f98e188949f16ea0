from __future__ import annotations

import numpy as np
import pytest

from posegrad.data import farthest_point_keypoints


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
