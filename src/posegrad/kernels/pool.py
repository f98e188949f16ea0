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
from queue import Empty, SimpleQueue

import torch

Kernel = Callable[[int, int, int, int], None]


class _Job:
    """Parts ``[first, last)`` of a range, each done by whoever takes it first."""

    def __init__(self, kernel: Kernel, block: int, count: int, parts: int) -> None:
        self.kernel, self.block, self.count, self.parts = kernel, block, count, parts
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
        with self.lock:
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
_WORTH_WAKING, _SMALLEST_PART, _PARTS_PER_THREAD = 300_000, 50_000, 4


def parts_of(count: int, nanoseconds: int) -> int:
    """Into how many parts to cut a call over so many items that takes one thread so long."""
    if nanoseconds < _WORTH_WAKING or count < 2:
        return 1
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    return max(1, min(count, _PARTS_PER_THREAD * threads, nanoseconds // _SMALLEST_PART))


def run(kernel: Kernel, block: int, count: int, parts: int) -> None:
    """Call the kernel on all parts; the n-th part has the slot n."""
    if parts == 1:
        kernel(block, 0, count, 0)
        return
    helpers = min(torch.get_num_threads(), parts) - 1
    if _pool.size < helpers:
        _pool.grow(helpers)
    job = _Job(kernel, block, count, parts)
    for _ in range(helpers):
        _pool.jobs.put(job)
    mine = 0
    try:
        while job.take():
            mine += 1
    except BaseException:
        # an interrupt: the others must not go on with memory that is about to be freed
        while next(job.numbers) < parts:
            mine += 1
        with contextlib.suppress(Empty):
            for _ in range(parts - mine):
                job.done.get(timeout=1.0)
        raise
    for _ in range(parts - mine):
        error = job.done.get()
        if error is not None:
            raise error
