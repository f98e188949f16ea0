"""The scripts in examples/ do what they say."""

import re
import runpy
from pathlib import Path

import pytest

_EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "pattern", "below"),
    [
        ("keypoints", r"off by (\S+) degrees", 0.01),
        ("structure", r"agree within (\S+) %", 0.1),
        ("intrinsics", r"loss (\S+) px", 1e-2),
    ],
)
def test_example(name: str, pattern: str, below: float, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(_EXAMPLES / f"{name}.py"))
    found = re.search(pattern, capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) < below
