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
from posegrad.cameras.base import Camera, Curvature, Projected, Unprojected, interleaved
from posegrad.cameras.coefficients import BY_COEFFICIENTS
from posegrad.cameras.field import fold, inverse_plane, newton, whole
from posegrad.cameras.lenses import Rays
from posegrad.cameras.plane import (
    Distortion,
    by_tangential,
    curvature,
    distorted,
    distortion,
    pull_by_tangential,
)
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
        return self._project_with_jacobian(points_cam)[0]

    def _project_with_jacobian(self, points_cam: Tensor) -> tuple[Projected, tuple[Tensor, ...]]:
        """And what it was made of: the ideal image (a, b), its squared radius, the distorted image (u, v)."""
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
        return Projected(interleaved(fx * d.u + cx, fy * d.v + cy), rays.valid, jacobian), (a, b, s, d.u, d.v)

    def project_with_jacobians(self, points_cam: Tensor) -> tuple[Projected, Tensor]:
        by_coefficients = BY_COEFFICIENTS.get(self.profile)
        if by_coefficients is None or self.lens_parameters:
            return super().project_with_jacobians(points_cam)
        (fx, fy), _, radial, tangential = self._split()
        projected, (a, b, s, u, v) = self._project_with_jacobian(points_cam)
        zero, one = torch.zeros_like(u), torch.ones_like(u)
        focal = [(u, v)] if self.num_focal == 1 else [(u, zero), (zero, v)]
        columns = [
            *focal,
            (one, zero),
            (zero, one),
            *((zero, zero),) * (len(self.parameter_names) - self.num_focal - 2),
        ]
        ax, by = fx * a, fy * b
        for at, (g, _) in zip(self._radial, by_coefficients(s, *radial)[0], strict=True):
            columns[at] = (ax * g, by * g)
        if tangential is not None:
            for at, (du, dv) in zip(self._tangential, by_tangential(a, b), strict=True):
                columns[at] = (fx * du, fy * dv)
        rows = [column[row] for row in (0, 1) for column in columns]
        return projected, interleaved(*rows).unflatten(-1, (2, len(columns)))

    def contracted_hessian(self, points_cam: Tensor, cotangent: Tensor) -> Tensor:
        return self._contracted_hessian(points_cam, cotangent)[0]

    def _contracted_hessian(
        self, points_cam: Tensor, cotangent: Tensor
    ) -> tuple[Tensor, tuple[Rays, Tensor, Tensor, Tensor, Distortion]]:
        """And what it was made of: rays, the ideal image (a, b), its squared radius, the distortion there."""
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
        return interleaved(xx, xy, xz, xy, yy, yz, xz, yz, zz).unflatten(-1, (3, 3)), (rays, a, b, s, d)

    def contracted_hessians(self, points_cam: Tensor, cotangent: Tensor) -> Curvature:
        by_coefficients = BY_COEFFICIENTS.get(self.profile)
        if by_coefficients is None or self.lens_parameters:
            return super().contracted_hessians(points_cam, cotangent)
        (fx, fy), _, radial, tangential = self._split()
        points, (rays, a, b, s, d) = self._contracted_hessian(points_cam, cotangent)
        wu, wv = cotangent.unbind(-1)
        # by each parameter: of <w, pixel> by m, and the distorted image's (it is multiplied by the focal length)
        zero = torch.zeros_like(wu)
        n, count = self.num_focal, len(self.parameter_names)
        by_m: list[tuple[Tensor, Tensor]] = [(zero, zero)] * count
        image: dict[int, tuple[Tensor, Tensor]] = {}
        first, second = (wu * d.aa, wu * d.ab), (wv * d.ab, wv * d.bb)
        by_m[:n] = [first, second] if n == 2 else [(first[0] + second[0], first[1] + second[1])]
        fu, fv = fx * wu, fy * wv
        along = fu * a + fv * b
        gs, cross = by_coefficients(s, *radial)
        for at, (g, g1) in zip(self._radial, gs, strict=True):
            radial_part = 2 * g1 * along
            by_m[at] = (fu * g + radial_part * a, fv * g + radial_part * b)
            image[at] = (a * g, b * g)
        if tangential is not None:
            image.update(zip(self._tangential, by_tangential(a, b), strict=True))
            by_m[self._tangential[0]], by_m[self._tangential[1]] = pull_by_tangential(a, b, fu, fv)
        mixed = []
        for ea, eb in by_m:
            e_along = ea * rays.x + eb * rays.y
            va, vb = rays.scale * ea, rays.scale * eb
            if rays.by_s is not None:
                va, vb = va + 2 * rays.by_s * e_along * rays.x, vb + 2 * rays.by_s * e_along * rays.y
            mixed += [va, vb, rays.by_z * e_along]
        pairs = {}
        for at, (du, dv) in image.items():
            for row, part in ((0, wu * du), (n - 1, wv * dv)):
                pairs[row, at] = pairs.get((row, at), 0) + part
        for (j, l), value in cross.items():
            pairs[self._radial[j], self._radial[l]] = value * along
        return Curvature(points, interleaved(*mixed).unflatten(-1, (count, 3)), _symmetric(pairs, wu, count))

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


def _symmetric(pairs: dict[tuple[int, int], Tensor], like: Tensor, count: int) -> Tensor:
    """A symmetric matrix (..., P, P) of entries (..., N) summed over the points; zero where there is none."""
    matrix = like.new_zeros(*like.shape[:-1], count * count)
    if pairs:
        rows, columns = (torch.tensor(side, device=like.device) for side in zip(*pairs, strict=True))
        sums = torch.stack(torch.broadcast_tensors(*pairs.values()), -2).sum(-1)
        matrix = matrix.index_copy(-1, rows * count + columns, sums)
        matrix = matrix.index_copy(-1, columns * count + rows, sums)
    return matrix.unflatten(-1, (count, count))


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
