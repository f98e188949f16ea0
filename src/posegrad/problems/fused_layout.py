"""A call of :func:`posegrad.solve_pnp` laid out for the kernels: which tensors they read, where, with which strides."""

import functools
import struct
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posegrad import _pytree, robust
from posegrad.cameras import Camera
from posegrad.kernels import block, pool
from posegrad.kernels.families import Kernels, compile_further, kernels_of
from posegrad.optim.adjoint import Implicit
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.pose import Pose
from posegrad.problems.fused_arguments import (
    PLAIN,
    SINGLE,
    Unserved,
    Unusual,
    camera_of,
    kind_of,
    mask_of,
    read,
)
from posegrad.problems.fused_buffer import CPU, INTEGER, Buffer
from posegrad.problems.weighting import Limits
from posegrad.robust import RobustLoss

_EPS = torch.finfo(torch.float64).eps
LOSSES: dict[type[RobustLoss], int] = {
    loss: number
    for number, loss in enumerate(
        (robust.Squared, robust.Huber, robust.SoftL1, robust.Cauchy, robust.GemanMcClure, robust.Tukey,
         robust.Truncated, robust.Barron)
    )
}  # fmt: skip
# Nanoseconds of one thread: an item, and a point of it.
_FORWARD_ITEM, _FORWARD_POINT, _START_ITEM = 900, 13, 6000
_MOST_STEPS = 2**62  # of any number of them, what a field of the block holds


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


_PENDING, _UNCOMPILED = -1, -2  # as in kernels.search, which is not to be imported before it is needed

#: What the points and the weights came in, before they were made readable.
Dtypes = tuple[torch.dtype, torch.dtype, torch.dtype | None]
#: The long way: the same problem, from a start or from none, with gradients of any order.
LongWay = Callable[[Request, Pose | None], Any]


class Job:
    """A call laid out for the kernels: the block they read, and what its addresses point to."""

    def __init__(
        self,
        request: Request,
        long_way: LongWay,
        dtypes: Dtypes | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        points2d, points3d, camera, weights, mask, loss, init, solver, _ = request
        if type(points2d) not in PLAIN or type(points3d) not in PLAIN:
            raise Unserved("the points are not plain tensors")
        if points2d.ndim < 2 or points3d.ndim < 2:
            raise Unserved("the points have no N")
        count = points2d.shape[-2]
        if points2d.shape[-1] != 2 or points3d.shape[-1] != 3 or points3d.shape[-2] != count:
            raise Unserved("the points are not (..., N, 2) and (..., N, 3)")
        self.request, self.long_way, self.dtypes = request, long_way, dtypes
        self.params, coefficients, family, num_pixel, limit = camera_of(camera)
        x_items, x, x_single = read("points2d", points2d, 2)
        z_items, z, z_single = read("points3d", points3d, 2)
        trailing = 2 if self.params is camera else 1
        c_items, c, c_single = read("camera", self.params, trailing)
        if trailing == 2:
            offsets = [k // 3 * c[1] + k % 3 * c[2] if k >= 0 else -1 for k in coefficients]
        else:
            offsets = [k * c[1] if k >= 0 else -1 for k in coefficients]
        items = [x_items, z_items, c_items]
        self.kept: list[Tensor | None] = [mask, limit]
        #: what the forward pass computed beside the pose
        self.numbers: list[Tensor] = []
        w = (0, 0, 0, 0, 0, 0, 0)
        kind, w_items = 0, -1
        if weights is not None:
            kind = kind_of(weights, count)
            w_items, strides, w_single = read("weights", weights, kind)
            w = (kind, weights.data_ptr(), *strides, *(0,) * (3 - kind), w_single)
            items.append(w_items)
        m = (0, 0, 0)
        if mask is not None:
            m = mask_of(mask, count, items)
        limited = (0, 0, 0)
        if limit is not None:
            l_items, strides, l_single = read("camera", limit, 1)
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
            R_items, R_strides, R_single = read("init.R", R, 2)
            t_items, t_strides, t_single = read("init.t", t, 1)
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
            dtypes = (points2d.dtype, points3d.dtype, None if weights is None else weights.dtype)
        self.general = kind > 1 or robust_loss[0] > 0
        #: whether anything requires a gradient
        self.differentiable = torch.is_grad_enabled() and (
            points2d.requires_grad
            or points3d.requires_grad
            or self.params.requires_grad
            or (weights is not None and weights.requires_grad)
        )
        self.wanted = (family, self.general, init is None, self.differentiable)
        self.kernels = kernels or _kernels(*self.wanted)
        self.fields = (
            *(count, *self.kernels.parts),
            *(points2d.data_ptr(), *x, x_single, points3d.data_ptr(), *z, z_single),
            *w, *m,
            *(self.params.data_ptr(), c[0], c_single, *offsets, num_pixel, int(getattr(camera, "wide", False))),
            *limited, *start, *robust_loss,
            *(min(solver.max_steps, _MOST_STEPS), 3, solver.initial_damping),
            4096 * _EPS if solver.tolerance is None else solver.tolerance,
            64 * _EPS if solver.singular_below is None else solver.singular_below,
            *_limits(*dtypes),
        )  # fmt: skip

    def _loss(self, loss: RobustLoss, items: list[int]) -> tuple[int, ...]:
        number = LOSSES.get(type(loss))
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
            number, strides, single = read("a parameter of the loss", value, 0)
            items.append(number)
            self.kept.append(value)
            fields += (value.data_ptr(), strides[0], single)
        return tuple(fields)

    def forward(self) -> tuple[Tensor, ...]:
        """The outputs: new tensors without a graph. ``block`` is what the backward pass needs to be told again."""
        batch, dtype, size = self.batch, self.dtype, self.size
        empty = torch.empty
        outputs = (
            empty((*batch, 3, 3), dtype=dtype, device=CPU),
            empty((*batch, 3), dtype=dtype, device=CPU),
            empty(batch, dtype=torch.int64, device=CPU),
            empty(batch, dtype=dtype, device=CPU),
            empty(batch, dtype=torch.int64, device=CPU),
            empty(batch, dtype=dtype, device=CPU),
            empty((*batch, 6, 6), dtype=dtype, device=CPU),
        )
        self.state = empty((size, block.NUM_STATE), dtype=torch.float64, device=CPU)
        buffer = Buffer.take()
        block.FORWARD.pack_into(
            buffer.view,
            0,
            *self.fields,
            SINGLE[dtype],
            *[each.data_ptr() for each in outputs],
            self.state.data_ptr(),
            0,
        )
        work = size * (_FORWARD_ITEM + _FORWARD_POINT * self.count)
        if self.request.init is None:
            work += size * _START_ITEM
        self.block = bytes(buffer.view[: block.FORWARD.size]) if self.differentiable else b""
        pool.run(
            self.kernels.forward, buffer.address, size, pool.parts_of(size, work), (self, outputs, buffer)
        )
        if self.request.init is None and INTEGER.unpack_from(buffer.view, 8 * block.PENDING)[0]:
            self._search_on(outputs, buffer)
        buffer.give_back()
        return outputs

    def _search_on(self, outputs: tuple[Tensor, ...], buffer: Buffer) -> None:
        """The items that the kernel left: with parts compiled now; or found the long way, polished by the kernel."""
        R, t, status = (part.reshape(self.size, *part.shape[len(self.batch) :]) for part in outputs[:3])
        rare = (status == _UNCOMPILED).nonzero().flatten().tolist()
        if rare:
            compile_further()
            self.kernels = _kernels(*self.wanted)
            parts = self.kernels.parts
            struct.pack_into(f"={len(parts)}q", buffer.view, 8 * block.PASSES, *parts)
            for item in rare:
                self.kernels.forward(buffer.address, item, item + 1, 0)
        left = (status == _PENDING).nonzero().flatten()
        if not len(left):
            return
        found = self.long_way(self._part(left), None)
        status[left] = found.status
        R[left], t[left] = found.pose.R.to(R.dtype), found.pose.t.to(t.dtype)
        start_R = torch.eye(3, dtype=torch.float64, device=CPU).repeat(self.size, 1, 1)
        start_t = torch.zeros(self.size, 3, dtype=torch.float64, device=CPU)
        start_R[left], start_t[left] = found.pose.R.double(), found.pose.t.double()
        fields = (start_R.data_ptr(), 9, 3, 1, 0, start_t.data_ptr(), 3, 1, 0)
        struct.pack_into("=9q", buffer.view, 8 * block.INIT_R, *fields)
        for item in left[found.ok].tolist():
            self.kernels.forward(buffer.address, item, item + 1, 0)

    def forget(self) -> None:
        """Let go of what autograd saves: it decides how long that is kept, and where."""
        _, _, camera, _, mask, loss, _, solver, adjoint = self.request
        self.request = Request(_NOTHING, _NOTHING, camera, None, mask, loss, None, solver, adjoint)
        self.kept, self.numbers = [], []

    def recall(self, points2d: Tensor, points3d: Tensor, params: Tensor, weights: Tensor | None) -> Request:
        """The call, without its init, with what autograd saved."""
        return self.request._replace(
            points2d=points2d, points3d=points3d, camera=self.camera_with(params), weights=weights
        )

    def relaid(self, request: Request) -> bytes:
        """The block for the same tensors at other places, in other layouts."""
        try:
            job = Job(request, self.long_way, self.dtypes, self.kernels)
        except (Unserved, Unusual) as error:
            raise RuntimeError(f"a hook on saved tensors handed back something else: {error}") from None
        return block.FORWARD.pack(*job.fields, SINGLE[self.dtype], *(0,) * 7, self.state.data_ptr(), 0)

    def camera_with(self, params: Tensor) -> Camera | Tensor:
        """The camera with other parameters, or the other matrix."""
        camera = self.request.camera
        return params if isinstance(camera, Tensor) else camera.in_same_field(params)

    def _part(self, index: Tensor) -> Request:
        """The same call for some of its items."""
        points2d, points3d, camera, weights, mask, loss, _, solver, adjoint = self.request

        def items(tensor: Tensor, trailing: int) -> Tensor:
            tensor = tensor.detach()
            return tensor[index] if tensor.ndim > trailing and tensor.shape[0] != 1 else tensor

        camera = self.camera_with(items(self.params, 2 if isinstance(camera, Tensor) else 1))
        if loss is not None:
            loss = _pytree.tree_map(lambda leaf: items(leaf, 0), loss)
        return Request(
            items(points2d, 2)
            if points2d.ndim > 2
            else points2d.detach().expand(len(index), *points2d.shape),
            items(points3d, 2),
            camera,
            None if weights is None else items(weights, self.kind),
            None if mask is None else items(mask, 1),
            loss,
            None,
            solver,
            adjoint,
        )


_NOTHING = torch.empty(0, device=CPU)


def _kernels(family: str, general: bool, search: bool, backward: bool) -> Kernels:
    try:
        return kernels_of(family, general, search, backward)
    except (ImportError, OSError) as error:  # OSError: llvmlite's library is missing
        _warn_once(str(error))
        raise Unserved(f"numba cannot be imported ({error})") from None


@functools.cache
def _warn_once(error: str) -> None:
    warnings.warn(
        f"posegrad: numba cannot be imported ({error}); solve_pnp falls back to PyTorch operations, which are slower",
        stacklevel=2,
    )


@functools.cache
def _limits(
    points2d: torch.dtype, points3d: torch.dtype, weights: torch.dtype | None
) -> tuple[float, float, float]:
    """Rounding of matrices of weights, the smallest weight, rounding of the points; as the door has them."""
    points = torch.promote_types(points2d, points3d)
    limits = Limits.of(points, points if weights is None else weights)
    return limits.rounding, limits.smallest, torch.finfo(points3d).eps
