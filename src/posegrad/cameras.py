"""Camera models: a table of small types that hold their parameters as a differentiable tensor.

Names and parameter order are COLMAP's. Pixel coordinates are OpenCV's: the centre of the top-left pixel is (0, 0)
(COLMAP puts it at (0.5, 0.5)). A new model is one frozen dataclass with ``name``, ``parameter_names``, ``project`` and
``unproject``; its derivatives come from forward-mode differentiation unless it brings closed forms.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree

# A point counts as in front of a pinhole camera when its depth exceeds this fraction of its lateral offset.
_MIN_DEPTH_RATIO = 1e-8


class Projected(NamedTuple):
    """Pixels, whether each point lies in the model's valid field, and d pixel / d point if asked for."""

    points2d: Float[Tensor, "*batch N 2"]
    valid: Bool[Tensor, "*batch N"]
    jacobian: Float[Tensor, "*batch N 2 3"] | None = None


@dataclass(frozen=True, eq=False)
class Camera:
    """A batch of cameras of one model.

    Args:
        params: (..., P) in the model's order, pixels for focal lengths and principal point. A leading batch
            dimension broadcasts against the batch of the points.
    """

    params: Float[Tensor, "*batch P"]

    name: ClassVar[str] = ""
    parameter_names: ClassVar[tuple[str, ...]] = ()
    #: how many of the leading parameters are focal lengths, and how many then are in pixels (focal, centre, skew)
    num_focal: ClassVar[int] = 1
    num_pixel_params: ClassVar[int] = 3

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

        Points outside the valid field (for pinhole models: not in front of the camera) get finite pixels with
        ``valid`` False; what the numbers are is of no use.
        """
        raise NotImplementedError

    def unproject(self, points2d: Float[Tensor, "*batch N 2"]) -> Float[Tensor, "*batch N 3"]:
        """Unit bearing vectors (..., N, 3) of pixels, in camera coordinates."""
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

    def focal_scale(self) -> Float[Tensor, "*batch"]:
        """One positive focal length in pixels: the geometric mean of the model's."""
        return self.params[..., : self.num_focal].abs().log().mean(-1).exp()

    def in_units_of(self, scale: Float[Tensor, "*batch"]) -> Self:
        """The same camera with lengths in the image measured in ``scale`` pixels."""
        count = len(self.parameter_names)
        pixel = torch.arange(count, device=self.params.device) < self.num_pixel_params
        return replace(self, params=torch.where(pixel, self.params / scale[..., None], self.params))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """``Tensor.to`` on the parameters."""
        return replace(self, params=self.params.to(*args, **kwargs))

    def detach(self) -> Self:
        """Cut the parameters from the autograd graph."""
        return replace(self, params=self.params.detach())

    def crop(self, left: float | Tensor, top: float | Tensor) -> Self:
        """The camera of a crop whose first pixel is (left, top) of this image, in pixels."""
        return self._moved(left, top, 1.0, 1.0)

    def resize(self, scale_x: float | Tensor, scale_y: float | Tensor | None = None) -> Self:
        """The camera of the image resized by a factor (new width / old width).

        Pixel centres: ``c' = (c + 0.5) * scale - 0.5``, as ``cv2.resize`` and ``antialias`` resizers do.
        """
        scale_y = scale_x if scale_y is None else scale_y
        for name, scale in (("scale_x", scale_x), ("scale_y", scale_y)):
            if not bool((torch.as_tensor(scale) > 0).all()):
                raise ValueError(f"resize: got {name} = {scale}, expected > 0 (new size / old size)")
        return self._moved(0.0, 0.0, scale_x, scale_y)

    def _moved(
        self, left: float | Tensor, top: float | Tensor, sx: float | Tensor, sy: float | Tensor
    ) -> Self:
        values = dict(zip(self.parameter_names, self.params.unbind(-1), strict=True))
        if "f" in values:
            if not bool(torch.as_tensor(sx == sy).all()):
                raise ValueError(
                    f"resize: {type(self).__name__} has one focal length, got scales {sx} and {sy}; "
                    "use equal scales or the model with fx, fy"
                )
            values["f"] = values["f"] * sx
        else:
            values["fx"], values["fy"] = values["fx"] * sx, values["fy"] * sy
        if "skew" in values:
            values["skew"] = values["skew"] * sx
        values["cx"] = (values["cx"] - left + 0.5) * sx - 0.5
        values["cy"] = (values["cy"] - top + 0.5) * sy - 0.5
        columns = torch.broadcast_tensors(*(values[name] for name in self.parameter_names))
        return replace(self, params=torch.stack(columns, -1))


def _interleaved(*components: Tensor) -> Tensor:
    """``torch.stack(components, -1)``, but with each component contiguous in memory."""
    return torch.stack(torch.broadcast_tensors(*components), -2).mT


class _PinholeFamily(Camera):
    """``pixel = A (x/z, y/z) + c`` with ``A = [[fx, skew], [0, fy]]``: closed-form derivatives."""

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(fx, fy, cx, cy, skew), each (..., 1) so that it broadcasts over the points."""
        raise NotImplementedError

    def matrix(self) -> Float[Tensor, "*batch 3 3"]:
        """Calibration matrix K."""
        fx, fy, cx, cy, skew = (c.squeeze(-1) for c in self.coefficients())
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        return torch.stack([fx, skew, cx, zero, fy, cy, zero, zero, one], -1).unflatten(-1, (3, 3))

    def _normalised(self, points_cam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x/z, y/z, 1/z and validity; a point that has no image is divided by one instead."""
        x, y, z = points_cam.unbind(-1)
        bound = _MIN_DEPTH_RATIO * (x.abs() + y.abs()) + torch.finfo(z.dtype).tiny ** 0.5
        valid = z > bound
        safe = torch.where(z.abs() > bound, z, torch.ones_like(z))
        inverse = safe.reciprocal()
        return x * inverse, y * inverse, inverse, valid

    def project(self, points_cam: Tensor) -> Projected:
        fx, fy, cx, cy, skew = self.coefficients()
        a, b, _, valid = self._normalised(points_cam)
        return Projected(_interleaved(fx * a + skew * b + cx, fy * b + cy), valid)

    def unproject(self, points2d: Tensor) -> Tensor:
        fx, fy, cx, cy, skew = self.coefficients()
        u, v = points2d.unbind(-1)
        b = (v - cy) / fy
        a = (u - cx - skew * b) / fx
        ray = torch.stack([a, b, torch.ones_like(a)], -1)
        return ray / ray.square().sum(-1, keepdim=True).sqrt()

    def project_with_jacobian(self, points_cam: Tensor) -> Projected:
        fx, fy, cx, cy, skew = self.coefficients()
        a, b, inverse, valid = self._normalised(points_cam)
        fx_z, fy_z, skew_z = fx * inverse, fy * inverse, skew * inverse
        rows = [fx_z, skew_z, -(fx_z * a + skew_z * b), torch.zeros_like(fy_z), fy_z, -fy_z * b]
        return Projected(
            _interleaved(fx * a + skew * b + cx, fy * b + cy),
            valid,
            _interleaved(*rows).unflatten(-1, (2, 3)),
        )

    def contracted_hessian(self, points_cam: Tensor, cotangent: Tensor) -> Tensor:
        fx, fy, _, _, skew = self.coefficients()
        a, b, inverse, _ = self._normalised(points_cam)
        square = inverse * inverse
        m0 = fx * cotangent[..., 0] * square
        m1 = (skew * cotangent[..., 0] + fy * cotangent[..., 1]) * square
        zero = torch.zeros_like(m0)
        rows = [zero, zero, -m0, zero, zero, -m1, -m0, -m1, 2 * (m0 * a + m1 * b)]
        return _interleaved(*rows).unflatten(-1, (3, 3))


@dataclass(frozen=True, eq=False)
class SimplePinhole(_PinholeFamily):
    """``u = f x/z + cx, v = f y/z + cy``; params (..., 3) = (f, cx, cy) in pixels (COLMAP ``SIMPLE_PINHOLE``).

    >>> SimplePinhole(torch.tensor([500.0, 320.0, 240.0])).project(torch.tensor([[0.0, 0.0, 2.0]])).points2d
    tensor([[320., 240.]])
    """

    name: ClassVar[str] = "SIMPLE_PINHOLE"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy")

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        f, cx, cy = self.params.unsqueeze(-2).unbind(-1)
        return f, f, cx, cy, torch.zeros_like(f)


@dataclass(frozen=True, eq=False)
class Pinhole(_PinholeFamily):
    """``u = fx x/z + cx, v = fy y/z + cy``; params (..., 4) = (fx, fy, cx, cy) in pixels (COLMAP ``PINHOLE``).

    >>> Pinhole(torch.tensor([500.0, 510.0, 320.0, 240.0])).matrix()[1]
    tensor([  0., 510., 240.])
    """

    name: ClassVar[str] = "PINHOLE"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy")
    num_focal: ClassVar[int] = 2
    num_pixel_params: ClassVar[int] = 4

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        fx, fy, cx, cy = self.params.unsqueeze(-2).unbind(-1)
        return fx, fy, cx, cy, torch.zeros_like(fx)


@dataclass(frozen=True, eq=False)
class SkewPinhole(_PinholeFamily):
    """``u = fx x/z + skew y/z + cx, v = fy y/z + cy``; params (..., 5) = (fx, fy, cx, cy, skew) in pixels.

    What a bare calibration matrix K means wherever a camera is accepted. Not a COLMAP model.
    """

    name: ClassVar[str] = "SKEW_PINHOLE"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy", "skew")
    num_focal: ClassVar[int] = 2
    num_pixel_params: ClassVar[int] = 5

    @classmethod
    def from_matrix(cls, K: Float[Tensor, "*batch 3 3"]) -> "SkewPinhole":
        """From calibration matrices; entries below the diagonal and the last row are ignored (gradient zero)."""
        return cls(torch.stack([K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2], K[..., 0, 1]], -1))

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        fx, fy, cx, cy, skew = self.params.unsqueeze(-2).unbind(-1)
        return fx, fy, cx, cy, skew


#: Camera models by name.
MODELS: dict[str, type[Camera]] = {model.name: model for model in (SimplePinhole, Pinhole, SkewPinhole)}


def as_camera(camera: "Camera | Float[Tensor, '*batch 3 3']") -> Camera:
    """The camera itself, or the one a calibration matrix K (..., 3, 3) stands for."""
    if isinstance(camera, Camera):
        return camera
    if not isinstance(camera, Tensor):
        raise TypeError(
            f"camera: got {type(camera).__name__}, expected a (..., 3, 3) calibration matrix K as a torch.Tensor "
            "or a camera object such as pg.cameras.Pinhole"
        )
    if camera.ndim < 2 or tuple(camera.shape[-2:]) != (3, 3):
        raise ValueError(
            f"camera: got a tensor of shape {tuple(camera.shape)}, expected a calibration matrix K (..., 3, 3); "
            "for a parameter vector use pg.cameras.Pinhole(params)"
        )
    if not camera.is_floating_point():
        raise TypeError(f"camera: got dtype {camera.dtype}, expected a floating-point dtype; use K.double()")
    return SkewPinhole.from_matrix(camera)
