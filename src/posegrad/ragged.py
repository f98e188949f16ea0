"""Batches of items of different sizes."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pad(items: Sequence[Float[Tensor, "N *tail"]]) -> tuple[Float[Tensor, "B N *tail"], Bool[Tensor, "B N"]]:
    """Stack tensors of different lengths, filled up with zeros, and the mask of what is theirs.

    For points, weights and whatever else has one row per point; gradients pass to the items.

    Args:
        items: tensors (N_i, ...) that differ in their first dimension only; N_i = 0 is legal.

    Returns:
        (B, max N_i, ...) and a bool mask (B, max N_i), True for real rows.

    Raises:
        TypeError, ValueError: no items, or items of different trailing shape, dtype or device.

    >>> points, mask = pad([torch.ones(2, 3), torch.ones(1, 3)])
    >>> points.shape, mask.tolist()
    (torch.Size([2, 2, 3]), [[True, True], [True, False]])
    """
    if isinstance(items, Tensor) or not isinstance(items, Sequence):
        raise TypeError(f"pad: got {type(items).__name__}, expected a list of tensors, one per item")
    if not items:
        raise ValueError("pad: got an empty list, expected at least one tensor")
    first = items[0]
    for i, item in enumerate(items):
        if not isinstance(item, Tensor):
            raise TypeError(f"pad: item {i} is a {type(item).__name__}, expected a torch.Tensor")
        if item.ndim == 0:
            raise ValueError(f"pad: item {i} has no dimensions, expected (N, ...)")
        for name, got, wanted in (
            ("trailing shape", tuple(item.shape[1:]), tuple(first.shape[1:])),
            ("dtype", item.dtype, first.dtype),
            ("device", item.device, first.device),
        ):
            if got != wanted:
                raise ValueError(f"pad: item {i} has {name} {got}, expected {wanted} as item 0")
    lengths = torch.tensor([len(item) for item in items], device=first.device)
    longest = max(len(item) for item in items)
    mask = torch.arange(longest, device=first.device) < lengths[:, None]
    return torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True), mask
