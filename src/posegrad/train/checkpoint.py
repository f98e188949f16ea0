"""What a run needs to go on exactly where it was, in one file that is never unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from posegrad.train.errors import RunError
from posegrad.train.files import write_bytes
from posegrad.train.optimizer import load_optimizer, optimizer_tensors

__all__ = ["CHECKPOINT", "Checkpoint", "Counters", "read_checkpoint", "write_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "posegrad checkpoint 1"


@dataclass
class Counters:
    """How far a run is and what it met so far; all that changes in a run besides tensors and files.

    Attributes:
        step: steps done, which is the number of the next batch. steps: planned.
        epoch, batch: of the next batch, its place in the epoch.
        seconds: of the loop. waited: of them, for crops.
        left_out: one line for every image that could not be read.
        pose_steps, failed: steps with the pose loss, and the sum of the shares of failed items over them.
        skipped, in_a_row: steps left out for a gradient that is not finite, and of those the last ones.
        unlogged_steps, unlogged_failed: as `pose_steps` and `failed`, since the last line of the log.
        log_bytes: length of log.jsonl.
    """

    step: int = 0
    steps: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    pose_steps: int = 0
    failed: float = 0.0
    skipped: int = 0
    in_a_row: int = 0
    unlogged_steps: int = 0
    unlogged_failed: float = 0.0
    log_bytes: int = 0
    waited: float = 0.0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: of the file.
        counters: of the run at that moment.
        config: hash of its settings. data: hash of its training crops and keypoints.
    """

    path: Path
    counters: Counters
    config: str
    data: str

    def check(self, config: str, data: str) -> None:
        """Whether it belongs to these settings and these crops.

        Raises:
            RunError: it does not.
        """
        if config != self.config:
            raise _unusable(self.path, "written by a run with other settings than config.json")
        if data != self.data:
            raise RunError(
                f"{self.path}: the training images, their annotations or the keypoints are not those of the run: "
                "restore them, or start anew without --resume, with --overwrite"
            )

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and state of the optimiser where they were.

        Raises:
            RunError: the tensors are not those of this network.
        """
        try:
            parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
            with safe_open(self.path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 (a file, not a dict)
                    part, _, name = key.partition(".")
                    parts[part][name] = file.get_tensor(key)
            net.load_state_dict(parts["model"])
            load_optimizer(net, optimizer, parts["optimizer"])
        except (SafetensorError, KeyError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise _unusable(self.path, f"it does not fit the network of config.json: {reason}") from error


def write_checkpoint(
    folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, counters: Counters, config: str, data: str
) -> None:
    """Replace the run's checkpoint as a whole.

    Raises:
        RunError: it cannot be written; the one before stays.
    """
    tensors = {f"model.{name}": value for name, value in net.state_dict().items()}
    state = optimizer_tensors(net, optimizer)
    tensors |= {f"optimizer.{name}": value for name, value in state.items()}
    # contiguous: safetensors keeps no strides; `restore` lays them out anew
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"format": _FORMAT, "counters": json.dumps(asdict(counters)), "config": config, "data": data}
    write_bytes(folder / CHECKPOINT, save(plain, metadata))


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint of a run, without its tensors; None if there is none yet.

    Raises:
        RunError: the file is damaged or not a checkpoint.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise _unusable(path, "not a checkpoint of this version of posegrad")
        counters = Counters(**json.loads(metadata["counters"]))
        return Checkpoint(path, counters, metadata["config"], metadata["data"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, f"damaged, or not a checkpoint: {error}") from error


def _unusable(path: Path, reason: str) -> RunError:
    return RunError(
        f"{path}: {reason}; put a good copy there, or start anew without --resume, with --overwrite"
    )
