"""The short way of :func:`posegrad.solve_pnp`: plain calls on the CPU, served by the fused kernels.

A call at one item is to cost less than forty microseconds, checks, autograd and result included. So nothing here
explains what is wrong with a call: it asks whether the call is plainly good, and leaves all others to the long way,
which knows every error and every option.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
from torch.autograd import forward_ad

from posegrad.optim.widening import widened
from posegrad.pose import Pose
from posegrad.problems.fused_arguments import PLAIN, SINGLE, Unserved, Unusual, kind_of
from posegrad.problems.fused_gradient import Fused
from posegrad.problems.fused_layout import LOSSES, Job, LongWay, Request


class Answer(NamedTuple):
    """The parts of a :class:`posegrad.PnPSolution`."""

    R: Tensor
    t: Tensor
    status: Tensor
    cost: Tensor
    num_steps: Tensor
    decrement: Tensor
    hessian: Tensor


def solve(request: Request, long_way: LongWay) -> Answer:
    """The answer to a plain call; raises :class:`Unserved`."""
    if _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        raise Unserved("a transform of torch.func or forward-mode differentiation is at work")
    if torch._C._len_torch_dispatch_stack() > 0:
        raise Unserved("a dispatch mode is at work")
    try:
        job = Job(request, long_way)
    except Unusual:
        simple, shape = _simplified(request)
        weights = request.weights
        dtypes = (request.points2d.dtype, request.points3d.dtype, None if weights is None else weights.dtype)
        answer = _run(Job(simple, long_way, dtypes))
        trailing = len(answer.status.shape)
        return Answer(*(part.reshape(*shape, *part.shape[trailing:]) for part in answer))
    return _run(job)


def _run(job: Job) -> Answer:
    points2d, points3d, _, weights = job.request[:4]
    if job.differentiable:
        R, t = Fused.apply(job, points2d, points3d, job.params, weights)  # pyright: ignore[reportGeneralTypeIssues]
        numbers, job.numbers = job.numbers, []
        return Answer(R, t, *numbers)
    return Answer(*job.forward())


def _simplified(request: Request) -> tuple[Request, torch.Size]:
    """The same call with one batch dimension at most, in float32 or float64; and its batch shape."""
    points2d, points3d, camera, weights, mask, loss, init, solver, adjoint = request
    for name, value, kinds in (("mask", mask, PLAIN), ("init", init, (Pose,)), ("loss", loss, tuple(LOSSES))):
        if value is not None and type(value) not in kinds:
            raise Unserved(f"the {name} is a {type(value).__name__}")
    trailing: list[tuple[Tensor, int]] = [(points2d, 2), (points3d, 2)]
    matrix = isinstance(camera, Tensor)
    trailing.append((camera, 2) if matrix else (camera.params, 1))
    if weights is not None:
        trailing.append((weights, kind_of(weights, points2d.shape[-2])))
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
            tensor = widened(tensor, torch.float32)
        elif tensor.dtype not in (*SINGLE, torch.bool):
            raise Unserved(f"a tensor is {tensor.dtype}")
        own, tail = tensor.shape[: tensor.ndim - count], tensor.shape[tensor.ndim - count :]
        if not own:
            return tensor
        if own.numel() == 1:
            return tensor.reshape(1, *tail)
        return tensor.expand(*shape, *tail).reshape(shape.numel(), *tail)

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
        None if weights is None else simple(weights, kind_of(weights, points2d.shape[-2])),
        None if mask is None else simple(mask, 1),
        loss,
        None if init is None else Pose(simple(init.R, 2), simple(init.t, 1)),
        solver,
        adjoint,
    )
    return simplified, shape
