"""From a user's arguments to a clean batch: errors of the call raise, bad items get a status and harmless data."""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.optim.status import Status
from posegrad.optim.widening import widened
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.call import Call
from posegrad.problems.constraints import Held, Kind
from posegrad.problems.prior import PosePrior
from posegrad.problems.reprojection import Correspondences
from posegrad.robust import RobustLoss, Squared


@dataclass(frozen=True)
class Batch:
    """A flat batch in the dtype computed in; ``status`` is not CONVERGED where an item's input is bad."""

    data: Correspondences
    prior: PosePrior | None
    held: Held | None
    kind: Kind
    init: Pose | None
    status: Int[Tensor, " B"]
    shape: torch.Size
    dtype: torch.dtype
    points3d_dtype: torch.dtype


def admit(call: Call) -> Batch:
    """Check, broadcast, flatten, upcast to float64 and neutralise bad items; differentiable."""
    shape = call.check()
    size = shape.numel()
    points2d, points3d, mask = call.points2d, call.points3d, call.mask
    # float64 wherever the device has it: the 6x6 systems and the stationarity of the answer need it
    compute = torch.float32 if points2d.device.type == "mps" else torch.float64

    def flat(value: Tensor, trailing: int) -> Tensor:
        tail = value.shape[value.ndim - trailing :]
        return widened(value, compute).expand((*shape, *tail)).reshape(size, *tail)

    # coordinates first in memory, so that a pass over the points runs along contiguous rows
    x, z = flat(points2d, 2).mT.contiguous().mT, flat(points3d, 2).mT.contiguous().mT
    w = torch.ones_like(x[..., 0])
    if call.weights is not None:
        w = weighting.symmetric(
            flat(call.weights, weighting.trailing_dims(call.weights.shape, call.num_points))
        )
    if mask is not None:
        kept = mask.expand((*shape, mask.shape[-1])).reshape(size, mask.shape[-1])
        w = weighting.keep(w, kept)
        x, z = torch.where(kept[..., None], x, 0.0), torch.where(kept[..., None], z, 0.0)
    camera = replace(call.camera, params=flat(call.camera.params, 1))
    loss: RobustLoss = Squared() if call.loss is None else call.loss
    loss = cast(RobustLoss, _pytree.tree_map(lambda leaf: flat(leaf.to(points2d.device), 0), loss))
    data = Correspondences(x, z, w, camera, loss)
    init, prior, kind = call.init, call.prior, Kind.of(call.constraint)
    if init is not None:
        init = Pose(flat(init.R.detach(), 2), flat(init.t.detach(), 1))
    if prior is not None:
        prior = PosePrior(Pose(flat(prior.pose.R, 2), flat(prior.pose.t, 1)), flat(prior.information, 2))
    held = None if call.constraint is None else call.constraint.held(flat, x.new_zeros(size, 3))
    dtype = torch.promote_types(points2d.dtype, points3d.dtype)
    limits = weighting.Limits.of(dtype, dtype if call.weights is None else call.weights.dtype)
    status = _verdict(data, prior, held, kind, init, limits)
    good = status == int(Status.CONVERGED)
    data = neutral_data(data, good)
    if prior is not None:
        prior = prior.keep(good)
    if held is not None:
        held = held.keep(good)
    if init is not None:
        init = neutral_pose(init, good)
        init = replace(init, R=so3.normalise(init.R))
    return Batch(data, prior, held, kind, init, status, shape, dtype, points3d.dtype)


def _verdict(
    data: Correspondences,
    prior: PosePrior | None,
    held: Held | None,
    kind: Kind,
    init: Pose | None,
    limits: weighting.Limits,
) -> Tensor:
    """Status of each item as far as its input tells; of several, the last of this list."""
    with torch.no_grad():
        w, camera = data.weights, data.camera
        finite = _finite(
            data.points2d, data.points3d, w, camera.params, *(() if init is None else (init.R, init.t))
        )
        status = torch.full_like(finite, int(Status.CONVERGED), dtype=torch.int64)
        # two numbers a point
        least = 0 if prior is not None else (kind.dimension + 1) // 2
        enough = (weighting.strength(w) > limits.smallest).sum(-1) >= least
        for good, value in (
            (enough, Status.TOO_FEW_POINTS),
            ((camera.params[..., : camera.num_focal] != 0).all(-1), Status.BAD_CAMERA),
            (None if init is None else so3.is_rotation(init.R), Status.BAD_INIT),
            (None if isinstance(data.loss, Squared) else ~data.loss.invalid(), Status.BAD_LOSS),
            (None if prior is None else ~prior.invalid(), Status.BAD_PRIOR),
            (None if held is None else ~held.invalid(kind), Status.BAD_CONSTRAINT),
            (~weighting.invalid(w, limits.rounding), Status.BAD_WEIGHTS),
            (finite, Status.NOT_FINITE),
        ):
            if good is not None:
                status = status.masked_fill(~good, int(value))
        return status


def _finite(*values: Tensor) -> Bool[Tensor, " B"]:
    """Items all of whose numbers are finite: zero times any other is NaN."""
    return torch.stack([(0 * value.flatten(1)).sum(-1) for value in values]).sum(0) == 0


def neutral_data(data: Correspondences, good: Bool[Tensor, " B"]) -> Correspondences:
    """Bad items replaced by constants: points and weights 0, a unit camera."""
    unit = data.camera.params.new_zeros(len(data.camera.parameter_names))
    unit[: data.camera.num_focal] = 1.0
    return Correspondences(
        points2d=_keep(good, data.points2d, 0.0),
        points3d=_keep(good, data.points3d, 0.0),
        weights=_keep(good, data.weights, 0.0),
        camera=data.camera.in_same_field(_keep(good, data.camera.params, unit)),
        loss=_pytree.tree_map(lambda leaf: _keep(good, leaf, 1.0), data.loss),
    )


def neutral_pose(pose: Pose, good: Bool[Tensor, " B"]) -> Pose:
    """Bad items replaced by a constant: the identity, one unit ahead."""
    identity = torch.eye(3, dtype=pose.R.dtype, device=pose.R.device)
    return Pose(_keep(good, pose.R, identity), _keep(good, pose.t, pose.t.new_tensor([0.0, 0.0, 1.0])))


def _keep(good: Tensor, value: Tensor, other: Tensor | float) -> Tensor:
    return torch.where(good.view(-1, *(1,) * (value.ndim - 1)), value, other)
