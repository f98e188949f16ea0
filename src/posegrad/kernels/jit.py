"""How kernels are compiled, cached and called by address: the only file that knows numba's insides."""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

F = TypeVar("F", bound=Callable[..., Any])

# Sums may be reordered and products fused, but NaN and infinity stay what they are: feasibility rests on them.
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

#: Decorators: a function for kernels that is copied into its callers; one that is called.
inlined = register_jitable(**_OPTIONS, forceinline=True)
helper = register_jitable(**_OPTIONS)

DOUBLES = types.CPointer(types.float64)


@functools.cache
def stamp() -> str:
    """Of all that kernels are made of. They close over it, so that one compiled from other sources is not found on the
    disk again: by itself numba's cache looks at the time stamp of a single file."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(numba.__version__.encode())
    for folder in ("kernels", "cameras"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _cached(
    decorator: Callable[..., Callable[[F], Any]], signature: Any, **options: Any
) -> Callable[[F], Any]:
    def decorate(function: F) -> Any:
        with contextlib.suppress(Exception):
            return decorator(signature, cache=True, **options, **_OPTIONS)(function)
        # No folder can be written, the disk is full, a file on it is damaged: whatever ails the cache, kernels can do
        # without. What ails the kernel itself is raised here.
        return decorator(signature, **options, **_OPTIONS)(function)

    return decorate


#: Decorator: a kernel ``(block, first, last, slot)`` that Python calls, without the interpreter's lock.
entry = _cached(numba.njit, "void(int64, int64, int64, int64)", nogil=True)


def by_address(signature: Any) -> Callable[[F], Any]:
    """Decorator: a kernel that others call by its ``address``; it must be kept alive."""
    return _cached(numba.cfunc, signature)


def _numbers_at(kind: types.Type) -> Any:
    pointer = types.CPointer(kind)

    @intrinsic
    def numbers_at(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), generate

    return numbers_at


# The numbers at an address, to be read and written by index. Bare pointers rather than arrays: these, with their shape
# and strides, take twice as long to compile.
doubles, singles = _numbers_at(types.float64), _numbers_at(types.float32)
integers, flags = _numbers_at(types.int64), _numbers_at(types.uint8)


def calling(signature: Any) -> Callable[..., Any]:
    """A function for kernels ``(address, *args)`` that calls what :func:`by_address` made with that signature."""

    @intrinsic
    def call(typing_context: Any, address: Any, args: Any) -> Any:
        def generate(context: Any, builder: Any, own: Any, values: Any) -> Any:
            kinds = [context.get_value_type(kind) for kind in signature.args]
            function = ir.FunctionType(context.get_value_type(signature.return_type), kinds)
            address, pack = values
            unpacked = [builder.extract_value(pack, i) for i in range(len(kinds))]
            return builder.call(builder.inttoptr(address, function.as_pointer()), unpacked)

        return signature.return_type(types.int64, types.Tuple(signature.args)), generate

    return call
