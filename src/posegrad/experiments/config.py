"""What all experiments have in common; every field is an option of `posegrad demo`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from posegrad.train.errors import RunError

__all__ = ["ExperimentConfig"]


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Settings of every experiment.

    Raises:
        RunError: a number that is not finite or has the wrong sign, named as on the command line.
    """

    quick: bool = False
    """Smaller, for a look: under a minute."""
    seed: int = 0
    """Of random weights and starts."""
    data: Path | None = None
    """Folder that holds the published data; None: $POSEGRAD_DATA, else ../shared/data."""

    #: what `quick` sets; whoever asked for less keeps that
    QUICK: ClassVar[dict[str, Any]] = {}
    #: numbers that may be zero
    MAY_BE_ZERO: ClassVar[frozenset[str]] = frozenset({"seed"})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            least = value >= 0 if field.name in self.MAY_BE_ZERO else value > 0
            if not (least and value < math.inf):
                option = field.name.replace("_", "-")
                sign = ">=" if field.name in self.MAY_BE_ZERO else ">"
                raise RunError(f"--{option}: got {value}, expected a finite number {sign} 0")

    def settled(self) -> Self:
        """With `quick` carried out."""
        if not self.quick:
            return self
        ours = {f.name: f.default for f in dataclasses.fields(self)}
        kept = {name: value for name, value in self.QUICK.items() if getattr(self, name) == ours[name]}
        return dataclasses.replace(self, **kept)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: paths as strings."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self).items()
        }
