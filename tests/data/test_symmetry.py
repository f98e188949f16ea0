"""Symmetry transforms: against BOP's definition written as loops, and by what a symmetry is."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posegrad.data import DatasetError, symmetry_transforms

HALF_TURN_Z = [-1.0, 0, 0, 2, 0, -1, 0, -4, 0, 0, 1, 0, 0, 0, 0, 1]
AXIS_X = {"axis": [2.0, 0, 0], "offset": [1.0, 3.0, -2.0]}
AXIS_TILTED = {"axis": [1.0, -2.0, 0.5], "offset": [0.0, 5.0, 0.0]}


def _by_definition(info: dict, step: float) -> list[np.ndarray]:
    """4 x 4 matrices: steps about each axis after each discrete one, one product at a time."""
    discrete = [np.eye(4), *(np.reshape(entry, (4, 4)) for entry in info.get("symmetries_discrete", []))]
    turns = []
    for entry in info.get("symmetries_continuous", []):
        axis, offset = np.array(entry["axis"]), np.array(entry["offset"])
        count = int(np.ceil(np.pi / step))
        for i in range(count):
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_rotvec(
                axis / np.linalg.norm(axis) * 2 * np.pi * i / count
            ).as_matrix()
            turn[:3, 3] = offset - turn[:3, :3] @ offset
            turns.append(turn)
    return [turn @ fixed for fixed in discrete for turn in (turns or [np.eye(4)])]


@pytest.mark.parametrize("discrete", [[], [HALF_TURN_Z], [HALF_TURN_Z, np.eye(4).ravel().tolist()]])
@pytest.mark.parametrize("continuous", [[], [AXIS_X], [AXIS_X, AXIS_TILTED]])
@pytest.mark.parametrize("step", [0.01, 0.3])
def test_they_are_those_of_the_definition(discrete: list, continuous: list, step: float) -> None:
    info = {"diameter": 9.0, "symmetries_discrete": discrete, "symmetries_continuous": continuous}
    R, t = symmetry_transforms(info, max_step=step)
    expected = np.stack(_by_definition(info, step))
    assert len(R) == len(t) == len(expected)
    np.testing.assert_allclose(R, expected[:, :3, :3], atol=1e-14)
    np.testing.assert_allclose(t, expected[:, :3, 3], atol=1e-13)
    np.testing.assert_array_equal(R[0], np.eye(3))
    np.testing.assert_array_equal(t[0], 0)


def test_turns_keep_their_axis_and_the_distance_to_it() -> None:
    R, t = symmetry_transforms({"symmetries_continuous": [AXIS_TILTED]})
    on_axis = np.array(AXIS_TILTED["offset"]) + 7 * np.array(AXIS_TILTED["axis"])
    np.testing.assert_allclose(R @ on_axis + t, np.broadcast_to(on_axis, t.shape), atol=1e-13)
    assert len(R) == 315


def test_neighbouring_steps_are_near() -> None:
    """The point farthest from the axis of an object of diameter 2 moves by 0.01 diameters at most."""
    R, t = symmetry_transforms({"symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]})
    moved = R @ np.array([1.0, 0, 0]) + t
    assert np.linalg.norm(np.diff(moved, axis=0), axis=1).max() <= 0.01 * 2


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"symmetries_discrete": [[1.0, 0, 0]]}, r"symmetries_discrete\[0\]: expected 16 finite numbers"),
        (
            {"symmetries_discrete": [[2.0, *HALF_TURN_Z[1:]]]},
            r"symmetries_discrete\[0\]: expected a rotation",
        ),
        ({"symmetries_discrete": [np.diag([1.0, 1, -1, 1]).ravel().tolist()]}, "expected a rotation"),
        ({"symmetries_continuous": [{"axis": [0, 0, 0], "offset": [0, 0, 0]}]}, "axis: got the zero vector"),
        (
            {"symmetries_continuous": [{"axis": [0, 0, "up"]}]},
            r"continuous\[0\].axis: expected 3 finite numbers",
        ),
        (
            {"symmetries_continuous": [[0, 0, 1]]},
            r"continuous\[0\].axis: expected 3 finite numbers, got None",
        ),
    ],
)
def test_a_damaged_entry_is_named(info: dict, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        symmetry_transforms(info)


def test_the_step_is_checked() -> None:
    with pytest.raises(ValueError, match="max_step: got 0"):
        symmetry_transforms({}, max_step=0)
