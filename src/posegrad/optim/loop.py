"""The iteration of every solver: steps until all items of a batch are done."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.problem import Args


class Progress(Protocol):
    """A batch of iterates, a pytree whose tensors have the batch in front; an item that is done no longer changes."""

    @property
    def done(self) -> Tensor:
        """(B,) bool."""
        ...


S = TypeVar("S", bound=Progress)


def iterate(step: Callable[[S, Args], S], state: S, args: Args, *, max_steps: int) -> S:
    """Apply ``step`` until every item is done. Items that are done leave the work when that is asked for: at every
    step on the CPU, at every fourth on other devices, where the question waits for all that is under way."""
    every = 1 if batch.questions_are_cheap(state.done.device) else 4
    work, work_args, members = state, args, None
    for number in range(max_steps):
        if number % every == 0:
            left = _count(~work.done)
            if left == 0:
                break
            if 4 * left <= 3 * work.done.shape[0] and batch.is_worth_dividing(work_args):
                keep = work.done.to(torch.uint8).argsort(stable=True)[:left]  # nonzero would ask once more
                state = work if members is None else batch.put(state, members, work)
                members = keep if members is None else members[keep]
                work, work_args = batch.take(work, keep), batch.take(args, members)
        work = step(work, work_args)
    return work if members is None else batch.put(state, members, work)


def _count(mask: Tensor) -> int:
    """The one question that a solver asks."""
    try:
        return int(mask.sum())
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise NotImplementedError(
            "adjoint: pg.Unrolled() differentiates through the solver's steps, whose number depends on the data; "
            "torch.func.vmap cannot pass there. Use pg.Implicit(), or batch dimensions in place of vmap"
        ) from None
