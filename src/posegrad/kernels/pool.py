"""Threads that share the items of a kernel call.

numba's own parallel loops are no choice: one of its threading layers kills forked children, the other aborts when two
threads call at once. Kernels run without the interpreter's lock, so a few Python threads do. They take the next part of
the items from a counter: a thread that wakes up late costs nothing, as the caller goes on without it.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch

Kernel = Callable[[int, int, int, int], None]


class _Job:
    """Parts ``[first, last)`` of a range, each done by whoever takes it first.

    It owns the memory that the kernel works on: an interrupt may take the caller away while others are still at work.
    """

    def __init__(self, kernel: Kernel, block: int, count: int, parts: int, owner: Any) -> None:
        self.kernel, self.block, self.count, self.parts, self.owner = kernel, block, count, parts, owner
        self.numbers = itertools.count()  # atomic
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()

    def take(self) -> bool:
        """Do the next part, if there is one."""
        part = next(self.numbers)
        if part >= self.parts:
            return False
        self.kernel(self.block, part * self.count // self.parts, (part + 1) * self.count // self.parts, part)
        return True

    def help(self) -> None:
        """Do parts until none is left, reporting each."""
        try:
            while self.take():
                self.done.put(None)
        except BaseException as error:
            self.done.put(error)


class _Pool:
    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.size = 0
        self.lock = threading.Lock()

    def grow(self, size: int) -> None:
        # an interpreter that is shutting down, or a system at its limits, starts none: the caller does the work
        with self.lock, contextlib.suppress(RuntimeError):
            while self.size < size:
                threading.Thread(target=self.serve, daemon=True, name="posegrad").start()
                self.size += 1

    def serve(self) -> None:
        while True:
            self.jobs.get().help()


_pool = _Pool()


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

# Work below this, in nanoseconds of one thread, is not worth waking another; and the smallest part of it.
_WORTH_WAKING, _SMALLEST_PART, _PARTS_PER_THREAD = 230_000, 50_000, 4


def parts_of(count: int, nanoseconds: int) -> int:
    """Into how many parts to cut a call over so many items that takes one thread so long."""
    if nanoseconds < _WORTH_WAKING or count < 2:
        return 1
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    return max(1, min(count, _PARTS_PER_THREAD * threads, nanoseconds // _SMALLEST_PART))


def run(kernel: Kernel, block: int, count: int, parts: int, owner: Any = None) -> None:
    """Call the kernel on all parts; the n-th part has the slot n.

    ``owner`` is whatever keeps the block, and all that its addresses point to, alive.
    """
    if parts == 1:
        kernel(block, 0, count, 0)
        return
    helpers = min(torch.get_num_threads(), parts) - 1
    if _pool.size < helpers:
        _pool.grow(helpers)
    job = _Job(kernel, block, count, parts, owner)
    mine, error = 0, None
    try:
        for _ in range(min(helpers, _pool.size)):
            _pool.jobs.put(job)
        while job.take():
            mine += 1
        for _ in range(parts - mine):
            error = job.done.get() or error
    except BaseException:
        while next(job.numbers) < parts:  # nobody is to begin another part
            pass
        raise
    job.owner = None  # a helper may still find the job in the queue, long after
    if error is not None:
        raise error
