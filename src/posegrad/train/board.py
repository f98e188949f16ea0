"""Scalars for TensorBoard, written at once: its own writer's thread prints a traceback when the disk is full."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (made at run time)
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

__all__ = ["Board"]

_PREFIX = "events.out.tfevents"


class Board:
    """One event file in a run folder, in place of those of earlier runs."""

    def __init__(self, folder: Path) -> None:
        for old in folder.glob(f"{_PREFIX}.*"):
            old.unlink()
        self.path = folder / f"{_PREFIX}.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = self.path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        summary = Summary(
            value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()
