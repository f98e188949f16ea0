"""The benchmark: its gate's logic, its exact gradient against re-solving, and one small cell from end to end."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import central_difference, relative_error

_FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import one of the benchmark's files."""
    monkeypatch.syspath_prepend(_FOLDER)
    yield importlib.import_module
    for name in [name for name in sys.modules if name.split("_")[0] == "speed"]:
        del sys.modules[name]


def _record(method: str, least: float, **changes: Any) -> dict[str, Any]:
    record = {"task": "forward, nearby start", "dtype": "float64", "batch": 32, "points": 8, "method": method}
    record |= {"own": method.startswith("posegrad"), "threads": None, "min_us": least, "cost": 1.0}
    return record | {"gradient_error": None} | changes


def test_gate_compares_ratios(load: Any) -> None:
    gate = load("speed_gate")
    before = [_record("PoseLib refine", 10.0), _record("posegrad torch", 50.0)]
    baseline = gate.as_baseline(before)
    assert [cell["ratio"] for cell in baseline["cells"]] == [5.0]
    slower_machine = [_record("PoseLib refine", 30.0), _record("posegrad torch", 150.0)]
    assert gate.regressions(baseline, slower_machine) == []
    within = [_record("PoseLib refine", 10.0), _record("posegrad torch", 74.0)]
    assert gate.regressions(baseline, within) == []
    slower = [_record("PoseLib refine", 10.0), _record("posegrad torch", 76.0)]
    assert gate.regressions(baseline, slower + within) == []  # disturbed once
    (failure,) = gate.regressions(baseline, slower)
    assert "posegrad torch, 32 x 8, forward, nearby start" in failure
    assert "7.6" in failure


def test_gate_asks_for_every_cell_and_for_accuracy(load: Any) -> None:
    gate = load("speed_gate")
    baseline = gate.as_baseline([_record("PoseLib refine", 10.0), _record("posegrad torch", 50.0)])
    (failure,) = gate.regressions(baseline, [_record("PoseLib refine", 10.0)])
    assert "not measured" in failure
    for changes in ({"cost": 1.001}, {"gradient_error": 1e-3}, {"cost": float("nan")}):
        records = [_record("PoseLib refine", 10.0), _record("posegrad torch", 50.0, **changes)]
        assert len(gate.regressions(baseline, records)) == 1
        single = [{**record, "dtype": "float32"} for record in records]
        assert gate.regressions({**baseline, "cells": []}, single) == []


def test_forecast_grows_as_measured(load: Any) -> None:
    forecast = load("speed_timing").Forecast()
    assert forecast.seconds("m", "task", (1, 8)) == 0
    forecast.record("m", "task", (1, 8), 1.0)
    forecast.record("m", "task", (10, 8), 10.0)
    assert forecast.seconds("m", "task", (100, 8)) == pytest.approx(100.0)
    assert forecast.seconds("m", "other", (100, 8)) == 0


def test_the_exact_gradient_is_that_of_resolving(load: Any) -> None:
    scenes = load("speed_scenes")
    inputs = scenes.make_inputs(scenes.Cell(2, 6))

    def losses(x: Tensor, z: Tensor) -> Tensor:
        repeat = len(x) // 2
        start = pg.Pose(*(v.repeat_interleave(repeat, 0) for v in (inputs.near.R, inputs.near.t)))
        pose = pg.solve_pnp(x, z, inputs.K, init=start).pose
        return (pose.R * inputs.weight_R).sum((-1, -2)) + (pose.t * inputs.weight_t).sum(-1)

    x, z = inputs.points2d, inputs.points3d
    pose = pg.solve_pnp(x, z, inputs.K, init=inputs.near).pose
    by_pixels, by_points = scenes.exact_gradients(inputs, pose.R, pose.t)
    of_pixels = central_difference(lambda v: losses(v, z.repeat_interleave(12, 0)), x, 1e-3)
    of_points = central_difference(lambda v: losses(x.repeat_interleave(18, 0), v), z, 1e-4)
    assert relative_error(by_pixels, of_pixels, 1e-9).max() < 1e-6
    assert relative_error(by_points, of_points, 1e-9).max() < 1e-6


def test_one_cell_from_end_to_end(load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed = load("speed")
    cell = ["--batch", "2", "--points", "6", "--dtypes", "float64", "--tasks", "nearby", "--budget", "0.002"]
    files = ["--out", str(tmp_path), "--baseline", str(tmp_path / "baseline.json")]
    only = ["--only", "posegrad torch", "kernel alone", "OpenCV", "PoseLib"]
    before = torch.get_num_threads()
    assert speed.main([*cell, *files, *only, "--write-baseline", "--no-plots"]) == 0
    assert torch.get_num_threads() == before
    assert "forward + backward, nearby start" in capsys.readouterr().out
    records = json.loads((tmp_path / "records.json").read_text())["records"]
    (alone,) = [record for record in records if record["method"] == "kernel alone"]
    assert alone["cost"] == pytest.approx(1, abs=1e-9)
    own = [record for record in records if record["own"]]
    assert len(own) == 2
    for record in own:
        assert record["cost"] == pytest.approx(1, abs=1e-9)
        assert record["gradient_error"] is None or record["gradient_error"] < 1e-9
    baseline = json.loads((tmp_path / "baseline.json").read_text())
    assert len(baseline["cells"]) == 2
    baseline["cells"] = baseline["cells"][:1]
    baseline["cells"][0]["ratio"] /= 1e3
    (tmp_path / "baseline.json").write_text(json.dumps(baseline))
    assert speed.main([*files, "--gate", "--budget", "0.002"]) == 1
    assert "posegrad torch, 2 x 6" in capsys.readouterr().out
