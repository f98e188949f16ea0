"""Working on a part of a batch of pytrees."""

from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from posegrad import _pytree

T = TypeVar("T")

# Numbers of the largest tensor. Up to here an operation takes as long for all items as for a few.
_SMALL = 4096


def questions_are_cheap(device: torch.device) -> bool:
    """Whether reading a tensor's value on the host waits for nothing."""
    return device.type == "cpu"


def indices(mask: Bool[Tensor, " B"]) -> Int[Tensor, " K"]:
    """Where the mask is set, in order: one question to the host."""
    return mask.logical_not().to(torch.uint8).argsort(stable=True)[: int(mask.sum())]


def is_worth_dividing(tree: Any) -> bool:
    """Whether working on fewer items saves more than taking them out and putting them back costs."""
    return max((leaf.numel() for leaf in _pytree.flatten(tree)[0]), default=0) >= _SMALL


def take(tree: T, index: Tensor) -> T:
    """The items at ``index``; tensors with a leading dimension of 1 are shared and stay as they are."""
    return _pytree.tree_map(lambda leaf: leaf if leaf.shape[0] == 1 else _items(leaf, index), tree)


def part(tree: T, start: int, count: int) -> T:
    """Views of some items in a row; tensors with a leading dimension of 1 are shared and stay as they are."""
    return _pytree.tree_map(lambda leaf: leaf if leaf.shape[0] == 1 else leaf[start : start + count], tree)


def repeat(tree: T, count: int) -> T:
    """Every item ``count`` times, one after the other."""

    def repeated(leaf: Tensor) -> Tensor:
        return _items(leaf, torch.arange(count * leaf.shape[0], device=leaf.device) // count)

    return _pytree.tree_map(repeated, tree)


def copies(tree: T, index: Tensor) -> T:
    """The items at ``index``, which may name one several times; every tensor has the full batch."""
    return _pytree.tree_map(lambda leaf: _items(leaf, index), tree)


def join(tree: T, other: T) -> T:
    """The items of one after those of the other."""
    return _pytree.tree_map(lambda a, b: torch.cat([a, b]), tree, other)


def _items(leaf: Tensor, index: Tensor) -> Tensor:
    # points lie in memory coordinate by coordinate, and shall go on to
    return leaf.mT.index_select(0, index).mT if leaf.ndim == 3 else leaf.index_select(0, index)


def put(tree: T, index: Tensor, part: T) -> T:
    """A copy of ``tree`` with the items at ``index`` replaced; every tensor has the full batch."""
    return _pytree.tree_map(lambda leaf, new: leaf.index_copy(0, index, new), tree, part)


def where(condition: Tensor, yes: T, no: T) -> T:
    """Item by item, one tree or the other."""
    shaped = {1: condition}

    def choose(a: Tensor, b: Tensor) -> Tensor:
        dims = max(a.ndim, b.ndim)
        if dims not in shaped:
            shaped[dims] = condition.view(-1, *(1,) * (dims - 1))
        return torch.where(shaped[dims], a, b)

    return _pytree.tree_map(choose, yes, no)
