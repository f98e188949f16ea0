"""Registration of frozen dataclasses as pytrees, so that torch.func, vmap and compile see their tensors."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch.utils import _pytree

T = TypeVar("T")

tree_flatten = _pytree.tree_flatten
tree_unflatten = _pytree.tree_unflatten

_REGISTERED: set[type] = set()


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply a function to the tensors of one or several trees of equal structure.

    As torch's own, with a short way for the trees of this package: torch's costs 100 us a call, as much as ten
    tensor operations, and the solvers call it at every step. None has no tensors and stays.
    """
    if isinstance(tree, torch.Tensor):
        return function(tree, *rest)
    if tree is None:
        return None
    kind = type(tree)
    if kind in _REGISTERED:
        names = _fields(kind)
        values = [
            tree_map(function, getattr(tree, name), *(getattr(other, name) for other in rest))
            for name in names
        ]
        return _build(kind, names, values)
    if isinstance(tree, tuple):
        values = [tree_map(function, *branches) for branches in zip(tree, *rest, strict=True)]
        return kind(*values) if hasattr(tree, "_fields") else tuple(values)
    if kind is list:
        return [tree_map(function, *branches) for branches in zip(tree, *rest, strict=True)]
    if kind is dict:
        return {
            key: tree_map(function, value, *(other[key] for other in rest)) for key, value in tree.items()
        }
    return _pytree.tree_map(function, tree, *rest)


_HOLE = torch.empty(0)


def flatten(tree: Any) -> tuple[list[torch.Tensor], Any]:
    """The tensors of a tree, and the tree without them; as quick as :func:`tree_map`."""
    leaves: list[torch.Tensor] = []

    def dig(leaf: torch.Tensor) -> torch.Tensor:
        leaves.append(leaf)
        return _HOLE

    return leaves, tree_map(dig, tree)


def unflatten(structure: Any, leaves: Iterable[torch.Tensor]) -> Any:
    """The inverse of :func:`flatten`."""
    left = iter(leaves)
    return tree_map(lambda _: next(left), structure)


@functools.cache
def _fields(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _build(cls: type[T], names: tuple[str, ...], values: Any) -> T:
    """An instance without ``__init__`` and its checks: transforms put placeholders in place of tensors."""
    instance = object.__new__(cls)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(instance, name, value)
    return instance


def register(cls: type[T]) -> type[T]:
    """Class decorator: every field of the dataclass is a child of the pytree, but for those that are None.

    The fields are looked up when they are needed: a base class may register what a decorator then makes a dataclass.
    """
    _REGISTERED.add(cls)

    def children(value: Any) -> tuple[list[Any], tuple[str, ...]]:
        present = tuple(name for name in _fields(cls) if getattr(value, name) is not None)
        return [getattr(value, name) for name in present], present

    def rebuilt(values: Iterable[Any], present: tuple[str, ...]) -> T:
        given = dict(zip(present, values, strict=True))
        return _build(cls, _fields(cls), [given.get(name) for name in _fields(cls)])

    _pytree.register_pytree_node(
        cls,
        children,
        rebuilt,  # pyright: ignore[reportArgumentType]
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
    )
    return cls
