"""From a user's call to a batch in one dtype, and what is wrong with it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.manifolds import Manifold, manifold_of
from posegrad.optim import batch
from posegrad.optim.status import Status
from posegrad.optim.widening import widened
from posegrad.robust import RobustLoss, Squared


class Batch(NamedTuple):
    """A call's tensors, computed with in float64 where the device has it."""

    start: Any
    data: Any
    loss: RobustLoss
    manifold: Manifold
    verdict: Int[Tensor, " B"]
    dtype: torch.dtype


def admit(init: Any, args: Any, manifold: Any, loss: RobustLoss | None) -> Batch:
    """Raise for what is wrong with the call; make everything one batch."""
    if loss is not None and not isinstance(loss, RobustLoss):
        raise TypeError(
            f"loss: got {type(loss).__name__}, expected a loss of pg.robust such as pg.robust.Huber(1.0)"
        )
    where = manifold_of(init, manifold)
    starts = _leaves(init, "init")
    dtype, device = starts[0].dtype, starts[0].device
    for leaf in starts:
        if not leaf.is_floating_point():
            raise TypeError(f"init: got dtype {leaf.dtype}, expected a floating-point dtype; use .double()")
        dtype = torch.promote_types(dtype, leaf.dtype)
    given = _leaves(args, "args")
    sizes = [leaf.shape[0] for leaf in (*starts, *given)]
    size = next((size for size in sizes if size != 1), 1)
    for name, leaves in (("init", starts), ("args", given)):
        for leaf in leaves:
            if leaf.shape[0] not in (1, size):
                raise ValueError(
                    f"{name}: got a tensor of shape {tuple(leaf.shape)} in a batch of {size}, expected ({size}, ...), "
                    "or (1, ...) for one that all items share; use tensor[None]"
                )
            if leaf.device != device:
                raise ValueError(f"{name}: got a tensor on {leaf.device}, expected {device} as the init")
    compute = torch.float32 if device.type == "mps" else torch.float64

    def cast(leaf: Tensor) -> Tensor:
        if leaf.is_inference():  # no graph could keep it, not even one of the solver's own
            leaf = leaf.clone()
        return widened(leaf, compute) if leaf.is_floating_point() else leaf

    def flat(leaf: Tensor) -> Tensor:  # a parameter of the loss: a number, or one for each item
        return cast(leaf).to(device).reshape(-1)

    start = _pytree.tree_map(lambda leaf: cast(leaf.detach()).expand(size, *leaf.shape[1:]), init)
    if where.dimension(start) == 0:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in starts)
        raise ValueError(f"init: got shape {shapes}, expected at least one number for every item")
    used: RobustLoss = Squared() if loss is None else _pytree.tree_map(flat, loss)
    for leaf in _pytree.flatten(used)[0]:
        if leaf.shape[0] not in (1, size):
            raise ValueError(f"loss: got a parameter of {leaf.shape[0]} numbers, expected 1 or {size}")
    with torch.no_grad():
        fine, finite = where.contains(start), finite_items(start, size)
        status = torch.where(used.invalid(), int(Status.BAD_LOSS), torch.zeros_like(fine, dtype=torch.int64))
        status = torch.where(fine, status, int(Status.BAD_INIT))
        status = torch.where(finite, status, int(Status.NOT_FINITE))
        # before it is projected: the failed ones may be zero or infinite
        start = where.project(batch.where(fine & finite, start, where.harmless(start)))
    used = _pytree.tree_map(lambda leaf: torch.where(used.invalid(), torch.ones_like(leaf), leaf), used)
    data = _pytree.tree_map(cast, args)
    half = dtype in (torch.float16, torch.bfloat16)
    return Batch(start, data, used, where, status, torch.float32 if half else dtype)


def check_function(name: str, function: Callable[..., Any]) -> None:
    """Raise for what cannot be called."""
    if not callable(function):
        raise TypeError(f"{name}: got {type(function).__name__}, expected a function of (variable, args)")


def _leaves(tree: Any, name: str) -> list[Tensor]:
    leaves = _pytree.flatten(tree)[0]
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"{name}: got a {type(leaf).__name__} in it, expected a pytree of tensors; let the function close over "
                "what is no tensor"
            )
        if leaf.layout != torch.strided or leaf.is_complex():
            remedy = "torch.view_as_real" if leaf.is_complex() else ".to_dense()"
            kind = leaf.dtype if leaf.is_complex() else leaf.layout
            raise TypeError(
                f"{name}: got a tensor of {kind} in it, expected dense real tensors; use {remedy}"
            )
        if leaf.ndim == 0:
            raise ValueError(
                f"{name}: got a tensor without dimensions in it, expected the batch (or 1) in front; use tensor[None]"
            )
    if not leaves and name == "init":
        raise TypeError(f"init: got {tree!r}, expected a tensor, a pg.Pose or a pytree of them")
    return leaves


def finite_items(tree: Any, size: int) -> Bool[Tensor, " B"]:
    """Where all tensors of a tree, of which there may be none, are finite."""
    fine = torch.ones(size, dtype=torch.bool)
    for leaf in _pytree.flatten(tree)[0]:
        flags = leaf.isfinite()
        fine = fine.to(leaf.device) & (flags.flatten(1).all(-1) if flags.ndim > 1 else flags)
    return fine
