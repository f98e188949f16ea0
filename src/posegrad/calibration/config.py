"""The options of `posegrad calibrate`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from posegrad.cameras import MODELS
from posegrad.train.errors import RunError

_LENGTH = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)")
_UNITS = ("", "um", "mm", "cm", "m", "in")


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """Calibrate a camera from images of a chessboard, from the corners alone."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images of the board, or folders of them; all of one size."""
    board: str = "9x6"
    """Inner corners of the board, columns x rows."""
    square: str = "1"
    """Side of a square, with its unit: 25mm. Poses come out in it; the camera's parameters do not depend on it."""
    model: str = "OPENCV"
    """Camera model; OPENCV_FISHEYE for lenses up to 180 degrees and more."""
    fix: tuple[str, ...] = ()
    """Names of parameters to hold: distortions at zero, cx and cy at the image's centre."""
    robust: float = 0.0
    """Scale of a Huber loss, pixels; 0: none. With it, standard deviations are not known."""
    out: Path = Path("calibration")
    """Folder for camera.json, cameras.txt (COLMAP), camera.yaml (OpenCV) and figures."""

    def __post_init__(self) -> None:
        _ = self.board_size, self.square_size
        if self.model not in MODELS:
            raise RunError(f"--model: got {self.model}, expected one of {', '.join(MODELS)}")
        model = MODELS[self.model]
        names = model.parameter_names[model.num_focal :]
        for name in self.fix:
            if name not in names:
                raise RunError(f"--fix: got {name}, expected parameters of {self.model}: {', '.join(names)}")
        if not 0 <= self.robust < float("inf"):
            raise RunError(f"--robust: got {self.robust}, expected a finite number >= 0")

    @property
    def board_size(self) -> tuple[int, int]:
        """Inner corners, (columns, rows)."""
        found = re.fullmatch(r"([0-9]+)[xX]([0-9]+)", self.board)
        if found is None or min(map(int, found.groups())) < 2:
            raise RunError(f"--board: got {self.board}, expected inner corners such as 9x6, at least 2x2")
        return int(found[1]), int(found[2])

    @property
    def square_size(self) -> tuple[float, str]:
        """Side of a square and its unit."""
        found = _LENGTH.fullmatch(self.square.strip())
        if found is None or found[2] not in _UNITS or not 0 < float(found[1]) < float("inf"):
            raise RunError(f"--square: got {self.square}, expected a length such as 25mm or 0.025m")
        return float(found[1]), found[2]
