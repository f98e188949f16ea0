"""From the arguments of a calibration to clean views in conditioned units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from posegrad import _pytree
from posegrad.cameras import MODELS, Camera, SkewPinhole
from posegrad.minimal.homography import plane_of
from posegrad.optim.adjoint import Adjoint, Implicit, Unrolled
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.status import Status
from posegrad.problems import weighting
from posegrad.problems.calibration_problem import Observations
from posegrad.problems.call import Call
from posegrad.problems.conditioning import Units
from posegrad.problems.door import Batch, admit, neutral_data
from posegrad.robust import RobustLoss

# Points count as collinear when they are off a line by less than this many rounding errors of their dtype.
_COLLINEAR_ROUNDINGS, _COLLINEAR_AT_LEAST, _COLLINEAR_AT_MOST = 8, 1e-6, 1e-2


@dataclass(frozen=True)
class Setting:
    """What is not data: the model, which of its parameters are free, and how to solve."""

    model: type[Camera]
    free: tuple[int, ...]
    image_size: tuple[int, int]
    init: Camera | None
    solver: LevenbergMarquardt
    adjoint: Adjoint
    search: bool  # for a start, rather than from the init

    @classmethod
    def of(
        cls,
        model: Any,
        image_size: Any,
        fixed: Any,
        init: Any,
        solver: Any,
        adjoint: Any,
        *,
        search: bool = False,
    ) -> "Setting":
        """Checked. With ``search`` an init only holds parameters, and the start is searched for."""
        model = _model(model)
        if not isinstance(solver, LevenbergMarquardt):
            raise TypeError(f"solver: got {type(solver).__name__}, expected pg.LevenbergMarquardt(...)")
        if not isinstance(adjoint, Implicit | Unrolled):
            raise TypeError(
                f"adjoint: got {type(adjoint).__name__}, expected pg.Implicit(...) or pg.Unrolled()"
            )
        if init is not None and type(init) is not model:
            kind = type(init).__name__
            raise TypeError(
                f"init: got {kind}, expected a camera of the model {model.name} (pg.cameras.{model.__name__})"
            )
        return cls(
            model,
            _free(model, fixed, init),
            checked_size(image_size),
            init,
            solver,
            adjoint,
            search or init is None,
        )


def _model(model: Any) -> type[Camera]:
    if isinstance(model, str):
        if model not in MODELS:
            raise ValueError(f"model: got {model!r}, expected one of {', '.join(MODELS)}")
        return MODELS[model]
    if not (isinstance(model, type) and issubclass(model, Camera) and model.parameter_names):
        raise TypeError(f"model: got {model!r}, expected a name of pg.cameras.MODELS or a camera class")
    return model


def _free(model: type[Camera], fixed: Any, init: Camera | None) -> tuple[int, ...]:
    names = model.parameter_names
    if isinstance(fixed, str) or not isinstance(fixed, Sequence):
        raise TypeError(f"fixed: got {fixed!r}, expected names of parameters such as ('k3', 'k4')")
    unknown = [name for name in fixed if name not in names]
    if unknown:
        raise ValueError(
            f"fixed: got {unknown[0]!r}, expected parameters of {model.name}: {', '.join(names)}"
        )
    focal = [name for name in names[: model.num_focal] if name in fixed]
    if focal and init is None:
        raise ValueError(f"fixed: got {focal[0]!r} without an init, expected one that holds its value")
    free = tuple(i for i, name in enumerate(names) if name not in fixed)
    if not free:
        raise ValueError("fixed: all parameters are held, nothing is left to calibrate; use pg.solve_pnp")
    return free


def checked_size(image_size: Any) -> tuple[int, int]:
    """Width and height, or an error."""
    try:
        width, height = (int(side) for side in image_size)
    except (TypeError, ValueError):
        raise TypeError(f"image_size: got {image_size!r}, expected (width, height) in pixels") from None
    if width < 1 or height < 1:
        raise ValueError(f"image_size: got {image_size!r}, expected (width, height) of at least a pixel")
    return width, height


@dataclass(frozen=True)
class Views:
    """A flat batch of B calibrations of V views each, conditioned: image lengths in units of its longer side."""

    observations: Observations
    item: Batch  # the views in the user's units, B V of them
    units: Units  # of each view
    status: Int[Tensor, "B V"]
    params: Float[Tensor, "B P"]  # start or held values
    shape: torch.Size

    @property
    def num_views(self) -> int:
        """V."""
        return self.status.shape[1]


def admit_views(
    points2d: Any,
    points3d: Any,
    setting: Setting,
    weights: Tensor | None,
    mask: Tensor | None,
    loss: RobustLoss | None,
    *,
    shared: bool,
) -> Views:
    """Check, broadcast, flatten, upcast, condition; bad views get a status and no weight."""
    if isinstance(points2d, Tensor) and points2d.ndim == 2:
        raise ValueError(
            f"points2d: got shape {tuple(points2d.shape)}, expected (..., V, N, 2) with the views in front; for one "
            "view use points2d[None]"
        )
    start = _neutral(setting, points2d)
    if setting.init is None:
        # stands in for the camera where one is asked for: it has no field to compute
        camera: Camera = SkewPinhole(start.new_ones(5))
    else:
        camera = setting.init.detach()
        # one camera for all views of a calibration
        camera = camera.in_same_field(camera.params[..., None, :]) if shared else camera
    item = admit(Call(points2d, points3d, camera, weights, mask, loss))
    if not item.shape or (shared and item.shape[-1] == 0):
        raise ValueError(f"points2d: got shape {tuple(points2d.shape)}, expected at least one view")
    shape = item.shape[:-1] if shared else item.shape
    views = item.shape[-1] if shared else 1
    width, height = setting.image_size
    units = Units.of(item.data)
    scale = torch.full_like(units.focal, float(max(width, height)))
    # of the views that count: a bad one must not change the units of the others
    weight = torch.where(item.status == int(Status.CONVERGED), units.weight, 0.0).view(-1, views).amax(-1)
    weight = torch.where(weight > 0, weight, 1.0)[:, None].expand(-1, views).reshape(-1)
    units = replace(units, focal=scale, weight=weight)
    data = units.condition(item.data)
    status = torch.where(
        _collinear(data.points3d, data.weights, units, item.points3d_dtype)
        & (item.status == int(Status.CONVERGED)),
        int(Status.DEGENERATE),
        item.status,
    )
    data = neutral_data(data, status == int(Status.CONVERGED))
    observations = Observations(data.points2d, data.points3d, data.weights, data.loss)
    observations = _pytree.tree_map(lambda leaf: leaf.unflatten(0, (-1, views)), observations)
    if setting.init is None:
        pixel = torch.arange(len(start), device=start.device) < setting.model.num_pixel_params
        params = (
            torch.where(pixel, start / max(width, height), start).to(scale).expand(len(scale) // views, -1)
        )
    else:
        params = item.data.camera.in_units_of(scale).params.detach().unflatten(0, (-1, views))
        usable = (status.view(-1, views) == int(Status.CONVERGED)).to(torch.uint8).argmax(1)
        params = params[torch.arange(len(params), device=params.device), usable]
    return Views(observations, item, units, status.view(-1, views), params, shape)


def _neutral(setting: Setting, points2d: Any) -> Tensor:
    """A focal length of the image's longer side, the image's centre, no distortion: (P,), in pixels."""
    width, height = setting.image_size
    values = {"cx": (width - 1) / 2, "cy": (height - 1) / 2}
    names = setting.model.parameter_names
    focal = names[: setting.model.num_focal]
    numbers = [float(max(width, height)) if name in focal else values.get(name, 0.0) for name in names]
    device = points2d.device if isinstance(points2d, Tensor) else None
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def _collinear(points3d: Tensor, weights: Tensor, units: Units, dtype: torch.dtype) -> Tensor:
    """Where the points of positive weight lie on a line, up to the rounding of the dtype they came in."""
    with torch.no_grad():
        width = plane_of(points3d.detach(), weighting.strength(weights.detach())).width
        rounding = torch.finfo(dtype).eps * (1 + units.centre.square().sum(-1).sqrt() / units.size)
        return width < (_COLLINEAR_ROUNDINGS * rounding).clamp(_COLLINEAR_AT_LEAST, _COLLINEAR_AT_MOST)
