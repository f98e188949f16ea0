"""Pinhole models: no distortion."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.cameras.base import Camera, Curvature, Projected, Unprojected, interleaved

# A point counts as in front of a pinhole camera when its depth exceeds this fraction of its lateral offset.
_MIN_DEPTH_RATIO = 1e-8


class _PinholeFamily(Camera):
    """``pixel = A (x/z, y/z) + c`` with ``A = [[fx, skew], [0, fy]]``: closed-form derivatives."""

    perspective: ClassVar[bool] = True

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
        safe = torch.where(z.abs() > bound, z, 1.0)
        inverse = safe.reciprocal()
        return x * inverse, y * inverse, inverse, valid

    def project(self, points_cam: Tensor) -> Projected:
        fx, fy, cx, cy, skew = self.coefficients()
        a, b, _, valid = self._normalised(points_cam)
        return Projected(interleaved(fx * a + skew * b + cx, fy * b + cy), valid)

    def unproject(self, points2d: Tensor) -> Unprojected:
        fx, fy, cx, cy, skew = self.coefficients()
        u, v = points2d.unbind(-1)
        b = (v - cy) / fy
        a = (u - cx - skew * b) / fx
        valid = a.abs() + b.abs() < 1 / _MIN_DEPTH_RATIO
        a, b = torch.where(valid, a, 0.0), torch.where(valid, b, 0.0)
        inverse = (1 + a * a + b * b).rsqrt()
        return Unprojected(interleaved(a * inverse, b * inverse, inverse), valid)

    def project_with_jacobian(self, points_cam: Tensor) -> Projected:
        fx, fy, cx, cy, skew = self.coefficients()
        a, b, inverse, valid = self._normalised(points_cam)
        u, v, minus = torch.addcmul(fx * a, skew, b), fy * b, -inverse
        rows = [fx * inverse, skew * inverse, u * minus, torch.zeros_like(v), fy * inverse, v * minus]
        return Projected(interleaved(u + cx, v + cy), valid, interleaved(*rows).unflatten(-1, (2, 3)))

    def project_with_jacobians(self, points_cam: Tensor) -> tuple[Projected, Tensor]:
        a, b, _, _ = self._normalised(points_cam)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        columns = [(a, b)] if self.num_focal == 1 else [(a, zero), (zero, b)]
        columns += [(one, zero), (zero, one)]
        columns += [(b, zero)] if len(self.parameter_names) == 5 else []
        rows = [column[row] for row in (0, 1) for column in columns]
        return self.project_with_jacobian(points_cam), interleaved(*rows).unflatten(-1, (2, len(columns)))

    def contracted_hessians(self, points_cam: Tensor, cotangent: Tensor) -> Curvature:
        a, b, inverse, _ = self._normalised(points_cam)
        wu, wv = cotangent.unbind(-1)
        zero, along, across = torch.zeros_like(a), wu * inverse, wv * inverse
        by_fx, by_fy = (along, zero, -along * a), (zero, across, -across * b)
        rows = [by_fx, by_fy] if self.num_focal == 2 else [(along, across, by_fx[2] + by_fy[2])]
        rows += [(zero, zero, zero)] * 2
        rows += [(zero, along, -along * b)] if len(self.parameter_names) == 5 else []
        mixed = interleaved(*(entry for row in rows for entry in row)).unflatten(-1, (len(rows), 3))
        params = mixed.new_zeros(*mixed.shape[:-3], len(rows), len(rows))
        return Curvature(self.contracted_hessian(points_cam, cotangent), mixed, params)

    def contracted_hessian(self, points_cam: Tensor, cotangent: Tensor) -> Tensor:
        fx, fy, _, _, skew = self.coefficients()
        a, b, inverse, _ = self._normalised(points_cam)
        square = inverse * inverse
        m0 = fx * cotangent[..., 0] * square
        m1 = (skew * cotangent[..., 0] + fy * cotangent[..., 1]) * square
        zero = torch.zeros_like(m0)
        rows = [zero, zero, -m0, zero, zero, -m1, -m0, -m1, 2 * (m0 * a + m1 * b)]
        return interleaved(*rows).unflatten(-1, (3, 3))


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

    >>> K = torch.tensor([[500.0, 5, 320], [0, 510, 240], [0, 0, 1]])
    >>> SkewPinhole.from_matrix(K).params
    tensor([500., 510., 320., 240.,   5.])
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
