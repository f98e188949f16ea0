"""Tables and pictures of ``speed.py``'s records."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Record = dict[str, Any]

HEADS = (
    "batch x points", "method", "median", "minimum", "times ours", "cost", "gradient error", "memory",
)  # fmt: skip


def head() -> str:
    """Of the long table."""
    return "| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS)


def rows(records: Sequence[Record]) -> list[str]:
    """One row for each method of a cell; "times ours" is over the quickest of this package's."""
    own = min((r["median_us"] for r in records if r["own"]), default=None)
    return [_row(record, own) for record in records]


def _row(record: Record, own: float | None) -> str:
    cells = [f"{record['batch']} x {record['points']}", _label(record)]
    if record["median_us"] is None:
        cells += [record["why"], *[""] * 5]
    else:
        error, memory = record["gradient_error"], record["memory_mb"]
        cells += [
            duration(record["median_us"]),
            duration(record["min_us"]),
            "" if own is None else f"{record['median_us'] / own:.3g}",
            f"{record['cost']:.4g}",
            "" if error is None else f"{error:.1e}",
            "" if memory is None else f"{memory:.1f} MB",
        ]
    return "| " + " | ".join(cells) + " |"


def _label(record: Record) -> str:
    count = record["threads"]
    return record["method"] if count is None else f"{record['method']}, {count} thread{'s' * (count > 1)}"


def duration(microseconds: float) -> str:
    """Three digits in the unit that suits."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= 0.9995 * size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} us"


def summary(records: Iterable[Record]) -> str:
    """Medians alone, a table for each task and dtype, a column for each method."""
    parts = []
    for (task, dtype), group in groupby(
        sorted(records, key=lambda r: (r["dtype"], r["task"])), key=lambda r: (r["task"], r["dtype"])
    ):
        own = list(group)
        names = list(dict.fromkeys(_label(r) for r in own))
        lines = [f"\n{task}, {dtype}\n", "| batch x points | " + " | ".join(names) + " |"]
        lines.append("|" + "---|" * (len(names) + 1))
        for size in dict.fromkeys((r["batch"], r["points"]) for r in own):
            at = {_label(r): r for r in own if (r["batch"], r["points"]) == size}
            cells = [
                duration(at[n]["median_us"]) if n in at and at[n]["median_us"] is not None else "-"
                for n in names
            ]
            lines.append(f"| {size[0]} x {size[1]} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n".join(parts)


def plot(records: Iterable[Record], folder: Path) -> list[Path]:
    """A picture for each task and dtype: time over the batch for each number of points, both logarithmic."""
    import matplotlib.pyplot as plt

    made = []
    valid = [r for r in records if r["median_us"] is not None]
    for task, dtype in dict.fromkeys((r["task"], r["dtype"]) for r in valid):
        own = [r for r in valid if (r["task"], r["dtype"]) == (task, dtype)]
        counts = sorted({r["points"] for r in own})
        names = list(dict.fromkeys(_label(r) for r in own))
        figure, axes = plt.subplots(
            1, len(counts), figsize=(3.2 * len(counts) + 1.5, 3.6), sharey=True, squeeze=False
        )
        for axis, count in zip(axes[0], counts, strict=True):
            for number, name in enumerate(names):
                line = sorted(
                    (r["batch"], 1e-3 * r["median_us"])
                    for r in own
                    if r["points"] == count and _label(r) == name
                )
                style = "o-" if name.startswith(("posegrad", "kernel")) else "."
                axis.loglog(
                    *zip(*line, strict=True) if line else ([], []),
                    style if style == "o-" else ".--",
                    color=f"C{number % 10}",
                    label=name,
                    markersize=5,
                )
            axis.set(title=f"{count} points", xlabel="batch")
            axis.grid(alpha=0.3)
        axes[0][0].set_ylabel("ms a call")
        axes[0][-1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
        figure.suptitle(f"{task}, {dtype}")
        figure.tight_layout()
        slug = f"{task} {dtype}".replace(",", "").replace(" + ", "-").replace(" ", "-")
        made.append(folder / f"{slug}.png")
        figure.savefig(made[-1], dpi=120)
        plt.close(figure)
    return made
