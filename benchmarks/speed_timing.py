"""Clock and memory of ``speed.py``."""

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Run = Callable[[], Any]

# Calls are timed one by one, in blocks of about this many seconds: a method that follows a slow one starts from cold
# caches, and the median shall not be of such calls.
_BLOCK = 2e-3
_MOST_CALLS, _LEAST_CALLS = 1000, 3


#: what a second is: of the wall clock, or of the processors' time that this process gets, for a machine that is shared
CLOCKS: dict[str, Run] = {"wall": time.perf_counter, "cpu": time.process_time}


def call_time(run: Run, clock: Run = time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    run()
    return clock() - start


def interleaved(
    runs: Mapping[str, Run], budget: float, limit: float, clock: Run = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of repeated calls of every method, in turns, so that what else the machine does hits all alike.

    They must have been called before. Each gets ``budget`` seconds, but no fewer than three calls; one call, if that
    took longer than ``limit``.
    """
    times: dict[str, list[float]] = {}
    for name, run in runs.items():
        times[name] = [call_time(run, clock)]
    gc.collect()
    gc.disable()
    try:
        while True:
            left = [name for name in runs if _goes_on(times[name], budget, limit)]
            if not left:
                return times
            for name in left:
                run, own = runs[name], times[name]
                for _ in range(max(1, min(200, int(_BLOCK / min(own))))):
                    own.append(call_time(run, clock))
    finally:
        gc.enable()


def _goes_on(times: list[float], budget: float, limit: float) -> bool:
    if times[0] > limit or len(times) >= _MOST_CALLS:
        return False
    return len(times) < _LEAST_CALLS or sum(times) < budget


def summary(times: list[float]) -> dict[str, float]:
    """Median and minimum in microseconds, and the number of calls."""
    return {
        "median_us": 1e6 * statistics.median(times),
        "min_us": 1e6 * min(times),
        "calls": len(times),
    }


def peak_memory(run: Run) -> float | None:
    """Megabytes by which a call raises the memory held by the process, at its peak; None where that cannot be read.

    The kernel's own count, because neither tracemalloc nor a profiler sees all of NumPy, PyTorch, numba and C++.
    """
    try:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        run()
        return max(0.0, (_status("VmHWM") - before) / 1024)
    except (OSError, StopIteration):
        return None


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


class Forecast:
    """What a call will take, from the same method's smaller cells: the last one, and the growth up to there."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[tuple[int, int], float]] = {}

    def record(self, method: str, kind: str, size: tuple[int, int], seconds: float) -> None:
        """Remember a measured cell (batch, points)."""
        self._known.setdefault((method, kind), {})[size] = seconds

    def seconds(self, method: str, kind: str, size: tuple[int, int]) -> float:
        """Expected time of a cell; 0 where nothing smaller is known."""
        known = self._known.get((method, kind), {})
        guesses = []
        for axis in (0, 1):
            other = 1 - axis
            line = sorted(
                (s[axis], t) for s, t in known.items() if s[other] == size[other] and s[axis] < size[axis]
            )
            if line:
                guesses.append(_extrapolated(line, size[axis]))
        return min(guesses, default=0.0)


def _extrapolated(line: list[tuple[int, float]], size: int) -> float:
    last, seconds = line[-1]
    slope = 0.5  # small sizes are a call's fixed cost
    if len(line) > 1:
        before, earlier = line[-2]
        slope = min(2.0, max(0.0, math.log(seconds / earlier) / math.log(last / before)))
    return seconds * (size / last) ** slope
