"""Files that are either the old or the new ones, whenever the process is killed or the power fails."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posegrad.train.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Processes that prepare crops notice within five seconds that a kill left them alone, and hold the folder until then.
PATIENCE = 10.0

__all__ = ["check_writable", "hold", "writable", "write_bytes", "write_json"]


def check_writable(folder: Path) -> None:
    """Create a run folder and try it, leaving what is in it as it is.

    Raises:
        RunError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(
            f"--out: cannot write to {folder} ({error.strerror}); choose another folder"
        ) from error


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a run folder for this process: two that train into one would spoil each other's files.

    Raises:
        RunError: another process has it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + PATIENCE
        while not _locked(descriptor):
            if time.monotonic() > end:
                raise RunError(f"another process trains in {folder}: wait for it, or choose another --out")
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the system's error of a write within into one line that names the file and the fix.

    Raises:
        RunError: the disk is full, a quota exceeded, the folder gone, ...
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"cannot write {path} ({reason}): make room there, what was written before is kept"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as a whole: at any moment, a kill or a power cut included, it is the old or the new one.

    Raises:
        RunError: it cannot be written; the old file stays.
    """
    part = path.with_name(f".{path.name}.part")
    with writable(path):
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON as a whole; numbers that are not finite become null, as JSON has no word for them."""
    write_bytes(path, (json.dumps(plain(content), indent=2) + "\n").encode())


def plain(value: Any) -> Any:
    """With null for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
