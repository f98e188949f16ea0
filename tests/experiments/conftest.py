from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_published_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a stranger: the package's own points, and runs in a folder of the test."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("POSEGRAD_DATA", raising=False)
