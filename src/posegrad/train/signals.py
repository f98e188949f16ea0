"""Stopping a run between two steps when the user or the machine asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType

__all__ = ["StopSignals", "ignore_stop_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is open, the first SIGINT or SIGTERM only sets `received`; a second one acts as it did before."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # others may not change handlers
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before = {}


def ignore_stop_signals(_: int) -> None:
    """For processes that prepare crops: a terminal sends the signal to all, and the main one has the last word."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
