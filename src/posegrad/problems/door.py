"""From a user's arguments to a clean batch: errors of the call raise, bad items get a status and harmless data."""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.cameras import Camera, as_camera
from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.reprojection import Correspondences
from posegrad.robust import RobustLoss, Squared


@dataclass(frozen=True)
class Batch:
    """A flat batch in the dtype computed in; ``status`` is not CONVERGED where an item's input is bad."""

    data: Correspondences
    init: Pose | None
    status: Int[Tensor, " B"]
    shape: torch.Size
    dtype: torch.dtype
    points3d_dtype: torch.dtype


def admit(
    points2d: Tensor,
    points3d: Tensor,
    camera: Camera | Tensor,
    weights: Tensor | None,
    mask: Tensor | None,
    loss: RobustLoss | None,
    init: Pose | None,
) -> Batch:
    """Check, broadcast, flatten, upcast to float64 and neutralise bad items; differentiable."""
    _check_points(points2d, points3d)
    camera = as_camera(camera)
    loss = Squared() if loss is None else loss
    _check_companions(points2d, points3d, camera, weights, mask, loss, init)
    shape = _batch_shape(points2d, points3d, camera, weights, mask, loss, init)
    size = shape.numel()
    # float64 wherever the device has it: the 6x6 systems and the stationarity of the answer need it
    compute = torch.float32 if points2d.device.type == "mps" else torch.float64

    def flat(value: Tensor, trailing: int) -> Tensor:
        tail = value.shape[value.ndim - trailing :]
        return value.to(compute).expand((*shape, *tail)).reshape(size, *tail)

    # coordinates first in memory, so that a pass over the points runs along contiguous rows
    x, z = flat(points2d, 2).mT.contiguous().mT, flat(points3d, 2).mT.contiguous().mT
    w = torch.ones_like(x[..., 0])
    if weights is not None:
        w = weighting.symmetric(flat(weights, weighting.trailing_dims(weights.shape, points2d.shape[-2])))
    if mask is not None:
        kept = mask.expand((*shape, mask.shape[-1])).reshape(size, mask.shape[-1])
        w = weighting.keep(w, kept)
        x, z = torch.where(kept[..., None], x, 0.0), torch.where(kept[..., None], z, 0.0)
    camera = replace(camera, params=flat(camera.params, 1))
    if init is not None:
        init = Pose(flat(init.R.detach(), 2), flat(init.t.detach(), 1))
    loss = cast(RobustLoss, _pytree.tree_map(lambda leaf: flat(leaf.to(points2d.device), 0), loss))
    dtype = torch.promote_types(points2d.dtype, points3d.dtype)
    data = Correspondences(x, z, w, camera, loss)
    status = _verdict(data, init, dtype)
    good = status == int(Status.CONVERGED)
    data = neutral_data(data, good)
    if init is not None:
        init = neutral_pose(init, good)
        init = replace(init, R=so3.normalise(init.R))
    return Batch(data, init, status, shape, dtype, points3d.dtype)


def _verdict(data: Correspondences, init: Pose | None, dtype: torch.dtype) -> Tensor:
    """Status of each item as far as its input tells; of several, the last of this list."""
    with torch.no_grad():
        w, camera = data.weights, data.camera
        finite = _finite(data.points2d) & _finite(data.points3d) & _finite(w) & _finite(camera.params)
        rotation = torch.ones_like(finite)
        if init is not None:
            finite = finite & _finite(init.R) & _finite(init.t)
            identity = torch.eye(3, dtype=init.R.dtype, device=init.R.device)
            off = (init.R @ init.R.mT - identity).abs().amax((-1, -2))
            rotation = (off < 0.1) & (_determinant(init.R) > 0)
        status = torch.full_like(finite, int(Status.CONVERGED), dtype=torch.int64)
        strength, least = weighting.strength(w), 4 if init is None else 3
        # weights so small that their inverse overflows are no weights
        for bad, value in (
            ((strength > torch.finfo(dtype).tiny ** 0.5).sum(-1) < least, Status.TOO_FEW_POINTS),
            ((camera.params[..., : camera.num_focal] == 0).any(-1), Status.BAD_CAMERA),
            (~rotation, Status.BAD_INIT),
            (data.loss.invalid(), Status.BAD_LOSS),
            (weighting.invalid(w, torch.finfo(dtype).eps), Status.BAD_WEIGHTS),
            (~finite, Status.NOT_FINITE),
        ):
            status = torch.where(bad, int(value), status)
        return status


def _determinant(R: Tensor) -> Tensor:
    return (R[..., 0, :] * torch.linalg.cross(R[..., 1, :], R[..., 2, :], dim=-1)).sum(-1)


def _finite(value: Tensor) -> Tensor:
    return value.isfinite().flatten(1).all(-1)


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


def _check_points(points2d: Any, points3d: Any) -> None:
    for name, value in (("points2d", points2d), ("points3d", points3d)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: got {type(value).__name__}, expected a torch.Tensor; use torch.as_tensor({name})"
            )
        if not value.is_floating_point():
            raise TypeError(
                f"{name}: got dtype {value.dtype}, expected a floating-point dtype; use {name}.double()"
            )
    last2d, last3d = points2d.shape[-1:], points3d.shape[-1:]
    if tuple(last2d) == (3,) and tuple(last3d) == (2,):
        raise ValueError(
            f"points2d has shape {tuple(points2d.shape)} and points3d {tuple(points3d.shape)}: the arguments are "
            "swapped; the order is points2d, points3d, camera"
        )
    for name, value, size in (("points2d", points2d, 2), ("points3d", points3d, 3)):
        if value.ndim < 2 or value.shape[-1] != size:
            raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected (..., N, {size})")
    if points2d.shape[-2] != points3d.shape[-2]:
        raise ValueError(
            f"points3d: got {points3d.shape[-2]} points, expected {points2d.shape[-2]} as in points2d "
            f"(shapes {tuple(points2d.shape)} and {tuple(points3d.shape)}); pad and use mask for missing ones"
        )


def _check_companions(
    points2d: Tensor, points3d: Tensor, camera: Camera, weights: Any, mask: Any, loss: Any, init: Any
) -> None:
    count, device = points2d.shape[-2], points2d.device
    for name, value in (("weights", weights), ("mask", mask)):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor or None")
        kinds = (1,) if name == "mask" else (1, 2, 3)
        if weighting.trailing_dims(value.shape, count) not in kinds:
            wanted = "(..., N)" if name == "mask" else "(..., N), (..., N, 2) or (..., N, 2, 2)"
            raise ValueError(
                f"{name}: got shape {tuple(value.shape)}, expected {wanted} with N = {count} as in points2d"
            )
    if weights is not None and not weights.is_floating_point():
        raise TypeError(f"weights: got dtype {weights.dtype}, expected a floating-point dtype")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(
            f"mask: got dtype {mask.dtype}, expected torch.bool (True = use the point); use mask.bool()"
        )
    if not isinstance(loss, RobustLoss):
        raise TypeError(
            f"loss: got {type(loss).__name__}, expected a loss of pg.robust such as pg.robust.Huber(2.0), or None"
        )
    if init is not None and not isinstance(init, Pose):
        raise TypeError(
            f"init: got {type(init).__name__}, expected a pg.Pose or None; see pg.Pose.from_rotvec"
        )
    places = {"points3d": points3d, "camera": camera.params, "weights": weights, "mask": mask}
    if init is not None:
        places |= {"init.R": init.R, "init.t": init.t}
    for name, value in places.items():
        if value is not None and value.device != device:
            raise ValueError(
                f"{name}: is on {value.device}, expected {device} as points2d; use .to({str(device)!r})"
            )


def _batch_shape(
    points2d: Tensor,
    points3d: Tensor,
    camera: Camera,
    weights: Tensor | None,
    mask: Tensor | None,
    loss: RobustLoss,
    init: Pose | None,
) -> torch.Size:
    shapes: dict[str, torch.Size] = {
        "points2d": points2d.shape[:-2],
        "points3d": points3d.shape[:-2],
        "camera": camera.params.shape[:-1],
    }
    if weights is not None:
        shapes["weights"] = weights.shape[: -weighting.trailing_dims(weights.shape, points2d.shape[-2])]
    if mask is not None:
        shapes["mask"] = mask.shape[:-1]
    for number, leaf in enumerate(_pytree.tree_flatten(loss)[0]):
        shapes[f"loss parameter {number}"] = leaf.shape
    if init is not None:
        shapes |= {"init.R": init.R.shape[:-2], "init.t": init.t.shape[:-1]}
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"batch dimensions do not broadcast against each other: {listed}") from None
