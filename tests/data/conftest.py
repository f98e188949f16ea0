"""A few rendered frames, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from posegrad.data import RenderConfig, render_dataset

TINY = RenderConfig(train_frames=14, test_frames=4, occluded_share=0.5, image_format="png")


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    render_dataset(root, TINY, workers=2, progress=False)
    return root
