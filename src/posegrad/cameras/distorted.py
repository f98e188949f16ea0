"""Cameras made of a rotationally symmetric lens and a distortion of its image, with closed-form derivatives.

A point goes to the lens's ideal image m (:mod:`posegrad.cameras.lenses`), m to ``d(m)``
(:mod:`posegrad.cameras.profiles`, :mod:`posegrad.cameras.plane`), and that to the pixel
``(fx d_u + cx, fy d_v + cy)``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.cameras import lenses
from posegrad.cameras.base import Camera, Projected, Unprojected, interleaved
from posegrad.cameras.field import fold, inverse_plane, newton, whole
from posegrad.cameras.lenses import Rays
from posegrad.cameras.plane import curvature, distorted, distortion
from posegrad.cameras.profiles import Profile, identity

_PIXEL_PARAMETERS = ("f", "fx", "fy", "cx", "cy")
_TANGENTIAL_PARAMETERS = ("p1", "p2")


@dataclass(frozen=True, eq=False)
class Distorted(Camera):
    """The base of these models; a model states ``name``, ``parameter_names`` and ``profile``.

    Parameters are the focal length (f or fx, fy), the centre cx, cy, then those of the distortion: p1, p2 are
    tangential, those named in ``lens_parameters`` the lens's, the others the profile's in its order.

    The valid field: points that the lens images with ``|m|^2 < limit``, the largest disc on which the derivative of d
    is positive definite, which makes d one-to-one there. Without tangential terms it ends at the first fold or pole
    of ``r g(r^2)``; with them, where d first folds in some direction.

    Raises:
        TypeError, ValueError: for parameters of another type or number.

    >>> import posegrad as pg
    >>> camera = pg.cameras.SimpleRadial(torch.tensor([500.0, 320, 240, -0.3], dtype=torch.float64))
    >>> camera.limit  # r (1 - 0.3 r^2) rises up to r^2 = 1 / (3 * 0.3)
    tensor([1.1111], dtype=torch.float64)
    >>> camera.project(torch.tensor([[0.5, 0.0, 1.0], [2.0, 0.0, 1.0]], dtype=torch.float64)).valid
    tensor([ True, False])
    """

    #: (..., 1) squared radius in the ideal image up to which the model holds; follows from the parameters
    limit: Float[Tensor, "*batch 1"] = field(init=False, repr=False)

    profile: ClassVar[Profile] = staticmethod(identity)
    #: of a profile with poles, as a function of the same arguments
    denominator: ClassVar[Callable[..., Any] | None] = None
    #: radius in the ideal image at which the lens ends
    largest: ClassVar[float] = lenses.MAX_RADIUS
    lens_parameters: ClassVar[tuple[str, ...]] = ()
    _radial: ClassVar[tuple[int, ...]] = ()
    _tangential: ClassVar[tuple[int, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        names = cls.parameter_names
        cls.num_focal = 1 if names[:1] == ("f",) else 2
        cls.num_pixel_params = sum(name in _PIXEL_PARAMETERS for name in names)
        tangential = _TANGENTIAL_PARAMETERS
        cls._tangential = tuple(i for i, name in enumerate(names) if name in tangential)
        others = {*_PIXEL_PARAMETERS, *tangential, *cls.lens_parameters}
        cls._radial = tuple(i for i, name in enumerate(names) if name not in others)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "limit", self._field())

    def _field(self) -> Tensor:
        _, _, radial, tangential = self._split()
        if not radial and tangential is None:
            return torch.full_like(self.params[..., :1].detach(), whole(self.largest, self.params.dtype))
        return fold(self.profile, radial, tangential, self.largest, self.denominator)

    def _lens(self, points_cam: Tensor, order: int) -> Rays:
        """The ideal image of points and its derivatives up to the order."""
        raise NotImplementedError

    def _direction(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The unit vector whose ideal image is (a, b)."""
        raise NotImplementedError

    def _covers(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether the lens has an image at (a, b)."""
        return torch.ones_like(a, dtype=torch.bool)

    def _split(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, ...], Any]:
        """Focal lengths, centre, radial and tangential coefficients, each (..., 1) to broadcast over the points."""
        p = self.params.unsqueeze(-2).unbind(-1)
        n = self.num_focal
        tangential = tuple(p[i] for i in self._tangential) or None
        return (p[0], p[n - 1]), (p[n], p[n + 1]), tuple(p[i] for i in self._radial), tangential

    def project(self, points_cam: Tensor) -> Projected:
        (fx, fy), (cx, cy), radial, tangential = self._split()
        rays = self._lens(points_cam, 0)
        a, b = rays.x * rays.scale, rays.y * rays.scale
        s = a * a + b * b
        u, v = distorted(a, b, s, self.profile(s, *radial)[0], tangential)
        return Projected(interleaved(fx * u + cx, fy * v + cy), rays.valid)

    def project_with_jacobian(self, points_cam: Tensor) -> Projected:
        (fx, fy), (cx, cy), radial, tangential = self._split()
        rays = self._lens(points_cam, 1)
        x, y, A, by_s = rays.x, rays.y, rays.scale, rays.by_s
        a, b = x * A, y * A
        s = a * a + b * b
        g, g1, _ = self.profile(s, *radial)
        d = distortion(a, b, s, g, g1, tangential)
        # rows of d d / d m, times the focal lengths
        u_a, u_b, v_a, v_b = fx * d.aa, fx * d.ab, fy * d.ab, fy * d.bb
        # d m / d (x, y) = A I + 2 A_s (x, y) (x, y)^T and d m / d z = A_z (x, y)
        u_along, v_along = u_a * x + u_b * y, v_a * x + v_b * y
        rows = [A * u_a, A * u_b, rays.by_z * u_along, A * v_a, A * v_b, rays.by_z * v_along]
        if by_s is not None:
            u_radial, v_radial = 2 * by_s * u_along, 2 * by_s * v_along
            rows[0], rows[1] = rows[0] + u_radial * x, rows[1] + u_radial * y
            rows[3], rows[4] = rows[3] + v_radial * x, rows[4] + v_radial * y
        jacobian = interleaved(*rows).unflatten(-1, (2, 3))
        return Projected(interleaved(fx * d.u + cx, fy * d.v + cy), rays.valid, jacobian)

    def contracted_hessian(self, points_cam: Tensor, cotangent: Tensor) -> Tensor:
        (fx, fy), _, radial, tangential = self._split()
        rays = self._lens(points_cam, 2)
        x, y, A, A_z = rays.x, rays.y, rays.scale, rays.by_z
        wu, wv = fx * cotangent[..., 0], fy * cotangent[..., 1]
        a, b = x * A, y * A
        s = a * a + b * b
        g, g1, g2 = self.profile(s, *radial)
        d = distortion(a, b, s, g, g1, tangential)
        # first and second derivative of <w, d> by m, and both along (x, y)
        ca, cb = d.aa * wu + d.ab * wv, d.ab * wu + d.bb * wv
        aa, ab, bb = curvature(a, b, g1, g2, tangential, wu, wv)
        qa, qb = aa * x + ab * y, ab * x + bb * y
        c_along, q_along = ca * x + cb * y, qa * x + qb * y
        square = A * A
        xx, xy, yy = square * aa, square * ab, square * bb
        xz, yz = A_z * (A * qa + ca), A_z * (A * qb + cb)
        zz = A_z * A_z * q_along + rays.by_zz * c_along
        if rays.by_s is not None:
            radial_part = 2 * (rays.by_s * rays.by_s * q_along + rays.by_ss * c_along)
            va = 2 * rays.by_s * (A * qa + ca) + radial_part * x
            vb = 2 * rays.by_s * (A * qb + cb) + radial_part * y
            round_part = 2 * rays.by_s * c_along
            xx, xy, yy = xx + 2 * va * x + round_part, xy + va * y + vb * x, yy + 2 * vb * y + round_part
            mixed = 2 * (rays.by_s * A_z * q_along + rays.by_sz * c_along)
            xz, yz = xz + mixed * x, yz + mixed * y
        return interleaved(xx, xy, xz, xy, yy, yz, xz, yz, zz).unflatten(-1, (3, 3))

    def unproject(self, points2d: Tensor) -> Unprojected:
        (fx, fy), (cx, cy), radial, tangential = self._split()
        u, v = points2d.unbind(-1)
        target = torch.stack(torch.broadcast_tensors((u - cx) / fx, (v - cy) / fy))
        finite = (target * target).sum(0).isfinite()
        target = torch.where(finite, target, 0.0)
        if self.profile is identity and tangential is None:
            m, valid = target, finite & ((target * target).sum(0).detach() < self.limit)
        else:
            m, valid = self._undistorted(radial, tangential, target)
            valid = valid & finite
        a, b = m.unbind()
        return Unprojected(interleaved(*self._direction(a, b)), valid & self._covers(a.detach(), b.detach()))

    def _undistorted(
        self, radial: tuple[Tensor, ...], tangential: Any, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """m with ``d(m) = target``, both (2, ..., N), and where it was found; a constant elsewhere."""
        q = None
        if tangential is not None:
            p1, p2, _ = torch.broadcast_tensors(*tangential, target[0, ..., :1])
            q = torch.stack([p2, p1])
        with torch.no_grad():
            constant = tuple(c.detach() for c in radial)
            model = (self.profile, constant, None if q is None else q.detach(), self.limit.detach())
            m = held = inverse_plane(*model, target.detach())
            at = newton(*model, m, target.detach())
            # solved to rounding in the image, or (where it is steep) in the ideal image; false where anything is NaN
            rounding = 256 * torch.finfo(m.dtype).eps
            solved = torch.hypot(*at.residual) <= rounding * (1 + torch.hypot(*target.detach()))
            valid = at.inside & (solved | (torch.hypot(*at.step) <= rounding * (1 + torch.hypot(*m))))
        # two Newton steps from the solution: they carry its first and second derivatives
        for _ in range(2):
            at = newton(self.profile, radial, q, self.limit, torch.where(valid, m, 0.0), target)
            m = torch.where(valid, m + torch.where(valid, at.step, 0.0), held)
        return m, valid


class Perspective(Distorted):
    """Distorted perspective images; the field is ``z > 0``, ``(x^2 + y^2) / z^2 < limit`` (at most 1e8).

    >>> class Cubic(Perspective):
    ...     name = "CUBIC"
    ...     parameter_names = ("f", "cx", "cy", "k")
    ...     profile = staticmethod(lambda s, k: (1 + k * s**3, 3 * k * s**2, 6 * k * s))  # g(r^2), g', g''
    >>> Cubic(torch.tensor([500.0, 320.0, 240.0, 0.1])).project(torch.tensor([[1.0, 0.0, 1.0]])).points2d
    tensor([[870., 240.]])
    """

    def _lens(self, points_cam: Tensor, order: int) -> Rays:
        return lenses.perspective(points_cam, self.limit, order)

    def _direction(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return lenses.perspective_direction(a, b)


class Equidistant(Distorted):
    """Distorted equidistant images: fisheye lenses; the field is ``theta^2 < limit`` (at most pi^2).

    >>> class Plain(Equidistant):
    ...     name = "PLAIN"
    ...     parameter_names = ("f", "cx", "cy")
    >>> Plain(torch.tensor([200.0, 320.0, 240.0])).project(torch.tensor([[1.0, 0.0, 0.0]])).points2d  # 90 degrees
    tensor([[634.1593, 240.0000]])
    """

    wide: ClassVar[bool] = True
    largest: ClassVar[float] = torch.pi

    def _lens(self, points_cam: Tensor, order: int) -> Rays:
        return lenses.equidistant(points_cam, self.limit, order)

    def _direction(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return lenses.equidistant_direction(a, b)
