"""Batches of training crops on their way to the network."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from posegrad.data import CropDataset, DatasetError, Instance, load_image
from posegrad.train.config import DataConfig
from posegrad.train.errors import RunError
from posegrad.train.sampler import Batches, Place
from posegrad.train.signals import ignore_stop_signals

__all__ = ["Feed", "Share", "choose_workers", "killed_workers_told", "or_skip", "readable"]

_LEFT_OUT = "left_out"


class _Crops(Dataset):
    """Crops by `(epoch, index)`, so that workers prepare the next epoch while this one is still in use.

    The index counts through several datasets, one after the other. With `skip_bad`, another crop of the same dataset
    and epoch stands in for one that cannot be read, drawn by (seed, epoch, index) like its random changes: a batch
    stays full, and depends on nothing but the files.
    """

    def __init__(self, parts: Sequence[CropDataset], skip_bad: bool) -> None:
        self.parts, self.skip_bad = parts, skip_bad

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, place: Place) -> dict[str, Tensor | str]:
        epoch, index = place
        parts = iter(self.parts)
        while index >= len(crops := next(parts)):
            index -= len(crops)
        if not self.skip_bad:
            return dict(crops.crop(index, epoch))
        bad: list[str] = []
        for candidate in _candidates(crops, epoch, index):
            try:
                return {**crops.crop(candidate, epoch), _LEFT_OUT: "\n".join(bad)}
            except DatasetError as error:
                bad.append(" ".join(str(error).split()))
        raise DatasetError(f"not one of {len(crops)} training images can be read; the first: {bad[0]}")


def _candidates(crops: CropDataset, epoch: int, index: int) -> Iterator[int]:
    yield index
    rng = np.random.default_rng(np.random.SeedSequence(crops.seed, spawn_key=(epoch, index)))
    yield from rng.permutation(len(crops)).tolist()


@dataclass(frozen=True)
class Share:
    """One process's share of a batch.

    Attributes:
        crops: tensors by name; empty where there was nothing to fetch, or it failed.
        left_out: one line for each crop that could not be read and was replaced.
        error: why there are none.
    """

    crops: dict[str, Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    error: Exception | None = None

    def parts(self, count: int) -> list[dict[str, Tensor]]:
        """The crops in `count` parts of nearly the same size."""
        split = {name: value.tensor_split(count) for name, value in self.crops.items()}
        return [{name: pieces[k] for name, pieces in split.items()} for k in range(count)]


class Feed:
    """Fetches this process's share of one batch after the other.

    Args:
        crops: the training crops, of one dataset after the other.
        batches: their order, and where to begin.
        workers: processes that prepare crops beside this one.
        device: where to put them.
        skip_bad: replace crops that cannot be read.

    Attributes:
        waited: seconds spent waiting for crops, or preparing them without workers.
    """

    def __init__(
        self,
        crops: Sequence[CropDataset],
        batches: Batches,
        *,
        workers: int,
        device: torch.device,
        skip_bad: bool,
    ) -> None:
        loader = DataLoader(
            _Crops(crops, skip_bad),
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=ignore_stop_signals,
            pin_memory=device.type == "cuda",
        )
        self._queue, self._device, self._skip_bad = iter(loader), device, skip_bad
        self.waited = 0.0

    def next(self) -> Share:
        """The next share. What goes wrong is part of the answer: the other processes must hear of it, too."""
        begin = time.perf_counter()
        try:
            batch = next(self._queue)
        except DatasetError as error:
            return Share(error=error if self._skip_bad else DatasetError(or_skip(str(error))))
        except Exception as error:
            return Share(error=error)
        finally:
            self.waited += time.perf_counter() - begin
        left_out = [line for lines in batch.pop(_LEFT_OUT, []) for line in lines.splitlines()]
        return Share(
            {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}, left_out
        )

    def close(self) -> None:
        """End the workers. PyTorch's handler of signals goes on raising for a dead one until its queue is shut down,
        which would otherwise be when nothing refers to it any more: not even the traceback of what went wrong."""
        shut_down = getattr(self._queue, "_shutdown_workers", None)  # there is no public way
        if shut_down is not None:
            shut_down()


@contextlib.contextmanager
def killed_workers_told(advice: str) -> Iterator[None]:
    """Turn what PyTorch raises when a worker is gone, by its queue or by its handler of signals, into one line.

    Raises:
        RunError: one was killed; by the kernel, mostly, for want of memory.
    """
    try:
        yield
    except (EOFError, ConnectionError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise RunError(f"a process that prepares crops was killed: {advice}") from error


def or_skip(message: str) -> str:
    """What is wrong with a picture, and that the run may go on without it."""
    return f"{message.strip().rstrip('.')}, or pass --skip-bad."


def choose_workers(data: DataConfig, device: torch.device, processes: int) -> int:
    """How many workers prepare crops, out of the threads that PyTorch may use (`--workers` decides if it is given)."""
    if data.workers is not None:
        return data.workers
    if device.type != "cpu":
        return min(8, (os.cpu_count() or 1) // processes)
    threads = torch.get_num_threads()
    return max(1, threads // 3) if data.novel_views > 0 and threads > 1 else 0


def readable(instances: Sequence[Instance]) -> tuple[list[Instance], list[str]]:
    """The instances whose picture can be read, and one line for every picture that cannot."""
    bad: dict[Path, str] = {}
    good: set[Path] = set()
    for path in dict.fromkeys(item.image_path for item in instances):
        try:
            load_image(path)
            good.add(path)
        except DatasetError as error:
            bad[path] = " ".join(str(error).split())
    return [item for item in instances if item.image_path in good], list(bad.values())
