"""Whether this package has become slower, told by ratios to a peer that was timed in the same run.

A ratio does not depend on how fast a machine is; it does, somewhat, on which machine: hence the tolerance.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]

REFERENCE = "PoseLib refine"
#: a cell fails when its ratio is more than this many times the baseline's
TOLERANCE = 1.5
#: and when an answer or a gradient is worse than this, relative (float64)
ACCURACY = 1e-6
_KEYS = ("task", "dtype", "batch", "points", "method", "threads")


def ratios(records: Iterable[Record]) -> dict[tuple[Any, ...], float]:
    """Median time of this package's methods over the reference's for as many items and points, started nearby."""
    records = list(records)
    reference = {
        (r["dtype"], r["batch"], r["points"]): r["median_us"] for r in records if r["method"] == REFERENCE
    }
    found = {}
    for record in records:
        size = (record["dtype"], record["batch"], record["points"])
        if record["own"] and size in reference:
            found[tuple(record[key] for key in _KEYS)] = record["median_us"] / reference[size]
    return found


def as_baseline(records: Iterable[Record]) -> dict[str, Any]:
    """What is committed."""
    cells = [
        {**dict(zip(_KEYS, key, strict=True)), "ratio": float(f"{ratio:.4g}")}
        for key, ratio in ratios(records).items()
    ]
    return {"reference": REFERENCE, "tolerance": TOLERANCE, "cells": cells}


def regressions(baseline: Mapping[str, Any], records: Iterable[Record]) -> list[str]:
    """One line for each cell that is slower than the tolerance allows, inexact, or was not measured."""
    records = list(records)
    measured = ratios(records)
    failures = []
    for cell in baseline["cells"]:
        key = tuple(cell[name] for name in _KEYS)
        name = f"{cell['method']}, {cell['batch']} x {cell['points']}, {cell['task']}, {cell['dtype']}"
        allowed = cell["ratio"] * baseline["tolerance"]
        if key not in measured:
            failures.append(f"{name}: not measured")
        elif measured[key] > allowed:
            failures.append(
                f"{name}: {measured[key]:.3g} times {baseline['reference']}, the baseline says {cell['ratio']:.3g} "
                f"and allows {allowed:.3g}"
            )
    for record in records:
        if record["own"] and record["dtype"] == "float64":
            name = f"{record['method']}, {record['batch']} x {record['points']}, {record['task']}"
            if not record["cost"] <= 1 + ACCURACY:
                failures.append(f"{name}: {record['cost']:.9g} times the best known cost")
            error = record["gradient_error"]
            if error is not None and not error <= ACCURACY:
                failures.append(f"{name}: gradient off by {error:.3g}")
    return failures
