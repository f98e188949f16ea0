"""Imported only while torch.compile is at work, see :mod:`posegrad.optim.compiling`."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


@torch.compiler.disable
def eagerly(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function outside of the compiled graph."""
    return function(*args, **kwargs)
