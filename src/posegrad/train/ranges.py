"""Checks of settings: an option out of its range is one line with what came and what was expected."""

from __future__ import annotations

import math

from posegrad.train.errors import RunError

__all__ = ["at_least", "distinct", "not_negative", "positive", "require", "share"]


def require(option: str, value: object, condition: bool, expected: str) -> None:
    """Raise where `condition` does not hold."""
    if not condition:
        raise RunError(f"--{option}: got {value}, expected {expected}")


def positive(option: str, value: float) -> None:
    """Raise unless it is finite and > 0."""
    require(option, value, 0 < value < math.inf, "a finite number > 0")


def not_negative(option: str, value: float) -> None:
    """Raise unless it is finite and >= 0."""
    require(option, value, 0 <= value < math.inf, "a finite number >= 0")


def share(option: str, value: float) -> None:
    """Raise unless it lies in [0, 1]."""
    require(option, value, 0 <= value <= 1, "a number in [0, 1]")


def at_least(option: str, value: int, least: int) -> None:
    """Raise where it is less."""
    require(option, value, value >= least, f"at least {least}")


def distinct(option: str, ids: tuple[int, ...] | None) -> None:
    """Raise where an id is given twice, or none."""
    if ids is not None:
        require(option, " ".join(map(str, ids)), 0 < len(ids) == len(set(ids)), "ids, each once")
