"""The training loop."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from posegrad.nn import KeypointPoseNet
from posegrad.train.build import convolution_precision, training_crops
from posegrad.train.checkpoint import Checkpoint, Counters, write_checkpoint
from posegrad.train.config import TrainConfig
from posegrad.train.errors import RunError, Stopped
from posegrad.train.feed import Feed, Share
from posegrad.train.identity import crops_hash, settings_hash
from posegrad.train.objective import Counts, Objective
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
    precision: str


class _Saver:
    """Writes checkpoints of a run; of several processes the first does."""

    def __init__(
        self,
        recorder: Recorder,
        net: KeypointPoseNet,
        optimizer: torch.optim.Optimizer,
        identity: tuple[str, str],
    ) -> None:
        self.recorder, self.net, self.optimizer, self.identity = recorder, net, optimizer, identity
        self.last = time.perf_counter()

    def due(self, every: float) -> bool:
        """Whether the last one is `every` seconds old."""
        return time.perf_counter() - self.last >= every

    def save(self) -> None:
        if self.recorder.writes:
            self.recorder.flush()
            counters = self.recorder.counters
            write_checkpoint(self.recorder.folder, self.net, self.optimizer, counters, *self.identity)
        self.last = time.perf_counter()


@dataclass(frozen=True)
class _Agreement:
    """What all processes know before a step: they do it, finish, stop or fail together."""

    failed: bool
    stop: bool
    progress: float
    counts: Counts
    left_out: bool


def _agree(
    processes: Processes, share: Share, objective: Objective, progress: float, signal_number: int | None
) -> _Agreement:
    counts = objective.counts(share.crops) if share.crops else Counts(0, 0)
    failed, stop, progress, items, keypoints, left_out = processes.sum(
        [
            share.error is not None,
            signal_number is not None,
            progress if processes.first else 0.0,  # the first one's clock decides
            counts.items,
            counts.keypoints,
            len(share.left_out),
        ]
    )
    return _Agreement(failed > 0, stop > 0, progress, Counts(items, keypoints), left_out > 0)


def fit(
    config: TrainConfig,
    net: KeypointPoseNet,
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
    options, device, done = config.optimizer, processes.device, recorder.counters
    precision = convolution_precision(config.run, device)
    crops = training_crops(config, source)
    identity = settings_hash(config), crops_hash(source.train)
    net.to(device)
    optimizer = make_optimizer(net, options)
    if checkpoint is not None:
        checkpoint.check(*identity)
        checkpoint.restore(net, optimizer)
    batches = Batches(
        len(crops),
        options.batch_size,
        seed=config.run.seed,
        first=done.step,
        rank=processes.rank,
        world=processes.count,
    )
    processes.check_share(batches.batch_size, options.accumulate)
    processes.same_weights(net)
    schedule = Schedule(options, len(crops), batches.batch_size, elapsed=done.seconds)
    done.steps = schedule.steps
    objective = Objective(config.loss, net, torch.from_numpy(source.keypoints).to(device))
    saver = _Saver(recorder, net, optimizer, identity)
    net.train()
    with (
        StopSignals() as signals,
        _steps_draw_from(config.run.seed, processes.rank) as seeded,
        tqdm(
            total=schedule.steps,
            initial=done.step,
            desc="train",
            unit="step",
            dynamic_ncols=True,
            disable=not processes.first,
        ) as bar,
    ):
        waited = done.waited
        feed = Feed(crops, batches, workers=config.data.workers, device=device, skip_bad=config.data.skip_bad)
        while True:
            finished = schedule.progress(done.step) >= 1
            share = Share() if finished else feed.next()
            agreed = _agree(processes, share, objective, schedule.progress(done.step), signals.received)
            if agreed.failed:
                # The others have nothing to say: the message of one is enough.
                raise share.error if share.error is not None else RunError("")
            if agreed.stop:
                saver.save()
                raise _stopped(recorder, processes, signals.received)
            if agreed.progress >= 1:
                break
            if agreed.left_out:
                recorder.left_out(processes.gather(share.left_out))
            progress = agreed.progress
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(progress, options.warm_up)
            seeded(done.step)
            logged = done.step % config.run.log_every == 0
            optimizer.zero_grad()
            values: dict[str, float] = {}
            for part in share.parts(options.accumulate):
                with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                    seen = net(part["image"])
                terms = objective(seen, part, progress, agreed.counts)
                _add(values, terms.values() | (terms.squared_gradients() if logged else {}))
                terms.total.backward()
            processes.sum_gradients(net.parameters())
            values = dict(zip(values, processes.sum(list(values.values())), strict=True))
            norm = nn.utils.clip_grad_norm_(net.parameters(), options.clip)
            _step(optimizer, norm, done)
            recorder.count(values)
            done.step += 1
            done.epoch, done.batch = divmod(done.step, batches.per_epoch)
            done.seconds, done.waited = schedule.seconds, waited + feed.waited
            bar.update()
            if logged:
                lr = optimizer.param_groups[0]["lr"]
                line = recorder.log(progress, lr, objective.beta(progress), float(norm), values)
                bar.set_postfix_str(line)
            if saver.due(60 * config.run.checkpoint_minutes):
                saver.save()
    # The last one: what follows, evaluation and pictures, can be done again from here.
    saver.save()
    return Trained(
        steps=done.step,
        pose_share=done.pose_steps / done.step,
        failed_share=done.failed / max(done.pose_steps, 1),
        skipped=done.skipped,
        left_out=done.left_out,
        seconds=done.seconds,
        images_per_second=done.step * batches.batch_size / done.seconds,
        waiting_share=done.waited / done.seconds,
        processes=processes.count,
        precision=str(precision).removeprefix("torch."),
    )


def _add(total: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        total[name] = total.get(name, 0.0) + value


def _stopped(recorder: Recorder, processes: Processes, signal_number: int | None) -> Stopped:
    done = recorder.counters
    how = f"stopped at step {done.step} of {done.steps}; go on with: {resume_command(recorder.folder)}"
    return Stopped(how if processes.first else "", signal_number or signal.SIGTERM)


@contextlib.contextmanager
def _steps_draw_from(seed: int, rank: int) -> Iterator[Callable[[int], object]]:
    """Random numbers of the network (dropout, say) depend on seed, process and step; the caller's generator stays."""
    with torch.random.fork_rng():
        yield lambda step: torch.manual_seed(
            int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0])
        )


def _step(optimizer: torch.optim.Optimizer, norm: Tensor, done: Counters) -> None:
    if bool(norm.isfinite()):
        optimizer.step()
        done.in_a_row = 0
        return
    done.skipped, done.in_a_row = done.skipped + 1, done.in_a_row + 1
    if done.in_a_row >= _MOST_SKIPPED:
        raise RunError(
            f"the gradient has not been finite for {done.in_a_row} steps (now at step {done.step}): lower --lr"
        )
