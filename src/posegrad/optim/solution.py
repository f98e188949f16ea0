"""The answer of a batch of minimisations."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.optim.status import Status


@_pytree.register
@dataclass(frozen=True, eq=False)
class Solution:
    """Per item of the batch ``(...)``: the minimiser and what is known about it.

    Only ``variable`` carries gradients.

    Args:
        variable: the minimiser, a tensor or pytree; finite also where the item failed.
        status: (...) integers, see :class:`Status`.
        cost: (...) the minimised cost.
        num_steps: (...) steps taken (accepted or not) by the winning candidate.
        decrement: (...) Newton decrement ``sqrt(g^T H^-1 g)`` at the answer, in the unit of sqrt(cost).
        hessian: (..., D, D) exact Hessian of the cost in the tangent at the answer; zero where the item failed.

    >>> import posegrad as pg
    >>> class Mean(pg.Problem):
    ...     dimension = 1
    ...     def residual(self, variable, args):
    ...         return variable - args
    >>> solution = pg.argmin_layer(lambda x: x.mean(-1, keepdim=True), Mean())(torch.tensor([[1.0, 3.0]]))
    >>> solution.variable, solution.cost, solution.ok
    (tensor([[2.]]), tensor([1.]), tensor([True]))
    """

    #: what a status means for the problem at hand, where more can be said than in general
    _ADVICE: ClassVar[dict[Status, str]] = {}

    variable: Any
    status: Int[Tensor, "*batch"]
    cost: Float[Tensor, "*batch"]
    num_steps: Int[Tensor, "*batch"]
    decrement: Float[Tensor, "*batch"]
    hessian: Float[Tensor, "*batch D D"]

    @property
    def ok(self) -> Bool[Tensor, "*batch"]:
        """(...) True where the item converged to a minimum; elsewhere its gradient is zero."""
        return self.status == int(Status.CONVERGED)

    @classmethod
    def advice(cls, status: Status) -> str:
        """What a status means for this problem, and what to do."""
        return cls._ADVICE.get(status, status.advice)

    def describe(self) -> str:
        """One line per status that occurs, with its count and advice (reads the tensors back to the host)."""
        counts = sorted((Status(code), n) for code, n in Counter(self.status.flatten().tolist()).items())
        return "\n".join(f"{n} x {s.name}: {self.advice(s)}" for s, n in counts)


def masked_mean(values: Float[Tensor, "*batch"], ok: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean of ``values`` over the items where ``ok``; 0, with zero gradient, if there is none.

    Values of the other items do not matter, NaN included, and get a zero gradient.

    >>> masked_mean(torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True]))
    tensor(2.)
    """
    if values.shape != ok.shape:
        raise ValueError(
            f"masked_mean: values {tuple(values.shape)} and ok {tuple(ok.shape)} must have the same shape; "
            "reduce the values to one per item first"
        )
    if ok.dtype != torch.bool:
        raise TypeError(f"masked_mean: ok has dtype {ok.dtype}, expected torch.bool")
    kept = torch.where(ok, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return kept.sum() / ok.sum().clamp(min=1)
