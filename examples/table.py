"""Print the metrics of several runs side by side, object by object: python examples/table.py RUN [RUN ...]"""

import json
import sys
from pathlib import Path

COLUMNS = {
    "add_01d": "ADD-0.1d %",
    "adds_01d": "ADD-S-0.1d %",
    "add_or_adds_01d": "ADD(-S)-0.1d %",
    "projection_5px": "2D proj. 5 px %",
    "cm5_deg5": "5 cm 5 deg %",
    "median_rotation_deg": "median rot. deg",
    "median_translation_mm": "median transl. mm",
    "median_projection_px": "median 2D px",
    "failed": "failed %",
    "count": "test images",
}


def main() -> None:
    rows: list[tuple[str, dict]] = []
    for run in map(Path, sys.argv[1:]):
        objects = json.loads((run / "metrics.json").read_text())["objects"]
        several = len(objects) > 1
        rows += [
            (f"{run.name}, object {key}" if several else run.name, parts["posegrad"])
            for key, parts in objects.items()
        ]
    for _, row in rows:
        row["add_or_adds_01d"] = row.get("adds_01d", row["add_01d"])
    print("| run | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for name, row in rows:
        print(f"| {name} | " + " | ".join(_cell(row.get(key)) for key in COLUMNS) + " |")
    means = {key: [row.get(key) for _, row in rows] for key in COLUMNS if key not in ("adds_01d", "count")}
    print(f"| mean | {' | '.join(_mean(means.get(key, [None])) for key in COLUMNS)} |")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _mean(values: list[float | None]) -> str:
    present = [value for value in values if value is not None]
    return _cell(sum(present) / len(present)) if len(present) == len(values) else ""


if __name__ == "__main__":
    main()
