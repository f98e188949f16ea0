"""Working on a part of a batch of pytrees."""

from typing import TypeVar

import torch
from torch import Tensor

from posegrad import _pytree

T = TypeVar("T")


def questions_are_cheap(device: torch.device) -> bool:
    """Whether reading a tensor's value on the host waits for nothing."""
    return device.type == "cpu"


def take(tree: T, index: Tensor) -> T:
    """The items at ``index``; tensors with a leading dimension of 1 are shared and stay as they are."""

    def pick(leaf: Tensor) -> Tensor:
        return leaf if leaf.shape[0] == 1 else leaf.index_select(0, index)

    return _pytree.tree_map(pick, tree)


def put(tree: T, index: Tensor, part: T) -> T:
    """A copy of ``tree`` with the items at ``index`` replaced; every tensor has the full batch."""
    return _pytree.tree_map(lambda leaf, new: leaf.index_copy(0, index, new), tree, part)


def where(condition: Tensor, yes: T, no: T) -> T:
    """Item by item, one tree or the other."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition.view(-1, *(1,) * (max(a.ndim, b.ndim) - 1)), a, b)

    return _pytree.tree_map(choose, yes, no)
