"""Computing in a wider dtype than the user's: the way there, and the gradient's way back."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def widened(value: Tensor, dtype: torch.dtype) -> Tensor:
    """``value.to(dtype)``, whose gradient saturates: one that the value's own dtype cannot hold becomes its largest
    number, not infinity, which would be NaN in the next product with zero.

    A matter of float16, mostly: by points of size 1e-6, rotations have derivatives of 1e6. What is saturated has the
    right sign, and is a constant for higher derivatives.

    >>> x = torch.tensor([1e-6, 1.0], dtype=torch.float16, requires_grad=True)
    >>> torch.autograd.grad(widened(x, torch.float64).log().sum(), x)[0]
    tensor([6.5504e+04, 1.0000e+00], dtype=torch.float16)
    """
    return value if value.dtype == dtype else _Widened.apply(value, dtype)  # pyright: ignore[reportReturnType]


def saturated(value: Tensor, dtype: torch.dtype) -> Tensor:
    """``value.to(dtype)``, with its largest numbers where the value is beyond them."""
    largest = min(torch.finfo(dtype).max, torch.finfo(value.dtype).max)
    return value.clamp(-largest, largest).to(dtype)


class _Widened(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, dtype: torch.dtype) -> Tensor:
        return value.to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.dtype], output: Tensor) -> None:
        ctx.narrow, ctx.wide = inputs[0].dtype, inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return saturated(gradient, ctx.narrow), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        with forward_ad._set_fwd_grad_enabled(True):  # torch turns it off here, for outer levels too
            return widened(tangent, ctx.wide)

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[int | None, None], value: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, int | None]:
        return widened(value, dtype), in_dims[0]
