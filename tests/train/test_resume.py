"""A run that was stopped, killed or could not write goes on and ends with the numbers of one without a break."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from posegrad import cli
from posegrad.train import DataConfig, RunError, TrainConfig, evaluate, files, open_source, train
from posegrad.train.checkpoint import CHECKPOINT, read_checkpoint
from posegrad.train.errors import Stopped
from posegrad.train.files import hold, write_bytes
from posegrad.train.record import Recorder
from posegrad.train.resume import stored_config
from posegrad.train.use_config import EvalConfig


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

    def counting(self: Recorder, values: dict[str, float]) -> None:
        count(self, values)
        if self.counters.step == step:
            monkeypatch.setattr(Recorder, "count", count)
            action()

    monkeypatch.setattr(Recorder, "count", counting)


def results(folder: Path) -> tuple[object, str, dict[str, torch.Tensor]]:
    metrics = json.loads((folder / "metrics.json").read_text())
    ignored = {"seconds", "images_per_second", "waiting_for_data_share", "workers"}
    training = {k: v for k, v in metrics["training"].items() if k not in ignored}
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
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    board = EventAccumulator(str(out)).Reload()
    assert [event.step for event in board.Scalars("l_h")] == [1, 3, 5, 7, 9]


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
    whole.communicate()
    assert whole.returncode == 0
    seconds = time.monotonic() - begin
    rng = random.Random(0)
    for attempt in range(10):
        out = tmp_path / f"killed{attempt}"
        first = [*words_of(at(config, out)), "--workers", str(attempt % 2)]
        process, end = start(first), time.monotonic() + rng.uniform(0, seconds)
        kill_when(process, lambda end=end: time.monotonic() > end)
        words = ["train", "--resume", str(out)] if (out / "config.json").exists() else first
        assert cli.main(words) == 0
        assert_same(out, tmp_path / "whole")


@pytest.fixture
def stopped(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after four of its nine steps."""
    stop_after(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(config)
    return config.run.out


def test_an_unfinished_run_is_not_replaced_without_a_word(config: TrainConfig, stopped: Path) -> None:
    before = (stopped / CHECKPOINT).read_bytes()
    with pytest.raises(RunError, match=r"unfinished run \(step 4 of 9\): go on with posegrad train --resume"):
        train(config)
    assert (stopped / CHECKPOINT).read_bytes() == before
    train(config, overwrite=True)
    train(config)  # that of a finished run is


def test_an_unfinished_run_cannot_be_evaluated(stopped: Path) -> None:
    with pytest.raises(RunError, match="unfinished run: go on with"):
        evaluate(EvalConfig(run=stopped))


def test_other_settings_cannot_be_resumed(
    config: TrainConfig, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["train", "--resume", str(stopped)]
    assert cli.main([*resume, "--lr", "0.5"]) == 2
    assert "--lr: got 0.5, but the run to resume has 0.002" in capsys.readouterr().err
    assert cli.main([*resume, "--out", "elsewhere"]) == 2
    assert "--out: got elsewhere" in capsys.readouterr().err
    assert cli.main([*resume, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert cli.main(resume) == 0  # a finished run: its metrics
    assert printed.startswith(capsys.readouterr().out.rstrip())  # the same table


def test_other_annotations_cannot_be_resumed(config: TrainConfig, stopped: Path) -> None:
    split = stopped.parent / "split.json"
    split.write_text(json.dumps({"train": list(range(20)), "test": [20, 21]}))
    with pytest.raises(RunError, match="not those of the run"):
        train(replace(config, data=replace(config.data, split=split)), resume=stopped)


def keypoints_file(root: Path, path: Path) -> DataConfig:
    points = open_source(DataConfig(root=root, keypoints=8)).keypoints
    path.write_text(json.dumps({str(i): values.tolist() for i, values in points.items()}))
    return DataConfig(root=root, image_size=64, keypoints=8, keypoints_from=str(path))


def test_keypoints_may_move_but_not_change(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.data.root is not None
    path = tmp_path / "keypoints.json"
    config = replace(config, data=keypoints_file(config.data.root, path))
    stop_after(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(config)
    out, moved = config.run.out, path.rename(tmp_path / "moved.json")
    assert cli.main(["train", "--resume", str(out)]) == 2  # it is looked for where it was
    content = json.loads(moved.read_text())
    other = {i: [[x + 1, y, z] for x, y, z in points] for i, points in content.items()}
    path.write_text(json.dumps(other))
    with pytest.raises(RunError, match="the keypoints are not those of the run"):
        train(stored_config(out), resume=out)
    assert cli.main(["train", "--resume", str(out), "--keypoints-from", "box"]) == 2
    assert cli.main(["train", "--resume", str(out), "--keypoints-from", str(moved)]) == 0


def test_a_killed_worker_is_one_clear_line(
    config: TrainConfig, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        (worker,) = multiprocessing.active_children()
        worker.kill()

    stop_after(monkeypatch, 2, kill)
    # the queue holds two batches
    assert cli.main([*words_of(config), "--workers", "1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "posegrad: a process that prepares crops was killed: with fewer --workers, go on with: "
    )
    assert cli.main(["train", "--resume", str(config.run.out), "--workers", "0"]) == 0
    assert_same(config.run.out, whole)


def test_a_run_that_met_a_bad_picture_goes_on_without_it(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "data", config.run.out
    assert config.data.root is not None
    shutil.copytree(config.data.root, root)
    config = replace(config, data=replace(config.data, root=root))

    def damage() -> None:
        for path in sorted((root / "train" / "000001" / "rgb").iterdir())[:20]:
            path.write_bytes(path.read_bytes()[:300])
        os.kill(os.getpid(), signal.SIGTERM)

    stop_after(monkeypatch, 3, damage)
    with pytest.raises(Stopped):
        train(config)
    assert cli.main(["train", "--resume", str(out)]) == 2
    assert "--skip-bad" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(out), "--skip-bad"]) == 0
    assert json.loads((out / "metrics.json").read_text())["training"]["left_out"]


def other_metadata(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)


def other_settings(path: Path) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"config": "0" * 64})


def other_network(path: Path) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, metadata)


def a_pickle(path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(path.parent / "sprung").touch, ())  # pyright: ignore

    torch.save(Trap(), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"?" * 5000),
        a_pickle,
        other_metadata,
        other_settings,
        other_network,
    ],
)
def test_a_file_that_is_not_its_checkpoint_is_one_clear_line(
    stopped: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(stopped / CHECKPOINT)
    assert cli.main(["train", "--resume", str(stopped)]) == 2
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith("posegrad: ")]
    assert len(line) == 1
    assert str(stopped / CHECKPOINT) in line[0]
    assert "put a good copy there" in line[0]
    assert not (stopped / "sprung").exists()


def test_a_log_that_was_cut_is_one_clear_line(config: TrainConfig, stopped: Path) -> None:
    (stopped / "log.jsonl").write_text("")
    with pytest.raises(RunError, match=r"log\.jsonl is shorter"):
        train(config, resume=stopped)


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_damaged_json_is_one_clear_line(config: TrainConfig, name: str) -> None:
    train(config)
    (config.run.out / name).write_text('{"a": ')
    with pytest.raises(RunError, match=f"{name} is damaged"):
        train(stored_config(config.run.out), resume=config.run.out)


def test_a_second_process_is_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    config.run.out.mkdir()
    with hold(config.run.out), pytest.raises(RunError, match="another process trains in"):
        train(config)


def test_a_full_disk_keeps_the_last_checkpoint(
    stopped: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (stopped / CHECKPOINT).read_bytes()
    resume = ["train", "--resume", str(stopped)]
    # No file larger than 100 kB: the small ones can be written, the checkpoint cannot.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert cli.main(resume) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith("posegrad: ")]
    assert len(line) == 1
    assert f"cannot write {stopped / CHECKPOINT} (File too large): make room there" in line[0]
    assert (stopped / CHECKPOINT).read_bytes() == before
    assert not (stopped / f".{CHECKPOINT}.part").exists()
    assert cli.main(resume) == 0
    assert_same(stopped, whole)


def test_files_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_bytes(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match=r"a\.json \(No space left on device\)"):
        write_bytes(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.json", b"old")]
