"""Results files: what is written reads back, and a damaged line is named."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posegrad.data import DatasetError, DatasetFileError, PoseEstimate, read_bop_results, write_bop_results
from posegrad.data.bop_results import HEADER

GOOD = "2,3,5,0.8,1 0 0 0 1 0 0 0 1,1.5 -2 800,0.25"


def test_every_number_reads_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rotations = Rotation.random(20, rng=rng).as_matrix()
    written = [
        PoseEstimate(2, i, 5 + i % 3, rng.standard_normal(), R, 1e3 * rng.standard_normal(3), rng.random())
        for i, R in enumerate(rotations)
    ]
    write_bop_results(tmp_path / "a.csv", written)
    read = read_bop_results(tmp_path / "a.csv")
    for one, other in zip(written, read, strict=True):
        for a, b in zip(astuple(one), astuple(other), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "text", [GOOD, f"{HEADER}\n{GOOD}", f"{HEADER}\n{GOOD}\n", f"{HEADER}\r\n{GOOD}\r\n\r\n"]
)
def test_the_names_at_the_top_and_the_end_of_line_may_be_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    (estimate,) = read_bop_results(tmp_path / "a.csv")
    assert (estimate.scene_id, estimate.image_id, estimate.object_id) == (2, 3, 5)
    assert (estimate.score, estimate.time, estimate.t.tolist()) == (0.8, 0.25, [1.5, -2.0, 800.0])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2,3,5,0.8,1 0 0 0 1 0 0 0 1,1 2 3", "expected 7 cells .*, got 6"),
        ("2,x,5,0.8,1 0 0 0 1 0 0 0 1,1 2 3,-1", "im_id: expected an integer, got 'x'"),
        ("2,3,5,high,1 0 0 0 1 0 0 0 1,1 2 3,-1", "score: expected a finite number, got 'high'"),
        ("2,3,5,0.8,1 0 0 0 1 0 0 0,1 2 3,-1", "R: expected 9 finite numbers separated by blanks"),
        ("2,3,5,0.8,1 0 0 0 1 0 0 0 2,1 2 3,-1", "R is no rotation matrix"),
        ("2,3,5,0.8,1 0 0 0 1 0 0 0 -1,1 2 3,-1", "R is no rotation matrix"),
        ("2,3,5,0.8,1 0 0 0 1 0 0 0 1,1 nan 3,-1", "t: expected 3 finite numbers"),
        ("2,3,5,0.8,1 0 0 0 1 0 0 0 1,1 2 3,", "time: expected a finite number, got ''"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{line}\n")
    with pytest.raises(DatasetError, match=f"a.csv, line 3: {words}"):
        read_bop_results(path)


def test_absent_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match="No results file"):
        read_bop_results(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DatasetError, match="not a text file"):
        read_bop_results(tmp_path / "a.csv")


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    bad = PoseEstimate(2, 3, 5, 0.5, np.eye(3), np.array([0.0, np.nan, 1]))
    with pytest.raises(ValueError, match=r"estimates\[0\]: .*leave failed poses out"):
        write_bop_results(tmp_path / "a.csv", [bad])
    assert not (tmp_path / "a.csv").exists()
