"""Time, accuracy and memory of solve_pnp beside its peers: the same inputs, in the same process, to the same cost.

    python benchmarks/speed.py [--quick] [--gate] [--batch 1 32 --points 8 100 ...] [--only posegrad EPro ...]

Every cell is a number of items and of points, a dtype, with or without a start nearby, with or without the gradient
by pixels and points. Methods are called in turns. For each: the median and the minimum of many calls; the cost it
reaches, as the largest ratio of an item's cost to the best known one; the relative error of its gradient against the
exact one, the worst of some items; by how much a call raises the memory held. "-": a call is expected to take too
long, or fails.

The table goes to the screen as it grows; records, a summary and plots to ``--out``. ``--gate`` measures the cells of
the committed baseline, compares ratios to a peer timed in the same run (see ``speed_gate.py`` for the tolerance), and
ends with 1 naming the cells that got worse. Peers without gradients need
``pip install '.[bench]'``; for the differentiable ones see ``speed_layers.py``.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch

import speed_gate
import speed_report
from speed_layers import layers
from speed_methods import Method, kernel_alone, posegrad_methods, solvers
from speed_scenes import Answer, Cell, Inputs, costs, exact_gradients, gradient_error, make_inputs
from speed_timing import CLOCKS, Forecast, Run, interleaved, peak_memory, summary

_HERE = Path(__file__).parent
_BASELINE = _HERE / "speed_baseline.json"
_QUICK = {"batch": [1, 32, 256], "points": [8, 100], "dtypes": ["float64"], "budget": 0.05, "limit": 0.15}
_FULL = {
    "batch": [1, 32, 256, 1024, 8192],
    "points": [4, 8, 100, 1000, 10_000],
    "dtypes": ["float64", "float32"],
    "budget": 0.4,
    "limit": 5.0,
}
_MOST_POINTS = 3_000_000  # of all items together


@dataclass
class Bench:
    """The methods, how long they may take, and what is known of how long they do."""

    methods: Sequence[Method]
    budget: float
    limit: float
    threads: Sequence[int | None] = (None,)
    clock: str = "wall"
    forecast: Forecast = field(default_factory=Forecast)

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Records of all methods that the cell is for."""
        inputs = make_inputs(cell)
        taking = [method for method in self.methods if method.takes(cell)]
        runs: dict[str, Run] = {}
        answers: dict[str, Answer] = {}
        memory: dict[str, float | None] = {}
        why: dict[str, str] = {}
        for method in taking:
            size = (cell.batch, cell.points)
            if self.forecast.seconds(method.name, cell.task + cell.dtype, size) > self.limit:
                why[method.name] = "-"
                continue
            try:
                runs[method.name], read = method.prepare(inputs, cell)
                answers[method.name] = read(runs[method.name]())
                memory[method.name] = peak_memory(runs[method.name])
            except Exception as error:  # a peer's own, of any kind
                runs.pop(method.name, None)
                why[method.name] = f"- ({type(error).__name__})"
        timed = interleaved(dict(self._variants(runs)), self.budget, self.limit, CLOCKS[self.clock])
        quality = _quality(inputs, cell, answers)
        records = []
        for method in taking:
            for count in self._counts(method):
                record = _record(cell, method, count)
                if method.name in runs:
                    record |= summary(timed[_variant(method.name, count)])
                    record |= quality[method.name] | {"memory_mb": memory[method.name]}
                    self.forecast.record(
                        method.name,
                        cell.task + cell.dtype,
                        (cell.batch, cell.points),
                        1e-6 * record["min_us"],
                    )
                else:
                    record["why"] = why[method.name]
                records.append(record)
        return records

    def _counts(self, method: Method) -> Sequence[int | None]:
        return self.threads if method.name.startswith("posegrad") else (None,)

    def _variants(self, runs: dict[str, Run]) -> Iterator[tuple[str, Run]]:
        for method in self.methods:
            if method.name in runs:
                for count in self._counts(method):
                    yield _variant(method.name, count), _on_threads(runs[method.name], count)


def _variant(name: str, count: int | None) -> str:
    return name if count is None else f"{name} {count}"


def _on_threads(run: Run, count: int | None) -> Run:
    if count is None:
        return run

    def limited() -> Any:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        return run()

    return limited


def _record(cell: Cell, method: Method, threads: int | None) -> dict[str, Any]:
    return {
        "task": cell.task,
        "dtype": cell.dtype,
        "batch": cell.batch,
        "points": cell.points,
        "method": method.name,
        "own": method.name.startswith("posegrad"),
        "threads": threads,
        "median_us": None,
        "min_us": None,
        "calls": 0,
        "cost": None,
        "gradient_error": None,
        "memory_mb": None,
    }


def _quality(inputs: Inputs, cell: Cell, answers: dict[str, Answer]) -> dict[str, dict[str, float | None]]:
    """Cost and gradient error of every answer."""
    if not answers:
        return {}
    reached = {name: costs(inputs, answer) for name, answer in answers.items()}
    best = torch.stack(list(reached.values())).amin(0)
    winner = min(
        reached, key=lambda name: (reached[name] / best).nan_to_num(torch.inf, torch.inf).max().item()
    )
    exact = exact_gradients(inputs, *answers[winner][:2]) if cell.backward else None
    return {
        name: {
            "cost": (reached[name] / best).nan_to_num(torch.inf, torch.inf).max().item(),
            "gradient_error": None if exact is None else gradient_error(answer, exact),
        }
        for name, answer in answers.items()
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "opencv": cv2.__version__,
        "command": " ".join(["python", *sys.argv]),
    }


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    sizes = [
        (batch, points)
        for batch, points in itertools.product(options.batch, options.points)
        if batch * points <= _MOST_POINTS
    ]
    for dtype, backward, init in itertools.product(options.dtypes, (False, True), (True, False)):
        yield from (Cell(batch, points, dtype, init, backward) for batch, points in sizes)


def _gate(bench: Bench, path: Path) -> int:
    baseline = json.loads(path.read_text())
    failures: list[str] = []
    records: list[dict[str, Any]] = []
    for attempt in range(2):  # what other programs did meanwhile shall not fail it: the best of both counts
        records += [record for cell in _baseline_cells(baseline) for record in bench.measure(cell)]
        failures = speed_gate.regressions(baseline, records)
        if not failures:
            print(f"no cell is slower than {baseline['tolerance']} times its ratio in {path.name}")
            return 0
        print(f"attempt {attempt + 1}:", *failures, sep="\n  ")
    return 1


def _baseline_cells(baseline: dict[str, Any]) -> list[Cell]:
    """The cells, and before each its reference's."""
    found: dict[Cell, None] = {}
    for cell in baseline["cells"]:
        size = (cell["batch"], cell["points"], cell["dtype"])
        found[Cell(*size, init=True, backward=False)] = None
        found[Cell(*size, init="nearby" in cell["task"], backward="backward" in cell["task"])] = None
    return list(found)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="few sizes, few repetitions, float64: under a minute"
    )
    parser.add_argument("--gate", action="store_true", help="compare with the baseline, end with 1 if worse")
    parser.add_argument("--write-baseline", action="store_true", help="make this run's ratios the baseline")
    parser.add_argument("--baseline", type=Path, default=_BASELINE, help="file of the baseline")
    parser.add_argument("--batch", type=int, nargs="+", help="numbers of items")
    parser.add_argument("--points", type=int, nargs="+", help="numbers of points")
    parser.add_argument("--dtypes", nargs="+", choices=["float64", "float32"])
    parser.add_argument(
        "--tasks", default="", help="only tasks whose name has this in it, as 'backward, nearby'"
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], help="only methods whose name has one of these in it"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", help="this package with so many threads, one after another"
    )
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: processor time, for a machine shared with others",
    )
    parser.add_argument("--budget", type=float, help="seconds for each method of a cell")
    parser.add_argument(
        "--limit", type=float, help="a call that is expected to take longer is left out, seconds"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/speed"), help="folder of records, summary and plots"
    )
    parser.add_argument("--plots", action=argparse.BooleanOptionalAction, default=True, help="draw them")
    options = parser.parse_args(arguments)
    for name, value in (_QUICK if options.quick or options.gate else _FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    warnings.filterwarnings("ignore")  # the peers' own, of their dependencies
    options = parse(arguments)
    peers, missing = layers()
    methods = [*posegrad_methods(), kernel_alone(), *solvers(), *peers]
    wanted = [speed_gate.REFERENCE, "posegrad"] if options.gate else options.only
    methods = [method for method in methods if any(name in method.name for name in wanted)]
    bench = Bench(methods, options.budget, options.limit, options.threads or (None,), options.clock)
    if options.gate:
        return _gate(bench, options.baseline)
    header = machine()
    print(", ".join(f"{key} {value}" for key, value in header.items()))
    print(*(f"cannot be imported: {name}" for name in missing), sep="\n")
    records: list[dict[str, Any]] = []
    task = ""
    for cell in _cells(options):
        if options.tasks not in cell.task:
            continue
        if task != f"{cell.task}, {cell.dtype}":
            task = f"{cell.task}, {cell.dtype}"
            print(f"\n{task}\n\n{speed_report.head()}")
        found = bench.measure(cell)
        records += found
        print(*speed_report.rows(found), sep="\n", flush=True)
    text = speed_report.summary(records)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "records.json").write_text(json.dumps({"machine": header, "records": records}, indent=1))
    (options.out / "summary.md").write_text(text + "\n")
    if options.plots:
        speed_report.plot(records, options.out)
    if options.write_baseline:
        options.baseline.write_text(json.dumps(speed_gate.as_baseline(records), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
