"""What an experiment leaves: numbers, a table, files in its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posegrad.experiments.descent import Descent, TrackedPnP

__all__ = ["Report", "cost", "cost_sentence", "duration"]

# Forward and backward of the original code for 32 poses of 100 points, on two x86 cores.
_ORIGINAL = 1.1 / 32


@dataclass(frozen=True)
class Report:
    """Outcome of an experiment: numbers as they are in its JSON file, the table that shows them, the run folder."""

    numbers: dict[str, Any]
    table: str
    folder: Path


def cost(descent: Descent, solve: TrackedPnP, points: int) -> dict[str, float]:
    """What a run cost, and what as many solves, forward and backward, would cost with the paper's code.

    That took 1.1 s for 32 poses of 100 points; assumed: as long for fewer points, in proportion for more (its time
    grows faster). Our own seconds are those of the whole loop, networks included.
    """
    return {
        "seconds": descent.seconds,
        "cpu_seconds": descent.cpu_seconds,
        "solves": solve.solves,
        "restarts": solve.restarts,
        "seconds_of_the_original": solve.solves * _ORIGINAL * max(1.0, points / 100),
    }


def cost_sentence(cost: Mapping[str, float]) -> str:
    """The same in words."""
    return (
        f"{duration(cost['seconds'])} ({duration(cost['cpu_seconds'])} of processor time) for {cost['solves']} solves "
        f"and all else; the original's solves alone would take {duration(cost['seconds_of_the_original'])}"
    )


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them.

    >>> duration(0.0123), duration(75.0), duration(4123.0)
    ('12 ms', '75 s', '1.1 h')
    """
    for unit, size, limit in (("ms", 1e-3, 1.0), ("s", 1.0, 300.0), ("min", 60.0, 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.{0 if seconds >= 9.5 * size else 1}f} {unit}"
    return f"{seconds / 3600:.1f} h"
