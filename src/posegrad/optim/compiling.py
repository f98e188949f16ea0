"""What torch.compile is to leave alone."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: torch.compile calls the function as it is, with one break of the graph.

    As ``torch.compiler.disable``, which would add seconds to the import of this package, compiled or not.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # the second question is for frames that the compiler came by and gave up
        if torch.compiler.is_dynamo_compiling() or "posegrad.optim.eager" in sys.modules:
            from posegrad.optim.eager import eagerly

            return cast(T, eagerly(function, *args, **kwargs))
        return function(*args, **kwargs)

    # a code object of its own: the compiler counts, and limits, its compilations by code object
    call.__code__ = call.__code__.replace(co_name=function.__name__)
    return functools.update_wrapper(call, function)
