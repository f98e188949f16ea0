"""A small dataset of a block, made by the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posegrad.data import Mesh
from posegrad.data.render_config import FrameConfig
from posegrad.data.render_objects import render_objects
from tests.data.bop_samples import box_mesh


def colored(mesh: Mesh) -> Mesh:
    """With another colour at every vertex."""
    colors = np.random.default_rng(3).integers(0, 256, mesh.vertices.shape)
    return Mesh(mesh.vertices, mesh.faces, colors)


@pytest.fixture(scope="session")
def block_root(shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Object 1, 40 x 60 x 80 mm, in 6 train and 2 test frames of 192 x 160 px."""
    K = np.array([[240.0, 0, 95.5], [0, 240, 79.5], [0, 0, 1]])
    config = FrameConfig(K, 192, 160, occluded_share=0.0, samples=1)
    frames = {"train": 6, "test": 2}
    return shared_folder(
        "block",
        lambda root: render_objects(
            root, {1: colored(box_mesh())}, config, frames=frames, masks=True, workers=1, progress=False
        ),
    )
