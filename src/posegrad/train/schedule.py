"""How far a run is, and the learning rate there."""

from __future__ import annotations

import math
import time

from posegrad.train.config import OptimizerConfig
from posegrad.train.errors import RunError

__all__ = ["Schedule", "learning_rate"]


def learning_rate(progress: float, warm_up: float) -> float:
    """One-cycle factor in [0, 1]: linear rise over `warm_up`, then a cosine to zero at progress 1."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / max(1 - warm_up, 1e-9))))


class Schedule:
    """How far the run is, by steps or, where that is further, by the clock.

    Args:
        config: number of steps or epochs, and the limit of the clock.
        per_epoch: batches of an epoch, which need not be a whole number.
        elapsed: seconds of the loop before the run was resumed.
        by_clock: False for all processes but the first, whose clock decides.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        per_epoch: float,
        *,
        elapsed: float = 0.0,
        by_clock: bool = True,
    ) -> None:
        steps = config.steps if config.steps is not None else round(config.epochs * per_epoch)
        if steps < 1:
            raise RunError(f"--steps, --epochs: {steps} optimiser steps; need at least 1")
        self.steps = steps
        self.limit = None if config.max_minutes is None or not by_clock else 60 * config.max_minutes
        self.begin = time.perf_counter() - elapsed

    @property
    def seconds(self) -> float:
        """Since the start of the loop, without the time between a stop and its resumption."""
        return time.perf_counter() - self.begin

    def progress(self, step: int) -> float:
        """In [0, 1]; 1 ends the run, after one step at least."""
        by_clock = 0.0 if self.limit is None or step == 0 else self.seconds / self.limit
        return min(1.0, max(step / self.steps, by_clock))
