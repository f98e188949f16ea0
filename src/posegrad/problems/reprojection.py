"""The weighted reprojection cost of a pose, with closed-form derivatives."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.cameras import Camera
from posegrad.optim.problem import Problem, Quadratic
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.robust import Rho, RobustLoss, Squared

_SQUARED = Squared()


@_pytree.register
@dataclass(frozen=True, eq=False)
class Correspondences:
    """What a pose depends on. Leading dimensions are the batch, or 1 where shared by it."""

    points2d: Float[Tensor, "B N 2"]
    points3d: Float[Tensor, "B N 3"]
    weights: Float[Tensor, "B N *kind"]
    camera: Camera
    loss: RobustLoss = _SQUARED


class Reprojection(Problem):
    """``f = 1/2 sum_i rho(r_i^T W_i r_i)`` with ``r_i = pi(camera, R z_i + t) - x_i``, over a :class:`Pose`.

    The tangent is [rotation, translation]. With ``q = R z`` the point moves as ``w x q + dt + 1/2 w x (w x q)``: its
    first-order part is ``D = [-[q]x, I]``, its second-order part is the retraction's own curvature.
    """

    dimension = 6

    def residual(self, variable: Pose, args: Correspondences) -> Float[Tensor, "B M"]:
        """Residuals times the root of their weight, the loss's ``rho'`` included, which is held constant: the
        Gauss-Newton matrix ``J^T J`` is ``sum_i J_i^T rho'_i W_i J_i``. (The root's gradient at zero is infinite.)"""
        residual = self._residual(variable, args)
        _, factor, _ = _rho(args, (residual * weighting.apply(args.weights, residual)).sum(1))
        whitened = weighting.apply(weighting.root(args.weights), residual)
        return (whitened * factor.detach().sqrt()[:, None]).flatten(1)

    def retract(self, variable: Pose, delta: Float[Tensor, "B 6"]) -> Pose:
        return Pose(so3.cayley(delta[:, :3]) @ variable.R, variable.t + delta[:, 3:])

    def cost(self, variable: Pose, args: Correspondences) -> Float[Tensor, " B"]:
        residual = self._residual(variable, args)
        value, _, _ = _rho(args, (residual * weighting.apply(args.weights, residual)).sum(1))
        return 0.5 * value.sum(-1)

    def feasible(self, variable: Pose, args: Correspondences) -> Tensor:
        valid = args.camera.project(variable.act(args.points3d)).valid
        return (valid | (weighting.strength(args.weights) == 0)).all(-1)

    def quadratic(self, variable: Pose, args: Correspondences, *, exact: bool) -> Quadratic:
        q = variable.R @ args.points3d.mT  # (B, 3, N); coordinates first from here on: one row, one pass
        points_cam = (q + variable.t[..., None]).mT
        projected = args.camera.project_with_jacobian(points_cam)
        assert projected.jacobian is not None
        J = projected.jacobian.permute(0, 2, 3, 1)  # (B, 2, 3, N)
        residual = (projected.points2d - args.points2d).mT  # (B, 2, N)
        weighted = weighting.apply(args.weights, residual)
        # first and second derivative of the cost by each point in the camera, (B, 3, N) and (B, 6, N)
        force = (J * weighted[:, :, None]).sum(1)
        stiffness = _upper_products(J, weighting.apply(args.weights, J)).sum(1)
        rho, factor, bend = _rho(args, (residual * weighted).sum(1))
        if not isinstance(args.loss, Squared):
            bent = _upper_products(force, 2 * bend[:, None] * force) if exact else 0.0
            weighted, force, stiffness = (factor[:, None] * value for value in (weighted, force, stiffness))
            stiffness = stiffness + bent
        if exact:
            S = args.camera.contracted_hessian(points_cam, weighted.mT).flatten(-2).mT
            stiffness = stiffness + S.index_select(1, torch.tensor(_UPPER_OF_FULL, device=q.device))
        gradient, hessian = _gather(q, torch.cat([stiffness, force], 1), exact=exact)
        return Quadratic(
            cost=0.5 * rho.sum(-1),
            gradient=gradient,
            hessian=hessian,
            feasible=(projected.valid | (weighting.strength(args.weights) == 0)).all(-1),
        )

    def slope(self, variable: Pose, args: Correspondences, direction: Tensor) -> Tensor:
        q = variable.R @ args.points3d.mT
        projected = args.camera.project_with_jacobian((q + variable.t[..., None]).mT)
        assert projected.jacobian is not None
        J = projected.jacobian.permute(0, 2, 3, 1)
        motion = torch.linalg.cross(direction[:, :3, None].expand_as(q), q, dim=1) + direction[:, 3:, None]
        image_motion = (J * motion[:, None]).sum(2)
        residual = (projected.points2d - args.points2d).mT
        # a matrix is symmetric, and so is the derivative by it
        weighted = weighting.apply(weighting.symmetric(args.weights), residual)
        _, factor, _ = _rho(args, (residual * weighted).sum(1))
        return (factor * (weighted * image_motion).sum(1)).sum(-1)

    def point_gradients(self, variable: Pose, args: Correspondences) -> Float[Tensor, "B N 6"]:
        """Gradient in the tangent of each point's share of the cost."""
        q = variable.R @ args.points3d.mT
        projected = args.camera.project_with_jacobian((q + variable.t[..., None]).mT)
        assert projected.jacobian is not None
        residual = (projected.points2d - args.points2d).mT
        weighted = weighting.apply(args.weights, residual)
        _, factor, _ = _rho(args, (residual * weighted).sum(1))
        force = (projected.jacobian.permute(0, 2, 3, 1) * (factor[:, None] * weighted)[:, :, None]).sum(1)
        return torch.cat([torch.linalg.cross(q, force, dim=1), force], 1).mT

    def pullback(self, variable: Pose, cotangent: Pose) -> Float[Tensor, "B 6"]:
        # <G, [w]x R> = <G R^T, [w]x>
        A = cotangent.R @ variable.R.mT
        rotation = torch.stack(
            [A[:, 2, 1] - A[:, 1, 2], A[:, 0, 2] - A[:, 2, 0], A[:, 1, 0] - A[:, 0, 1]], -1
        )
        return torch.cat([rotation, cotangent.t], -1)

    @staticmethod
    def _residual(variable: Pose, args: Correspondences) -> Float[Tensor, "B 2 N"]:
        return (args.camera.project(variable.act(args.points3d)).points2d - args.points2d).mT


def _rho(args: Correspondences, s: Float[Tensor, "B N"]) -> Rho:
    """The loss of the weighted squares and its derivatives."""
    if isinstance(args.loss, Squared):
        return Rho(s, torch.ones_like(s), torch.zeros_like(s))
    return args.loss.evaluate(s)


# Upper half of a symmetric 3x3 matrix: row, column, position in the full matrix.
_ROW, _COLUMN = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
_UPPER_OF_FULL = (0, 1, 2, 4, 5, 8)


def _upper_products(
    a: Float[Tensor, "B *rows 3 N"], b: Float[Tensor, "B *rows 3 N"]
) -> Float[Tensor, "B *rows 6 N"]:
    """Upper half of ``a b^T``, point by point."""
    parts = [a.narrow(-2, i, 1) * b.narrow(-2, i, 3 - i) for i in range(3)]
    return torch.cat(parts, -2)


def _gather(
    q: Float[Tensor, "B 3 N"], derivatives: Float[Tensor, "B 9 N"], *, exact: bool
) -> tuple[Float[Tensor, "B 6"], Float[Tensor, "B 6 6"]]:
    """Gradient and Hessian in the tangent, from the derivatives of the cost by each point in the camera.

    With S and f the second and first derivative: ``sum D^T f`` and ``sum D^T S D``, plus the retraction's own
    ``f . (w x (w x q)) / 2`` if exact. All are sums over the points of S and f times 1, q and q q^T, so one matrix
    product makes them, and what is left to do does not grow with N.
    """
    monomials = torch.cat([torch.ones_like(q[:, :1]), q, _upper_products(q, q)], 1)
    sums = (monomials @ derivatives.mT).flatten(1)  # (B, 10 * 9)
    assembled = sums @ torch.from_numpy(_assembly(exact)).to(sums)
    return assembled[:, :6], assembled[:, 6:].unflatten(-1, (6, 6))


@functools.cache
def _assembly(exact: bool) -> np.ndarray:
    """(90, 42): sums of :func:`_gather` -> gradient and Hessian, row by row."""
    upper = np.zeros((6, 3, 3))
    for i, (row, column) in enumerate(zip(_ROW, _COLUMN, strict=True)):
        upper[i, row, column] = upper[i, column, row] = 1
    hat = np.zeros((3, 3, 3))  # [q]x = hat . q
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        hat[a, c, b], hat[c, a, b] = 1, -1
    position = np.zeros((3, 3), dtype=int)  # of q_a q_b among the monomials
    for i, (row, column) in enumerate(zip(_ROW, _COLUMN, strict=True)):
        position[row, column] = position[column, row] = 4 + i
    # by monomial, by derivative (6 of S, 3 of f), by output
    gradient, hessian = np.zeros((10, 9, 6)), np.zeros((10, 9, 6, 6))
    gradient[0, 6:, 3:] = np.eye(3)
    gradient[1:4, 6:, :3] = np.einsum("abc->cba", hat)  # q x f
    hessian[0, :6, 3:, 3:] = upper
    hessian[1:4, :6, :3, 3:] = np.einsum("abq,sbc->qsac", hat, upper)  # [q]x S
    hessian[1:4, :6, 3:, :3] = np.swapaxes(hessian[1:4, :6, :3, 3:], -1, -2)
    rotation = -np.einsum("abq,sbc,cdp->qpsad", hat, upper, hat)  # [q]x S [q]x^T
    bend = np.zeros((3, 3, 3, 3))  # by q, f: (f q^T + q f^T) / 2 - (f . q) I
    for a, b in itertools.product(range(3), repeat=2):
        bend[a, b, a, b] += 0.5
        bend[a, b, b, a] += 0.5
        bend[a, b] -= (a == b) * np.eye(3)
    for a, b in itertools.product(range(3), repeat=2):
        hessian[position[a, b], :6, :3, :3] += rotation[a, b]
    if exact:
        hessian[1:4, 6:, :3, :3] = bend
    return np.concatenate([gradient.reshape(90, 6), hessian.reshape(90, 36)], 1)
