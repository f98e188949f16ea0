"""Which crops make up the batches of a run, from any batch on and for any process of several."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

__all__ = ["Batches", "Place"]

Place = tuple[int, int]
"""(epoch, index): a crop and the random changes made to it."""


class Batches(Sampler[list[Place]]):
    """Endless batches of `(epoch, index)`: every epoch passes over all crops in an order of its own.

    Batch number k holds the same crops whatever came before it, whoever asks: the order of an epoch depends on
    (seed, epoch) only. The crops left over at the end of an epoch sit it out; fewer crops than a batch make up a
    batch of all of them.

    Args:
        images: number of crops.
        batch_size: crops of a batch, over all processes.
        seed: of the orders.
        extra: number of further crops, of other data, which have indices from `images` on and passes of their own.
        extra_share: of a batch that they make up, in (0, 1).
        first: number of the first batch, from 0.
        rank, world: of all batches the share of process `rank` of `world`: every `world`-th crop.

    >>> batches = iter(Batches(5, 2, seed=0))
    >>> whole = [next(batches) for _ in range(4)]
    >>> [epoch for batch in whole for epoch, _ in batch]
    [0, 0, 0, 0, 1, 1, 1, 1]
    >>> next(iter(Batches(5, 2, seed=0, first=3))) == whole[3]
    True
    >>> [next(iter(Batches(5, 2, seed=0, rank=rank, world=2)))[0] for rank in (0, 1)] == whole[0]
    True
    >>> [index >= 5 for _, index in next(iter(Batches(5, 4, seed=0, extra=100, extra_share=0.25)))]
    [False, False, False, True]
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        seed: int,
        extra: int = 0,
        extra_share: float = 0.5,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        further = min(max(1, round(extra_share * batch_size)), batch_size - 1) if extra else 0
        self.images, self.own, self.further = images, min(batch_size - further, images), min(further, extra)
        self._passes = _Passes(images, self.own, seed)
        self._further = _Passes(extra, self.further, seed, 1) if self.further else None
        self.first, self.rank, self.world = first, rank, world

    @property
    def batch_size(self) -> int:
        """Crops of a batch."""
        return self.own + self.further

    @property
    def per_epoch(self) -> int:
        """Batches of one pass."""
        return self.images // self.own

    def __iter__(self) -> Iterator[list[Place]]:
        for number in itertools.count(self.first):
            batch = self._passes.batch(number)
            if self._further is not None:
                batch += [(epoch, self.images + index) for epoch, index in self._further.batch(number)]
            yield batch[self.rank :: self.world]


class _Passes:
    """Pass after pass over `count` crops, `size` at a time, each in an order by (seed, number of the pass, stream)."""

    def __init__(self, count: int, size: int, seed: int, *stream: int) -> None:
        self.count, self.size, self.seed, self.stream = count, size, seed, stream
        self._number, self._order = -1, np.arange(0)

    def batch(self, number: int) -> list[Place]:
        epoch, place = divmod(number, self.count // self.size)
        if epoch != self._number:
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, *self.stream)))
            self._number, self._order = epoch, rng.permutation(self.count)
        return [(epoch, index) for index in self._order[place * self.size :][: self.size].tolist()]
