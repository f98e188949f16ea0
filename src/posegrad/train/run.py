"""The two jobs of the command line: train a network, and evaluate one that was trained."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from posegrad.nn import KeypointPoseNet
from posegrad.train.config import DataConfig, EvalConfig, TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.evaluation import Predictions, mean_pose, measure, predict, table
from posegrad.train.loop import accelerator, build_network, convolution_precision, fit
from posegrad.train.pictures import draw_curves, draw_poses
from posegrad.train.record import Recorder, check_writable, read_run, write_json
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


def train(config: TrainConfig) -> Report:
    """Train on the training images, evaluate on the held-out ones, write the run folder.

    Raises:
        RunError, DatasetError: settings or data that cannot be used, in one sentence.
    """
    begin = time.perf_counter()
    _set_threads(config.run.threads)
    config = replace(config, data=_absolute(config.data))
    check_writable(config.run.out)
    # The network before the data: a wrong name of a backbone must not wait for the dataset to be rendered.
    net = build_network(config)
    source = open_source(config.data)
    with Recorder(config.run.out, config) as recorder:
        trained = fit(config, net, source, recorder)
        recorder.model(net, source.keypoints)
        log = recorder.lines()
    found = _predict(config, net, source, source.keypoints)
    metrics = _compare(source, found)
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
            "seconds": trained.seconds,
            "images_per_second": trained.images_per_second,
            "precision": trained.precision,
            "threads": torch.get_num_threads(),
        },
        "seconds": time.perf_counter() - begin,
    }
    write_json(config.run.out / "metrics.json", summary)
    draw_curves(log, config.run.out / "curves.png")
    draw_poses(source, found, config.run.out / "pictures", config.run.pictures)
    return Report(metrics, table(metrics))


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
