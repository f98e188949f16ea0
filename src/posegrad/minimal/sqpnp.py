"""Object-space PnP: all good minima of SQPnP's cost, from many starts on SO(3)."""

import functools
import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.pose import Pose


class _Form(NamedTuple):
    """``cost(R) = r^T omega r`` with r = vec(R) row by row, and the best ``t(R) = -shift r``."""

    omega: Float[Tensor, "B 9 9"]
    shift: Float[Tensor, "B 3 9"]


def sqpnp(
    bearings: Float[Tensor, "B N 3"],
    points3d: Float[Tensor, "B N 3"],
    weights: Float[Tensor, "B N"],
    num_candidates: int = 4,
) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """Poses that minimise the object-space error, best first.

    ``min_(R, t) sum_i w_i |(I - v_i v_i^T) (R z_i + t)|^2`` over rotations: t is eliminated, which leaves a
    quadratic form of the nine entries of R (Terzakis & Lourakis, "A Consistently Fast and Globally Optimal
    Solution to the PnP Problem", ECCV 2020). Where they run sequential quadratic programming from the form's
    eigenvectors, this descends by damped Newton steps on SO(3) from the 24 rotations of the cube; the cost of that
    does not depend on N. Planar and general sets need no distinction: a plane's two mirror poses are two minima.

    Args:
        bearings: unit viewing rays (B, N, 3); any direction, also behind 90 degrees.
        points3d: centred and scaled to RMS radius 1, at least 4 with positive weight. A leading 1 is shared.
        weights: >= 0; scale does not matter.
        num_candidates: how many distinct minima (more than 5 degrees apart) to return.

    Returns:
        Poses (B, C, ...) and (B, C) valid: a distinct minimum, finite, with the points in front on the whole.
    """
    form = _quadratic_form(bearings, points3d, weights)
    starts = bearings.new_tensor(_cube_rotations()).expand(bearings.shape[0], -1, 3, 3)
    R, cost = _descend(form.omega, starts, steps=4)
    R, cost, _ = _distinct(R, cost, 3 * num_candidates, degrees=1.0)
    R, cost = _descend(form.omega, R, steps=8)
    # a plane's poses come in pairs, one of each behind the camera: look where the centroid, the origin, is
    centroid_ray = (weights[..., None] * bearings).sum(-2)
    in_front = (_translation(form, R) * centroid_ray[:, None]).sum(-1) > 0
    R, _, valid = _distinct(R, torch.where(in_front, cost, torch.inf), num_candidates, degrees=5.0)
    R = so3.normalise(R)
    t = _translation(form, R)
    return Pose(R, t), valid & R.isfinite().all(-1).all(-1) & t.isfinite().all(-1)


def _quadratic_form(bearings: Tensor, points3d: Tensor, weights: Tensor) -> _Form:
    batch = bearings.shape[0]
    eye = torch.eye(3, dtype=bearings.dtype, device=bearings.device)
    V = eye - bearings[..., :, None] * bearings[..., None, :]
    weighted = (weights / weights.sum(-1, keepdim=True).clamp(min=1e-300))[..., None] * V.flatten(
        -2
    )  # (B, N, 9)
    Q = weighted.sum(-2).unflatten(-1, (3, 3))
    # row j, column (k, l) of sum_i w V_jk z_l: the gradient of the linear term
    T = (weighted.mT @ points3d).reshape(batch, 3, 9)
    zz = (points3d[..., :, None] * points3d[..., None, :]).flatten(-2)
    M = (weighted.mT @ zz).view(batch, 3, 3, 3, 3).transpose(2, 3).reshape(batch, 9, 9)
    shift = torch.linalg.solve_ex(Q, T)[0]
    omega = M - T.mT @ shift
    return _Form(0.5 * (omega + omega.mT), shift)


def _translation(form: _Form, R: Tensor) -> Tensor:
    return -(form.shift[:, None] @ R.flatten(-2)[..., None]).squeeze(-1)


@functools.cache
def _cube_rotations() -> list[list[list[float]]]:
    """The 24 rotations of the cube: every rotation is within 63 degrees of one."""
    rotations = []
    for columns in itertools.permutations(range(3)):
        parity = 1 if columns in ((0, 1, 2), (1, 2, 0), (2, 0, 1)) else -1
        for signs in itertools.product((1.0, -1.0), repeat=3):
            if math.prod(signs) == parity:
                rotations.append([[signs[i] * (j == columns[i]) for j in range(3)] for i in range(3)])
    return rotations


def _descend(omega: Tensor, R: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Damped Newton steps of ``r^T omega r`` on SO(3), for (B, M) rotations."""
    generators = so3.hat(torch.eye(3, dtype=R.dtype, device=R.device))
    eye = generators.new_ones(3).diag()
    scale = omega.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None]
    damping = 1e-4 * scale.expand(R.shape[:2])

    def product(R: Tensor) -> tuple[Tensor, Tensor]:
        r = R.flatten(-2)
        y = r @ omega
        return y, (y * r).sum(-1)

    y, cost = product(R)
    for _ in range(steps):
        D = (generators @ R[..., None, :, :]).flatten(-2)  # (B, M, 3, 9)
        gradient = (D @ y[..., None]).squeeze(-1)
        P = y.unflatten(-1, (3, 3)) @ R.mT
        curvature = 0.5 * (P + P.mT) - P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye
        positive_part = (D.flatten(1, 2) @ omega).view_as(D) @ D.mT
        delta = _damped_newton(positive_part, curvature, gradient, damping, eye)
        trial = so3.cayley(delta) @ R
        trial_y, trial_cost = product(trial)
        better = trial_cost <= cost
        R = torch.where(better[..., None, None], trial, R)
        y = torch.where(better[..., None], trial_y, y)
        cost = torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping * 0.1, damping * 8)
    return R, cost


def _damped_newton(A: Tensor, curvature: Tensor, gradient: Tensor, damping: Tensor, eye: Tensor) -> Tensor:
    """Newton's step where its matrix is positive definite, Gauss-Newton's elsewhere; both damped."""
    ridge = damping[..., None, None] * eye
    newton = A + curvature + ridge
    inverse, minors = _adjugate(newton)
    positive = (minors > 0).all(-1)
    fallback, fallback_minors = _adjugate(A + ridge + 1e-2 * ridge)
    adjugate = torch.where(positive[..., None, None], inverse, fallback)
    determinant = torch.where(positive, minors[..., 2], fallback_minors[..., 2]).clamp(min=1e-300)
    step = -(adjugate @ gradient[..., None]).squeeze(-1) / determinant[..., None]
    length = step.square().sum(-1, keepdim=True).sqrt()
    return step * (1.0 / length.clamp(min=1.0))  # at most a radian


def _adjugate(H: Tensor) -> tuple[Tensor, Tensor]:
    """Adjugate (..., 3, 3) and leading principal minors (..., 3) of symmetric matrices."""
    a, b, c = H[..., 0, 0], H[..., 0, 1], H[..., 0, 2]
    d, e, f = H[..., 1, 1], H[..., 1, 2], H[..., 2, 2]
    A, B, C = d * f - e * e, c * e - b * f, b * e - c * d
    D, E, F = a * f - c * c, b * c - a * e, a * d - b * b
    adjugate = torch.stack([A, B, C, B, D, E, C, E, F], -1).unflatten(-1, (3, 3))
    return adjugate, torch.stack([a, F, a * A + b * B + c * C], -1)


def _distinct(R: Tensor, cost: Tensor, count: int, degrees: float) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` best rotations, no two closer than the angle: (B, count, 3, 3), costs, found."""
    cost = torch.where(cost.isfinite(), cost, torch.inf)
    limit = 1 + 2 * torch.cos(torch.deg2rad(cost.new_tensor(degrees)))  # trace of a rotation by the angle
    flat = R.flatten(-2)
    left, chosen, found = cost, [], []
    for _ in range(min(count, R.shape[1])):
        best = left.argmin(-1, keepdim=True)
        found.append(left.gather(1, best).squeeze(-1).isfinite())
        chosen.append(best)
        reference = flat.gather(1, best[..., None].expand(-1, -1, 9))
        near = (flat * reference).sum(-1) > limit
        left = torch.where(near, torch.inf, left)
    index = torch.cat(chosen, 1)
    R = flat.gather(1, index[..., None].expand(-1, -1, 9)).unflatten(-1, (3, 3))
    return R, cost.gather(1, index), torch.stack(found, 1)
