"""Print the metrics of several runs side by side: python examples/table.py RUN [RUN ...]"""

import json
import sys
from pathlib import Path

COLUMNS = {
    "add_01d": "ADD-0.1d %",
    "adds_01d": "ADD-S-0.1d %",
    "projection_5px": "2D proj. 5 px %",
    "cm5_deg5": "5 cm 5 deg %",
    "median_rotation_deg": "median rot. deg",
    "median_translation_mm": "median transl. mm",
    "median_projection_px": "median 2D px",
    "failed": "failed %",
    "count": "test images",
}


def main() -> None:
    rows = [
        (Path(run).name, json.loads((Path(run) / "metrics.json").read_text())["test"]["posegrad"])
        for run in sys.argv[1:]
    ]
    print("| run | " + " | ".join(COLUMNS.values()) + " |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for name, row in rows:
        print(
            f"| {name} | "
            + " | ".join("" if row.get(key) is None else f"{row[key]:.4g}" for key in COLUMNS)
            + " |"
        )
    print(f"| mean | {sum(row['add_01d'] for _, row in rows) / len(rows):.4g} |" + " |" * (len(COLUMNS) - 1))


if __name__ == "__main__":
    main()
