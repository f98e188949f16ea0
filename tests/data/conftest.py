"""A few rendered frames, shared by the tests of this folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from posegrad.data import RenderConfig, render_dataset

TINY = RenderConfig(train_frames=14, test_frames=4, occluded_share=0.5, image_format="png")


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    render_dataset(root, TINY, workers=2, progress=False)
    return root


@pytest.fixture(scope="session")
def lmo_root() -> Path:
    data = Path(os.environ.get("POSEGRAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
    root = data / "pose6d" / "lmo_bop"
    if not root.is_dir():
        pytest.skip(f"no real data at {root}: set POSEGRAD_DATA")
    return root
