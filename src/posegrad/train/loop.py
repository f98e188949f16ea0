"""The training loop."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posegrad.nn import KeypointPoseNet, PoseRegressionNet
from posegrad.train.build import convolution_precision, training_crops
from posegrad.train.checkpoint import Checkpoint, write_checkpoint
from posegrad.train.config import TrainConfig
from posegrad.train.errors import RunError, Stopped
from posegrad.train.feed import Feed, Share, choose_workers, killed_workers_told
from posegrad.train.identity import data_hash, settings_hash
from posegrad.train.lookup import KeypointTable
from posegrad.train.objective import Counts, make_objective
from posegrad.train.optimizer import make_optimizer
from posegrad.train.parallel import Processes
from posegrad.train.record import Recorder
from posegrad.train.resume import resume_command
from posegrad.train.sampler import Batches
from posegrad.train.schedule import Schedule, learning_rate
from posegrad.train.signals import StopSignals
from posegrad.train.source import Source

__all__ = ["Trained", "fit"]


# A step whose gradient is not finite is left out; after this many in a row the run has come apart.
_MOST_SKIPPED = 20


@dataclass(frozen=True)
class Trained:
    """Outcome of `fit`: steps done, share of them with the pose loss, share of items whose PnP failed in those, steps
    left out because their gradient was not finite, images that could not be read, seconds of the loop, share of them
    spent waiting for crops (without workers: preparing them)."""

    steps: int
    pose_share: float
    failed_share: float
    skipped: int
    left_out: list[str]
    seconds: float
    images_per_second: float
    waiting_share: float
    processes: int
    workers: int
    precision: str


def fit(
    config: TrainConfig,
    net: KeypointPoseNet | PoseRegressionNet,
    source: Source,
    recorder: Recorder,
    processes: Processes,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train `net` in place; every line of the log goes to `recorder`, and checkpoints to its folder.

    Args:
        config: settings.
        net: its weights as built; those of `checkpoint` replace them.
        source: training images.
        recorder: of the run folder; made with the counters of `checkpoint`.
        processes: that train together, each on its share of every batch.
        checkpoint: where to go on, to the same numbers as without a break.

    Raises:
        RunError: settings that cannot work, a checkpoint that does not fit, a folder that cannot be written.
        DatasetError: an image is missing or damaged.
        Stopped: SIGINT or SIGTERM came; the checkpoint is that of the last step.
    """
    loop = _Loop(config, net, source, recorder, processes, checkpoint)
    done = recorder.counters
    recorder.open()
    with (
        StopSignals() as signals,
        _steps_draw_from(config.run.seed, processes.rank) as seeded,
        _threads_beside(loop.workers if config.data.workers is None else 0),
        killed_workers_told(f"with fewer --workers, go on with: {resume_command(recorder.folder)}"),
        tqdm(
            total=done.steps,
            initial=done.step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            disable=not processes.first,
        ) as bar,
        contextlib.closing(loop.feed),  # before the bar: a dead worker is told of once, on a line of its own
    ):
        while (batch := loop.next(signals)) is not None:
            seeded(done.step)
            if line := loop.step(batch):
                bar.set_postfix_str(line)
            bar.update()
    return loop.outcome()


@dataclass(frozen=True)
class _Batch:
    """This process's share of a batch, and what all processes agree on: progress of the run, counts over all shares."""

    share: Share
    progress: float
    counts: Counts


class _Loop:
    """One step after the other; all processes go on, finish, stop and fail together."""

    def __init__(
        self,
        config: TrainConfig,
        net: KeypointPoseNet | PoseRegressionNet,
        source: Source,
        recorder: Recorder,
        processes: Processes,
        checkpoint: Checkpoint | None,
    ) -> None:
        options, device, done = config.optimizer, processes.device, recorder.counters
        self.config, self.net, self.recorder, self.processes = config, net, recorder, processes
        self.precision = convolution_precision(config.run, device)
        crops = training_crops(config, source)
        self.identity = settings_hash(config), data_hash(source)
        net.to(device)
        processes.prepare(net)
        self.optimizer = make_optimizer(net, options)
        if checkpoint is not None:
            checkpoint.check(*self.identity)
            checkpoint.restore(net, self.optimizer)
        self.batches = Batches(
            len(source.train),
            options.batch_size,
            seed=config.run.seed,
            extra=len(source.extra),
            extra_share=config.data.extra_share,
            first=done.step,
            rank=processes.rank,
            world=processes.count,
        )
        processes.check_share(self.batches.batch_size, options.accumulate)
        symmetries = {i: model.symmetries for i, model in source.objects.items()}
        known = KeypointTable(source.keypoints, device, symmetries if config.loss.symmetries else None)
        self.objective = make_objective(config.loss, net, known)
        self.workers = choose_workers(config.data, device, processes.count)
        self.feed = Feed(
            crops, self.batches, workers=self.workers, device=device, skip_bad=config.data.skip_bad
        )
        self.feed.waited = done.waited
        self.schedule = Schedule(
            options, len(source.train) / self.batches.own, elapsed=done.seconds, by_clock=processes.first
        )
        done.steps = self.schedule.steps
        self.saved = time.perf_counter()
        self.saved_step = -1 if checkpoint is None else done.step
        net.train()

    def next(self, signals: StopSignals) -> _Batch | None:
        """Fetch a batch; None at the end of the run."""
        done, schedule = self.recorder.counters, self.schedule
        share = Share() if schedule.progress(done.step) >= 1 else self.feed.next()
        counts = self.objective.counts(share.crops) if share.crops else Counts(0, 0)
        failed, stop, left_out, progress, items, keypoints = self.processes.sum(
            [
                share.error is not None,
                signals.received is not None,
                len(share.left_out),
                schedule.progress(done.step) if self.processes.first else 0.0,
                counts.items,
                counts.keypoints,
            ]
        )
        if failed:
            # The others have nothing to say: the message of one is enough.
            raise share.error if share.error is not None else RunError("")
        if left_out:
            self.recorder.left_out(self.processes.gather(share.left_out))
        if stop:
            self.save()
            how = f"stopped at step {done.step} of {done.steps}; go on with: {resume_command(self.recorder.folder)}"
            raise Stopped(how if self.processes.first else "", signals.received or signal.SIGTERM)
        return None if progress >= 1 else _Batch(share, progress, Counts(items, keypoints))

    def step(self, batch: _Batch) -> str:
        """Learn from a batch; a short line when it is logged."""
        config, done, device = self.config, self.recorder.counters, self.processes.device
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(batch.progress, config.optimizer.warm_up)
        logged = done.step % config.run.log_every == 0
        self.optimizer.zero_grad()
        values: dict[str, float] = {}
        for part in batch.share.parts(config.optimizer.accumulate):
            with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
                seen: Any = self.objective.see(part)
            terms = self.objective(seen, part, batch.progress, batch.counts)
            for name, value in (terms.values() | (terms.squared_gradients() if logged else {})).items():
                values[name] = values.get(name, 0.0) + value
            terms.total.backward()
        self.processes.sum_gradients(self.net.parameters())
        values = dict(zip(values, self.processes.sum(list(values.values())), strict=True))
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), config.optimizer.clip)
        self._update(norm)
        self.recorder.count(values)
        done.step += 1
        done.epoch, done.batch = divmod(done.step, self.batches.per_epoch)
        done.seconds, done.waited = self.schedule.seconds, self.feed.waited
        line = ""
        if logged:
            lr, beta = self.optimizer.param_groups[0]["lr"], self.objective.beta(batch.progress)
            line = self.recorder.log(batch.progress, lr, beta, float(norm), values)
        if time.perf_counter() - self.saved >= 60 * config.run.checkpoint_minutes:
            self.save()
        return line

    def _update(self, norm: Tensor) -> None:
        done = self.recorder.counters
        if bool(norm.isfinite()):
            self.optimizer.step()
            done.in_a_row = 0
            return
        done.skipped, done.in_a_row = done.skipped + 1, done.in_a_row + 1
        if done.in_a_row >= _MOST_SKIPPED:
            row, now = done.in_a_row, done.step
            message = f"the gradient has not been finite for {row} steps (now at step {now}): lower --lr"
            raise RunError(message if self.processes.first else "")

    def save(self) -> None:
        """Write a checkpoint; of several processes the first does."""
        if self.recorder.writes:
            self.recorder.flush()
            counters = self.recorder.counters
            write_checkpoint(self.recorder.folder, self.net, self.optimizer, counters, *self.identity)
        self.saved, self.saved_step = time.perf_counter(), self.recorder.counters.step

    def outcome(self) -> Trained:
        """What came out, with a last checkpoint: evaluation and pictures can be done again from there."""
        done = self.recorder.counters
        if self.saved_step != done.step:
            self.save()
        return Trained(
            steps=done.step,
            pose_share=done.pose_steps / done.step,
            failed_share=done.failed / max(done.pose_steps, 1),
            skipped=done.skipped,
            left_out=done.left_out,
            seconds=done.seconds,
            images_per_second=done.step * self.batches.batch_size / done.seconds,
            waiting_share=done.waited / done.seconds,
            processes=self.processes.count,
            workers=self.workers,
            precision=str(self.precision).removeprefix("torch."),
        )


@contextlib.contextmanager
def _threads_beside(workers: int) -> Iterator[None]:
    """Leave cores to workers: threads that wait for each other on cores with other work lose more than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _steps_draw_from(seed: int, rank: int) -> Iterator[Callable[[int], object]]:
    """Random numbers of the network (dropout, say) depend on seed, process and step; the caller's generator stays."""
    with torch.random.fork_rng():
        yield lambda step: torch.manual_seed(
            int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0])
        )
