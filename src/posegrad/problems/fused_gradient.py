"""The gradient of a call that the kernels served: theirs, or the long way's where more than numbers is asked for."""

from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

from posegrad.kernels import block, pool
from posegrad.optim.compiling import uncompiled
from posegrad.pose import Pose
from posegrad.problems.fused_arguments import PLAIN, SINGLE
from posegrad.problems.fused_layout import CPU, INTEGER, Job, buffers

_CAMERA = 2
#: where the addresses of the inputs and of the mask are
_PLACES = (block.PIXELS, block.POINTS, block.CAMERA, block.WEIGHTS + 1, block.MASK)
# Nanoseconds of one thread: an item, and a point of it.
_BACKWARD_ITEM, _BACKWARD_POINT = 500, 6


class Fused(torch.autograd.Function):
    """(job, points2d, points3d, camera parameters or matrix, weights) -> (R, t)."""

    @staticmethod
    def forward(ctx: Any, job: Job, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore
        R, t, *job.numbers = job.forward()
        ctx.job, ctx.block = job, bytes(buffers.view[: block.FORWARD.size])
        ctx.save_for_backward(*inputs, *job.kept)
        ctx.set_materialize_grads(False)
        return R, t

    @staticmethod
    @uncompiled
    def backward(ctx: Any, by_R: Tensor | None, by_t: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore
        job: Job = ctx.job
        inputs, kept = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        if by_R is None and by_t is None:
            return (None,) * 5
        if torch.is_grad_enabled() or _mapped(by_R) or _mapped(by_t):
            return (None, *_gradients_by_torch(job, inputs, ctx.needs_input_grad[1:], by_R, by_t))
        return (None, *_Pull(job, inputs, ctx.needs_input_grad[1:], by_R, by_t).run(ctx.block, kept))


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
    points2d, points3d, params, weights = inputs
    assert points2d is not None
    assert points3d is not None
    assert params is not None
    request, state = job.request, job.state
    request = request._replace(
        points2d=points2d, points3d=points3d, camera=job.camera_with(params), weights=weights
    )
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

    def run(self, forward: bytes, kept: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """The gradients that are needed."""
        job, buffer = self.job, buffers
        view = buffer.view
        view[: block.FORWARD.size] = forward
        # saved tensors may have been moved and brought back: elsewhere
        mask, *others = kept
        moved = [
            (place, each)
            for place, each in zip(_PLACES, (*self.inputs, mask), strict=True)
            if each is not None
        ]
        if others:
            moved += [
                (place, each)
                for place, each in zip((block.LIMIT, block.SCALE, block.ALPHA), others, strict=False)
                if each is not None
            ]
        for place, each in moved:
            INTEGER.pack_into(view, 8 * place, each.data_ptr())
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
        pool.run(job.kernels.backward, buffer.address, job.size, self.parts)
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
        return tensor if tensor.dtype is like.dtype else tensor.to(like.dtype)
