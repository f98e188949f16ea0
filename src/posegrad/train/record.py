"""The run folder: log, metrics, TensorBoard scalars, weights, curves and pictures."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save
from torch import nn
from tqdm import tqdm

from posegrad.train.board import Board
from posegrad.train.checkpoint import CHECKPOINT, Counters
from posegrad.train.config import TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.files import check_writable, plain, writable, write_bytes

__all__ = ["Recorder", "read_log", "read_run", "read_summary", "write_model"]

_OF_EARLIER_RUNS = (
    CHECKPOINT,  # first: without it and without metrics.json a run begins at its beginning
    "metrics.json",
    "evaluation.json",
    "model.safetensors",
    "keypoints.json",
    "poses.csv",
    "curves.png",
    "report.html",
)


class Recorder:
    """Writes a run folder.

    Args:
        folder: the run folder; what an earlier run left there is replaced.
        config: settings.
        counters: of a checkpoint, to go on there: the log is cut to its length then, TensorBoard's rewritten.
        writes: False in all processes but the first, which only count.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, counters: Counters | None = None, *, writes: bool = True
    ) -> None:
        self.folder, self.writes = folder, writes
        self.counters = Counters() if counters is None else counters
        self._board: Board | None = None
        self._log: FileIO | None = None
        self._unlogged_left_out: list[str] = []
        self._config, self._goes_on = config, counters is not None

    def open(self) -> None:
        """Begin the log, or go on with it: once all else is known to work, as it clears away an earlier run's files.

        Raises:
            RunError: the folder cannot be created or written; the log is shorter than the checkpoint says.
        """
        if not self.writes:
            return
        folder, counters = self.folder, self.counters
        check_writable(folder)
        log = folder / "log.jsonl"
        with writable(log):
            if not self._goes_on:
                for stale in _OF_EARLIER_RUNS:
                    (folder / stale).unlink(missing_ok=True)
                write_bytes(folder / "config.json", (self._config.to_json() + "\n").encode())
                log.write_bytes(b"")
            elif not log.is_file() or log.stat().st_size < counters.log_bytes:
                raise RunError(f"{log} is shorter than when {CHECKPOINT} was written: put a good copy there")
            self._log = log.open("r+b", buffering=0)
            self._log.truncate(counters.log_bytes)
            self._log.seek(0, os.SEEK_END)
            self._board = Board(folder)
        for line in self.lines() if self._goes_on else ():
            self._add_scalars(line)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            with contextlib.suppress(OSError):  # of a full disk, told before
                self._board.close()

    def count(self, values: dict[str, float]) -> None:
        """Every step: count the failed items."""
        if "failed" in values:
            counters = self.counters
            counters.pose_steps, counters.failed = counters.pose_steps + 1, counters.failed + values["failed"]
            counters.unlogged_steps += 1
            counters.unlogged_failed += values["failed"]

    def left_out(self, lines: list[str]) -> None:
        """Images that could not be read: each is told once, and in the next line of the log."""
        for line in lines:
            if line not in self.counters.left_out:
                self.counters.left_out.append(line)
                self._unlogged_left_out.append(line)
                if self.writes:
                    tqdm.write(f"posegrad: left out: {line}", file=sys.stderr)

    def log(
        self, progress: float, lr: float, beta: float, weight_norm: float, values: dict[str, float]
    ) -> str:
        """Append the last step to log.jsonl and TensorBoard.

        Args:
            progress, lr, beta, weight_norm: at that step.
            values: losses by name, and squared norms of gradients, whose names start with `grad_`.

        Returns:
            A short line for the progress bar.
        """
        c = self.counters
        losses = {name: value for name, value in values.items() if not name.startswith("grad_")}
        entry: dict[str, Any] = {
            "step": c.step,
            "progress": round(progress, 6),
            "lr": lr,
            "l_h": None,
            "l_p": None,
            **losses,
        }
        entry |= {"beta": beta, "failed": c.unlogged_failed / c.unlogged_steps if c.unlogged_steps else None}
        entry["grad_weights"] = weight_norm
        entry |= {name: math.sqrt(values[name]) for name in values if name.startswith("grad_")}
        if self._unlogged_left_out:
            entry["left_out"] = self._unlogged_left_out
        self._unlogged_left_out = []
        c.unlogged_failed, c.unlogged_steps = 0.0, 0
        self._append(entry)
        parts = [f"l_h {entry['l_h']:.3f}"] if entry["l_h"] is not None else []
        if entry["l_p"] is not None:
            parts.append(f"l_p {entry['l_p']:.5f}")
        if entry["failed"] is not None:
            parts.append(f"failed {entry['failed']:.1%}")
        return " ".join(parts)

    def _append(self, entry: dict[str, Any]) -> None:
        if self._log is not None:
            with writable(self.folder / "log.jsonl"):
                self._log.write((json.dumps(plain(entry)) + "\n").encode())
            self._add_scalars(entry)

    def _add_scalars(self, entry: dict[str, Any]) -> None:
        if self._board is not None:
            with writable(self._board.path):
                numbers = {name: value for name, value in entry.items() if isinstance(value, int | float)}
                self._board.add(entry["step"], {n: value for n, value in numbers.items() if n != "step"})

    def flush(self) -> None:
        """Bring the log to the disk and note its length: a checkpoint must not know more than the log."""
        if self._log is None:
            return
        with writable(self.folder / "log.jsonl"):
            os.fsync(self._log.fileno())
        self.counters.log_bytes = self._log.tell()

    def lines(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl."""
        return read_log(self.folder)


def write_model(folder: Path, net: nn.Module, keypoints: Mapping[int, np.ndarray]) -> None:
    """Write model.safetensors and, as the network is of no use without them, the keypoints (mm) by object id."""
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(state))
    content = {str(object_id): points.tolist() for object_id, points in sorted(keypoints.items())}
    write_bytes(folder / "keypoints.json", (json.dumps(content) + "\n").encode())


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl; of a log that is absent or broken off, those that are there."""
    lines = []
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "log.jsonl").read_text().splitlines():
            if not isinstance(record := json.loads(line), dict):
                break
            lines.append(record)
    return lines


def read_summary(folder: Path) -> dict[str, Any]:
    """What metrics.json says of the training; nothing where it is absent or not JSON."""
    try:
        content = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    known = content if isinstance(content, dict) else {}
    return {key: known[key] for key in ("training", "environment") if key in known}


def read_run(folder: Path) -> tuple[TrainConfig, dict[str, Any], dict[int, np.ndarray]]:
    """Settings, weights and keypoints (N, 3) mm by object id, ascending, of a finished run.

    Raises:
        RunError: the folder is not one, or the run did not finish.
    """
    names = {path.name for path in folder.glob("*")}
    # Before its first checkpoint a run has only settings and a log; a dataset has a config.json, too, but no log.
    begun = CHECKPOINT in names or (
        {"config.json", "log.jsonl"} <= names and "model.safetensors" not in names
    )
    if begun and "metrics.json" not in names:
        raise RunError(f"{folder} holds an unfinished run: go on with posegrad train --resume {folder}")
    for name in ("config.json", "model.safetensors", "keypoints.json"):
        if name not in names:
            raise RunError(f"{folder} has no {name}: not the folder of a finished `posegrad train`")
    try:
        config = TrainConfig.from_json((folder / "config.json").read_text())
        state = load_file(folder / "model.safetensors")
        content = json.loads((folder / "keypoints.json").read_text())
        keypoints = {int(key): np.array(content[key], dtype=np.float64) for key in sorted(content, key=int)}
        if len({points.shape for points in keypoints.values()}) != 1:
            raise RunError(f"{folder / 'keypoints.json'} is damaged: put a good copy there")
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{folder} is damaged: {error}") from error
    return config, state, keypoints
