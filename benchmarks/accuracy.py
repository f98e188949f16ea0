"""How often solve_pnp, without an initial pose, reaches the best known minimum; beside other solvers.

    python benchmarks/accuracy.py [--problems 200] [--first 0] [--only needle 'wide/4/*' ...] [--misses]

Cells shape/points/noise: see ``pnp_cells.py``. A problem is a hit when cost <= best known (1 + 1e-6) + 1e-9 px^2, with
every point in front of the camera and, for us, the solution marked ok. Best known: the least over us, every rival and
50 random starts, all refined on the same cost to a minimum. Problems in which none of all these leads to a minimum are
counted apart: their cost falls on towards a point in the camera's centre. What rivals and random starts reach is kept
in ``best.jsonl`` under ``--out`` and computed once per problem; our own answers are kept in ``ours.jsonl`` and computed
again when a source file of posegrad that takes part has changed. Interrupted runs go on where they stopped; delete the
folder to start anew.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import posegrad as pg
from pnp_cells import SHAPES, Array, Cell, K, Problems, all_cells, make_problems
from pnp_rivals import RIVALS, STARTS, cost_of, rival_costs

_BLOCK = 50  # problems solved by the rivals between two writes
_GOAL = 0.999
Record = dict[str, Any]


def digests(problems: Problems) -> list[str]:
    """Of each problem's numbers: cached answers to other problems are not used."""
    parts = [part.numpy() for part in (problems.points2d, problems.points3d, problems.weights, problems.mask)]
    return [
        hashlib.sha1(b"".join(part[i].tobytes() for part in parts)).hexdigest()[:8]
        for i in range(len(problems))
    ]


def solver_version() -> str:
    """Digest of the sources of every module of posegrad that is loaded."""
    files = {module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "posegrad"}
    return hashlib.sha1(b"".join(Path(f).read_bytes() for f in sorted(filter(None, files)))).hexdigest()[:16]


def read(path: Path) -> dict[str, Record]:
    """The last record of each cell; empty lines and one cut off by an interruption are skipped."""
    records = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[record["cell"]] = record
    return records


def append(path: Path, record: Record) -> None:
    with path.open("a") as file:
        file.write("\n" + json.dumps(record))  # on a line of its own also after one that was cut off


def best_record(
    cell: Cell, problems: Problems, first: int, old: Record | None, starts: int, path: Path
) -> Record:
    """What rivals and random starts reach, continued from an older record of the same problems."""
    known = digests(problems)
    record: Record = {"cell": str(cell), "starts": starts, "problems": [], "costs": {}}
    if old and old["starts"] == starts and all(a == b for a, b in zip(old["problems"], known, strict=False)):
        record = old
    while (count := len(record["problems"])) < len(problems):
        indices = range(count, min(count + _BLOCK, len(problems)))
        drawn = range(first + indices.start, first + indices.stop)
        new = rival_costs(cell, problems[indices.start : indices.stop], drawn, starts)
        costs = {name: record["costs"].get(name, []) + values for name, values in new.items()}
        record = record | {"problems": known[: indices.stop], "costs": costs}
        append(path, record)
    return record


def our_record(cell: Cell, problems: Problems, old: Record | None, path: Path) -> Record:
    """What we reach without an initial pose."""
    wanted = {"cell": str(cell), "solver": solver_version(), "problems": digests(problems)}
    if old and wanted.items() <= old.items():
        return old
    solution = pg.solve_pnp(
        problems.points2d, problems.points3d, K, weights=problems.weights, mask=problems.mask
    )
    cost = torch.where(solution.ok, cost_of(problems, solution.pose[:, None]).squeeze(-1), torch.inf)
    record = wanted | {"cost": cost.tolist(), "status": solution.status.tolist()}
    append(path, record)
    return record


class Result:
    """One cell: costs and hits of us and of every rival."""

    def __init__(self, cell: Cell, ours: Record, best: Record) -> None:
        self.cell, self.status = cell, [pg.Status(code) for code in ours["status"]]
        count = len(self.status)
        self.costs = {"ours": np.array(ours["cost"])}
        self.costs |= {name: np.array(values[:count]) for name, values in best["costs"].items()}
        self.best: Array = np.min(list(self.costs.values()), axis=0)
        self.solvable = np.isfinite(self.best)
        bound = self.best * (1 + 1e-6) + 1e-9
        self.hits = {name: (cost <= bound) & np.isfinite(cost) for name, cost in self.costs.items()}
        self.share = {name: float(hits[self.solvable].mean()) for name, hits in self.hits.items()}

    def ratios(self) -> Array:
        """Our cost over the best known, where we have an answer."""
        ours = self.costs["ours"]
        answered = np.isfinite(ours)
        return (ours[answered] + 1e-9) / (self.best[answered] + 1e-9)

    def misses(self) -> list[str]:
        lines = []
        for i in np.flatnonzero(~self.hits["ours"] & self.solvable):
            savers = ", ".join(name for name, hits in self.hits.items() if hits[i])
            lines.append(
                f"{self.cell} problem {i}: {self.status[i].name}, cost {self.costs['ours'][i]:.6g}, "
                f"best {self.best[i]:.6g} by {savers}"
            )
        return lines


def percent(hits: float) -> str:
    return f"{100 * hits:.1f}"


def table(results: list[Result]) -> str:
    """One row a cell."""
    names = ["ours", *RIVALS, STARTS]
    rows = [
        "| cell | " + " | ".join(names) + " | median ratio | largest ratio | not ok |",
        "|---" * (len(names) + 4) + "|",
    ]
    for result in results:
        shares = [percent(result.share[name]) if name in result.share else "" for name in names]
        ratios = result.ratios()
        numbers = [f"{np.median(ratios):.6f}", f"{ratios.max():.4g}"] if len(ratios) else ["", ""]
        failed = Counter(status.name for status in result.status if status != pg.Status.CONVERGED)
        listed = ", ".join(f"{n} {name}" for name, n in failed.items())
        none = np.count_nonzero(~result.solvable)
        listed += f" ({none} without a minimum)" if none else ""
        rows.append("| " + " | ".join([str(result.cell), *shares, *numbers, listed]) + " |")
    return "\n".join(rows)


def summary(results: list[Result]) -> str:
    """Shares over all cells of a shape, with the lowest cell; then what falls short of the goal."""
    names = ["ours", *RIVALS, STARTS]
    heads = ["shape", "problems", *names, "ours, lowest cell"]
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for shape in SHAPES:
        group = [result for result in results if result.cell.shape == shape]
        if not group:
            continue
        shares = []
        for name in names:
            hits = [r.hits[name][r.solvable] for r in group if name in r.hits]
            shares.append(percent(float(np.concatenate(hits).mean())) if hits else "")
        lowest = min(group, key=lambda result: result.share["ours"])
        text = f"{percent(lowest.share['ours'])} ({lowest.cell})"
        rows.append(
            "| " + " | ".join([shape, str(sum(int(r.solvable.sum()) for r in group)), *shares, text]) + " |"
        )
    without = {str(r.cell): np.count_nonzero(~r.solvable) for r in results if not r.solvable.all()}
    if without:
        listed = ", ".join(f"{count} in {cell}" for cell, count in without.items())
        rows.append(f"\nProblems without a known minimum, not counted above: {listed}")
    below = [r for r in results if r.share["ours"] < _GOAL]
    rows.append(f"\nCells below {100 * _GOAL:g} %: {len(below)} of {len(results)}")
    rows.extend(f"- {r.cell}: {percent(r.share['ours'])} %" for r in below)
    above = [(r, [n for n in names if r.share.get(n, 0) > r.share["ours"]]) for r in results]
    above = [(r, rivals) for r, rivals in above if rivals]
    rows.append(f"\nCells where a rival, or the random starts, are above us: {len(above)}")
    for r, rivals in above:
        listed = ", ".join(f"{n} {percent(r.share[n])}" for n in rivals)
        rows.append(f"- {r.cell}: we {percent(r.share['ours'])}, {listed}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=200, help="per cell")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first problem: others, for a check"
    )
    parser.add_argument("--starts", type=int, default=50, help="random starts per problem")
    parser.add_argument("--only", nargs="+", default=["*"], help="shapes, or patterns of shape/points/noise")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--misses", action="store_true", help="list every problem whose best minimum we miss")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    best_path, our_path = options.out / "best.jsonl", options.out / "ours.jsonl"
    best, ours = read(best_path), read(our_path)
    cells = [
        cell
        for cell in all_cells()
        if any(pattern == cell.shape or fnmatch(str(cell), pattern) for pattern in options.only)
    ]
    if not cells:
        parser.error(f"--only {' '.join(options.only)}: no such cell; shapes are {', '.join(SHAPES)}")
    results = []
    for cell in tqdm(cells, unit="cell"):
        problems = make_problems(cell, range(options.first, options.first + options.problems))
        known = best_record(cell, problems, options.first, best.get(str(cell)), options.starts, best_path)
        own = our_record(cell, problems, ours.get(str(cell)), our_path)
        results.append(Result(cell, own, known))
    text = f"{table(results)}\n\n{summary(results)}\n"
    (options.out / "table.md").write_text(text)
    print(text)
    if options.misses:
        print("\n".join(line for r in results for line in r.misses()))


if __name__ == "__main__":
    main()
