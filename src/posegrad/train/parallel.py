"""The processes of a run, one or several: who does what, and sums over all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from tqdm import tqdm

from posegrad.train.errors import RunError

__all__ = ["Processes", "accelerator"]


def accelerator() -> Accelerator:
    """Where to run: CUDA if there is one, else the CPU (Apple's GPUs have no float64, which the poses need)."""
    return Accelerator(cpu=not torch.cuda.is_available())


class Processes:
    """The processes that `accelerate launch` or `torchrun` started for this run; usually this one alone.

    Gradients are summed once a step, over weights that have one: the pose loss joins late, and what only it reaches has
    none until then. (DistributedDataParallel would wait for it.)
    """

    def __init__(self) -> None:
        self._accelerator = accelerator()
        self.device = self._accelerator.device
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def first_goes_first(self):
        """Context that the other processes enter when the first has left it."""
        return self._accelerator.main_process_first()

    def check_share(self, batch_size: int, parts: int) -> None:
        """Check that a batch can be divided among the processes and then into `parts`.

        Raises:
            RunError: there are more parts than crops.
        """
        if batch_size < self.count * parts:
            raise RunError(
                f"--batch-size: a batch of {batch_size} crops cannot be divided among {self.count} processes with "
                f"--accumulate {parts}: expected at least {self.count * parts}"
            )

    def prepare(self, net: nn.Module) -> None:
        """Give all processes the weights of the first, and batch normalisation the statistics of the whole batch.

        On CPUs, where PyTorch cannot do the latter, say that every process has its own.
        """
        if self.count == 1:
            return
        for value in net.state_dict().values():
            torch.distributed.broadcast(value, 0)
        if not any(
            isinstance(m, nn.BatchNorm2d) and not getattr(net, "fixed_statistics", False)
            for m in net.modules()
        ):
            return
        if self.device.type == "cuda":
            convert_sync_batchnorm(net)
        elif self.first:
            tqdm.write(
                f"posegrad: each of {self.count} processes normalises its own share of a batch, unlike one process: "
                "--norm group does not",
                file=sys.stderr,
            )

    def gather(self, lines: list[str]) -> list[str]:
        """The lines of all processes, each once."""
        if self.count == 1:
            return list(dict.fromkeys(lines))
        everything: list[list[str]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(everything, lines)
        return list(dict.fromkeys(line for some in everything for line in some))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, in double precision."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sums over all processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def end(self) -> None:
        """Leave the group of processes."""
        if self.count > 1:
            self._accelerator.end_training()
