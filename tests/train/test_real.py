from pathlib import Path

import pytest

from posegrad.train import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    open_source,
    train,
)

pytestmark = pytest.mark.real


@pytest.mark.parametrize("object_id", [1, 5, 9])
def test_only_the_frames_of_the_split_are_read(lmo_root: Path, object_id: int) -> None:
    # 200 frames are annotated, 150 are there, 120 + 30 of them in the split.
    source = open_source(DataConfig(root=lmo_root, objects=(object_id,), split=lmo_root / "split.json"))
    train_ids, test_ids = ({item.image_id for item in part} for part in (source.train, source.test))
    assert not train_ids & test_ids
    assert 80 <= len(source.train) <= 120
    assert 20 <= len(source.test) <= 30
    assert all(item.visibility >= 0.1 and item.image_path.is_file() for item in source.train + source.test)


def test_a_few_steps_on_real_images(lmo_root: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data=DataConfig(root=lmo_root, objects=(9,), split=lmo_root / "split.json", novel_views=0.8),
        model=ModelConfig(backbone="test_efficientnet", width=16),
        optimizer=OptimizerConfig(steps=4, batch_size=8),
        run=RunConfig(out=tmp_path, pictures=2),
    )
    report = train(config)
    assert report.metrics["posegrad"]["count"] == len(open_source(config.data).test)
    assert 0 <= report.metrics["mean pose"]["add_01d"] <= 100
