"""Which crops make up the batches of a run, from any batch on and for any process of several."""

from __future__ import annotations

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
    """

    def __init__(
        self, images: int, batch_size: int, *, seed: int, first: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, min(batch_size, images), seed
        self.first, self.rank, self.world = first, rank, world

    @property
    def per_epoch(self) -> int:
        """Batches of one pass."""
        return self.images // self.batch_size

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, skipped = divmod(self.first, self.per_epoch)
        while True:
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
            order = rng.permutation(self.images)
            for number in range(skipped, self.per_epoch):
                batch = order[number * self.batch_size : (number + 1) * self.batch_size]
                yield [(epoch, index) for index in batch[self.rank :: self.world].tolist()]
            epoch, skipped = epoch + 1, 0
