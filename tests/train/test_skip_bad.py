import json
import shutil
from pathlib import Path

import pytest
import torch

from posegrad import cli
from posegrad.data import CropDataset
from posegrad.train import DataConfig, open_source
from posegrad.train.feed import Feed
from posegrad.train.sampler import Batches


@pytest.fixture
def damaged(dataset: Path, tmp_path: Path) -> Path:
    """Of 24 + 8 pictures, one is missing and one truncated for training, one truncated for testing."""
    root = tmp_path / "data"
    shutil.copytree(dataset, root)
    train, test = (sorted((root / part / "000001" / "rgb").iterdir()) for part in ("train", "test"))
    train[2].unlink()
    for path in (train[5], test[1]):
        path.write_bytes(path.read_bytes()[:300])
    return root


def words(root: Path, out: Path, *more: str) -> list[str]:
    return [
        *("train", "--data", str(root), "--out", str(out), "--image-size", "64", "--keypoints", "8"),
        *("--backbone", "test_efficientnet", "--width", "16", "--steps", "6", "--batch-size", "8"),
        *("--pictures", "3", "--threads", "1", "--log-every", "1", *more),
    ]


@pytest.mark.parametrize("more", [(), ("--novel-views", "1.0", "--swap-background", "1.0")])
def test_bad_pictures_are_left_out_and_named_once(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    assert cli.main(words(damaged, out, "--skip-bad", *more)) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    left_out = metrics["training"]["left_out"]
    assert len(left_out) == 3
    assert [sum(part in line for line in left_out) for part in ("No image", "truncated")] == [1, 2]
    assert metrics["test"]["posegrad"]["count"] == 7
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert sorted(bad for line in lines for bad in line.get("left_out", [])) == sorted(left_out)
    assert sorted(
        line.removeprefix("posegrad: left out: ")
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("posegrad: left out")
    ) == sorted(left_out)
    assert cli.main(["eval", str(out)]) == 0


def test_a_batch_stays_full(damaged: Path) -> None:
    source = open_source(DataConfig(root=damaged, keypoints=8, skip_bad=True))
    crops = CropDataset(source.train, size=32)
    feeds = [
        Feed([crops], Batches(24, 24, seed=0), workers=workers, device=torch.device("cpu"), skip_bad=True)
        for workers in (0, 1)
    ]
    for _ in range(2):
        first, second = (feed.next() for feed in feeds)
        indices = first.crops["index"].tolist()
        assert len(indices) == 24
        assert not {2, 5} & set(indices)
        assert len(set(indices)) >= 20
        assert indices == second.crops["index"].tolist()
        assert len(first.left_out) >= 2


def test_without_the_option_one_line_names_file_and_fix(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(damaged, tmp_path / "run")) == 2
    assert "1 annotated images are missing" in capsys.readouterr().err
    train = sorted((damaged / "train" / "000001" / "rgb").iterdir())
    shutil.copy(train[0], train[0].with_name(f"{2:06d}{train[0].suffix}"))
    assert cli.main(words(damaged, tmp_path / "run")) == 2
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("posegrad")]
    assert len(printed) == 1
    assert "/test/" in printed[0]
    assert "truncated" in printed[0]
    assert "--skip-bad" in printed[0]


def test_no_picture_at_all(damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (damaged / "train" / "000001" / "rgb").iterdir():
        path.write_bytes(b"")
    assert cli.main(words(damaged, tmp_path / "run", "--skip-bad")) == 2
    assert "not one of 24 training images can be read" in capsys.readouterr().err
