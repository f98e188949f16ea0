"""Crops per second of a training run: preparing them alone, steps alone, and both, by threads and worker processes.

    python benchmarks/loading.py [--data PATH --object ID --novel-views 0.85] [--rounds 3]

Backbone, crops and losses are the defaults of ``posegrad train``, on the embedded dataset unless --data names another.
The cells take turns; the median of the rounds counts. The waiting share is what ``metrics.json`` says of a run:
the part of the time in which the network has nothing to do, without workers the time for preparing crops.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from posegrad.train import DataConfig, TrainConfig, open_source
from posegrad.train.build import build_network, convolution_precision, training_crops
from posegrad.train.feed import Feed
from posegrad.train.lookup import KeypointTable
from posegrad.train.objective import Objective
from posegrad.train.optimizer import make_optimizer
from posegrad.train.sampler import Batches

CPU = torch.device("cpu")


class Cell:
    """One way to train: how many threads compute, how many workers prepare crops."""

    def __init__(self, config: TrainConfig, threads: int, workers: int, *, loads: bool, learns: bool) -> None:
        self.threads, self.workers, self.loads, self.learns = threads, workers, loads, learns
        source = open_source(config.data)
        crops = training_crops(config, source)
        self.size = config.optimizer.batch_size
        batches = Batches(len(source.train), self.size, seed=0)
        self.new_feed: Callable[[], Feed] = lambda: Feed(
            crops, batches, workers=workers, device=CPU, skip_bad=False
        )
        self.net = build_network(config).train()
        self.optimizer = make_optimizer(self.net, config.optimizer)
        self.objective = Objective(config.loss, self.net, KeypointTable(source.keypoints))
        self.precision = convolution_precision(config.run, CPU)
        self.batch = self.new_feed().next().crops if learns else {}
        self.rates: list[float] = []
        self.waits: list[float] = []

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            seen = self.objective.see(batch)
        self.optimizer.zero_grad()
        self.objective(seen, batch, 1.0).total.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()

    def round(self, steps: int) -> None:
        torch.set_num_threads(self.threads)
        feed = self.new_feed() if self.loads else None
        for k in range(steps + 2):  # the first two: workers start, pictures are decoded, memory is laid out
            if k == 2:
                begin, waited = perf_counter(), feed.waited if feed else 0.0
            batch = feed.next().crops if feed else self.batch
            if self.learns:
                self.step(batch)
        seconds = perf_counter() - begin
        self.rates.append(steps * self.size / seconds)
        self.waits.append((feed.waited - waited) / seconds if feed else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--object", type=int)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--novel-views", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="of each round")
    options = parser.parse_args()
    objects = None if options.object is None else (options.object,)
    data = DataConfig(
        root=options.data, objects=objects, split=options.split, novel_views=options.novel_views
    )
    config = replace(TrainConfig(), data=data)
    cells = [Cell(config, 1, workers, loads=True, learns=False) for workers in (0, 1, 2)]
    cells += [Cell(config, threads, 0, loads=False, learns=True) for threads in (1, 2)]
    both = [(1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]
    cells += [Cell(config, threads, workers, loads=True, learns=True) for threads, workers in both]
    for _ in range(options.rounds):
        for cell in cells:
            cell.round(options.steps * (1 if cell.learns else 4))
    print(f"{'':14}{'threads':>9}{'workers':>9}{'crops/s':>9}{'waiting':>9}")
    for cell in cells:
        name = "both" if cell.loads and cell.learns else "crops alone" if cell.loads else "steps alone"
        rate, wait = statistics.median(cell.rates), statistics.median(cell.waits)
        print(f"{name:14}{cell.threads:9}{cell.workers:9}{rate:9.0f}{100 * wait:8.0f}%")


if __name__ == "__main__":
    main()
