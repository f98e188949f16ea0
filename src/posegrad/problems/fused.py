"""The short way of :func:`posegrad.solve_pnp`: plain calls on the CPU, served by the fused kernels.

A call at one item is to cost less than forty microseconds, checks, autograd and result included. So nothing here explains
what is wrong with a call: it asks whether the call is plainly good, and leaves all others to the long way, which knows
every error and every option.
"""

import copy
import functools
import struct
import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from posegrad import _pytree, robust
from posegrad.cameras import Camera
from posegrad.kernels import block, pool
from posegrad.kernels.families import MATRIX, MODELS, Kernels, kernels_of
from posegrad.optim.adjoint import Implicit
from posegrad.optim.compiling import uncompiled
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.pose import Pose
from posegrad.robust import RobustLoss

_PLAIN = (Tensor, nn.Parameter)
_CPU = torch.device("cpu")
_EPS = torch.finfo(torch.float64).eps
_SINGLE = {torch.float64: 0, torch.float32: 1}
_ROUNDING = {
    dtype: (torch.finfo(dtype).eps, torch.finfo(dtype).tiny ** 0.5)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}
_LOSSES: dict[type[RobustLoss], int] = {
    loss: number
    for number, loss in enumerate(
        (robust.Squared, robust.Huber, robust.SoftL1, robust.Cauchy, robust.GemanMcClure, robust.Tukey,
         robust.Truncated, robust.Barron)
    )
}  # fmt: skip
# Nanoseconds of one thread: an item, and a point of it.
_FORWARD_ITEM, _FORWARD_POINT, _BACKWARD_ITEM, _BACKWARD_POINT = 900, 13, 500, 6
_START_ITEM = 10_000


class Request(NamedTuple):
    """A call that the kernels may serve."""

    points2d: Tensor
    points3d: Tensor
    camera: Camera | Tensor
    weights: Tensor | None
    mask: Tensor | None
    loss: RobustLoss | None
    init: Pose | None
    solver: LevenbergMarquardt
    adjoint: Implicit


#: The long way: the same problem, from a start or from none, with gradients of any order.
LongWay = Callable[[Request, Pose | None], Any]


class Answer(NamedTuple):
    """The parts of a :class:`posegrad.PnPSolution`."""

    R: Tensor
    t: Tensor
    status: Tensor
    cost: Tensor
    num_steps: Tensor
    decrement: Tensor
    hessian: Tensor


PENDING = -1  # as in kernels.search, which is not to be imported before it is needed


class Unserved(Exception):
    """Why the kernels do not serve a call."""


def solve(request: Request, long_way: LongWay) -> Answer:
    """The answer to a plain call; raises :class:`Unserved`."""
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        raise Unserved("a transform of torch.func or forward-mode differentiation is at work")
    if torch._C._len_torch_dispatch_stack() > 0:
        raise Unserved("a dispatch mode is at work")
    try:
        job = _Job(request, long_way)
    except _Unusual:
        simple, shape = _simplified(request)
        answer = _run(_Job(simple, long_way, (request.points2d.dtype, request.points3d.dtype)))
        trailing = len(answer.status.shape)
        return Answer(*(part.reshape(*shape, *part.shape[trailing:]) for part in answer))
    return _run(job)


def _run(job: "_Job") -> Answer:
    points2d, points3d, _, weights = job.request[:4]
    if torch.is_grad_enabled() and job.differentiable():
        R, t = _Fused.apply(job, points2d, points3d, job.params, weights)  # pyright: ignore[reportGeneralTypeIssues]
        return Answer(R, t, *job.numbers)
    return Answer(*job.forward())


class _Unusual(Exception):
    """A tensor that kernels do not read as it is: of half precision, or with several batch dimensions."""


def _read(name: str, tensor: Tensor, trailing: int) -> tuple[int, tuple[int, ...], int]:
    """How many items a tensor has (-1: no batch dimension), its strides, the batch's first, and whether it is float32."""
    if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.is_neg():
        raise Unserved(f"{name} is not a plain tensor on the CPU")
    single = _SINGLE.get(tensor.dtype)
    extra = tensor.ndim - trailing
    if single is None or extra > 1:
        raise _Unusual(name)
    strides = tensor.stride()
    if extra == 0:
        return -1, (0, *strides), single
    items = tensor.shape[0]
    return items, strides if items != 1 else (0, *strides[1:]), single


class _Job:
    """A call laid out for the kernels: the block they read, and what its addresses point to."""

    def __init__(
        self, request: Request, long_way: LongWay, dtypes: tuple[torch.dtype, torch.dtype] | None = None
    ) -> None:
        points2d, points3d, camera, weights, mask, loss, init, solver, _ = request
        if type(points2d) not in _PLAIN or type(points3d) not in _PLAIN:
            raise Unserved("the points are not plain tensors")
        if points2d.ndim < 2 or points3d.ndim < 2:
            raise Unserved("the points have no N")
        count = points2d.shape[-2]
        if points2d.shape[-1] != 2 or points3d.shape[-1] != 3 or points3d.shape[-2] != count:
            raise Unserved("the points are not (..., N, 2) and (..., N, 3)")
        self.request, self.long_way = request, long_way
        self.params, coefficients, family, num_pixel, limit = _camera(camera)
        x_items, x, x_single = _read("points2d", points2d, 2)
        z_items, z, z_single = _read("points3d", points3d, 2)
        trailing = 2 if self.params is camera else 1
        c_items, c, c_single = _read("camera", self.params, trailing)
        if trailing == 2:
            offsets = [k // 3 * c[1] + k % 3 * c[2] if k >= 0 else -1 for k in coefficients]
        else:
            offsets = [k * c[1] if k >= 0 else -1 for k in coefficients]
        items = [x_items, z_items, c_items]
        self.kept: list[Tensor | None] = [mask, limit]
        w = (0, 0, 0, 0, 0, 0, 0)
        kind, w_items = 0, -1
        if weights is not None:
            kind = _kind(weights, count)
            w_items, strides, w_single = _read("weights", weights, kind)
            w = (kind, weights.data_ptr(), *strides, *(0,) * (3 - kind), w_single)
            items.append(w_items)
        m = (0, 0, 0)
        if mask is not None:
            m = _mask(mask, count, items)
        limited = (0, 0, 0)
        if limit is not None:
            l_items, strides, l_single = _read("camera", limit, 1)
            limited = (limit.data_ptr(), strides[0], l_single)
            items.append(l_items)
        robust_loss = (0, 0, 0, 0, 0, 0, 0)
        if loss is not None:
            robust_loss = self._loss(loss, items)
        start = (0, 0, 0, 0, 0, 0, 0, 0, 0)
        if init is not None:
            if type(init) is not Pose:
                raise Unserved("the init is not a pg.Pose")
            R, t = init.R, init.t
            R_items, R_strides, R_single = _read("init.R", R, 2)
            t_items, t_strides, t_single = _read("init.t", t, 1)
            start = (R.data_ptr(), *R_strides, R_single, t.data_ptr(), *t_strides, t_single)
            items += (R_items, t_items)
        self.size = size = next((number for number in items if number not in (-1, 1)), 1)
        self.batch: tuple[int, ...] = (size,) if max(items) >= 0 else ()
        for number in items:
            if number not in (-1, 1, size):
                raise Unserved("the batch dimensions do not broadcast against each other")
        self.count, self.kind, self.coefficients = count, kind, coefficients
        self.per_item = (x_items == size, z_items == size, c_items == size, kind != 0 and w_items == size)
        if size == 1:
            self.per_item = (True, True, True, True)
        self.dtype = points2d.dtype if points2d.dtype is points3d.dtype else torch.float64
        if dtypes is None:
            eps, tiny = _ROUNDING[self.dtype]
            points_eps = _ROUNDING[points3d.dtype][0]
        else:
            eps, tiny = _ROUNDING[torch.promote_types(*dtypes)]
            points_eps = _ROUNDING[dtypes[1]][0]
        self.general = kind > 1 or robust_loss[0] > 0
        self.kernels = _kernels(family)
        self.fields = (
            *(count, *self.kernels.parts),
            *(points2d.data_ptr(), *x, x_single, points3d.data_ptr(), *z, z_single),
            *w, *m,
            *(self.params.data_ptr(), c[0], c_single, *offsets, num_pixel, int(trailing == 1 and camera.wide)),
            *limited, *start, *robust_loss,
            *(solver.max_steps, 3, solver.initial_damping),
            4096 * _EPS if solver.tolerance is None else solver.tolerance,
            64 * _EPS if solver.singular_below is None else solver.singular_below,
            *(eps, tiny, points_eps),
        )  # fmt: skip

    def _loss(self, loss: RobustLoss, items: list[int]) -> tuple[int, ...]:
        number = _LOSSES.get(type(loss))
        if number is None:
            raise Unserved(f"the loss is a {type(loss).__name__}")
        if number == 0:
            return (0,) * 7
        fields = [number]
        for name in ("scale", "alpha"):
            value = getattr(loss, name, None)
            if value is None:
                fields += (0, 0, 0)
                continue
            if value.requires_grad and torch.is_grad_enabled():
                raise Unserved("a parameter of the loss requires a gradient")
            number, strides, single = _read("a parameter of the loss", value, 0)
            items.append(number)
            self.kept.append(value)
            fields += (value.data_ptr(), strides[0], single)
        return tuple(fields)

    def differentiable(self) -> bool:
        """Whether anything requires a gradient."""
        points2d, points3d, _, weights = self.request[:4]
        return (
            points2d.requires_grad
            or points3d.requires_grad
            or self.params.requires_grad
            or (weights is not None and weights.requires_grad)
        )

    def forward(self) -> tuple[Tensor, ...]:
        """The outputs: new tensors without a graph."""
        batch, dtype, size = self.batch, self.dtype, self.size
        empty = torch.empty
        outputs = (
            empty((*batch, 3, 3), dtype=dtype, device=_CPU),
            empty((*batch, 3), dtype=dtype, device=_CPU),
            empty(batch, dtype=torch.int64, device=_CPU),
            empty(batch, dtype=dtype, device=_CPU),
            empty(batch, dtype=torch.int64, device=_CPU),
            empty(batch, dtype=dtype, device=_CPU),
            empty((*batch, 6, 6), dtype=dtype, device=_CPU),
        )
        self.state = empty((size, block.NUM_STATE), dtype=torch.float64, device=_CPU)
        buffer = _buffers
        block.FORWARD.pack_into(
            buffer.view, 0, *self.fields, _SINGLE[dtype], *[each.data_ptr() for each in outputs], self.state.data_ptr(), 0
        )
        work = size * (_FORWARD_ITEM + _FORWARD_POINT * self.count)
        if self.request.init is None:
            work += size * _START_ITEM
        pool.run(self.kernels.forward, buffer.address, size, pool.parts_of(size, work))
        if self.request.init is None and _INTEGER.unpack_from(buffer.view, 8 * block.PENDING)[0]:
            self._search_on(outputs)
        return outputs

    def _search_on(self, outputs: tuple[Tensor, ...]) -> None:
        """The items that the kernel left: found the long way, polished by the kernel."""
        R, t, status = (part.reshape(self.size, *part.shape[len(self.batch) :]) for part in outputs[:3])
        left = (status == PENDING).nonzero().flatten()
        found = self.long_way(self._part(left), None)
        status[left] = found.status
        R[left], t[left] = found.pose.R.to(R.dtype), found.pose.t.to(t.dtype)
        start_R = torch.eye(3, dtype=torch.float64).repeat(self.size, 1, 1)
        start_t = torch.zeros(self.size, 3, dtype=torch.float64)
        start_R[left], start_t[left] = found.pose.R.double(), found.pose.t.double()
        fields = (start_R.data_ptr(), 9, 3, 1, 0, start_t.data_ptr(), 3, 1, 0)
        struct.pack_into("=9q", _buffers.view, 8 * block.INIT_R, *fields)
        for item in left[found.ok].tolist():
            self.kernels.forward(_buffers.address, item, item + 1, 0)

    def _part(self, index: Tensor) -> Request:
        """The same call for some of its items."""
        points2d, points3d, camera, weights, mask, loss, _, solver, adjoint = self.request

        def items(tensor: Tensor, trailing: int) -> Tensor:
            tensor = tensor.detach()
            return tensor[index] if tensor.ndim > trailing and tensor.shape[0] != 1 else tensor

        if isinstance(camera, Tensor):
            camera = items(camera, 2)
        else:
            camera = camera.in_same_field(items(camera.params, 1))
        if loss is not None:
            loss = _pytree.tree_map(lambda leaf: items(leaf, 0), loss)
        return Request(
            items(points2d, 2) if points2d.ndim > 2 else points2d.detach().expand(len(index), *points2d.shape),
            items(points3d, 2),
            camera,
            None if weights is None else items(weights, self.kind),
            None if mask is None else items(mask, 1),
            loss,
            None,
            solver,
            adjoint,
        )


def _camera(camera: Camera | Tensor) -> tuple[Tensor, tuple[int, ...], str, int, Tensor | None]:
    """Parameters, which of them the coefficients are, family, how many coefficients are in pixels, limit of the field."""
    if isinstance(camera, Tensor):
        if camera.ndim < 2 or camera.shape[-2:] != (3, 3):
            raise Unserved("the camera is not (..., 3, 3)")
        family, coefficients, num_pixel = MATRIX
        return camera, coefficients, family, num_pixel, None
    model = MODELS.get(type(camera))
    if model is None:
        raise Unserved(f"the camera is a {type(camera).__name__}")
    return camera.params, model.coefficients, model.family, model.num_pixel, getattr(camera, "limit", None)


def _kind(weights: Any, count: int) -> int:
    """How many dimensions of the weights belong to a point."""
    if type(weights) not in _PLAIN:
        raise Unserved("the weights are not a plain tensor")
    shape = weights.shape
    if shape[-1:] == (count,):
        return 1
    if shape[-2:] == (count, 2):
        return 2
    if shape[-3:] == (count, 2, 2):
        return 3
    raise Unserved("the weights are of another shape")


def _mask(mask: Any, count: int, items: list[int]) -> tuple[int, int, int]:
    if type(mask) not in _PLAIN or not mask.is_cpu or mask.dtype is not torch.bool or mask.shape[-1:] != (count,):
        raise Unserved("the mask is not a plain tensor (..., N)")
    if mask.ndim > 2:
        raise _Unusual("mask")
    strides = mask.stride()
    if mask.ndim == 1:
        return mask.data_ptr(), 0, strides[0]
    items.append(mask.shape[0])
    return mask.data_ptr(), strides[0] if mask.shape[0] != 1 else 0, strides[1]


class _Buffers(threading.local):
    """A block of this thread's own."""

    def __init__(self) -> None:
        self.tensor = torch.empty(block.SIZE, dtype=torch.int64, device=_CPU)
        self.view = memoryview(self.tensor.numpy()).cast("B")
        self.address = self.tensor.data_ptr()


_buffers = _Buffers()


def _kernels(family: str) -> Kernels:
    try:
        return kernels_of(family)
    except ImportError as error:
        _warn_once(str(error))
        raise Unserved(f"numba cannot be imported ({error})") from None


@functools.cache
def _warn_once(error: str) -> None:
    warnings.warn(
        f"posegrad: numba cannot be imported ({error}); solve_pnp falls back to PyTorch operations, which are slower",
        stacklevel=2,
    )


def _simplified(request: Request) -> tuple[Request, torch.Size]:
    """The same call with one batch dimension at most, in float32 or float64; and its batch shape."""
    points2d, points3d, camera, weights, mask, loss, init, solver, adjoint = request
    trailing: list[tuple[Tensor, int]] = [(points2d, 2), (points3d, 2)]
    matrix = isinstance(camera, Tensor)
    trailing.append((camera, 2) if matrix else (camera.params, 1))
    if weights is not None:
        trailing.append((weights, _kind(weights, points2d.shape[-2])))
    if mask is not None:
        trailing.append((mask, 1))
    if init is not None:
        trailing += [(init.R, 2), (init.t, 1)]
    names = () if loss is None else tuple(name for name in ("scale", "alpha") if hasattr(loss, name))
    trailing += [(getattr(loss, name), 0) for name in names]
    try:
        shape = torch.broadcast_shapes(*(each.shape[: each.ndim - count] for each, count in trailing))
    except RuntimeError:
        raise Unserved("the batch dimensions do not broadcast against each other") from None

    def simple(tensor: Tensor, count: int) -> Tensor:
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        elif tensor.dtype not in (*_SINGLE, torch.bool):
            raise Unserved(f"a tensor is {tensor.dtype}")
        own, tail = tensor.shape[: tensor.ndim - count], tensor.shape[tensor.ndim - count :]
        if not own:
            return tensor
        if own.numel() == 1:
            return tensor.reshape(1, *tail)
        return tensor.expand(*shape, *tail).reshape(-1, *tail)

    if matrix:
        camera = simple(camera, 2)
    else:
        limit = getattr(camera, "limit", None)
        camera = camera.in_same_field(simple(camera.params, 1))
        if limit is not None:
            object.__setattr__(camera, "limit", simple(limit, 1))
    if names:
        assert loss is not None
        values = {name: simple(getattr(loss, name), 0) for name in names}
        loss = copy.copy(loss)
        for name, value in values.items():
            object.__setattr__(loss, name, value)
    simplified = Request(
        simple(points2d, 2),
        simple(points3d, 2),
        camera,
        None if weights is None else simple(weights, _kind(weights, points2d.shape[-2])),
        None if mask is None else simple(mask, 1),
        loss,
        None if init is None else Pose(simple(init.R, 2), simple(init.t, 1)),
        solver,
        adjoint,
    )
    return simplified, shape


class _Fused(torch.autograd.Function):
    """(job, points2d, points3d, camera parameters or matrix, weights) -> (R, t)."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore
        R, t, *job.numbers = job.forward()
        ctx.job, ctx.block = job, bytes(_buffers.view[: block.FORWARD.size])
        ctx.save_for_backward(*inputs, *job.kept)
        ctx.set_materialize_grads(False)
        return R, t

    @staticmethod
    @uncompiled
    def backward(ctx: Any, by_R: Tensor | None, by_t: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore
        job: _Job = ctx.job
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
    functorch = torch._C._functorch
    return (
        type(gradient) not in _PLAIN
        or gradient.dtype not in _SINGLE
        or gradient.is_neg()
        or functorch.is_batchedtensor(gradient)
        or functorch.is_legacy_batchedtensor(gradient)
    )


def _gradients_by_torch(
    job: _Job, inputs: tuple[Tensor | None, ...], needed: tuple[bool, ...], by_R: Tensor | None, by_t: Tensor | None
) -> list[Tensor | None]:
    """The same gradients as differentiable operations: the problem is solved again from its answer, the long way."""
    points2d, points3d, params, weights = inputs
    assert points2d is not None and points3d is not None and params is not None
    request, state = job.request, job.state
    camera = params if isinstance(request.camera, Tensor) else request.camera.in_same_field(params)
    request = request._replace(points2d=points2d, points3d=points3d, camera=camera, weights=weights)
    R = state[:, :9].reshape(*job.batch, 3, 3)
    t = state[:, block.STATE_T : block.STATE_T + 3].reshape(*job.batch, 3)
    ok = (state[:, block.STATE_OK] != 0).reshape(job.batch)
    with torch.enable_grad():
        pose = job.long_way(request, Pose(R, t)).pose
    pairs = [(pose.R, by_R, ok[..., None, None]), (pose.t, by_t, ok[..., None])]
    pairs = [(output, torch.where(good, by, 0.0)) for output, by, good in pairs if by is not None]
    chosen = [each for each, wanted in zip(inputs, needed, strict=True) if wanted and each is not None]
    found = torch.autograd.grad(
        [output for output, _ in pairs], chosen, [by for _, by in pairs], create_graph=torch.is_grad_enabled(), allow_unused=True
    )
    left = iter(found)
    return [next(left) if wanted and each is not None else None for each, wanted in zip(inputs, needed, strict=True)]


class _Pull:
    """The backward kernel's call."""

    def __init__(
        self, job: _Job, inputs: tuple[Tensor | None, ...], needed: tuple[bool, ...], by_R: Tensor | None, by_t: Tensor | None
    ) -> None:
        self.job, self.inputs, self.needed, self.by_R, self.by_t = job, inputs, needed, by_R, by_t
        shared = any(wanted and not own for wanted, own in zip(needed, job.per_item, strict=True))
        work = job.size * (_BACKWARD_ITEM + _BACKWARD_POINT * job.count)
        self.parts = pool.parts_of(job.size, work)
        self.slots = self.parts if shared else 1

    def run(self, forward: bytes, kept: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """The gradients that are needed."""
        job, buffer = self.job, _buffers
        view = buffer.view
        view[: block.FORWARD.size] = forward
        # saved tensors may have been moved and brought back: elsewhere
        mask, *others = kept
        moved = [(place, each) for place, each in zip(_PLACES, (*self.inputs, mask), strict=True) if each is not None]
        if others:
            moved += [
                (place, each)
                for place, each in zip((block.LIMIT, block.SCALE, block.ALPHA), others, strict=False)
                if each is not None
            ]
        for place, each in moved:
            _INTEGER.pack_into(view, 8 * place, each.data_ptr())
        _INTEGER.pack_into(view, 8 * block.INIT_R, 0)
        count, adjoint = job.count, job.request.adjoint
        R = (0, 0, 0, 0, 0) if self.by_R is None else self._cotangent(self.by_R, 2)
        t = (0, 0, 0, 0) if self.by_t is None else self._cotangent(self.by_t, 1)
        num_parameters = 9 if isinstance(job.request.camera, Tensor) else job.params.shape[-1]
        widths = (2 * count, 3 * count, num_parameters, (1, 1, 2, 4)[job.kind] * count)
        (x, x_at), (z, z_at), (c, c_at), (w, w_at) = (self._gradient(k, widths[k]) for k in range(4))
        block.BACKWARD.pack_into(
            view, 8 * block.COTANGENT_R,
            *R, *t, int(adjoint.hessian == "gauss_newton"), *x_at, *z_at, *w_at, *c_at, num_parameters, *job.coefficients, adjoint.max_gain or 0.0,
        )  # fmt: skip
        pool.run(job.kernels.backward, buffer.address, job.size, self.parts)
        return [self._finished(k, each) for k, each in enumerate((x, z, c, w))]

    def _cotangent(self, by: Tensor, trailing: int) -> tuple[int, ...]:
        strides = by.stride()
        if by.ndim == trailing:
            strides = (0, *strides)
        return (by.data_ptr(), *strides, _SINGLE[by.dtype])

    def _gradient(self, which: int, width: int) -> tuple[Tensor | None, tuple[int, int, int, int]]:
        """Where a gradient goes: its own tensor, or for what items share one float64 copy a slot; a block's fields."""
        like = self.inputs[which]
        if like is None or not self.needed[which]:
            return None, (0, 0, 0, 0)
        if not self.job.per_item[which]:
            tensor = torch.zeros((self.slots, *like.shape), dtype=torch.float64, device=_CPU)
            return tensor, (tensor.data_ptr(), 0, tensor.stride(0) if self.slots > 1 else 0, 0)
        dtype = torch.float64 if which == _CAMERA else like.dtype
        tensor = torch.empty(like.shape, dtype=dtype, device=_CPU)
        return tensor, (tensor.data_ptr(), max(width, 1), 0, _SINGLE[dtype])

    def _finished(self, which: int, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if not self.job.per_item[which]:
            tensor = tensor[0] if self.slots == 1 else tensor.sum(0)
        like = self.inputs[which]
        assert like is not None
        return tensor if tensor.dtype is like.dtype else tensor.to(like.dtype)


_CAMERA = 2
_INTEGER = struct.Struct("=q")
#: where the addresses of the inputs and of the mask are
_PLACES = (block.PIXELS, block.POINTS, block.CAMERA, block.WEIGHTS + 1, block.MASK)
