"""What an experiment leaves: numbers, a table, files in its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Report", "columns", "duration", "seconds_of_the_original"]

# Forward and backward of the original code for 32 poses of 100 points, on two x86 cores.
_ORIGINAL = 1.1 / 32


@dataclass(frozen=True)
class Report:
    """Outcome of an experiment: numbers as they are in its JSON file, the table that shows them, the run folder."""

    numbers: dict[str, Any]
    table: str
    folder: Path


def seconds_of_the_original(solves: int, points: int) -> float:
    """What as many forward and backward passes would cost with the paper's code.

    1.1 s for 32 poses of 100 points; assumed: as long for fewer points, in proportion for more (its time grows faster).
    """
    return solves * _ORIGINAL * max(1.0, points / 100)


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them.

    >>> duration(0.0123), duration(75.0), duration(4123.0)
    ('12 ms', '75 s', '1.1 h')
    """
    for unit, size, limit in (("ms", 1e-3, 1.0), ("s", 1.0, 300.0), ("min", 60.0, 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.{0 if seconds >= 9.5 * size else 1}f} {unit}"
    return f"{seconds / 3600:.1f} h"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left.

    >>> print(columns(["", "a"], [["x", "1"], ["yy", "10"]]))
         a
    x    1
    yy  10
    """
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
