"""The two jobs of the command line: train a network, and evaluate one that was trained."""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posegrad.nn import KeypointPoseNet
from posegrad.train.checkpoint import CHECKPOINT, read_checkpoint
from posegrad.train.config import DataConfig, EvalConfig, TrainConfig
from posegrad.train.errors import RunError, Stopped
from posegrad.train.evaluation import Predictions, mean_pose, measure, predict, table
from posegrad.train.files import check_writable, hold, write_json
from posegrad.train.identity import contradiction
from posegrad.train.loop import (
    Trained,
    accelerator,
    build_network,
    convolution_precision,
    fit,
    resume_command,
)
from posegrad.train.pictures import draw_curves, draw_poses
from posegrad.train.record import Recorder, read_run
from posegrad.train.source import Source, open_source

__all__ = ["Report", "evaluate", "stored_config", "train"]


@dataclass(frozen=True)
class Report:
    """Outcome of a job: metrics by row ("posegrad", "mean pose"), and the table that shows them."""

    metrics: dict[str, dict[str, float]]
    table: str


def _set_threads(count: int | None) -> None:
    if count is not None:
        if count < 1:
            raise RunError(f"--threads: got {count}, expected at least 1")
        torch.set_num_threads(count)


def _compare(source: Source, found: Predictions) -> dict[str, dict[str, float]]:
    everything = torch.ones(len(source.test), dtype=torch.bool)
    baseline = mean_pose(source.train, source.test, source.diameter)
    return {
        "posegrad": measure(found.pose, found.ok, source, source.test),
        "mean pose": measure(baseline, everything, source, source.test),
    }


def _predict(config: TrainConfig, net: KeypointPoseNet, source: Source, keypoints: np.ndarray) -> Predictions:
    precision = convolution_precision(config.run, next(net.parameters()).device)
    return predict(net, source.test, keypoints, padding=config.data.padding, precision=precision)


def _absolute(data: DataConfig) -> DataConfig:
    """With absolute paths, so that the run can be evaluated from any folder."""
    paths = {name: getattr(data, name) for name in ("root", "split", "cache")}
    return replace(data, **{name: path.resolve() for name, path in paths.items() if path is not None})


def train(config: TrainConfig, resume: Path | None = None, overwrite: bool = False) -> Report:
    """Train on the training images, evaluate on the held-out ones, write the run folder.

    A run that was stopped or killed, at any moment, goes on with `resume` and ends with the numbers that it would have
    had without the break (same machine and threads; not with a limit by the clock).

    Args:
        config: settings; to resume, `stored_config(resume)`, or with other workers, threads, pictures or paths.
        resume: Folder of an unfinished run, to go on with its settings; of a finished one, its metrics are returned.
        overwrite: Replace an unfinished run in --out.

    Raises:
        RunError, DatasetError: settings or data that cannot be used, in one sentence.
        Stopped: by SIGINT or SIGTERM, with a checkpoint written.
    """
    begin = time.perf_counter()
    _set_threads(config.run.threads)
    config = replace(config, data=_absolute(config.data))
    folder, checkpoint = config.run.out, None
    if resume is not None:
        _check_resumable(config, resume)
        folder, checkpoint = resume, read_checkpoint(resume)
        if checkpoint is None and (resume / "metrics.json").is_file():
            metrics = _finished(resume)
            return Report(metrics, table(metrics))
    elif not overwrite:
        _protect(folder)
    check_writable(folder)
    with hold(folder):
        # The network before the data: a wrong name of a backbone must not wait for the dataset to be rendered.
        net = build_network(config, load_weights=checkpoint is None)
        source = open_source(config.data)
        counters = None if checkpoint is None else checkpoint.counters
        before = 0.0 if counters is None else counters.seconds
        with Recorder(folder, config, counters) as recorder:
            trained = fit(config, net, source, recorder, checkpoint)
            log = recorder.lines()
        try:
            recorder.model(net, source.keypoints)
            found = _predict(config, net, source, source.keypoints)
            metrics = _compare(source, found)
            summary = _summary(source, config, metrics, trained)
            summary["seconds"] = time.perf_counter() - begin + before
            write_json(folder / "metrics.json", summary)
            draw_curves(log, folder / "curves.png")
            draw_poses(source, found, folder / "pictures", config.run.pictures)
        except KeyboardInterrupt as interrupt:
            message = f"stopped after the last step; evaluate it with: {resume_command(folder)}"
            raise Stopped(message, signal.SIGINT) from interrupt
        # From here on the run is finished: there is nothing to resume.
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return Report(metrics, table(metrics))


def _summary(
    source: Source, config: TrainConfig, metrics: dict[str, dict[str, float]], trained: Trained
) -> dict[str, Any]:
    return {
        "dataset": source.name,
        "loss": config.loss.loss,
        "test": metrics,
        "training": {
            "images": len(source.train),
            "steps": trained.steps,
            "share_of_steps_with_pose_loss": trained.pose_share,
            "failed_share": trained.failed_share,
            "skipped_steps": trained.skipped,
            "seconds": trained.seconds,
            "images_per_second": trained.images_per_second,
            "precision": trained.precision,
            "threads": torch.get_num_threads(),
        },
    }


def _finished(folder: Path) -> dict[str, dict[str, float]]:
    path = folder / "metrics.json"
    try:
        rows = json.loads(path.read_text())["test"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}; posegrad eval {folder} measures again") from error
    return {name: {key: math.inf if v is None else v for key, v in row.items()} for name, row in rows.items()}


def stored_config(folder: Path) -> TrainConfig:
    """Settings of a run, finished or not.

    Raises:
        RunError: the folder is not one of a run, or its config.json is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise RunError(f"{folder} has no config.json: not the folder of a `posegrad train`")
    try:
        config = TrainConfig.from_json(path.read_text())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}; put a good copy there") from error
    return replace(config, run=replace(config.run, out=folder))


def _check_resumable(config: TrainConfig, folder: Path) -> None:
    stored = stored_config(folder)
    if config.run.out.resolve() != folder.resolve():
        raise RunError(f"--out: got {config.run.out}, but --resume {folder} says the folder: leave one out")
    if difference := contradiction(config, stored):
        raise RunError(f"{difference}: leave it out, or start a new run without --resume")


def _protect(folder: Path) -> None:
    """Refuse to replace an unfinished run: hours of work, perhaps."""
    try:
        checkpoint = read_checkpoint(folder)
    except RunError:
        checkpoint = None
        if (folder / CHECKPOINT).is_file():
            raise
    if checkpoint is not None:
        counters = checkpoint.counters
        raise RunError(
            f"--out: {folder} holds an unfinished run (step {counters.step} of {counters.steps}): go on with "
            f"{resume_command(folder)}, choose another folder, or replace it with --overwrite"
        )


def evaluate(config: EvalConfig) -> Report:
    """Evaluate a finished run on held-out images; writes evaluation.json into its folder.

    Raises:
        RunError, DatasetError: the run or the data cannot be used, in one sentence.
    """
    settings, state, keypoints = read_run(config.run)
    changes = {name: getattr(config, name) for name in ("root", "object_id", "split")}
    changes = {name: value for name, value in changes.items() if value is not None}
    data = settings.data
    if config.root is not None:  # another dataset: its own folders, and a split only if one is given
        data = replace(data, train_folder=None, test_folder=None, split=None)
    data = replace(data, **changes)
    _set_threads(settings.run.threads)
    source = open_source(data)
    net = build_network(settings, load_weights=False)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise RunError(f"{config.run}/model.safetensors does not fit its config.json: {first}") from error
    found = _predict(settings, net.to(accelerator().device), source, keypoints)
    metrics = _compare(source, found)
    try:
        write_json(config.run / "evaluation.json", {"dataset": source.name, "test": metrics})
        draw_poses(source, found, config.run / "pictures", config.pictures)
    except OSError as error:
        raise RunError(f"cannot write to {config.run} ({error.strerror})") from error
    return Report(metrics, table(metrics))
