import json
from pathlib import Path

import pytest

from posegrad.data import DatasetError, read_detections

GOOD = {"scene_id": 1, "image_id": 0, "category_id": 5, "bbox": [60, 40, 20, 30], "score": 0.9, "time": 0.1}


def test_other_entries_are_ignored_and_a_missing_score_is_one(tmp_path: Path) -> None:
    bare = {key: value for key, value in GOOD.items() if key not in ("score", "time")}
    (tmp_path / "d.json").write_text(json.dumps([GOOD, bare]))
    first, second = read_detections(tmp_path / "d.json")
    assert (first.scene_id, first.image_id, first.object_id, first.score) == (1, 0, 5, 0.9)
    assert first.bbox.tolist() == [60, 40, 20, 30]
    assert second.score == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"detections": []}, "expected a list"),
        ([GOOD, 3], "entry 1: expected a JSON object"),
        ([{**GOOD, "category_id": "5"}], "entry 0: category_id is '5'"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "bbox: expected 4 numbers, got 3"),
        ([{**GOOD, "bbox": [1, 2, 0, 4]}], "w and h > 0"),
        ([{**GOOD, "score": float("nan")}], "score is nan"),
    ],
)
def test_a_detection_file_that_cannot_be_used(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message) as error:
        read_detections(tmp_path / "d.json")
    assert "d.json" in str(error.value)
