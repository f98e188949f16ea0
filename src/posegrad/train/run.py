"""The two jobs of the command line: train a network, and evaluate one that was trained."""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from posegrad.data import DatasetError, read_detections
from posegrad.nn import KeypointPoseNet, PoseRegressionNet
from posegrad.train.build import build_network, convolution_precision
from posegrad.train.checkpoint import CHECKPOINT, read_checkpoint
from posegrad.train.config import KEYPOINT_RULES, DataConfig, TrainConfig
from posegrad.train.detected import in_detected_boxes, predict_detected
from posegrad.train.errors import RunError, Stopped
from posegrad.train.evaluation import MEAN_POSE, NETWORK, compare, mean_row, table
from posegrad.train.feed import or_skip, readable
from posegrad.train.files import check_writable, hold, writable, write_json
from posegrad.train.loop import Trained, fit
from posegrad.train.parallel import Processes
from posegrad.train.pictures import draw_curves, draw_poses
from posegrad.train.poses import pose_lines, write_poses
from posegrad.train.predictor import PosePredictor
from posegrad.train.record import Recorder, read_log, read_summary, write_model
from posegrad.train.report import Evaluated, write_report
from posegrad.train.report_data import environment
from posegrad.train.resume import check_resumable, finished_metrics, protect, resume_command, stored_config
from posegrad.train.source import Source, open_source
from posegrad.train.use_config import EvalConfig

__all__ = ["Report", "evaluate", "train"]


@dataclass(frozen=True)
class Report:
    """Outcome of a job.

    Attributes:
        metrics: by row ("posegrad", "mean pose"), of several objects the mean.
        table: that shows them, per object and on average.
        objects: metrics by object id, then by row.
        page: report.html, if one was written.
    """

    metrics: dict[str, dict[str, float]]
    table: str
    objects: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    page: Path | None = None

    @classmethod
    def of(cls, objects: dict[str, dict[str, dict[str, float]]]) -> Report:
        """From the metrics of every object (`compare`)."""
        rows = {name: mean_row([rows[name] for rows in objects.values()]) for name in (NETWORK, MEAN_POSE)}
        return cls(rows, table(rows, objects), objects)


def _set_threads(count: int | None) -> None:
    if count is not None:
        if count < 1:
            raise RunError(f"--threads: got {count}, expected at least 1")
        torch.set_num_threads(count)


def _absolute(config: TrainConfig) -> TrainConfig:
    """With absolute paths, so that the run can be resumed and evaluated from any folder."""
    data, weights = config.data, config.model.weights
    paths = {name: getattr(data, name) for name in ("root", "split", "cache")}
    changes: dict[str, Any] = {name: path.resolve() for name, path in paths.items() if path is not None}
    changes["extra_data"] = tuple(path.resolve() for path in data.extra_data)
    if data.keypoints_from not in KEYPOINT_RULES:
        changes["keypoints_from"] = str(Path(data.keypoints_from).resolve())
    model = replace(config.model, weights=None if weights is None else weights.resolve())
    return replace(config, data=replace(data, **changes), model=model)


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
    config = _absolute(config)
    folder, checkpoint = config.run.out, None
    if resume is not None:
        check_resumable(config, resume)
        folder, checkpoint = resume, read_checkpoint(resume)
        if checkpoint is None and (resume / "metrics.json").is_file():
            return Report.of(finished_metrics(resume))
    elif not overwrite:
        protect(folder)
    check_writable(folder)
    processes = Processes()
    if config.data.root is None:  # a wrong name of a backbone must not wait for the dataset to be rendered
        build_network(config, load_weights=checkpoint is None)
    with hold(folder) if processes.first else nullcontext():
        with processes.first_goes_first():
            source = open_source(config.data)
        counted = len(source.objects), len(next(iter(source.keypoints.values())))
        net = build_network(config, *counted, load_weights=checkpoint is None)
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
            log = recorder.lines()
            evaluated = _evaluate(config, net, source, trained, folder, log)
            with writable(folder / "curves.png"):
                draw_curves(log, folder / "curves.png")
            evaluated.summary["seconds"] = time.perf_counter() - begin + before
            write_json(folder / "metrics.json", evaluated.summary)
            page = write_report(evaluated)
        except KeyboardInterrupt as interrupt:
            message = f"stopped after the last step; evaluate it with: {resume_command(folder)}"
            raise Stopped(message, signal.SIGINT) from interrupt
        # From here on the run is finished: there is nothing to resume.
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return replace(Report.of(evaluated.objects), page=page)


def _tested(source: Source, skip_bad: bool) -> tuple[Source, list[str]]:
    """Read the held-out pictures once: a damaged one must not come to light only after the training."""
    test, bad = readable(source.test)
    if bad and (not skip_bad or not test):
        raise DatasetError(bad[0] if skip_bad else or_skip(bad[0]))
    return replace(source, test=test), bad


def _evaluate(
    config: TrainConfig,
    net: KeypointPoseNet | PoseRegressionNet,
    source: Source,
    trained: Trained,
    folder: Path,
    log: list[dict[str, Any]],
) -> Evaluated:
    """Write the network, evaluate it and draw; the summary is the content of metrics.json."""
    write_model(folder, net, source.keypoints)
    precision = convolution_precision(config.run, next(net.parameters()).device)
    predictor = PosePredictor(net, source.keypoints, padding=config.data.padding, precision=precision)
    begin = time.perf_counter()
    found = predictor.on(source.test)
    seconds = time.perf_counter() - begin
    report = Report.of(compare(source, found))
    write_poses(folder / "poses.csv", pose_lines(source.test, found))
    with writable(folder / "pictures"):
        draw_poses(source, found, folder / "pictures", config.run.pictures)
    here = environment()
    summary: dict[str, Any] = {
        "dataset": source.name,
        "loss": config.loss.loss,
        "test": report.metrics,
        "objects": report.objects,
        "environment": here,
        "training": {
            "images": len(source.train),
            "extra_images": len(source.extra),
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
    return Evaluated(
        folder, config, source, predictor, source.test, found, report.objects, summary, log, here, seconds
    )


def evaluate(config: EvalConfig) -> Report:
    """Evaluate a finished run on held-out images; writes evaluation.json, poses.csv and report.html into its folder.

    Raises:
        RunError, DatasetError: the run or the data cannot be used, in one sentence.
    """
    predictor = PosePredictor.load(config.run)
    settings = stored_config(config.run)
    _set_threads(settings.run.threads)
    predictor, data = _to_evaluate(config, settings.data, predictor)
    detections = None if config.detections is None else read_detections(config.detections)
    source = open_source(data, predictor.keypoints)
    if data.skip_bad:
        source, _ = _tested(source, skip_bad=True)
    begin = time.perf_counter()
    found = (
        predictor.on(source.test)
        if detections is None
        else predict_detected(predictor, source.test, detections)
    )
    seconds = time.perf_counter() - begin
    boxed = source.test if detections is None else in_detected_boxes(source.test, detections)
    report = Report.of(compare(source, found))
    boxes = "annotated" if config.detections is None else str(config.detections)
    summary = {"dataset": source.name, "boxes": boxes, "test": report.metrics, "objects": report.objects}
    try:
        write_json(config.run / "evaluation.json", summary)
        write_poses(config.run / "poses.csv", pose_lines(source.test, found))
        draw_poses(source, found, config.run / "pictures", config.pictures)
        page = write_report(
            Evaluated(
                config.run,
                settings,
                source,
                predictor,
                boxed,
                found,
                report.objects,
                read_summary(config.run),
                read_log(config.run),
                environment(),
                seconds,
            )
        )
    except OSError as error:
        raise RunError(f"cannot write to {config.run} ({error.strerror})") from error
    return replace(report, page=page)


def _to_evaluate(
    config: EvalConfig, data: DataConfig, predictor: PosePredictor
) -> tuple[PosePredictor, DataConfig]:
    """Which objects of which data: by default those that the network knows, of those it was to be tested on."""
    known = predictor.object_ids
    wanted = known if config.objects is None else sorted(config.objects)
    if len(known) == len(wanted) == 1:  # another dataset may know the object by another id
        predictor = predictor.renamed(wanted[0])
    elif unknown := sorted(set(wanted) - set(known)):
        raise RunError(f"--object: got {unknown[0]}, the network of {config.run} knows {known}")
    data = replace(data, objects=tuple(wanted), extra_data=())
    if config.root is not None:  # its own folders, and a split only if one is given
        data = replace(data, root=config.root, train_folder=None, test_folder=None, split=None)
    if config.split is not None:
        data = replace(data, split=config.split)
    return predictor, data
