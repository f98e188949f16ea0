"""Going on with a run that was stopped: what its folder holds, and what may be changed."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

from posegrad.train.checkpoint import read_checkpoint
from posegrad.train.config import TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.identity import contradiction

__all__ = ["check_resumable", "finished_metrics", "protect", "resume_command", "stored_config"]


def resume_command(folder: Path) -> str:
    """The words that go on with a run."""
    return f"posegrad train --resume {shlex.quote(str(folder))}"


def finished_metrics(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of a finished run, by object id, then by row of its table."""
    path = folder / "metrics.json"
    try:
        return {
            object_id: {
                name: {key: math.inf if v is None else v for key, v in row.items()}
                for name, row in rows.items()
            }
            for object_id, rows in json.loads(path.read_text())["objects"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}; posegrad eval {folder} measures again") from error


def stored_config(folder: Path) -> TrainConfig:
    """Settings of a run, finished or not.

    Raises:
        RunError: the folder is not one of a run, or its config.json is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise RunError(f"{folder} has no config.json: not the folder of a `posegrad train`")
    try:
        config = TrainConfig.from_json(path.read_text())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}; put a good copy there") from error
    return replace(config, run=replace(config.run, out=folder))


def check_resumable(config: TrainConfig, folder: Path) -> None:
    """Whether the settings are those of the run in `folder`.

    Raises:
        RunError: an option contradicts its config.json.
    """
    stored = stored_config(folder)
    if config.run.out.resolve() != folder.resolve():
        raise RunError(f"--out: got {config.run.out}, but --resume {folder} says the folder: leave one out")
    if difference := contradiction(config, stored):
        raise RunError(f"{difference}: leave it out, or start a new run without --resume")


def protect(folder: Path) -> None:
    """Refuse to replace an unfinished run: hours of work, perhaps.

    Raises:
        RunError: there is one.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint is not None:
        counters = checkpoint.counters
        raise RunError(
            f"--out: {folder} holds an unfinished run (step {counters.step} of {counters.steps}): go on with "
            f"{resume_command(folder)}, choose another folder, or replace it with --overwrite"
        )
