"""A run that was stopped, killed or could not write goes on and ends with the numbers of one without a break."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from posegrad import cli
from posegrad.train import TrainConfig, train
from posegrad.train.checkpoint import CHECKPOINT, read_checkpoint
from posegrad.train.errors import Stopped
from posegrad.train.loop import Recorder
from posegrad.train.run import stored_config


@pytest.fixture
def config(config: TrainConfig) -> TrainConfig:
    return replace(
        config,
        run=replace(config.run, checkpoint_minutes=0, pictures=0, log_every=2),
        optimizer=replace(config.optimizer, steps=9),
    )


def at(config: TrainConfig, folder: Path) -> TrainConfig:
    return replace(config, run=replace(config.run, out=folder))


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Do something in the middle of a run, once."""
    count = Recorder.count

    def counting(self: Recorder, terms: object) -> None:
        count(self, terms)  # pyright: ignore
        if self.counters.step == step:
            monkeypatch.setattr(Recorder, "count", count)
            action()

    monkeypatch.setattr(Recorder, "count", counting)


def results(folder: Path) -> tuple[object, str, dict[str, torch.Tensor]]:
    metrics = json.loads((folder / "metrics.json").read_text())
    training = {k: v for k, v in metrics["training"].items() if "second" not in k}
    return (
        (metrics["test"], training),
        (folder / "log.jsonl").read_text(),
        load_file(folder / "model.safetensors"),
    )


def assert_same(one: Path, other: Path) -> None:
    a, b = results(one), results(other)
    assert a[:2] == b[:2]
    assert a[2].keys() == b[2].keys()
    assert all(torch.equal(value, b[2][name]) for name, value in a[2].items())


@pytest.fixture
def whole(config: TrainConfig, tmp_path: Path) -> Path:
    """The run without a break."""
    train(at(config, tmp_path / "whole"))
    return tmp_path / "whole"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_says_how_to_go_on(
    config: TrainConfig, whole: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    out = config.run.out
    stop_after(monkeypatch, 4, lambda: os.kill(os.getpid(), signum))
    with pytest.raises(
        Stopped, match=f"stopped at step 5 of 9; go on with: posegrad train --resume {out}"
    ) as stop:
        train(config)
    assert stop.value.code == 128 + signum
    assert not (out / "metrics.json").exists()
    train(stored_config(out), resume=out)
    assert_same(out, whole)
    assert not (out / CHECKPOINT).exists()
    boards = list(out.glob("events.out.tfevents.*"))
    assert len(boards) == 1


def test_an_error_between_checkpoints_costs_only_the_steps_since_the_last(
    config: TrainConfig, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("the power went off")

    config = replace(config, run=replace(config.run, checkpoint_minutes=1))
    stop_after(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(config)
    stop_after(monkeypatch, 7, fail)
    with pytest.raises(RuntimeError, match="power"):
        train(config, resume=config.run.out)
    checkpoint = read_checkpoint(config.run.out)
    assert checkpoint is not None
    assert checkpoint.counters.step == 4
    assert len((config.run.out / "log.jsonl").read_text().splitlines()) == 4  # of steps 1, 3, 5, 7
    train(config, resume=config.run.out)
    assert_same(config.run.out, whole)


COMMAND = "import sys; from posegrad.cli import main; sys.exit(main(sys.argv[1:]))"


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", COMMAND, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.communicate()


def words_of(config: TrainConfig) -> list[str]:
    return [
        *("train", "--data", str(config.data.root), "--out", str(config.run.out), "--threads", "1"),
        *("--image-size", "64", "--keypoints", "8", "--backbone", "test_efficientnet", "--width", "16"),
        *("--steps", str(config.optimizer.steps), "--batch-size", "8", "--log-every", "2", "--pictures", "0"),
        *("--precision", "float32", "--checkpoint-minutes", "0"),
    ]


def test_killed_twice(config: TrainConfig, whole: Path) -> None:
    out = config.run.out
    kill_when(start(words_of(config)), lambda: (out / CHECKPOINT).exists())
    # while the next checkpoint is being written
    kill_when(start(["train", "--resume", str(out)]), lambda: (out / f".{CHECKPOINT}.part").exists())
    assert (out / CHECKPOINT).exists() != (out / "metrics.json").exists()
    assert cli.main(["train", "--resume", str(out)]) == 0
    assert_same(out, whole)


@pytest.mark.slow
def test_killed_at_ten_random_moments(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, optimizer=replace(config.optimizer, steps=200))
    begin = time.monotonic()
    whole = start(words_of(at(config, tmp_path / "whole")))
    assert whole.wait() == 0, whole.stderr
    seconds = time.monotonic() - begin
    rng = random.Random(0)
    for attempt in range(10):
        out = tmp_path / f"killed{attempt}"
        process, end = start(words_of(at(config, out))), time.monotonic() + rng.uniform(0, seconds)
        kill_when(process, lambda end=end: time.monotonic() > end)
        words = (
            ["train", "--resume", str(out)] if (out / "config.json").exists() else words_of(at(config, out))
        )
        assert cli.main(words) == 0
        assert_same(out, tmp_path / "whole")
