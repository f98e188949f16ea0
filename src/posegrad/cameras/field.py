"""Where a radial profile is one-to-one, and its inverse there; constants of the computation, without gradients."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.cameras.plane import distortion
from posegrad.cameras.profiles import Profile

# The radius is sampled uniformly in r / (1 + r), which is fine where lenses are and reaches far.
_SAMPLES, _ROUNDS = 128, 3
_TABLE, _RADIAL_STEPS, _PLANE_STEPS = 64, 5, 16


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

    By repeated sampling, so the answer is short of the fold by a millionth. A fold that ends between two of 128
    samples is overlooked.

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
        like = coefficients[0]
        steps = torch.arange(_SAMPLES + 1, dtype=like.dtype, device=like.device)
        low = torch.zeros_like(like)
        width = torch.full_like(like, largest / (1 + largest))
        for _ in range(_ROUNDS):
            t = low + width * (steps / _SAMPLES)
            r = t / (1 - t)
            s = r * r
            g, g1, _ = profile(s, *coefficients)
            # beyond a pole g is negative, while the radial derivative is not
            positive = _positive_definite(g + 2 * s * g1, g + 0 * s, None if p is None else p * r)
            if denominator is not None:
                positive = positive & (denominator(s, *coefficients) > 0)
            count = positive.cumprod(-1).sum(-1, keepdim=True)
            low = low + width * ((count - 1).clamp(min=0) / _SAMPLES)
            found = (count > 0) & (count <= _SAMPLES)
            width = torch.where(found, width / _SAMPLES, torch.zeros_like(width))
        return (low / (1 - low)).square().clamp(max=whole(largest, like.dtype))


def _positive_definite(radial: Tensor, across: Tensor, x: Tensor | None) -> Tensor:
    """Whether the derivative of the distortion is that in every direction from the centre.

    In the basis (along m, across m) it is ``[[radial + 6 x c, 2 x s], [2 x s, across + 2 x c]]`` with ``x = |p| |m|``
    and c, s the cosine and sine of the angle between m and (p2, p1): a determinant quadratic in c.
    """
    if x is None:
        return (radial > 0) & (across > 0)
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


def inverse_plane(
    profile: Profile,
    coefficients: tuple[Tensor, ...],
    tangential: tuple[Tensor, Tensor] | None,
    limit: Float[Tensor, "*batch 1"],
    a: Float[Tensor, "*batch N"],
    b: Float[Tensor, "*batch N"],
) -> tuple[Tensor, Tensor]:
    """m in the field with ``d(m) = (a, b)``, or a point near it where there is none.

    Radial: along the ray. Else Newton's method from there; a step is halved as long as it leaves the field, passes
    a fold or does not lower the residual.
    """
    radius = (a * a + b * b).sqrt()
    ratio = inverse_radius(profile, coefficients, limit, radius) / torch.where(radius > 0, radius, 1.0)
    if tangential is None:
        return a * ratio, b * ratio
    at_a, at_b = torch.zeros_like(a * ratio), torch.zeros_like(b * ratio)
    step_a, step_b = a * ratio, b * ratio
    best = at_a + torch.inf
    length = torch.ones_like(at_a)
    for _ in range(_PLANE_STEPS):
        trial_a, trial_b = at_a + length * step_a, at_b + length * step_b
        d, determinant, inside = evaluate(profile, coefficients, tangential, limit, trial_a, trial_b)
        ra, rb = d.u - a, d.v - b
        square = ra * ra + rb * rb
        accepted = inside & (square <= best)
        at_a, at_b = torch.where(accepted, trial_a, at_a), torch.where(accepted, trial_b, at_b)
        best = torch.where(accepted, square, best)
        inverse = 1 / torch.where(accepted, determinant, 1.0)
        step_a = torch.where(accepted, (d.ab * rb - d.bb * ra) * inverse, step_a)
        step_b = torch.where(accepted, (d.ab * ra - d.aa * rb) * inverse, step_b)
        length = torch.where(accepted, 1.0, 0.5 * length)
    return at_a, at_b


def evaluate(
    profile: Profile,
    coefficients: tuple[Tensor, ...],
    tangential: tuple[Tensor, Tensor] | None,
    limit: Tensor,
    a: Tensor,
    b: Tensor,
) -> tuple[Any, Tensor, Tensor]:
    """The distortion at (a, b), the determinant of its derivative, and whether (a, b) is in the field.

    The determinant is positive there, but for a fold that was overlooked.
    """
    s = a * a + b * b
    g, g1, _ = profile(s, *coefficients)
    d = distortion(a, b, g, g1, tangential)
    determinant = d.aa * d.bb - d.ab * d.ab
    return d, determinant, (s < limit) & (determinant > 0) & (d.aa + d.bb > 0)
