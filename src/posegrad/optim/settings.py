"""What is wrong with a number among the settings."""

from numbers import Integral, Real
from typing import Any


def check_count(name: str, value: Any) -> None:
    """Raise for what is no integer >= 1; True is none."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: got {value!r}, expected an integer >= 1")


def check_positive(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise for what is no number > 0; NaN, True and tensors are none."""
    if value is None and optional:
        return
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise ValueError(f"{name}: got {value!r}, expected {'None or a' if optional else 'a'} number > 0")
