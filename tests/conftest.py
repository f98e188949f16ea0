"""Shapes are checked at run time in the tests only, and only behind the public door, whose own errors come first."""

import os
from pathlib import Path

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook(
    [
        "posegrad.optim.problem",
        "posegrad.optim.linear",
        "posegrad.optim.covariance",
        "posegrad.minimal",
        "posegrad.problems.reprojection",
        "posegrad.problems.conditioning",
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test skips, saying so, where there is none."""
    root = Path(os.environ.get("POSEGRAD_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}: set POSEGRAD_DATA")
    return root


@pytest.fixture(scope="session")
def lmo_root(real_data: Path) -> Path:
    """LM-Occlusion in BOP layout."""
    return real_data / "pose6d" / "lmo_bop"
