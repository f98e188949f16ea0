"""Ideal lenses: from points in the camera to an ideal image ``m = (x, y) A(rho^2, z)``, and back.

``rho^2 = x^2 + y^2``. A lens returns A and its derivatives up to the order asked for, and which points it images;
for the others it looks at a point on the axis instead, so that everything that follows is finite and has no gradient.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.cameras.elementary import arctan_ratio, sine_and_cosine

# No lens images a point more than this many focal lengths from the centre: a perspective lens sees 89.994 degrees.
MAX_RADIUS = 1e4


class Rays(NamedTuple):
    """Points, the lens's scale A there, derivatives by z and by ``s = rho^2``; None where zero or not asked for."""

    x: Float[Tensor, "*batch N"]
    y: Float[Tensor, "*batch N"]
    valid: Bool[Tensor, "*batch N"]
    scale: Float[Tensor, "*batch N"]
    by_z: Float[Tensor, "*batch N"]
    by_zz: Float[Tensor, "*batch N"] | None = None
    by_s: Float[Tensor, "*batch N"] | None = None
    by_ss: Float[Tensor, "*batch N"] | None = None
    by_sz: Float[Tensor, "*batch N"] | None = None


def perspective(
    points_cam: Float[Tensor, "*batch N 3"], limit: Float[Tensor, "*batch 1"], order: int
) -> Rays:
    """``m = (x / z, y / z)``: images points with z > 0 and ``|m|^2 < limit``."""
    x, y, z = points_cam.unbind(-1)
    valid = (z > torch.finfo(z.dtype).tiny ** 0.5) & (x * x + y * y < limit * (z * z))
    x, y, z = torch.where(valid, x, 0.0), torch.where(valid, y, 0.0), torch.where(valid, z, 1.0)
    scale = z.reciprocal()
    by_z = -scale * scale
    return Rays(x, y, valid, scale, by_z, -2 * scale * by_z if order > 1 else None)


def equidistant(
    points_cam: Float[Tensor, "*batch N 3"], limit: Float[Tensor, "*batch 1"], order: int
) -> Rays:
    """``m = (x, y) theta / rho``, theta = atan2(rho, z): images points with ``theta^2 < limit`` (at most pi^2)."""
    x, y, z = points_cam.unbind(-1)
    with torch.no_grad():
        square = x * x + y * y
        theta = torch.atan2(square.sqrt(), z)
        size = square + z * z
        # neither the centre itself nor a point whose square overflows
        tiny = torch.finfo(z.dtype).tiny ** 0.5
        valid = (theta * theta < limit) & (size > tiny) & (size < 1 / tiny)
    x, y, z = torch.where(valid, x, 0.0), torch.where(valid, y, 0.0), torch.where(valid, z, 1.0)
    square = x * x + y * y
    scale, by_s, by_ss = arctan_ratio(square, z, order)
    inverse = (square + z * z).reciprocal()
    by_z = -inverse
    if order < 2:
        return Rays(x, y, valid, scale, by_z, by_s=by_s)
    by_sz = inverse * inverse
    return Rays(x, y, valid, scale, by_z, 2 * z * by_sz, by_s, by_ss, by_sz)


def division(points_cam: Float[Tensor, "*batch N 3"], k: Float[Tensor, "*batch 1"], order: int) -> Rays:
    """``m = (x, y) 2 / (z + D)``, ``D = sqrt(z^2 - 4 k rho^2)``: the inverse of ``(m, 1 + k |m|^2)``.

    A solves ``k rho^2 A^2 - z A + 1 = 0``, and its derivatives follow from that. Images points with z > 0 and D > 0,
    and for k < 0 those beside and behind the camera, too.
    """
    x, y, z = points_cam.unbind(-1)
    with torch.no_grad():
        square = x * x + y * y
        disc, tiny = z * z - 4 * k * square, torch.finfo(z.dtype).tiny ** 0.5
        # the rays of the rim, |m| = MAX_RADIUS, have z / rho = (1 + k |m|^2) / |m|
        within = MAX_RADIUS * z > (1 + k * MAX_RADIUS**2) * square.sqrt()
        valid = torch.where(k > 0, disc > 1e-12 * z * z, within & (disc > tiny)) & disc.isfinite()
        valid = valid & ((z > tiny) | ((k < 0) & (square > 0)))
    x, y, z = torch.where(valid, x, 0.0), torch.where(valid, y, 0.0), torch.where(valid, z, 1.0)
    square = x * x + y * y
    root = (z * z - 4 * k * square).sqrt()
    # behind the camera z + D cancels, and there k < 0 and rho > 0
    behind = z < 0
    front_scale = 2 / torch.where(behind, 1.0, z + root)
    scale = torch.where(behind, (z - root) / torch.where(behind, 2 * k * square, 1.0), front_scale)
    inverse = root.reciprocal()
    by_z, by_s = -scale * inverse, k * scale * scale * inverse
    if order < 2:
        return Rays(x, y, valid, scale, by_z, by_s=by_s)
    bend = z * inverse**3
    by_zz = scale * (inverse * inverse + bend)
    by_sz = -k * scale * scale * (2 * inverse * inverse + bend)
    by_ss = 2 * k * by_s * scale * inverse + 2 * (k * scale) ** 2 * inverse**3
    return Rays(x, y, valid, scale, by_z, by_zz, by_s, by_ss, by_sz)


def perspective_direction(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vector along ``(a, b, 1)``."""
    inverse = (1 + a * a + b * b).rsqrt()
    return a * inverse, b * inverse, inverse


def equidistant_direction(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vector at the angle ``|(a, b)|`` from the axis."""
    sinc, cosine = sine_and_cosine(a * a + b * b)
    return a * sinc, b * sinc, cosine


def division_direction(a: Tensor, b: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vector along ``(a, b, 1 + k (a^2 + b^2))``."""
    square = a * a + b * b
    z = 1 + k * square
    inverse = (square + z * z).rsqrt()
    return a * inverse, b * inverse, z * inverse
