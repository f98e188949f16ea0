"""`report.html` of a run: what it reached, on which images it fails, how it got there; one file, nothing outside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data import Instance
from posegrad.train.config import TrainConfig
from posegrad.train.evaluation import COLUMNS, MEAN_POSE, MEANINGS, NETWORK, Row, cell, mean_row
from posegrad.train.files import write_bytes
from posegrad.train.predictor import PosePredictor, Predictions
from posegrad.train.report_curves import training_charts
from posegrad.train.report_data import (
    Errors,
    Example,
    errors_by_object,
    examine,
    examples,
    metric_of,
    statuses,
)
from posegrad.train.report_errors import LIMIT, error_charts
from posegrad.train.source import Source
from posegrad.viz.closeup import LAYERS, Closeup, closeup, heatmap_strip
from posegrad.viz.page import card, details, escape, facts, grid, legend, page, section, table, tiles

__all__ = ["Evaluated", "write_report"]


@dataclass(frozen=True)
class Evaluated:
    """A run and its evaluation.

    Attributes:
        folder: of the run. config: its settings.
        source, predictor, found: data, network and the poses that it found.
        boxed: the test instances in the boxes that it looked into.
        objects: metrics by object id, then by row (`compare`).
        summary: content of metrics.json, as far as there is one.
        log: lines of log.jsonl.
        environment: versions and hardware of the evaluation. seconds: that it took.
    """

    folder: Path
    config: TrainConfig
    source: Source
    predictor: PosePredictor
    boxed: Sequence[Instance]
    found: Predictions
    objects: dict[str, dict[str, Row]]
    summary: dict[str, Any]
    log: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]
    seconds: float

    def mean(self, name: str) -> Row:
        """A row on average over the objects."""
        return mean_row([rows[name] for rows in self.objects.values()])


def write_report(run: Evaluated) -> Path:
    """Write `report.html` into the run folder.

    Raises:
        RunError: it cannot be written.
    """
    errors = errors_by_object(run.source, run.found)
    subtitle = f"{run.source.name}: {len(run.source.test)} held-out crops"
    training = run.summary.get("training", {})
    if "images" in training:
        subtitle += f"; trained on {training['images'] + training.get('extra_images', 0)}"
    parts = [
        _summary(run, errors),
        _metrics(run),
        _examples(run, errors),
        error_charts(errors),
        _failures(run),
        _training(run),
        _settings(run),
        _machine(run),
    ]
    path = run.folder / "report.html"
    write_bytes(path, page(f"posegrad: {run.folder.name}", subtitle, parts).encode())
    return path


def _summary(run: Evaluated, errors: Sequence[Errors]) -> str:
    """The handful of numbers to look at first, on average over the objects."""
    row, baseline = run.mean(NETWORK), run.mean(MEAN_POSE)
    chosen = [{"ADD": "add_01d", "ADD-S": "adds_01d", "ADD(-S)": "add_or_adds_01d"}[metric_of(errors)]]
    chosen += ["projection_5px", "median_rotation_deg", "median_translation_mm", "failed"]
    values = []
    for key in chosen:
        if key in row:
            name, unit = COLUMNS[key]
            beside = "" if key == "failed" else f"mean pose {_with_unit(cell(key, baseline.get(key)), unit)}"
            name = f"median {name}" if "median" in unit else name
            values.append((name, _with_unit(cell(key, row[key]), unit), beside))
    training = run.summary.get("training", {})
    if training.get("seconds"):
        rate = f"{training['images_per_second']:.0f} images/s"
        values.append(("training", _duration(training["seconds"]), rate))
    return tiles(values)


def _with_unit(value: str, unit: str) -> str:
    unit = unit.removesuffix(", median")
    return f"{value} {unit}".strip()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _metrics(run: Evaluated) -> str:
    named: list[tuple[str, str, Row]] = []
    if len(run.objects) > 1:
        for object_id, rows in run.objects.items():
            named.append(("", f"object {object_id}", rows[NETWORK]))
            named.append(("faint", MEAN_POSE, rows[MEAN_POSE]))
    of = f"mean of {len(run.objects)} objects" if len(run.objects) > 1 else NETWORK
    named += [("strong", of, run.mean(NETWORK)), ("faint", MEAN_POSE, run.mean(MEAN_POSE))]
    keys = [key for key in COLUMNS if any(key in row for _, _, row in named)]
    cells = [[name, *(cell(key, row.get(key)) for key in keys)] for _, name, row in named]
    meaning = facts({COLUMNS[key][0]: MEANINGS[key] for key in keys})
    return section(
        "Metrics",
        table(
            [("poses of", ""), *(COLUMNS[key] for key in keys)],
            cells,
            caption="On the held-out images",
            marked=[mark for mark, _, _ in named],
        ),
        details("What the columns mean", meaning),
        note="The mean pose is a baseline that looks at the box alone: the mean training rotation, with the depth "
        "that the size of the box suggests.",
    )


def _examples(run: Evaluated, errors: Sequence[Errors]) -> str:
    shown = [(e, example) for e in errors for example in examples(e, more=len(errors) == 1)]
    views = examine(run.predictor, run.source, run.boxed, run.found, [example.index for _, example in shown])
    if not views:
        return ""
    cards = [
        _example(run, e, example, view, several_objects=len(errors) > 1)
        for (e, example), view in zip(shown, views, strict=True)
    ]
    present = {"truth", "found", "keypoints"}
    if any(view.moments is not None for view in views):
        present.add("ellipses")
    if any(view.pose_moments is not None for view in views):
        present.add("pose-ellipses")
    strip = (
        " Below each, heatmaps from the most to the least certain keypoint: the circle is where it was read, "
        "the cross where it is."
        if any(view.heatmaps is not None for view in views)
        else ""
    )
    return section(
        "Predictions",
        legend({name: label for name, label in LAYERS.items() if name in present}),
        grid(cards, kind="pictures"),
        note=f"Held-out images by their error, {metric_of(errors)} over the "
        f"diameter, below {100 * LIMIT:.0f} % counts as right.{strip}",
    )


def _example(
    run: Evaluated, errors: Errors, example: Example, view: Closeup, *, several_objects: bool
) -> str:
    item = run.source.test[example.index]
    place = int(np.flatnonzero(errors.index == example.index)[0])
    if math.isfinite(example.error):
        tag = f"{errors.metric} {100 * example.error:.1f} %"
        numbers = (
            f"{errors.rotation[place]:.1f}°, {errors.along[place]:.1f} mm along and "
            f"{errors.across[place]:.1f} mm across the view"
        )
    else:
        status = next(name for name, _, _ in statuses(run.found, [example.index]))
        tag, numbers = f"failed: {status}", "no pose"
    where = f"scene {item.scene_id}, image {item.image_id}"
    caption = f"{where}: {numbers}. {100 * item.visibility:.0f} % visible, {errors.depth[place]:.0f} mm away."
    title = f"{errors.name}, {example.label}" if several_objects else example.label.capitalize()
    numbers_shown: list[int] = []
    if view.moments is not None:
        order = np.argsort(np.trace(view.moments, axis1=1, axis2=2), kind="stable")
        numbers_shown = sorted({int(k) for k in np.linspace(0, len(order) - 1, 4).round()})
        numbers_shown = [int(order[k]) for k in numbers_shown]
    description = f"{title}, {where}: true and predicted outline with keypoints, {tag}"
    content = closeup(view, description) + heatmap_strip(view, numbers_shown)
    return card(content, title=title, tag=tag, caption=caption)


def _failures(run: Evaluated) -> str:
    found = statuses(run.found)
    if not found:
        return ""
    count = len(run.found)
    rows = [[name, str(n), f"{100 * n / count:.1f}", advice] for name, advice, n in found]
    head = [("status", ""), ("images", ""), ("share", "%"), ("what it means", "")]
    return section(
        "Statuses",
        table(head, rows, caption="What became of the held-out images", text_columns=(0, 3)),
    )


def _training(run: Evaluated) -> str:
    training = run.summary.get("training", {})
    notes = []
    if training.get("share_of_steps_with_pose_loss"):
        notes.append(f"PnP failed for {100 * training['failed_share']:.2g} % of the crops it was asked for.")
    if run.config.loss.loss == "mixed":
        notes.append("Shaded: the pose loss gains weight.")
    return section("Training", training_charts(run.log, run.config, training), note=" ".join(notes))


def _settings(run: Evaluated) -> str:
    actual, default = (json.loads(config.to_json()) for config in (run.config, TrainConfig()))
    rows = [
        [f"{group}.{name}", _shown(value), _shown(default[group][name])]
        for group, content in actual.items()
        for name, value in content.items()
        if value != default[group][name]
    ]
    head = [("setting", ""), ("value", ""), ("default", "")]
    changed = table(head, rows, caption="Other than the defaults", text_columns=(0, 1, 2)) if rows else ""
    everything = f"<pre>{escape(run.config.to_json())}</pre>"
    return section("Settings", changed, details("All settings (config.json)", everything))


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _machine(run: Evaluated) -> str:
    training = run.summary.get("training", {})
    timing = {}
    if training.get("steps"):
        timing["training"] = (
            f"{training['steps']} steps in {_duration(training['seconds'])}, "
            f"{training['images_per_second']:.1f} images/s, {training['precision']}"
        )
    if training.get("processes", 1) > 1:
        timing["processes"] = str(training["processes"])
    if training.get("waiting_for_data_share") is not None:
        timing["waiting for data"] = f"{100 * training['waiting_for_data_share']:.1f} % of the training"
    if training.get("skipped_steps"):
        timing["steps left out"] = f"{training['skipped_steps']}, whose gradient was not finite"
    if training.get("left_out"):
        timing["images left out"] = str(len(training["left_out"]))
    timing["evaluation"] = (
        f"{len(run.source.test)} images in {_duration(run.seconds)}, {len(run.source.test) / run.seconds:.1f} images/s"
    )
    here, before = run.environment, run.summary.get("environment")
    cards = [
        card(facts(content), title=title)
        for title, content in (
            ("Time", timing),
            ("Hardware", here["hardware"]),
            ("Versions", here["versions"]),
        )
    ]
    trained = ""
    if before is not None and before != here:
        trained = details("Where it was trained", facts(before["hardware"]) + facts(before["versions"]))
    return section("Time and machine", grid(cards), trained)
