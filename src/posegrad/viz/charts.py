"""Charts of a report as inline SVG, in colours of the page, so that they suit a light and a dark one."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from posegrad.viz.page import escape

__all__ = ["Band", "Curve", "Mark", "curve_chart", "histogram_chart", "recall_chart", "scatter_chart"]

# Stand-ins that matplotlib writes into the SVG, each replaced by a colour of the page.
_INK, _FAINT, _GRID, _MARK = "#010001", "#010002", "#010003", "#010004"
_SERIES = tuple(f"#0200{k:02d}" for k in range(8))
_THEME = {_INK: "var(--ink)", _FAINT: "var(--faint)", _GRID: "var(--grid)", _MARK: "var(--mark)"} | {
    color: f"var(--series-{k})" for k, color in enumerate(_SERIES)
}
_SIZE = (4.7, 2.75)
_MOST_POINTS = 300


class Curve(NamedTuple):
    """Values over an axis; `dashed` for what others are compared with."""

    label: str
    x: np.ndarray
    y: np.ndarray
    dashed: bool = False


class Mark(NamedTuple):
    """A vertical line with a note."""

    x: float
    label: str


class Band(NamedTuple):
    """A shaded stretch of the horizontal axis."""

    low: float
    high: float


class _Chart:
    """One figure on its way to SVG."""

    def __init__(self, axes: Axes) -> None:
        self.axes, self.svg = axes, ""


@contextmanager
def _chart(key: str, title: str, x: str, y: str) -> Iterator[_Chart]:
    """A figure to draw on, and its SVG at the end; `key` keeps its ids apart from those of others on the page."""
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _FAINT,
        "axes.edgecolor": _GRID,
        "xtick.color": _FAINT,
        "ytick.color": _FAINT,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=_SIZE, dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set(xlabel=x, ylabel=y)
        axes.grid(color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
        for part in (figure.patch, axes.patch):
            part.set_visible(False)
        chart = _Chart(axes)
        yield chart
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
    chart.svg = _inline(buffer.getvalue(), key, title)


def _inline(svg: str, key: str, title: str) -> str:
    """matplotlib's SVG as a part of an HTML page: no prologue, fonts, sizes, styles or ids that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{key}-", svg)
    svg = re.sub(r"font: (?:\w+ )?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for color, name in _THEME.items():
        svg = svg.replace(color, name)
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None
    opening = f'<svg class="chart" role="img" aria-label="{escape(title)}" {view[0]}>'
    return re.sub(r"\s*\n\s*", "\n", opening + svg[svg.index(">") + 1 :]).strip()


def _log_axis(axes: Axes, which: str) -> None:
    """Powers of ten and, within two decades, their multiples by two and five, in plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    getattr(axes, f"set_{which}scale")("log")
    few = max(low, 1e-300) * 10**2.2 > high
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def _spans(values: np.ndarray, factor: float) -> bool:
    """Whether a logarithmic axis shows more."""
    return bool(len(values)) and values.min() > 0 and values.max() > factor * values.min()


def _binned(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places, means, minima and maxima of a curve in at most so many bins."""
    parts = min(len(curve.x), _MOST_POINTS)
    xs, ys = np.array_split(curve.x, parts), np.array_split(curve.y, parts)
    at, mean = (np.array([part.mean() for part in parts]) for parts in (xs, ys))
    return at, mean, np.array([part.min() for part in ys]), np.array([part.max() for part in ys])


def curve_chart(
    key: str,
    curves: Sequence[Curve],
    *,
    title: str,
    x: str,
    y: str,
    mark: Mark | None = None,
    band: Band | None = None,
    linear: bool = False,
) -> str:
    """Curves over the steps of a run; long ones as means within minima and maxima.

    Args:
        key: unique on the page.
        curves: at least one with a point.
        title: for readers who do not see it.
        x, y: labels of the axes, with units.
        mark: a moment of the run. band: a stretch of it.
        linear: values over zero, also where they span decades.

    Returns:
        An `<svg>` element.
    """
    with _chart(key, title, x, y) as chart:
        axes = chart.axes
        for color, curve in zip(_cycle(len(curves)), curves, strict=True):
            at, mean, low, high = _binned(curve)
            if len(curve.x) > _MOST_POINTS:
                axes.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(at, mean, color=color, linewidth=1.4, label=curve.label, marker=_marker(len(at)))
        values = np.concatenate([curve.y for curve in curves])
        if _spans(values, 20) and not linear:
            _log_axis(axes, "y")
        elif values.min() >= 0:
            axes.set_ylim(bottom=0, top=None if values.max() > 0 else 1)
        if band is not None and band.high > band.low:
            axes.axvspan(band.low, band.high, color=_MARK, alpha=0.12, linewidth=0)
        if mark is not None:
            _mark(axes, mark)
        _legend(axes, len(curves))
    return chart.svg


def recall_chart(
    key: str, curves: Sequence[Curve], *, title: str, x: str, y: str, mark: Mark | None = None
) -> str:
    """Shares (percent) of items below a threshold, over the threshold; see :func:`curve_chart`."""
    with _chart(key, title, x, y) as chart:
        for color, curve in zip(_cycle(len(curves)), curves, strict=True):
            chart.axes.step(
                curve.x,
                curve.y,
                where="post",
                color=_FAINT if curve.dashed else color,
                linewidth=1.5,
                linestyle="--" if curve.dashed else "-",
                label=curve.label,
            )
        chart.axes.set(xlim=(0, max(float(curve.x[-1]) for curve in curves)), ylim=(-2, 102))
        if mark is not None:
            _mark(chart.axes, mark)
        _legend(chart.axes, len(curves))
    return chart.svg


def histogram_chart(key: str, samples: Mapping[str, np.ndarray], *, title: str, x: str, y: str) -> str:
    """Histograms over a logarithmic axis where the values span more than a decade; dotted lines are the medians."""
    everything = np.concatenate([*samples.values()])
    with _chart(key, title, x, y) as chart:
        axes = chart.axes
        bins = int(np.clip(2 * np.sqrt(len(everything) / len(samples)), 6, 30))
        low, high = _trimmed(everything)
        if low > 0 and high > 10 * low:
            edges = np.geomspace(low, high, bins + 1)
        else:
            edges = np.linspace(min(low, 0), high or 1.0, bins + 1)
        for color, (name, values) in zip(_SERIES, samples.items(), strict=False):
            kept = np.clip(values, edges[0], edges[-1])
            label = f"{name}, median {np.median(values):.3g}" if name else f"median {np.median(values):.3g}"
            counts, _ = np.histogram(kept, edges)
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.3, linewidth=0)
            axes.stairs(counts, edges, color=color, linewidth=1.2)
            axes.axvline(float(np.median(values)), color=color, linestyle=":", linewidth=1.5, label=label)
        axes.set_xlim(edges[0], edges[-1])
        if low > 0 and high > 10 * low:
            _log_axis(axes, "x")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _legend(axes, 2, above=True)
    return chart.svg


def _trimmed(values: np.ndarray) -> tuple[float, float]:
    """Ends of an axis: a handful of extreme values goes into the outer bins."""
    low, high = np.quantile(values, [0.005, 0.995])
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def scatter_chart(
    key: str, points: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str, x: str, y: str
) -> str:
    """Errors over what may cause them, one dot an item, with the medians of up to six equal parts of the items."""
    with _chart(key, title, x, y) as chart:
        axes = chart.axes
        xs, ys = (np.concatenate(both) for both in zip(*points.values(), strict=True))
        for color, (name, (at, values)) in zip(_cycle(len(points)), points.items(), strict=True):
            axes.plot(at, values, "o", color=color, markersize=3, alpha=0.45, markeredgewidth=0, label=name)
        edges = np.unique(np.quantile(xs, np.linspace(0, 1, 7)))
        parts = [np.digitize(xs, edges[1:-1]) == k for k in range(len(edges) - 1)]
        parts = [part for part in parts if part.sum() >= 5]
        axes.plot(
            [np.median(xs[part]) for part in parts],
            [np.median(ys[part]) for part in parts],
            color=_INK,
            linewidth=1.5,
            marker="s",
            markersize=3.5,
            label="median",
        )
        if _spans(ys, 20):
            _log_axis(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        _legend(axes, 2)
    return chart.svg


def _cycle(count: int) -> list[str]:
    return [_SERIES[k % len(_SERIES)] for k in range(count)]


def _marker(count: int) -> str | None:
    return "o" if count == 1 else "." if count < 30 else None


def _mark(axes: Axes, mark: Mark) -> None:
    axes.axvline(mark.x, color=_MARK, linewidth=1.1, linestyle="--")
    axes.annotate(
        mark.label,
        (mark.x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, 1),
        textcoords="offset points",
        color=_MARK,
        fontsize=8,
        va="bottom",
        ha="left" if mark.x < np.mean(axes.get_xlim()) else "right",
    )


def _legend(axes: Axes, count: int, *, above: bool = False) -> None:
    if above:
        axes.legend(
            frameon=False,
            fontsize=8,
            labelcolor=_FAINT,
            loc="lower left",
            bbox_to_anchor=(0, 0.99),
            ncols=2,
            borderaxespad=0.0,
        )
    elif count > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=_FAINT, ncols=2 if count > 5 else 1)
