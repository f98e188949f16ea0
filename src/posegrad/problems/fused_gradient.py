"""The gradient of a call that the kernels served: theirs, or the long way's where more than numbers is asked for."""

from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from torch.autograd import forward_ad

from posegrad.kernels import block, pool
from posegrad.optim.compiling import uncompiled
from posegrad.optim.widening import saturated
from posegrad.pose import Pose
from posegrad.problems.fused_arguments import PLAIN, SINGLE
from posegrad.problems.fused_buffer import CPU, INTEGER, Buffer
from posegrad.problems.fused_layout import Job

_CAMERA = 2
# Nanoseconds of one thread: an item, and a point of it.
_BACKWARD_ITEM, _BACKWARD_POINT = 500, 6


class Fused(torch.autograd.Function):
    """(job, points2d, points3d, camera parameters or matrix, weights) -> (R, t)."""

    @staticmethod
    def forward(ctx: Any, job: Job, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore
        R, t, *numbers = job.forward()
        # the mask and what else the kernels read is saved, too, for autograd to notice where it is changed meanwhile
        ctx.save_for_backward(*inputs, *job.kept)
        ctx.job, ctx.places = job, _places(inputs)
        job.forget()
        job.numbers = numbers
        ctx.set_materialize_grads(False)
        return R, t

    @staticmethod
    @uncompiled
    def backward(ctx: Any, by_R: Tensor | None, by_t: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore
        job: Job = ctx.job
        inputs, needed = ctx.saved_tensors[:4], ctx.needs_input_grad[1:]
        if by_R is None and by_t is None:
            return (None,) * 5
        if torch.is_grad_enabled() or forward_ad._current_level >= 0 or _mapped(by_R) or _mapped(by_t):
            return (None, *_gradients_by_torch(job, inputs, needed, by_R, by_t))
        # hooks on saved tensors may have moved them and brought them back: elsewhere, in another layout
        places = _places(inputs)
        forward = job.block if places == ctx.places else _relaid(job, inputs, places, ctx.places)
        return (None, *_Pull(job, inputs, needed, by_R, by_t).run(forward))


def _places(inputs: tuple[Tensor | None, ...]) -> list[Any]:
    """All that the kernels' memory accesses rest on: shapes, and where and how the inputs lie in memory."""
    return [
        None if each is None else (each.shape, each.data_ptr(), each.stride(), each.dtype) for each in inputs
    ]


def _relaid(job: Job, inputs: tuple[Tensor | None, ...], places: list[Any], before: list[Any]) -> bytes:
    """The block for inputs at other places."""
    for now, then in zip(places, before, strict=True):
        if now is not None and now[0] != then[0]:
            raise RuntimeError(
                f"a hook on saved tensors handed back the shape {tuple(now[0])} for {tuple(then[0])}"
            )
    return job.relaid(job.recall(*inputs))  # pyright: ignore[reportArgumentType]


def _mapped(gradient: Tensor | None) -> bool:
    """Whether a gradient is one for many at once, or otherwise no plain tensor."""
    if gradient is None:
        return False
    return (
        type(gradient) not in PLAIN
        or gradient.dtype not in SINGLE
        or gradient.is_neg()
        or _functorch.is_batchedtensor(gradient)
        or _functorch.is_legacy_batchedtensor(gradient)
    )


def _gradients_by_torch(
    job: Job,
    inputs: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
    by_R: Tensor | None,
    by_t: Tensor | None,
) -> list[Tensor | None]:
    """The same gradients as differentiable operations: the problem is solved again from its answer, the long way."""
    request, state = job.recall(*inputs), job.state  # pyright: ignore[reportArgumentType]
    R = state[:, :9].reshape(*job.batch, 3, 3)
    t = state[:, block.STATE_T : block.STATE_T + 3].reshape(*job.batch, 3)
    ok = (state[:, block.STATE_OK] != 0).reshape(job.batch)
    with torch.enable_grad():
        pose = job.long_way(request, Pose(R, t)).pose
    pairs = [(pose.R, by_R, ok[..., None, None]), (pose.t, by_t, ok[..., None])]
    pairs = [(output, torch.where(good, by, 0.0)) for output, by, good in pairs if by is not None]
    chosen = [each for each, wanted in zip(inputs, needed, strict=True) if wanted and each is not None]
    found = torch.autograd.grad(
        [output for output, _ in pairs],
        chosen,
        [by for _, by in pairs],
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
    )
    left = iter(found)
    return [
        next(left) if wanted and each is not None else None
        for each, wanted in zip(inputs, needed, strict=True)
    ]


class _Pull:
    """The backward kernel's call."""

    def __init__(
        self,
        job: Job,
        inputs: tuple[Tensor | None, ...],
        needed: tuple[bool, ...],
        by_R: Tensor | None,
        by_t: Tensor | None,
    ) -> None:
        self.job, self.inputs, self.needed, self.by_R, self.by_t = job, inputs, needed, by_R, by_t
        shared = any(wanted and not own for wanted, own in zip(needed, job.per_item, strict=True))
        work = job.size * (_BACKWARD_ITEM + _BACKWARD_POINT * job.count)
        self.parts = pool.parts_of(job.size, work)
        self.slots = self.parts if shared else 1

    def run(self, forward: bytes) -> list[Tensor | None]:
        """The gradients that are needed."""
        job, buffer = self.job, Buffer.take()
        view = buffer.view
        view[: block.FORWARD.size] = forward
        INTEGER.pack_into(view, 8 * block.INIT_R, 0)
        count, adjoint = job.count, job.request.adjoint
        R = (0, 0, 0, 0, 0) if self.by_R is None else self._cotangent(self.by_R, 2)
        t = (0, 0, 0, 0) if self.by_t is None else self._cotangent(self.by_t, 1)
        num_parameters = 9 if isinstance(job.request.camera, Tensor) else job.params.shape[-1]
        widths = (2 * count, 3 * count, num_parameters, (1, 1, 2, 4)[job.kind] * count)
        (x, x_at), (z, z_at), (c, c_at), (w, w_at) = (self._gradient(k, widths[k]) for k in range(4))
        block.BACKWARD.pack_into(
            view, 8 * block.COTANGENT_R,
            *R, *t, int(adjoint.hessian == "gauss_newton"), *x_at, *z_at, *w_at, *c_at,
            *(num_parameters, *job.coefficients, adjoint.max_gain or 0.0),
        )  # fmt: skip
        pool.run(job.kernels.backward, buffer.address, job.size, self.parts, (self, (x, z, c, w), buffer))
        buffer.give_back()
        return [self._finished(k, each) for k, each in enumerate((x, z, c, w))]

    def _cotangent(self, by: Tensor, trailing: int) -> tuple[int, ...]:
        strides = by.stride()
        if by.ndim == trailing:
            strides = (0, *strides)
        return (by.data_ptr(), *strides, SINGLE[by.dtype])

    def _gradient(self, which: int, width: int) -> tuple[Tensor | None, tuple[int, int, int, int]]:
        """Where a gradient goes: its own tensor, or for what items share one float64 copy a slot; a block's fields."""
        like = self.inputs[which]
        if like is None or not self.needed[which]:
            return None, (0, 0, 0, 0)
        if not self.job.per_item[which]:
            tensor = torch.zeros((self.slots, *like.shape), dtype=torch.float64, device=CPU)
            return tensor, (tensor.data_ptr(), 0, tensor.stride(0) if self.slots > 1 else 0, 0)
        dtype = torch.float64 if which == _CAMERA else like.dtype
        tensor = torch.empty(like.shape, dtype=dtype, device=CPU)
        return tensor, (tensor.data_ptr(), max(width, 1), 0, SINGLE[dtype])

    def _finished(self, which: int, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if not self.job.per_item[which]:
            tensor = tensor[0] if self.slots == 1 else tensor.sum(0)
        like = self.inputs[which]
        assert like is not None
        return tensor if tensor.dtype is like.dtype else saturated(tensor, like.dtype)
