"""Registration of frozen dataclasses as pytrees, so that torch.func, vmap and compile see their tensors."""

import dataclasses
from typing import Any, TypeVar

from torch.utils import _pytree

T = TypeVar("T")

tree_flatten = _pytree.tree_flatten
tree_unflatten = _pytree.tree_unflatten
tree_map = _pytree.tree_map


def register(cls: type[T]) -> type[T]:
    """Class decorator: every field of the dataclass is a child of the pytree.

    Unflattening bypasses ``__init__`` and its checks: transforms put placeholders in place of tensors.
    """
    names = tuple(field.name for field in dataclasses.fields(cls))  # pyright: ignore[reportArgumentType]

    def flatten(value: Any) -> tuple[list[Any], None]:
        return [getattr(value, name) for name in names], None

    def unflatten(children: Any, _: Any) -> Any:
        value = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(value, name, child)
        return value

    _pytree.register_pytree_node(
        cls, flatten, unflatten, serialized_type_name=f"{cls.__module__}.{cls.__qualname__}"
    )
    return cls
