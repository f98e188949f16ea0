"""Whether this package has become slower, told by ratios to a peer that was timed in the same run.

A ratio does not depend on how fast a machine is; it does, somewhat, on which machine: hence the tolerance.
"""

import math
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
    """Least time of this package's methods over the reference's for as many items and points, started nearby.

    A cell may have been measured several times. The minimum is what other programs disturb least.
    """
    reference: dict[tuple[Any, ...], float] = {}
    own: dict[tuple[Any, ...], float] = {}
    for record in records:
        if record["min_us"] is None:
            continue
        key = tuple(record[name] for name in _KEYS)
        if record["method"] == REFERENCE:
            reference[key[1:4]] = min(record["min_us"], reference.get(key[1:4], math.inf))
        elif record["own"]:
            own[key] = min(record["min_us"], own.get(key, math.inf))
    return {key: least / reference[key[1:4]] for key, least in own.items() if key[1:4] in reference}


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
