"""Shapes are checked at run time in the tests only, and only behind the public door, whose own errors come first."""

import os
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from filelock import FileLock

jaxtyping.install_import_hook(
    [
        "posegrad.optim.problem",
        "posegrad.optim.linear",
        "posegrad.optim.covariance",
        "posegrad.minimal.homography",
        "posegrad.minimal.linear_map",
        "posegrad.minimal.object_space",
        "posegrad.problems.reprojection",
        "posegrad.problems.conditioning",
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``shared_folder(name, fill)``: to be read only; filled by whichever process of pytest-xdist comes first."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        path = root / name
        with FileLock(root / f"{name}.lock"):
            if not path.exists():
                fill(root / f"{name}.part")
                (root / f"{name}.part").rename(path)
        return path

    return folder


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
