"""Object-space PnP: all good minima of SQPnP's cost, from many starts on SO(3).

1. The error is ``r^T omega r`` with r = vec(R), and the best t a linear map of r: see ``object_space.py``.
2. From each of the 24 rotations of the cube, damped Newton steps: with the Hessian where it is positive definite, with
   its positive part elsewhere; a step that does not lower the cost is not taken, and the damping grows.
3. Of the results with the centroid in front: the best, then the best that is more than 5 degrees away, and so on.
"""

import functools
import itertools

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.minimal.candidates import check_arguments, checked
from posegrad.minimal.object_space import ObjectSpace
from posegrad.optim.settings import check_count
from posegrad.pose import Pose

_STEPS = 12


def sqpnp(
    bearings: Float[Tensor, "B N 3"],
    points3d: Float[Tensor, "#B N 3"],
    weights: Float[Tensor, "B N"],
    num_candidates: int = 4,
    *,
    by_angle: bool = False,
) -> tuple[Pose, Bool[Tensor, "B C"]]:
    """Poses that minimise the object-space error, best first.

    ``min_(R, t) sum_i w_i |(I - v_i v_i^T) (R z_i + t)|^2`` over rotations: t is eliminated, which leaves a
    quadratic form of the nine entries of R (Terzakis & Lourakis, "A Consistently Fast and Globally Optimal
    Solution to the PnP Problem", ECCV 2020). Where they run sequential quadratic programming from the form's
    eigenvectors, this descends by damped Newton steps on SO(3) from the 24 rotations of the cube; the cost of that
    does not depend on N. Planar and general sets need no distinction: a plane's two mirror poses are two minima.
    Precondition: the points are not collinear; at least 4 for one best minimum (with 3 up to four of them are zero).

    Distances in space are small for what is near. Noise that is not small against the object's width so draws the
    minima to the camera, or turns the object's narrow side to it. ``by_angle`` divides the error by the squared
    distance of the centroid, which is linear in R, too: nearly what the image shows, at twice the work.

    Args:
        bearings: unit viewing rays (B, N, 3); any direction, also behind 90 degrees.
        points3d: (B, N, 3) about their centroid, in units of their RMS radius or another number near it. A leading 1
            is shared.
        weights: (B, N) >= 0; scale does not matter.
        num_candidates: how many distinct minima (more than 5 degrees apart) to return, C.
        by_angle: minimise the error over the squared distance.

    Returns:
        Poses (B, C, ...) and (B, C) valid: a distinct minimum, with the points in front on the whole. Minima are exact
        to the root of the dtype's rounding. Poses that are not valid are the identity, one unit ahead.

    >>> z = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]]], dtype=torch.float64)
    >>> y = z + torch.tensor([0.5, 0.3, 6.0])
    >>> pose, valid = sqpnp(y / y.norm(dim=-1, keepdim=True), z, torch.ones(1, 4, dtype=torch.float64))
    >>> bool((pose.R[0, 0] - torch.eye(3)).abs().max() < 1e-6)
    True
    """
    check_arguments(bearings, points3d, weights)
    check_count("num_candidates", num_candidates)
    form = ObjectSpace.of(bearings, points3d, weights)
    starts = bearings.new_tensor(_cube_quaternions()).mT.expand(bearings.shape[0], 4, -1)
    centroid_ray = (weights[..., None] * bearings).sum(-2)
    depth = centroid_ray[:, None] @ form.shift  # minus the centroid's, as a linear form of R
    rows = _Rows(form.omega)
    q, cost = _descend(_QuotientRows(rows, _Rows(depth.mT @ depth)) if by_angle else rows, starts)
    # a plane's poses come in pairs, one of each behind the camera
    r = _constant(_rotation_of_products(), q) @ _quaternion_products(q)
    in_front = (depth @ r).squeeze(1) < 0
    q, valid = _distinct(q, torch.where(in_front, cost, torch.inf), num_candidates, degrees=5.0)
    R = so3.matrix_from_quat_wxyz(q.mT)
    return checked(Pose(R, form.translation(R)), valid)


# The monomials of degree 2 and 4 of a quaternion, by the indices of their factors.
_PAIRS = tuple(itertools.combinations_with_replacement(range(4), 2))
_QUARTICS = tuple(itertools.combinations_with_replacement(range(4), 4))


@functools.cache
def _cube_quaternions() -> list[list[float]]:
    """The 24 rotations of the cube: every rotation is within 63 degrees of one."""
    half = [list(signs) for signs in itertools.product((1.0,), (1.0, -1.0), (1.0, -1.0), (1.0, -1.0))]
    axes = [[float(i == j) for j in range(4)] for i in range(4)]
    edges = [
        [float(i == j) + sign * (i == k) for i in range(4)]
        for j, k in itertools.combinations(range(4), 2)
        for sign in (1.0, -1.0)
    ]
    return [[x / sum(y * y for y in q) ** 0.5 for x in q] for q in axes + half + edges]


@functools.cache
def _rotation_of_products() -> np.ndarray:
    """(9, 10): the rotation, row by row, of a unit quaternion (w, x, y, z) as a linear map of its products."""
    names = [a + b for a, b in itertools.combinations_with_replacement("wxyz", 2)]
    rows = [
        {"ww": 1, "xx": 1, "yy": -1, "zz": -1}, {"xy": 2, "wz": -2}, {"xz": 2, "wy": 2},
        {"xy": 2, "wz": 2}, {"ww": 1, "xx": -1, "yy": 1, "zz": -1}, {"yz": 2, "wx": -2},
        {"xz": 2, "wy": -2}, {"yz": 2, "wx": 2}, {"ww": 1, "xx": -1, "yy": -1, "zz": 1},
    ]  # fmt: skip
    return np.array([[float(row.get(name, 0)) for name in names] for row in rows])


# What a step needs, as rows: cost, gradient, Hessian, its positive part; symmetric 3x3 matrices by their upper half.
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_DIAGONAL = (0, 3, 5)
_COST, _GRADIENT, _NEWTON, _POSITIVE, _HESSIANS = (
    slice(0, 1),
    slice(1, 4),
    slice(4, 10),
    slice(10, 16),
    slice(4, 16),
)


@functools.cache
def _expansion() -> np.ndarray:
    """(81, 16 * 35): omega -> coefficients of the rows above as quartic forms of the quaternion.

    With r = vec(R) and generators ``K_k r = vec([e_k]x R)``: cost ``<r, r>``, gradient ``<K_k r, r>``, positive part
    ``<K_k r, K_l r>``, Hessian that plus ``<(K_k K_l + K_l K_k) r / 2, r>``, in the inner product of omega.
    """
    hats = np.array([[[0, 0, 0], [0, 0, -1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
                     [[0, -1, 0], [1, 0, 0], [0, 0, 0]]], dtype=float)  # fmt: skip
    K = [np.kron(hat, np.eye(3)) for hat in hats]
    r = _rotation_of_products()
    position: dict[tuple[int, ...], int] = {quartic: i for i, quartic in enumerate(_QUARTICS)}
    collect = np.zeros((len(_PAIRS), len(_PAIRS), len(_QUARTICS)))
    for i, j in itertools.product(range(len(_PAIRS)), repeat=2):
        collect[i, j, position[tuple(sorted(_PAIRS[i] + _PAIRS[j]))]] = 1

    def form(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        product = np.einsum("ai,bj,ijm->abm", left, right, collect).reshape(81, -1)
        return 0.5 * (product + product.reshape(9, 9, -1).transpose(1, 0, 2).reshape(81, -1))

    positive = [form(K[k] @ r, K[l] @ r) for k, l in _UPPER]
    bend = [form(0.5 * (K[k] @ K[l] + K[l] @ K[k]) @ r, r) for k, l in _UPPER]
    newton = [a + b for a, b in zip(positive, bend, strict=True)]
    rows = [form(r, r), *(form(k @ r, r) for k in K), *newton, *positive]
    return np.stack(rows, 1).reshape(81, -1)


@functools.cache
def _turns() -> np.ndarray:
    """(12, 4): the products (0, e_k) q / 2 of quaternions, whose sum by w is the change of q along [w]x."""
    left = np.zeros((3, 4, 4))
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        left[k, 0, 1 + k], left[k, 1 + k, 0] = -1, 1
        left[k, 1 + j, 1 + i], left[k, 1 + i, 1 + j] = 1, -1
    return 0.5 * left.reshape(12, 4)


def _constant(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)


def _index(numbers: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device)


def _quaternion_products(q: Float[Tensor, "B 4 M"]) -> Float[Tensor, "B 10 M"]:
    first, second = (_index(side, q) for side in zip(*_PAIRS, strict=True))
    return q.index_select(1, first) * q.index_select(1, second)


class _Rows:
    """The rows of :func:`_expansion` for the forms of a batch, at any rotations."""

    def __init__(self, omega: Float[Tensor, "B 9 9"]) -> None:
        self.forms = (omega.flatten(1) @ _constant(_expansion(), omega)).unflatten(1, (16, len(_QUARTICS)))
        self.factors = [_index(side, omega) for side in zip(*_QUARTICS, strict=True)]

    def at(self, q: Float[Tensor, "B 4 M"]) -> Float[Tensor, "B 16 M"]:
        a, b, c, d = (q.index_select(1, factor) for factor in self.factors)
        return self.forms @ (a * b * (c * d))


class _QuotientRows:
    """The same for the quotient of two forms."""

    def __init__(self, over: _Rows, under: _Rows) -> None:
        self.over, self.under = over, under

    def at(self, q: Float[Tensor, "B 4 M"]) -> Float[Tensor, "B 16 M"]:
        over, under = self.over.at(q), self.under.at(q)
        divisor = under[:, _COST].clamp(min=torch.finfo(q.dtype).tiny)
        over, under = over / divisor, under / divisor
        cost, below = over[:, _COST], under[:, _GRADIENT]
        gradient = over[:, _GRADIENT] - cost * below
        row, column = (_index(side, q) for side in zip(*_UPPER, strict=True))
        g, g_other = gradient.index_select(1, row), gradient.index_select(1, column)
        cross = g * below.index_select(1, column) + g_other * below.index_select(1, row)
        # the rows of derivatives are half of them
        newton = over[:, _NEWTON] - cost * under[:, _NEWTON] - 2 * cross
        return torch.cat([cost, gradient, newton, over[:, _POSITIVE]], 1)


def _descend(form: _Rows | _QuotientRows, q: Float[Tensor, "B 4 M"]) -> tuple[Tensor, Tensor]:
    """Damped Newton steps on SO(3), for M rotations of every item.

    Cost and derivatives are quartic forms of the quaternion, so that all of them are one matrix product.
    """
    turns = _constant(_turns(), q)
    adjugate = _index(_ADJUGATE, q)
    rows = form.at(q)
    damping = 1e-3 * rows[:, _POSITIVE].index_select(1, _index(_DIAGONAL, q)).sum(1, keepdim=True)
    shape = (q.shape[0], 2, 6, q.shape[-1])
    for _ in range(_STEPS):
        w = _damped_newton(rows[:, _HESSIANS].reshape(shape), rows[:, _GRADIENT], damping, adjugate)
        # the quaternion (1, w / 2) stands for the Cayley transform of w
        trial = q + ((turns @ q).unflatten(1, (3, 4)) * w[:, :, None]).sum(1)
        trial = trial * (trial * trial).sum(1, keepdim=True).rsqrt()
        trial_rows = form.at(trial)
        better = trial_rows[:, _COST] <= rows[:, _COST]
        q, rows = torch.where(better, trial, q), torch.where(better, trial_rows, rows)
        damping = torch.where(better, damping * 0.1, damping * 8)
    return q, rows[:, 0]


# Adjugate of a symmetric matrix [a, b, c, d, e, f] = H[i] H[j] - H[k] H[l], entry by entry of its full layout.
_ADJUGATE = tuple(
    (3, 2, 1, 0, 1, 0, 5, 4, 4, 5, 2, 3, 4, 1, 2, 2, 0, 1, 4, 5, 3, 2, 4, 1)[6 * factor + entry]
    for factor in range(4)
    for entry in (0, 1, 2, 1, 3, 4, 2, 4, 5)
)


def _damped_newton(
    hessians: Float[Tensor, "B 2 6 M"],
    gradient: Float[Tensor, "B 3 M"],
    damping: Float[Tensor, "B 1 M"],
    index: Tensor,
) -> Float[Tensor, "B 3 M"]:
    """Newton's step where its matrix is positive definite, Gauss-Newton's elsewhere; both damped."""
    H = hessians + damping[:, None] * hessians.new_tensor([1, 0, 0, 1, 0, 1])[:, None]
    a, b, c, d = H.index_select(2, index).unflatten(2, (4, 3, 3)).unbind(2)
    adjugate = a * b - c * d
    determinant = (H[:, :, :3] * adjugate[:, :, 0]).sum(2, keepdim=True)
    minors = torch.cat([H[:, 0, :1], adjugate[:, 0, 2, 2:], determinant[:, 0]], 1)
    steps = (adjugate * gradient[:, None, None]).sum(3) / determinant.clamp(
        min=torch.finfo(determinant.dtype).tiny
    )
    step = torch.where(minors.amin(1, keepdim=True) > 0, steps[:, 0], steps[:, 1])
    return step * -(step * step).sum(1, keepdim=True).rsqrt().clamp(max=1.0)  # at most a radian


def _distinct(
    q: Float[Tensor, "B 4 M"], cost: Float[Tensor, "B M"], count: int, degrees: float
) -> tuple[Float[Tensor, "B 4 C"], Bool[Tensor, "B C"]]:
    """The ``count`` best rotations, no two closer than the angle, and which of them there are."""
    left = torch.where(cost.isfinite(), cost, torch.inf)
    limit = float(np.cos(np.deg2rad(degrees) / 2))
    chosen, found = [], []
    for _ in range(min(count, q.shape[-1])):
        lowest, best = left.min(-1, keepdim=True)
        found.append(lowest)
        chosen.append(q.gather(2, best[:, None].expand(-1, 4, -1)))
        near = (q * chosen[-1]).sum(1).abs() > limit
        left = torch.where(near, torch.inf, left)
    return torch.cat(chosen, -1), torch.cat(found, -1).isfinite()
