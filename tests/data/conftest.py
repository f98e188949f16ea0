"""A few rendered frames, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posegrad.data import RenderConfig, render_dataset

TINY = RenderConfig(train_frames=14, test_frames=4, occluded_share=0.5, image_format="png")


@pytest.fixture(scope="session")
def toy_root(shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return shared_folder("toy", lambda root: render_dataset(root, TINY, workers=2, progress=False))
