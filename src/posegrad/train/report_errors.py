"""The error charts of a report: how large the errors are, and over what they grow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posegrad.train.report_data import Errors, metric_of
from posegrad.viz.charts import Curve, Mark, histogram_chart, recall_chart, scatter_chart
from posegrad.viz.page import card, grid, section

__all__ = ["LIMIT", "error_charts"]

LIMIT = 0.1
"""Of the error over the diameter: the usual threshold of ADD."""
_WIDEST = 0.5
"""End of the recall curve's axis, same unit."""


def error_charts(errors: Sequence[Errors]) -> str:
    """Recall, histograms, and errors over what may cause them; empty where everything failed."""
    solved = [e for e in errors if e.solved.any()]
    if not solved:
        return ""
    charts = [
        card(_recall(errors), title="Recall over the threshold"),
        card(
            histogram_chart(
                "rotation",
                {"": np.concatenate([e.rotation[e.solved] for e in solved])},
                title="Histogram of the rotation errors",
                x="rotation error (degrees)",
                y="images",
            ),
            title="Rotation",
        ),
        card(
            histogram_chart(
                "translation",
                {
                    "along the view": np.concatenate([e.along[e.solved] for e in solved]),
                    "across": np.concatenate([e.across[e.solved] for e in solved]),
                },
                title="Histograms of the translation errors, along and across the viewing direction",
                x="translation error (mm)",
                y="images",
            ),
            title="Translation",
        ),
        *_causes(solved),
    ]
    failed = sum(int((~e.solved).sum()) for e in errors)
    note = f"{failed} failed items have no error, and count as wrong in the recall alone." if failed else ""
    return section("Errors", grid(charts), note=note)


def _recall(errors: Sequence[Errors]) -> str:
    at = np.linspace(0, _WIDEST, 101)
    curves = [Curve(e.name, 100 * at, _shares(e.distance, at)) for e in errors]
    if len(errors) == 1:
        curves[0] = curves[0]._replace(label="posegrad")
        curves.append(Curve("mean pose", 100 * at, _shares(errors[0].baseline, at), dashed=True))
    metric = metric_of(errors)
    return recall_chart(
        "recall",
        curves,
        title=f"Share of images with an error below a threshold, over the threshold, {metric}",
        x=f"threshold of {metric} (% of the diameter)",
        y="images below (%)",
        mark=Mark(100 * LIMIT, f"{metric}-0.1d"),
    )


def _shares(distance: np.ndarray, at: np.ndarray) -> np.ndarray:
    return 100 * (distance < at[:, None]).mean(1)


def _causes(solved: Sequence[Errors]) -> list[str]:
    """Error over visibility, distance and score, where these vary enough to tell something."""
    charts = []
    for key, title, label, scale, least in (
        ("visibility", "Visibility", "visible share (%)", 100.0, 15.0),
        ("depth", "Distance", "distance from the camera (mm)", 1.0, 0.0),
        ("score", "Score", "score: confidence from the pose's covariance", 1.0, 0.05),
    ):
        values = np.concatenate([scale * getattr(e, key)[e.solved] for e in solved])
        varies = len(values) >= 10 and np.ptp(values) > max(least, 0.1 * float(np.abs(values).mean()))
        if varies:
            points = {
                (e.name if len(solved) > 1 else "image"): (
                    scale * getattr(e, key)[e.solved],
                    100 * e.distance[e.solved],
                )
                for e in solved
            }
            chart = scatter_chart(
                key,
                points,
                title=f"Error of each image over its {title.lower()}",
                x=label,
                y=f"{metric_of(solved)} (% of the diameter)",
            )
            charts.append(card(chart, title=f"Error over {title.lower()}"))
    return charts
