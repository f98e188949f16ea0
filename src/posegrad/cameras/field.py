"""Where a radial profile is one-to-one, and its inverse there; constants of the computation, without gradients."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.cameras.profiles import Profile

# The radius is sampled uniformly in r / (1 + r), which is fine where lenses are and reaches far.
_SAMPLES, _ROUNDS = 128, 3
_TABLE, _RADIAL_STEPS, _PLANE_STEPS = 64, 4, 16


def fold(
    profile: Profile,
    coefficients: tuple[Tensor, ...],
    tangential: tuple[Tensor, Tensor] | None,
    largest: float,
    denominator: Callable[..., Tensor] | None = None,
) -> Float[Tensor, "*batch 1"]:
    """Squared radius of the largest disc where the derivative of the distortion is positive definite.

    Being symmetric, it is the second derivative of a potential, which is strictly convex on that disc; so the
    distortion is one-to-one there. Without tangential terms the disc ends at the first fold or pole of
    ``r g(r^2)``; with them, where the first direction folds.

    By repeated sampling, so the answer is short of the fold by a millionth. Folds between two samples are found where
    a parabola through both dips below zero.

    Args:
        profile: see :mod:`posegrad.cameras.profiles`.
        coefficients: of the profile, each (..., 1).
        tangential: p1 and p2, each (..., 1), or None.
        largest: radius at which the lens ends.
        denominator: of the profile, if it has poles: one beside a zero would be overlooked.
    """
    with torch.no_grad():
        coefficients = tuple(c.detach() for c in coefficients)
        p = None if tangential is None else torch.hypot(tangential[0].detach(), tangential[1].detach())
        like = (*coefficients, *(tangential or ()))[0].detach()
        steps = torch.arange(_SAMPLES + 1, dtype=like.dtype, device=like.device)
        low = torch.zeros_like(like)
        width = torch.full_like(like, largest / (1 + largest))
        for level in range(_ROUNDS):
            t = low + width * (steps / _SAMPLES)
            r = t / (1 - t)
            s = r * r
            g, g1, g2 = profile(s, *coefficients)
            radial, across = g + 2 * s * g1, g + 0 * s
            slope = 2 * r * (3 * g1 + 2 * s * g2)
            if p is None:
                # beyond a pole g is negative, while the radial derivative is not
                positive = (radial > 0) & (across > 0)
            else:
                positive = _positive_definite(radial, across, p * r)
                radial, slope = radial - 6 * p * r, slope - 6 * p
            if level == 0:
                dips = _dips(radial, slope * (width / _SAMPLES) / (1 - t).square())
                positive = positive & ~torch.nn.functional.pad(dips, (1, 0))
            if denominator is not None:
                positive = positive & (denominator(s, *coefficients) > 0)
            count = positive.cumprod(-1).sum(-1, keepdim=True)
            low = low + width * ((count - 1).clamp(min=0) / _SAMPLES)
            found = (count > 0) & (count <= _SAMPLES)
            width = torch.where(found, width / _SAMPLES, torch.zeros_like(width))
        return (low / (1 - low)).square().clamp(max=whole(largest, like.dtype))


def _dips(value: Tensor, slope: Tensor) -> Tensor:
    """Whether a function dips below zero between samples; slopes are per cell."""
    left, right = slope[..., :-1], slope[..., 1:]
    dip = (left < 0) & (right > 0)
    part = left / torch.where(dip, left - right, 1.0)
    lowest = 0.5 * (value[..., :-1] + value[..., 1:]) + 0.25 * (left * part - right * (1 - part))
    return dip & (lowest < 0)


def _positive_definite(radial: Tensor, across: Tensor, x: Tensor) -> Tensor:
    """Whether the derivative of the distortion is that in every direction from the centre.

    In the basis (along m, across m) it is ``[[radial + 6 x c, 2 x s], [2 x s, across + 2 x c]]`` with ``x = |p| |m|``
    and c, s the cosine and sine of the angle between m and (p2, p1): a determinant quadratic in c.
    """
    c = (-(radial + 3 * across) / (16 * x)).clamp(min=-1)  # the worst; -1 where x is 0
    worst = (radial + 6 * x * c) * (across + 2 * x * c) - 4 * x * x * (1 - c * c)
    return (radial > 6 * x) & (across > 2 * x) & (worst > 0)


def whole(largest: float, dtype: torch.dtype) -> float:
    """Squared radius of a field without a fold: that of the lens, less its rounding."""
    return largest**2 * (1 - 16 * torch.finfo(dtype).eps)


def inverse_radius(
    profile: Profile,
    coefficients: tuple[Tensor, ...],
    limit: Float[Tensor, "*batch 1"],
    radius: Float[Tensor, "*batch N"],
) -> Float[Tensor, "*batch N"]:
    """r in the field with ``r g(r^2) = radius``; its end where there is none.

    A table of the profile brackets r; steps of Euler's method, which solve the local parabola and so converge as fast
    at a fold, do the rest.
    """
    end = limit.sqrt()
    end = end / (1 + end)
    grid = torch.arange(_TABLE + 1, dtype=limit.dtype, device=limit.device) / _TABLE
    r = end * grid
    r = r / (1 - r)
    value = r * (profile(r * r, *coefficients)[0] + 0 * r)
    batch = torch.broadcast_shapes(value.shape[:-1], radius.shape[:-1])
    table = (value / (1 + value)).expand(*batch, -1).contiguous()
    wanted = (radius / (1 + radius)).expand(*batch, -1).contiguous()
    index = torch.searchsorted(table, wanted).clamp(1, _TABLE)
    below, above = table.gather(-1, index - 1), table.gather(-1, index)
    part = ((wanted - below) / (above - below).clamp(min=torch.finfo(value.dtype).tiny)).clamp(0, 1)
    low, high = end * ((index - 1) / _TABLE), end * (index / _TABLE)
    t = low + part * (high - low)
    low, high, r = low / (1 - low), high / (1 - high), t / (1 - t)
    for _ in range(_RADIAL_STEPS):
        s = r * r
        g, g1, g2 = profile(s, *coefficients)
        residual = r * g - radius
        slope, bend = g + 2 * s * g1, r * (6 * g1 + 4 * s * g2)
        root = (slope * slope - 2 * residual * bend).clamp(min=0).sqrt()
        denominator = slope + root
        step = -2 * residual / torch.where(denominator > 0, denominator, 1.0)
        r = torch.minimum(torch.maximum(r + step, low), high)
    return r


class Step(NamedTuple):
    """What Newton's method knows of d at m: residual and step (2, ..., N), the determinant of D, and whether to go on.

    ``inside``: m is in the field and D positive definite there, which it is but for a fold that was overlooked.
    """

    residual: Tensor
    step: Tensor
    determinant: Tensor
    inside: Tensor


def newton(
    profile: Profile,
    coefficients: tuple[Tensor, ...],
    q: Tensor | None,
    limit: Float[Tensor, "*batch 1"],
    m: Float[Tensor, "2 *batch N"],
    target: Float[Tensor, "2 *batch N"],
) -> Step:
    """Residual ``d(m) - target`` and Newton's step; the step is not finite where D is singular. ``q = (p2, p1)``.

    The formulas of :mod:`posegrad.cameras.plane` with both components in one tensor, at half the operations.
    """
    s = (m * m).sum(0)
    g, g1, _ = profile(s, *coefficients)
    h, n, bent = g, g1 * m, 0.0
    if q is not None:
        h = g + 2 * (q * m).sum(0)
        n, bent = n + 2 * q, q * s
    residual = m * h + bent - target
    diagonal = h + 2 * n * m
    cross = n * m.flip(0)
    cross = cross[0] + cross[1]
    aa, bb = diagonal.unbind()
    determinant = aa * bb - cross * cross
    step = (cross * residual.flip(0) - diagonal.flip(0) * residual) / determinant
    return Step(residual, step, determinant, (s < limit) & (determinant > 0) & (aa + bb > 0))


def inverse_plane(
    profile: Profile,
    coefficients: tuple[Tensor, ...],
    q: Tensor | None,
    limit: Float[Tensor, "*batch 1"],
    target: Float[Tensor, "2 *batch N"],
) -> Float[Tensor, "2 *batch N"]:
    """m in the field with ``d(m) = target``, or a point near it where there is none.

    Radial: along the ray. Else Newton's method from there; a step is halved as long as it leaves the field or does
    not lower the residual. That ends at the solution: the potential of d is strictly convex.
    """
    radius = (target * target).sum(0).sqrt()
    ratio = inverse_radius(profile, coefficients, limit, radius) / torch.where(radius > 0, radius, 1.0)
    if q is None:
        return target * ratio
    m, step = torch.zeros_like(target), target * ratio
    best = torch.full_like(radius, torch.inf)
    length = torch.ones_like(radius)
    for _ in range(_PLANE_STEPS):
        trial = m + length * step
        at = newton(profile, coefficients, q, limit, trial, target)
        square = (at.residual * at.residual).sum(0)
        accepted = at.inside & (square <= best)
        m, step = torch.where(accepted, trial, m), torch.where(accepted, at.step, step)
        best = torch.where(accepted, square, best)
        length = torch.where(accepted, 1.0, 0.5 * length)
    return m
