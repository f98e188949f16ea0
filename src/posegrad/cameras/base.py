"""What every camera model is: parameters in a differentiable tensor, projection and its inverse.

A model of one's own is a subclass of :class:`Camera` with ``name``, ``parameter_names``, ``project`` and
``unproject``; its derivatives come from forward-mode differentiation unless it brings closed forms. What follows the
scheme of :mod:`posegrad.cameras.distorted` (a rotationally symmetric lens and a distortion of the image plane) is a
few lines there, closed forms included.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree


class Projected(NamedTuple):
    """Pixels, whether each point lies in the model's valid field, and d pixel / d point if asked for.

    >>> import posegrad as pg
    >>> camera = pg.cameras.SimplePinhole(torch.tensor([500.0, 320.0, 240.0]))
    >>> camera.project(torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]])).valid
    tensor([ True, False])
    """

    points2d: Float[Tensor, "*batch N 2"]
    valid: Bool[Tensor, "*batch N"]
    jacobian: Float[Tensor, "*batch N 2 3"] | None = None


class Curvature(NamedTuple):
    """Second derivatives of ``sum_i <cotangent_i, pixel_i>`` by points and parameters.

    Those by the parameters are summed over the points, which share them.
    """

    points: Float[Tensor, "*batch N 3 3"]
    mixed: Float[Tensor, "*batch N P 3"]
    params: Float[Tensor, "*batch P P"]


class Unprojected(NamedTuple):
    """Unit bearing vectors in camera coordinates, and whether each pixel is the image of one in the valid field.

    >>> import posegrad as pg
    >>> camera = pg.cameras.SimplePinhole(torch.tensor([500.0, 320.0, 240.0]))
    >>> camera.unproject(torch.tensor([[320.0, 240.0]])).bearings
    tensor([[0., 0., 1.]])
    """

    bearings: Float[Tensor, "*batch N 3"]
    valid: Bool[Tensor, "*batch N"]


@dataclass(frozen=True, eq=False)
class Camera:
    """A batch of cameras of one model.

    Args:
        params: (..., P) in the model's order, pixels for focal lengths and principal point; distortion parameters
            have no unit. A leading batch dimension broadcasts against the batch of the points.

    >>> import posegrad as pg
    >>> camera = pg.cameras.Pinhole(torch.tensor([500.0, 510.0, 320.0, 240.0], dtype=torch.float64))
    >>> pixels = camera.project(torch.tensor([[1.0, 0.5, 2.0]], dtype=torch.float64)).points2d
    >>> ray = camera.unproject(pixels).bearings
    >>> ray / ray[..., 2:]
    tensor([[0.5000, 0.2500, 1.0000]], dtype=torch.float64)
    >>> camera.crop(left=100, top=50).resize(0.5).params.tolist()
    [250.0, 255.0, 109.75, 94.75]
    """

    params: Float[Tensor, "*batch P"]

    name: ClassVar[str] = ""
    parameter_names: ClassVar[tuple[str, ...]] = ()
    #: how many of the leading parameters are focal lengths, and how many then are in pixels (focal, centre, skew)
    num_focal: ClassVar[int] = 1
    num_pixel_params: ClassVar[int] = 3
    #: whether ``pixel = A (x/z, y/z) + c``: the second derivative of ``m . pixel`` then is ``-(f e_z^T + e_z f^T) / z``
    #: with ``f = J^T m``, and :meth:`contracted_hessian` need not be asked
    perspective: ClassVar[bool] = False
    #: whether points beside and behind the camera (z <= 0) can lie in the valid field
    wide: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        _pytree.register(cls)

    def __post_init__(self) -> None:
        label = type(self).__name__
        if not isinstance(self.params, Tensor):
            raise TypeError(f"{label}.params: got {type(self.params).__name__}, expected a torch.Tensor")
        if not self.params.is_floating_point():
            raise TypeError(f"{label}.params: got dtype {self.params.dtype}, expected a floating-point dtype")
        count = len(self.parameter_names)
        if self.params.ndim == 0 or self.params.shape[-1] != count:
            names = ", ".join(self.parameter_names)
            raise ValueError(
                f"{label}.params: got shape {tuple(self.params.shape)}, expected (..., {count}) = ({names})"
            )

    def project(self, points_cam: Float[Tensor, "*batch N 3"]) -> Projected:
        """Project points in camera coordinates (..., N, 3) to pixels.

        Points outside the valid field (which each model states; for pinhole models: not in front of the camera)
        get finite pixels with ``valid`` False; what the numbers are is of no use.
        """
        raise NotImplementedError

    def unproject(self, points2d: Float[Tensor, "*batch N 2"]) -> Unprojected:
        """Unit bearing vectors (..., N, 3) of pixels, in camera coordinates: the inverse of :meth:`project`.

        A pixel that is not the image of a point in the valid field, or where the inversion did not converge, gets
        some unit vector without a gradient and ``valid`` False. Differentiable twice by pixels and parameters.
        """
        raise NotImplementedError

    def project_with_jacobian(self, points_cam: Float[Tensor, "*batch N 3"]) -> Projected:
        """As :meth:`project`, with the Jacobian (..., N, 2, 3)."""
        columns = []
        for axis in torch.eye(3, dtype=points_cam.dtype, device=points_cam.device):
            tangent = axis.expand_as(points_cam)
            columns.append(
                torch.func.jvp(lambda x: self.project(x).points2d, (points_cam,), (tangent.contiguous(),))[1]
            )
        projected = self.project(points_cam)
        return projected._replace(jacobian=torch.stack(columns, -1))

    def contracted_hessian(
        self, points_cam: Float[Tensor, "*batch N 3"], cotangent: Float[Tensor, "*batch N 2"]
    ) -> Float[Tensor, "*batch N 3 3"]:
        """Second derivative of ``<cotangent, pixel(point)>`` by the point, with the cotangent held constant."""

        def pulled(x: Tensor) -> Tensor:
            jacobian = Camera.project_with_jacobian(self, x).jacobian
            assert jacobian is not None
            return (cotangent[..., None, :] @ jacobian).squeeze(-2)

        columns = []
        for axis in torch.eye(3, dtype=points_cam.dtype, device=points_cam.device):
            tangent = axis.expand_as(points_cam).contiguous()
            columns.append(torch.func.jvp(pulled, (points_cam,), (tangent,))[1])
        return torch.stack(columns, -1)

    def project_with_jacobians(
        self, points_cam: Float[Tensor, "*batch N 3"]
    ) -> tuple[Projected, Float[Tensor, "*batch N 2 P"]]:
        """As :meth:`project_with_jacobian`, and d pixel / d parameters."""

        params = self.params.expand(*points_cam.shape[:-2], -1)

        def pixels(params: Tensor) -> Tensor:
            return self.in_same_field(params).project(points_cam).points2d

        return self.project_with_jacobian(points_cam), self._along_parameters(pixels, params)

    def contracted_hessians(
        self, points_cam: Float[Tensor, "*batch N 3"], cotangent: Float[Tensor, "*batch N 2"]
    ) -> Curvature:
        """Second derivatives of ``<cotangent, pixel>`` by points and parameters, with the cotangent held constant."""
        params = self.params.expand(*points_cam.shape[:-2], -1)

        def pulled(params: Tensor) -> Tensor:
            jacobian = self.in_same_field(params).project_with_jacobian(points_cam).jacobian
            assert jacobian is not None
            return (cotangent[..., None, :] @ jacobian).squeeze(-2)

        def total(params: Tensor) -> Tensor:
            return (self.in_same_field(params).project(points_cam).points2d * cotangent).sum()

        return Curvature(
            points=self.contracted_hessian(points_cam, cotangent),
            mixed=self._along_parameters(pulled, params).mT,
            params=self._along_parameters(torch.func.grad(total), params),
        )

    @staticmethod
    def _along_parameters(function: Callable[[Tensor], Tensor], params: Float[Tensor, "*batch P"]) -> Tensor:
        """Derivative of a function of the parameters by each of them, as a last dimension; one pass for all."""
        axes = torch.eye(params.shape[-1], dtype=params.dtype, device=params.device)
        tangents = axes.view(-1, *(1,) * (params.ndim - 1), params.shape[-1]).expand(-1, *params.shape)
        copies = params.expand_as(tangents).contiguous()
        return torch.func.jvp(function, (copies,), (tangents.contiguous(),))[1].movedim(0, -1)

    def focal_scale(self) -> Float[Tensor, "*batch"]:
        """One positive focal length in pixels: the geometric mean of the model's."""
        return self.params[..., : self.num_focal].abs().log().mean(-1).exp()

    def in_units_of(self, scale: Float[Tensor, "*batch"]) -> Self:
        """The same camera with lengths in the image measured in ``scale`` pixels."""
        count = len(self.parameter_names)
        pixel = torch.arange(count, device=self.params.device) < self.num_pixel_params
        return self.in_same_field(torch.where(pixel, self.params / scale[..., None], self.params))

    def in_same_field(self, params: Float[Tensor, "*batch P"]) -> Self:
        """With other parameters of the same distortion: unlike ``replace``, what follows from it is not recomputed."""
        camera = copy.copy(self)
        object.__setattr__(camera, "params", params)
        return camera

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """``Tensor.to`` on the parameters."""
        return replace(self, params=self.params.to(*args, **kwargs))

    def detach(self) -> Self:
        """Cut the parameters from the autograd graph."""
        return self.in_same_field(self.params.detach())

    def crop(self, left: float | Tensor, top: float | Tensor) -> Self:
        """The camera of a crop whose first pixel is (left, top) of this image, in pixels."""
        return self._moved(left, top, 1.0, 1.0)

    def resize(self, scale_x: float | Tensor, scale_y: float | Tensor | None = None) -> Self:
        """The camera of the image resized by a factor (new width / old width).

        Pixel centres: ``c' = (c + 0.5) * scale - 0.5``, as ``cv2.resize`` and ``antialias`` resizers do.
        """
        scale_y = scale_x if scale_y is None else scale_y
        for name, scale in (("scale_x", scale_x), ("scale_y", scale_y)):
            if not _holds(torch.as_tensor(scale) > 0, unknown=True):
                raise ValueError(f"resize: got {name} = {scale}, expected > 0 (new size / old size)")
        return self._moved(0.0, 0.0, scale_x, scale_y)

    def _moved(
        self, left: float | Tensor, top: float | Tensor, sx: float | Tensor, sy: float | Tensor
    ) -> Self:
        values = dict(zip(self.parameter_names, self.params.unbind(-1), strict=True))
        if "f" in values:
            if sx is not sy and not _holds(torch.as_tensor(sx == sy), unknown=False):
                raise ValueError(
                    f"resize: {type(self).__name__} has one focal length, got two scales that differ (under vmap: that "
                    "may differ); give one, or use the model with fx, fy"
                )
            values["f"] = values["f"] * sx
        else:
            values["fx"], values["fy"] = values["fx"] * sx, values["fy"] * sy
        if "skew" in values:
            values["skew"] = values["skew"] * sx
        values["cx"] = (values["cx"] - left + 0.5) * sx - 0.5
        values["cy"] = (values["cy"] - top + 0.5) * sy - 0.5
        columns = torch.broadcast_tensors(*(values[name] for name in self.parameter_names))
        return self.in_same_field(torch.stack(columns, -1))


def _holds(condition: Tensor, *, unknown: bool) -> bool:
    """Whether it holds everywhere; ``unknown`` where torch.func.vmap lets nobody ask."""
    try:
        return bool(condition.all())
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return unknown


def interleaved(*components: Tensor) -> Tensor:
    """``torch.stack(components, -1)``, but with each component contiguous in memory."""
    return torch.stack(torch.broadcast_tensors(*components), -2).mT
