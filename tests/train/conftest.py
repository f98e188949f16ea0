from collections.abc import Callable
from pathlib import Path

import pytest

from posegrad.data import RenderConfig, render_dataset
from posegrad.train import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from tests.train.objects_samples import divide


@pytest.fixture(scope="session")
def dataset(shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A BOP dataset of 24 + 8 small frames."""
    small = RenderConfig(train_frames=24, test_frames=8, width=160, height=120, focal=280.0, samples=1)
    return shared_folder("training", lambda root: render_dataset(root, small, workers=1, progress=False))


@pytest.fixture(scope="session")
def two_objects(dataset: Path, shared_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The same frames, half of them of an object 7 with a symmetry."""
    return shared_folder("two_objects", lambda root: divide(dataset, root))


@pytest.fixture
def config(dataset: Path, tmp_path: Path) -> TrainConfig:
    """Six steps of a tiny network with the mixed loss."""
    return TrainConfig(
        data=DataConfig(root=dataset, image_size=64, keypoints=8),
        model=ModelConfig(backbone="test_efficientnet", width=16),
        loss=LossConfig(),
        optimizer=OptimizerConfig(steps=6, batch_size=8),
        run=RunConfig(out=tmp_path / "run", log_every=1, pictures=3, precision="float32"),
    )
