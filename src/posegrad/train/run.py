"""The two jobs of the command line: train a network, and evaluate one that was trained."""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posegrad.data import DatasetError
from posegrad.nn import KeypointPoseNet
from posegrad.train.build import build_network, convolution_precision
from posegrad.train.checkpoint import CHECKPOINT, read_checkpoint
from posegrad.train.config import DataConfig, EvalConfig, TrainConfig
from posegrad.train.errors import RunError, Stopped
from posegrad.train.evaluation import Predictions, mean_pose, measure, predict, table
from posegrad.train.feed import readable
from posegrad.train.files import check_writable, hold, write_json
from posegrad.train.loop import Trained, fit
from posegrad.train.parallel import Processes, accelerator
from posegrad.train.pictures import draw_curves, draw_poses
from posegrad.train.record import Recorder, read_run, write_model
from posegrad.train.resume import check_resumable, finished_metrics, protect, resume_command
from posegrad.train.source import Source, open_source

__all__ = ["Report", "evaluate", "train"]


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
        check_resumable(config, resume)
        folder, checkpoint = resume, read_checkpoint(resume)
        if checkpoint is None and (resume / "metrics.json").is_file():
            metrics = finished_metrics(resume)
            return Report(metrics, table(metrics))
    elif not overwrite:
        protect(folder)
    check_writable(folder)
    processes = Processes()
    # The network before the data: a wrong name of a backbone must not wait for the dataset to be rendered.
    net = build_network(config, load_weights=checkpoint is None)
    with hold(folder) if processes.first else nullcontext():
        with processes.first_goes_first():
            source = open_source(config.data)
        source, left_out = _tested(source, config.data.skip_bad)
        counters = None if checkpoint is None else checkpoint.counters
        before = 0.0 if counters is None else counters.seconds
        with Recorder(folder, config, counters, writes=processes.first) as recorder:
            recorder.left_out(left_out)
            trained = fit(config, net, source, recorder, processes, checkpoint)
        processes.end()
        if not processes.first:
            return Report({}, "")
        try:
            report, summary = _evaluate(config, net, source, trained, folder)
            draw_curves(recorder.lines(), folder / "curves.png")
            summary["seconds"] = time.perf_counter() - begin + before
            write_json(folder / "metrics.json", summary)
        except KeyboardInterrupt as interrupt:
            message = f"stopped after the last step; evaluate it with: {resume_command(folder)}"
            raise Stopped(message, signal.SIGINT) from interrupt
        # From here on the run is finished: there is nothing to resume.
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return report


def _tested(source: Source, skip_bad: bool) -> tuple[Source, list[str]]:
    """Read the held-out pictures once: a damaged one must not come to light only after the training."""
    test, bad = readable(source.test)
    if bad and (not skip_bad or not test):
        raise DatasetError(bad[0] if skip_bad else f"{bad[0].rstrip('.')}, or pass --skip-bad.")
    return replace(source, test=test), bad


def _evaluate(
    config: TrainConfig, net: KeypointPoseNet, source: Source, trained: Trained, folder: Path
) -> tuple[Report, dict[str, Any]]:
    """Write the network, evaluate it and draw; the report, and the content of metrics.json."""
    write_model(folder, net, source.keypoints)
    found = _predict(config, net, source, source.keypoints)
    metrics = _compare(source, found)
    draw_poses(source, found, folder / "pictures", config.run.pictures)
    summary: dict[str, Any] = {
        "dataset": source.name,
        "loss": config.loss.loss,
        "test": metrics,
        "training": {
            "images": len(source.train),
            "steps": trained.steps,
            "share_of_steps_with_pose_loss": trained.pose_share,
            "failed_share": trained.failed_share,
            "skipped_steps": trained.skipped,
            "left_out": trained.left_out,
            "seconds": trained.seconds,
            "images_per_second": trained.images_per_second,
            "waiting_for_data_share": trained.waiting_share,
            "processes": trained.processes,
            "workers": trained.workers,
            "precision": trained.precision,
            "threads": torch.get_num_threads(),
        },
    }
    return Report(metrics, table(metrics)), summary


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
    if data.skip_bad:
        source, _ = _tested(source, skip_bad=True)
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
