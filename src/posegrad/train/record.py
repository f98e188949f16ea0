"""The run folder: log, metrics, TensorBoard scalars, weights, curves and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter

from posegrad.nn import KeypointPoseNet
from posegrad.train.config import TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.objective import Terms

__all__ = ["Recorder", "read_run", "write_json"]


class Recorder:
    """Writes a run folder; made first of all, so that a folder that cannot be written stops the run at once.

    Raises:
        RunError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(config.to_json() + "\n")
            for stale in ("metrics.json", "model.safetensors", "curves.png"):
                (folder / stale).unlink(missing_ok=True)
            self._log = (folder / "log.jsonl").open("w", buffering=1)
        except OSError as error:
            raise RunError(
                f"--out: cannot write to {folder} ({error.strerror}); choose another folder"
            ) from error
        self._board: SummaryWriter | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()

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
            "failed": None if terms.failed is None else float(terms.failed),
            "grad_weights": weight_norm,
            **norms,
        }
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
            parts += [f"l_p {entry['l_p']:.5f}", f"failed {entry['failed']:.0%}"]
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
