"""The curves of a training log for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posegrad.train.config import TrainConfig
from posegrad.viz.charts import Band, Curve, Mark, curve_chart
from posegrad.viz.figures import series_of
from posegrad.viz.page import card, grid

__all__ = ["training_charts"]

# (heading, label of the axis, factor, {key of the log: name})
_CHARTS: tuple[tuple[str, str, float, dict[str, str]], ...] = (
    ("Heatmap loss l_h", "l_h (nats)", 1.0, {"l_h": "l_h"}),
    ("Pose loss l_p", "l_p (crop sides squared)", 1.0, {"l_p": "l_p"}),
    ("Failed in PnP", "crops of a step (%)", 100.0, {"failed": "failed"}),
    (
        "Pull at the keypoints",
        "gradient (1 / crop px)",
        1.0,
        {"grad_heatmap_keypoints": "heatmap loss", "grad_pose_keypoints": "pose loss"},
    ),
    (
        "Pull at the heatmaps",
        "gradient by the logits",
        1.0,
        {"grad_heatmap_logits": "heatmap loss", "grad_pose_logits": "pose loss"},
    ),
    ("Gradient of all weights", "norm, before clipping", 1.0, {"grad_weights": "all weights"}),
    ("Learning rate", "learning rate", 1.0, {"lr": "learning rate"}),
)


def training_charts(
    log: Sequence[Mapping[str, Any]], config: TrainConfig, training: Mapping[str, Any]
) -> str:
    """A chart for each group of keys that has finite values, not all of them zero; empty for an empty log.

    Args:
        log: lines of log.jsonl.
        config: tells when the pose loss joins.
        training: of metrics.json; its seconds give the steps a time.
    """
    mark, band = _pose_loss_joins(log, config)
    label = "step"
    if training.get("seconds") and training.get("steps"):
        label = f"step ({training['steps']} in {training['seconds'] / 60:.1f} min)"
    cards = []
    for number, (heading, y, factor, keys) in enumerate(_CHARTS):
        curves = []
        for key, name in keys.items():
            at, values = series_of(log, "step", key)
            # a loss that is off has a gradient of zero, which a logarithmic axis cannot show
            kept = values > 0 if key.startswith("grad_") else np.ones(len(at), dtype=bool)
            if values[kept].any():
                curves.append(Curve(name, at[kept], factor * values[kept]))
        if curves:
            chart = curve_chart(
                f"training-{number}",
                curves,
                title=f"{heading} over the steps of the training",
                x=label,
                y=y,
                mark=mark,
                band=band,
                linear=heading == "Learning rate",
            )
            cards.append(card(chart, title=heading))
    return grid(cards)


def _pose_loss_joins(
    log: Sequence[Mapping[str, Any]], config: TrainConfig
) -> tuple[Mark | None, Band | None]:
    """Where the mixed loss first has a pose loss, and from there to its full weight."""
    at, beta = series_of(log, "step", "beta")
    if config.loss.loss != "mixed" or not (beta > 0).any():
        return None, None
    joins, full = float(at[beta > 0][0]), float(at[beta >= beta.max()][0])
    return Mark(joins, "pose loss joins"), Band(joins, full)
