"""The cost of a Gaussian prior on a pose, with closed-form derivatives in conditioned units."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.optim.problem import Quadratic
from posegrad.pose import Pose
from posegrad.problems.pose_problem import PoseProblem


@_pytree.register
@dataclass(frozen=True, eq=False)
class PriorTerm:
    """What the prior of a flat batch depends on, as a function of the *conditioned* pose ``(R, t')``.

    The user's translation is ``t = size t' - R centre`` and the user's cost is ``unit`` times the conditioned one. So
    ``f(R, t') = 1/2 xi^T L xi / unit``, ``xi = [log(R R0^T), size t' - R centre - t0]``. In the user's own units the
    centre is 0 and both scales are 1. Leading dimensions are the batch, or 1 where shared by it.

    Args:
        pose: mean, R0 a rotation to rounding.
        information: (B, 6, 6), in the user's units.
        centre: (B, 3).
        size: (B,) > 0.
        unit: (B,) > 0.
    """

    pose: Pose
    information: Float[Tensor, "B 6 6"]
    centre: Float[Tensor, "B 3"]
    size: Float[Tensor, " B"]
    unit: Float[Tensor, " B"]


class Prior(PoseProblem):
    """``f = 1/2 xi^T L xi / unit`` over a :class:`Pose`; see :class:`PriorTerm`.

    With ``theta = log(R R0^T)`` and ``a = R centre``, a step (w, dt') changes xi by

        d theta = Jl^-1(theta) w,  Jl^-1(theta) = I - 1/2 [theta]x + gamma [theta]x^2
        d tau   = size dt' - w x a - 1/2 w x (w x a)

    and theta's second derivative is that of ``Jl^-1`` along its own flow. All of it is smooth at theta = 0, and finite
    up to half a turn.

    Reference: Solà, Deray & Atchuthan, "A micro Lie theory", arXiv:1812.01537, equation 146 (the inverse of the left
    Jacobian).
    """

    def residual(self, variable: Pose, args: PriorTerm) -> Float[Tensor, "B 6"]:
        """A square root of the information times xi (whose gradient by the information may be infinite)."""
        values, vectors = torch.linalg.eigh(_symmetric(args.information))
        xi, _ = _error(variable, args)
        return values.clamp(min=0).sqrt() * _times(vectors.mT, xi) / args.unit[:, None].sqrt()

    def cost(self, variable: Pose, args: PriorTerm) -> Float[Tensor, " B"]:
        xi, _ = _error(variable, args)
        return 0.5 * (xi * _times(args.information, xi)).sum(-1) / args.unit

    def feasible(self, variable: Pose, args: PriorTerm) -> Bool[Tensor, " B"]:
        return torch.ones_like(variable.t[:, 0], dtype=torch.bool)

    def quadratic(self, variable: Pose, args: PriorTerm, *, exact: bool) -> Quadratic:
        xi, lever = _error(variable, args)
        theta, L = xi[:, :3], _symmetric(args.information) / args.unit[:, None, None]
        force = _times(L, xi)
        square = theta.square().sum(-1)
        gamma = _gamma(square)[:, None, None]
        eye = torch.eye(3, dtype=theta.dtype, device=theta.device)
        outer = theta[:, :, None] * theta[:, None, :]
        turn = eye - 0.5 * so3.hat(theta) + gamma * (outer - square[:, None, None] * eye)
        shift = (args.size[:, None, None] * eye).expand_as(turn)
        J = torch.cat(
            [torch.cat([turn, torch.zeros_like(turn)], -1), torch.cat([so3.hat(lever), shift], -1)], -2
        )
        hessian = J.mT @ L @ J
        if exact:
            bend = _turn_curvature(theta, square, gamma, turn, force[:, :3]) - _lever_curvature(
                lever, force[:, 3:]
            )
            hessian = hessian + torch.nn.functional.pad(bend, (0, 3, 0, 3))
        return Quadratic(
            cost=0.5 * (xi * force).sum(-1),
            gradient=_times(J.mT, force),
            hessian=hessian,
            feasible=self.feasible(variable, args),
        )

    def slope(self, variable: Pose, args: PriorTerm, direction: Float[Tensor, "B 6"]) -> Float[Tensor, " B"]:
        xi, lever = _error(variable, args)
        theta, w = xi[:, :3], direction[:, :3]
        square = theta.square().sum(-1, keepdim=True)
        turned = (
            w
            - 0.5 * torch.linalg.cross(theta, w)
            + _gamma(square) * (theta * (theta * w).sum(-1, keepdim=True) - square * w)
        )
        moved = args.size[:, None] * direction[:, 3:] - torch.linalg.cross(w, lever)
        change = torch.cat([turned, moved], -1)
        return (change * _times(_symmetric(args.information), xi)).sum(-1) / args.unit


def _error(variable: Pose, args: PriorTerm) -> tuple[Float[Tensor, "B 6"], Float[Tensor, "B 3"]]:
    """xi, and the lever ``R centre``."""
    lever = _times(variable.R, args.centre)
    rotation = so3.log(variable.R @ args.pose.R.mT)
    return torch.cat([rotation, args.size[:, None] * variable.t - lever - args.pose.t], -1), lever


def _turn_curvature(theta: Tensor, square: Tensor, gamma: Tensor, turn: Tensor, p: Tensor) -> Tensor:
    """Hessian by w of ``<p, log(exp(w) exp(theta))>`` at zero: ``(d/d theta <p, Jl^-1 w>) Jl^-1 w``, symmetrised."""
    along = (p * theta).sum(-1)[:, None, None]
    eye = torch.eye(3, dtype=p.dtype, device=p.device)
    row = along * theta[:, None, :] - square[:, None, None] * p[:, None, :]
    D = (
        0.5 * so3.hat(p)
        + gamma * (p[:, :, None] * theta[:, None, :] + along * eye - 2 * theta[:, :, None] * p[:, None, :])
        + 2 * _gamma_slope(square)[:, None, None] * theta[:, :, None] * row
    )
    product = turn.mT @ D
    return 0.5 * (product + product.mT)


def _lever_curvature(lever: Tensor, q: Tensor) -> Tensor:
    """Hessian by w of ``1/2 <q, w x (w x lever)>``."""
    outer = q[:, :, None] * lever[:, None, :]
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return 0.5 * (outer + outer.mT) - (q * lever).sum(-1)[:, None, None] * eye


# gamma(s) = 1/s - cot(sqrt(s) / 2) / (2 sqrt(s)) has poles at s = (2 pi k)^2, k = 1, 2, ...:
# gamma(s) = sum_k 2 / ((2 pi k)^2 - s). The first two as they are, the others as a Taylor series whose first dropped
# term is below 1e-17 of gamma up to s = pi^2: no branch, so every derivative is right everywhere.
_POLES = (4 * torch.pi**2, 16 * torch.pi**2)
_TAIL = (
    0.0200075935568722262,
    2.54381206886256216e-05,
    5.58456839049441513e-08,
    1.40882415747610469e-10,
    3.75671620021579781e-13,
    1.02801253753604611e-15,
    2.85002212921379124e-18,
    7.95557541071984498e-21,
    2.22893266455370116e-23,
    6.25747115080577224e-26,
    1.75867304929096799e-28,
)


def _gamma(square: Tensor) -> Tensor:
    """Coefficient of ``[theta]x^2`` in the inverse of the left Jacobian, by the squared angle in [0, pi^2]."""
    value = torch.zeros_like(square)
    for coefficient in reversed(_TAIL):
        value = value * square + coefficient
    for pole in _POLES:
        value = value + 2 / (pole - square)
    return value


def _gamma_slope(square: Tensor) -> Tensor:
    """Derivative of :func:`_gamma`."""
    value = torch.zeros_like(square)
    for n in range(len(_TAIL) - 1, 0, -1):
        value = value * square + n * _TAIL[n]
    for pole in _POLES:
        value = value + 2 / (pole - square).square()
    return value


def _symmetric(L: Tensor) -> Tensor:
    return 0.5 * (L + L.mT)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None]).squeeze(-1)
