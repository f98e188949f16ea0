"""Rotations as tensors: exponential, logarithm and quaternions, with correct first and second derivatives.

Conventions: rotation matrices act on column vectors; the tangent is on the left, ``R <- exp(w) R``; quaternions
are unit and their order is in every name (wxyz or xyzw).

The implicit gradient of a pose solver needs the *second* derivative of ``exp`` at zero, which the usual
``where(angle < eps, ...)`` on the angle loses. Here the coefficients are functions of the squared angle, with
a Taylor series near zero, so every derivative is right there.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# [w]x + [w]x^2 / 2, row by row, from (x, y, z, xx, xy, xz, yy, yz, zz)
_CAYLEY = [
    [0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, -0.5, 0, 0, 0, -0.5], [0, 0.5, 0, 0.5, 0, 0, 0, 0, 0], [0, 0, 0.5, 0, 0, 0, 0.5, 0, 0],
    [-0.5, 0, 0, 0, 0, 0, 0, 0, -0.5], [0, 0, 0, 0, 0, 0.5, 0, 0.5, 0], [-0.5, 0, 0, 0, -0.5, 0, 0, 0, 0],
]  # fmt: skip
_SERIES_BELOW = 0.04  # squared angle; the first dropped term of the series is below 1e-18 there


def hat(w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Cross-product matrix: ``hat(w) @ x = w x x``.

    >>> hat(torch.tensor([0.0, 0.0, 1.0])) @ torch.tensor([1.0, 0.0, 0.0])
    tensor([0., 1., 0.])
    """
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def exp(w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrix of a rotation vector: ``exp(w) = I + a [w]x + b [w]x^2`` (Rodrigues).

    With angle ``s = |w|``: ``a = sin s / s``, ``b = (1 - cos s) / s^2``. All derivatives are exact at zero.

    Args:
        w: rotation vectors (..., 3) in radians, of any length whose square does not overflow.

    >>> exp(torch.zeros(3))
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    square = (w * w).sum(-1)
    small = square < _SERIES_BELOW
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    s = torch.where(small, square, torch.zeros_like(square))
    a_series = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72 * (1 - s / 110))))
    b_series = 0.5 * (1 - s / 12 * (1 - s / 30 * (1 - s / 56 * (1 - s / 90 * (1 - s / 132)))))
    a = torch.where(small, a_series, angle.sin() / angle)
    b = torch.where(small, b_series, 2 * (angle / 2).sin().square() / angle.square())
    # [w]x^2 = w w^T - |w|^2 I
    diagonal = torch.eye(3, dtype=w.dtype, device=w.device) * (1 - b * square)[..., None, None]
    return diagonal + hat(a[..., None] * w) + b[..., None, None] * w[..., :, None] * w[..., None, :]


def cayley(w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation about w by the angle ``2 atan(|w| / 2)``: ``exp(w)`` up to the second order, without a branch.

    ``I + ([w]x + [w]x^2 / 2) / (1 + |w|^2 / 4)``. A retraction for solvers, where only the first two derivatives
    at zero matter.

    >>> cayley(torch.zeros(3)).diagonal()
    tensor([1., 1., 1.])
    """
    # few operations rather than few multiplications: a solver calls this at every step
    i, j = torch.triu_indices(3, 3, device=w.device)
    products = w.index_select(-1, i) * w.index_select(-1, j)
    terms = torch.cat([w, products], -1) / (1 + 0.25 * (w * w).sum(-1, keepdim=True))
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + (terms @ terms.new_tensor(_CAYLEY)).unflatten(-1, (3, 3))


def exp_near_zero(w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """``exp(w)`` up to the second order, ``I + [w]x + [w]x^2 / 2``: no rotation unless w is zero, but what first and
    second derivatives at zero need, in few operations.

    >>> exp_near_zero(torch.tensor([0.0, 0.0, 0.1]))[0]
    tensor([ 0.9950, -0.1000,  0.0000])
    """
    W = (w @ w.new_tensor(_CAYLEY[:3])).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=w.dtype, device=w.device) + W + 0.5 * (W @ W)


def turned(R: Float[Tensor, "*batch 3 3"], w: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """``cayley(w) @ R`` in fewer operations: a solver calls this at every step.

    >>> turned(torch.eye(3), torch.zeros(3)).diagonal()
    tensor([1., 1., 1.])
    """
    axis = w[..., None]
    moved = torch.linalg.cross(axis, R, dim=-2)
    moved = torch.linalg.cross(axis, torch.add(R, moved, alpha=0.5), dim=-2)
    return torch.addcdiv(R, moved, 1 + 0.25 * (w * w).sum(-1)[..., None, None])


def is_rotation(R: Float[Tensor, "*batch 3 3"], tolerance: float = 0.1) -> Bool[Tensor, "*batch"]:
    """Where the matrix is orthonormal within the tolerance, and no reflection; False for NaN.

    >>> is_rotation(torch.stack([torch.eye(3), -torch.eye(3)]))
    tensor([ True, False])
    """
    eye = torch.eye(3, dtype=R.dtype, device=R.device)
    orthonormal = (R @ R.mT - eye).abs().amax((-1, -2)) < tolerance
    determinant = (R[..., 0, :] * torch.linalg.cross(R[..., 1, :], R[..., 2, :], dim=-1)).sum(-1)
    return orthonormal & (determinant > 0)


def between(a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The smallest rotation that turns direction ``a`` into direction ``b``, as gravity known in two frames.

    Args:
        a, b: (..., 3) of any length > 0. Where they point opposite ways the axis is one of many.

    >>> between(torch.tensor([2.0, 0, 0]), torch.tensor([0.0, 0, -1]))[:, 0].round(decimals=3) + 0.0
    tensor([ 0.,  0., -1.])
    """
    a, b = torch.broadcast_tensors(a, b)
    a, b = (v / v.square().sum(-1, keepdim=True).sqrt() for v in (a, b))
    w = 1 + (a * b).sum(-1, keepdim=True)
    cross = torch.linalg.cross(a, b, dim=-1)
    # opposite: half a turn about any axis across, here the one next to the smallest component
    small = torch.nn.functional.one_hot(a.abs().argmin(-1), 3).to(a)
    across = torch.linalg.cross(a, small, dim=-1)
    opposite = w < 1e-12
    xyz = torch.where(opposite, across, cross)
    return matrix_from_quat_wxyz(torch.cat([torch.where(opposite, torch.zeros_like(w), w), xyz], -1))


def log(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vector of a rotation matrix, the inverse of :func:`exp` on angles in [0, pi].

    Differentiable along rotations at every angle below pi, zero included. At exactly pi the axis has two
    signs and one is returned. The gradient off the manifold of rotations is not meaningful.

    Args:
        R: rotation matrices (..., 3, 3).

    >>> log(torch.eye(3))
    tensor([0., 0., 0.])
    """
    q = quat_wxyz_from_matrix(R)
    w, v = q[..., 0], q[..., 1:]
    square = (v * v).sum(-1)
    small = square < 1e-3  # then w > 0.999, since w >= 0
    safe_w = torch.where(small, w, torch.ones_like(w))
    x = torch.where(small, square / safe_w.square(), torch.zeros_like(w))
    atan_series = 1 - x * (1 / 3 - x * (1 / 5 - x * (1 / 7 - x * (1 / 9 - x * (1 / 11 - x / 13)))))
    norm = torch.where(small, torch.ones_like(w), square).sqrt()
    scale = torch.where(small, 2 * atan_series / safe_w, 2 * torch.atan2(norm, w) / norm)
    return scale[..., None] * v


def quat_wxyz_from_matrix(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion (w, x, y, z) with w >= 0 of a rotation matrix.

    Takes the best conditioned row of ``4 q q^T``, which is linear in R; nothing is divided by a number near zero.

    >>> quat_wxyz_from_matrix(torch.eye(3))
    tensor([1., 0., 0., 0.])
    """
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = R.flatten(-2).unbind(-1)
    rows = torch.stack(
        [
            torch.stack([1 + r00 + r11 + r22, r21 - r12, r02 - r20, r10 - r01], -1),
            torch.stack([r21 - r12, 1 + r00 - r11 - r22, r10 + r01, r02 + r20], -1),
            torch.stack([r02 - r20, r10 + r01, 1 - r00 + r11 - r22, r21 + r12], -1),
            torch.stack([r10 - r01, r02 + r20, r21 + r12, 1 - r00 - r11 + r22], -1),
        ],
        -2,
    )
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    row = torch.where(row[..., :1] < 0, -row, row)
    return row / row.square().sum(-1, keepdim=True).sqrt()


def matrix_from_quat_wxyz(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrix of a quaternion (w, x, y, z) of any non-zero length.

    >>> matrix_from_quat_wxyz(torch.tensor([2.0, 0.0, 0.0, 0.0])).diagonal()
    tensor([1., 1., 1.])
    """
    w, x, y, z = (q / q.square().sum(-1, keepdim=True).sqrt()).unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y - z * w),
            2 * (x * z + y * w),
            2 * (x * y + z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z - x * w),
            2 * (x * z - y * w),
            2 * (y * z + x * w),
            1 - 2 * (x * x + y * y),
        ],
        -1,
    ).unflatten(-1, (3, 3))


def normalise(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation next to a matrix that :func:`is_rotation` takes for one: exact rotations are kept to rounding.

    Newton's iteration for the polar factor, ``X <- (3 X - X X^T X) / 2`` (Higham, Functions of Matrices, 8.3), which
    squares the deviation.

    >>> drifted = exp(torch.tensor([0.1, 0.2, 0.3])) + 1e-3
    >>> R = normalise(drifted)
    >>> torch.allclose(R @ R.mT, torch.eye(3), atol=1e-6)
    True
    """
    for _ in range(5):
        R = torch.add(1.5 * R, R @ (R.mT @ R), alpha=-0.5)
    return R
