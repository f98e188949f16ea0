"""The run folder: log, metrics, TensorBoard scalars, weights, curves and pictures."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter

from posegrad.nn import KeypointPoseNet
from posegrad.train.config import TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.objective import Terms

__all__ = ["Recorder", "check_writable", "read_run", "write_json"]


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
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(f"--out: cannot write to {folder} ({error.strerror}); choose another folder")


class Recorder:
    """Writes a run folder, in place of what an earlier run left there: made once everything else is known to work.

    Raises:
        RunError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.folder = folder
        check_writable(folder)
        try:
            for stale in (
                "metrics.json",
                "evaluation.json",
                "model.safetensors",
                "keypoints.json",
                "curves.png",
            ):
                (folder / stale).unlink(missing_ok=True)
            (folder / "config.json").write_text(config.to_json() + "\n")
            self._log = (folder / "log.jsonl").open("w", buffering=1)
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._board: SummaryWriter | None = None
        self._failed, self._solved = 0.0, 0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()

    def count(self, terms: Terms) -> None:
        """Every step: count the failed items, of which `log` writes the share since its last line."""
        if terms.failed is not None:
            self._failed += float(terms.failed)
            self._solved += 1

    def log(
        self, step: int, progress: float, lr: float, weight_norm: float, terms: Terms, norms: dict[str, float]
    ) -> str:
        """Append one step to log.jsonl and TensorBoard; returns a short line for the progress bar."""
        entry: dict[str, Any] = {
            "step": step,
            "progress": round(progress, 6),
            "lr": lr,
            "loss": float(terms.total.detach()),
            "l_h": float(terms.heatmap.detach()),
            "l_p": None if terms.pose is None else float(terms.pose.detach()),
            "beta": terms.beta,
            "failed": self._failed / self._solved if self._solved else None,
            "grad_weights": weight_norm,
            **norms,
        }
        self._failed, self._solved = 0.0, 0
        self._log.write(json.dumps(_plain(entry)) + "\n")
        if self._board is None:
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._board = SummaryWriter(str(self.folder))
        for name, value in entry.items():
            if name != "step" and value is not None:
                self._board.add_scalar(name, value, step)
        parts = [f"l_h {entry['l_h']:.3f}"]
        if entry["l_p"] is not None:
            parts.append(f"l_p {entry['l_p']:.5f}")
        if entry["failed"] is not None:
            parts.append(f"failed {entry['failed']:.1%}")
        return " ".join(parts)

    def model(self, net: KeypointPoseNet, keypoints: np.ndarray) -> None:
        """Write model.safetensors and, as the network is of no use without them, the keypoints (mm)."""
        state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
        save_file(state, self.folder / "model.safetensors")
        (self.folder / "keypoints.json").write_text(json.dumps(np.asarray(keypoints).tolist()) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl."""
        self._log.flush()
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON; numbers that are not finite become null, as JSON has no word for them."""
    path.write_text(json.dumps(_plain(content), indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_run(folder: Path) -> tuple[TrainConfig, dict[str, Any], np.ndarray]:
    """Settings, weights and keypoints (N, 3) mm of a finished run.

    Raises:
        RunError: the folder is not one, or the run did not finish.
    """
    for name in ("config.json", "model.safetensors", "keypoints.json"):
        if not (folder / name).is_file():
            raise RunError(f"{folder} has no {name}: not the folder of a finished `posegrad train`")
    try:
        config = TrainConfig.from_json((folder / "config.json").read_text())
        state = load_file(folder / "model.safetensors")
        keypoints = np.array(json.loads((folder / "keypoints.json").read_text()), dtype=np.float64)
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{folder} is damaged: {error}") from error
    return config, state, keypoints
