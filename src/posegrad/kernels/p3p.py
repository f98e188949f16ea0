"""The poses that fit three points, as :func:`posegrad.minimal.p3p.p3p` with ``nearest``: see there for the method."""

import math
from typing import Any

import numpy as np
from numba import types

from posegrad.kernels import jit
from posegrad.kernels.conics import (
    ADJUGATE,
    AXES,
    E1,
    E2,
    MEMBER,
    NUM_CONICS,
    POINTS,
    across,
    adjugate,
    combine,
    common_points,
    cross,
    dot,
    normalise,
    put,
    row,
    unit,
)
from posegrad.kernels.jit import doubles, helper, inlined
from posegrad.kernels.passes import BEARING, POINT, STRENGTH
from posegrad.kernels.solver import NUM_CANDIDATE

NUM_FITS = 4
_POLISH_STEPS, _TINY, _ROOT_TINY, _HALF = 3, 2.2250738585072014e-308, 1.4916681462400413e-154, math.sqrt(0.5)
# Places: triangle and rays, vertex by vertex; squared sides of both; their forms; two conics; frames of the triangle
# and of its image; half a Jacobian.
_Z, _V, _SIDES, _RAY_SIDES, _FORMS, _CONICS, _FRAME, _CAMERA_FRAME, _SLOPES, _NUM = (
    NUM_CONICS + k for k in (0, 9, 18, 21, 24, 51, 69, 78, 87, 96)
)


@helper
def load_triangle(n, rows_at, pitch):
    """The triangle from its longest side on, its rays; whether each pixel has one."""
    strength = doubles(rows_at + 8 * STRENGTH * pitch)
    points, rays = doubles(rows_at + 8 * POINT * pitch), doubles(rows_at + 8 * BEARING * pitch)
    longest, first = -1.0, 0
    for i in range(3):
        side = 0.0
        for k in range(3):
            d = points[k * pitch + i] - points[k * pitch + (i + 1) % 3]
            side += d * d
        if side > longest:
            longest, first = side, i
    for i in range(3):
        for k in range(3):
            n[_Z + 3 * i + k] = points[k * pitch + (first + i) % 3]
            n[_V + 3 * i + k] = rays[k * pitch + (first + i) % 3]
    return strength[0] > 0.0 and strength[1] > 0.0 and strength[2] > 0.0


@helper
def side_forms(n):
    """Squared sides, the first of them 1, and their forms of the unknowns; the first side and the unknowns' scale."""
    size, mean = 1.0, 0.0
    for k in range(3):
        i, j, side, e = 3 * k, 3 * ((k + 1) % 3), 0.0, 0.0
        for m in range(3):
            d, w = n[_Z + i + m] - n[_Z + j + m], n[_V + i + m] - n[_V + j + m]
            side += d * d
            e += w * w
        n[_SIDES + k] = side
        n[_RAY_SIDES + k] = e
        mean += e / 3.0
    size = max(n[_SIDES], _TINY)
    s = 1.0 / math.sqrt(max(mean, _TINY))
    for k in range(3):
        n[_SIDES + k] /= size
        # the distances of the side's ends as combinations of the unknowns, and their difference
        a0, a1 = 1.0 if k == 0 else 0.0, 1.0 if k == 2 else 0.0
        b0, b1 = 1.0 if k == 2 else 0.0, 1.0 if k == 1 else 0.0
        d0, d1, e, at = a0 - b0, a1 - b1, n[_RAY_SIDES + k], _FORMS + 9 * k
        n[at] = d0 * d0 + e * a0 * b0
        n[at + 4] = d1 * d1 + e * a1 * b1
        n[at + 8] = e * s * s
        n[at + 1] = n[at + 3] = d0 * d1 + 0.5 * e * (a0 * b1 + a1 * b0)
        n[at + 2] = n[at + 6] = 0.5 * e * s * (a0 + b0)
        n[at + 5] = n[at + 7] = 0.5 * e * s * (a1 + b1)
    return math.sqrt(size), s


@helper
def pencil(n):
    """Two conics without a constant term, E2 far from singular: the best of four members of their pencil."""
    across(n, _SIDES, AXES)
    for i in range(2):
        for k in range(9):
            total = 0.0
            for j in range(3):
                total += n[AXES + 3 * i + j] * n[_FORMS + 9 * j + k]
            n[_CONICS + 9 * i + k] = total
        normalise(n, _CONICS + 9 * i)
    best, cosine, sine = -1.0, 1.0, 0.0
    for k in range(4):
        c = 1.0 if k == 0 else _HALF if k == 1 else 0.0 if k == 2 else -_HALF
        s = 0.0 if k == 0 else 1.0 if k == 2 else _HALF
        combine(n, MEMBER, c, _CONICS, s, _CONICS + 9)
        determinant = abs(adjugate(n, MEMBER, ADJUGATE))
        if determinant > best:
            best, cosine, sine = determinant, c, s
    combine(n, E1, sine, _CONICS, -cosine, _CONICS + 9)
    combine(n, E2, cosine, _CONICS, sine, _CONICS + 9)


@helper
def errors(n, x):
    """Half the Jacobian of the sides at the unknowns, to SLOPES; and what the sides are off."""
    for k in range(3):
        for i in range(3):
            n[_SLOPES + 3 * k + i] = dot(row(n, _FORMS + 9 * k + 3 * i), x)
    return (
        dot(row(n, _SLOPES), x) - n[_SIDES],
        dot(row(n, _SLOPES + 3), x) - n[_SIDES + 1],
        dot(row(n, _SLOPES + 6), x) - n[_SIDES + 2],
    )


@inlined
def largest_of(e):
    """The largest magnitude."""
    return max(max(abs(e[0]), abs(e[1])), abs(e[2]))


@helper
def polished(n, x):
    """Newton steps on the sides, as long as they help."""
    e = errors(n, x)
    for _ in range(_POLISH_STEPS):
        determinant = adjugate(n, _SLOPES, ADJUGATE)
        f = 0.5 / (1.0 if determinant == 0.0 else determinant)
        a, b, c = row(n, ADJUGATE), row(n, ADJUGATE + 3), row(n, ADJUGATE + 6)
        trial = (
            x[0] - f * (a[0] * e[0] + b[0] * e[1] + c[0] * e[2]),
            x[1] - f * (a[1] * e[0] + b[1] * e[1] + c[1] * e[2]),
            x[2] - f * (a[2] * e[0] + b[2] * e[1] + c[2] * e[2]),
        )
        trial_e = errors(n, trial)
        if not largest_of(trial_e) < largest_of(e):
            break
        x, e = trial, trial_e
    return x


@helper
def frame(n, a, b, c, target):
    """Orthonormal axes of a triangle, one a row: along the first side, across it in the plane, along the normal."""
    side, other = (b[0] - a[0], b[1] - a[1], b[2] - a[2]), (c[0] - a[0], c[1] - a[1], c[2] - a[2])
    x = unit(side, _ROOT_TINY)
    z = cross(x, other)
    f = dot(z, x)  # rounding, where the triangle is thin
    z = unit((z[0] - f * x[0], z[1] - f * x[1], z[2] - f * x[2]), _ROOT_TINY)
    put(n, target, x)
    put(n, target + 3, cross(z, x))
    put(n, target + 6, z)


@helper
def place(n, x, size, s, pose):
    """The pose that the unknowns stand for; whether it is one with all points ahead on their rays."""
    every = 0.0
    for k in range(3):
        at = _FORMS + 9 * k
        form = dot(row(n, at), x), dot(row(n, at + 3), x), dot(row(n, at + 6), x)
        every += dot(form, x)  # > 0: a sum of squared sides
    f = math.sqrt((n[_SIDES] + n[_SIDES + 1] + n[_SIDES + 2]) / max(every, _TINY))
    f = -f if x[0] + x[1] + 3.0 * s * x[2] < 0.0 else f
    x = polished(n, (f * x[0], f * x[1], f * x[2]))
    d0, d1, d2 = size * (x[0] + s * x[2]), size * s * x[2], size * (x[1] + s * x[2])
    v = n[_V] * d0, n[_V + 1] * d0, n[_V + 2] * d0
    w = n[_V + 3] * d1, n[_V + 4] * d1, n[_V + 5] * d1
    y = n[_V + 6] * d2, n[_V + 7] * d2, n[_V + 8] * d2
    frame(n, v, w, y, _CAMERA_FRAME)
    square = 0.0
    for i in range(3):
        centre = (v[i] + w[i] + y[i]) / 3.0
        for j in range(3):
            r = 0.0
            for k in range(3):
                r += n[_CAMERA_FRAME + 3 * k + i] * n[_FRAME + 3 * k + j]
            pose[3 * i + j] = r
            square += r * r
            centre -= r * (n[_Z + j] + n[_Z + 3 + j] + n[_Z + 6 + j]) / 3.0
        pose[9 + i] = centre
    finite = abs(pose[9]) + abs(pose[10]) + abs(pose[11]) < math.inf
    return d0 > 0.0 and d1 > 0.0 and d2 > 0.0 and abs(square - 3.0) < 0.1 and finite


SIGNATURE = types.int64(*[types.int64] * 3)
#: ``(address, (rows, pitch, candidates))``
p3p = jit.calling(SIGNATURE)


def compile_p3p() -> Any:
    """Candidates that fit the first three points in rows, with their rays; how many there are."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def fitted(rows_at, pitch, candidates_at):
        _ = source
        numbers = np.empty(_NUM)
        n = doubles(numbers.ctypes.data)
        found = 0
        if load_triangle(n, rows_at, pitch):
            size, s = side_forms(n)
            frame(n, row(n, _Z), row(n, _Z + 3), row(n, _Z + 6), _FRAME)
            pencil(n)
            common_points(n)
            for k in range(NUM_FITS):
                pose = doubles(candidates_at + 8 * NUM_CANDIDATE * found)
                found += 1 if place(n, row(n, POINTS + 3 * k), size, s, pose) else 0
        numbers[0] = 0.0  # so long it is in use
        return found

    return fitted
