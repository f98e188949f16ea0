"""The weighted reprojection cost of a pose, with closed-form derivatives."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.cameras import Camera
from posegrad.optim import batch
from posegrad.optim.problem import Quadratic
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.pose_problem import PoseProblem
from posegrad.robust import Rho, RobustLoss, Squared

_SQUARED = Squared()

# Points of the items that a CPU works on at once: what is computed of them stays in its caches, and in memory that it
# has already. (Where large tensors are made anew at every operation, that takes longer than the arithmetic.)
_BLOCK = 16384


@_pytree.register
@dataclass(frozen=True, eq=False)
class Correspondences:
    """What a pose depends on. Leading dimensions are the batch, or 1 where shared by it."""

    points2d: Float[Tensor, "B N 2"]
    points3d: Float[Tensor, "B N 3"]
    weights: Float[Tensor, "B N *kind"]
    camera: Camera
    loss: RobustLoss = _SQUARED


class Reprojection(PoseProblem):
    """``f = 1/2 sum_i rho(r_i^T W_i r_i)`` with ``r_i = pi(camera, R z_i + t) - x_i``, over a :class:`Pose`.

    The tangent is [rotation, translation]. With ``q = R z`` the point moves as ``w x q + dt + 1/2 w x (w x q)``: its
    first-order part is ``D = [-[q]x, I]``, its second-order part is the retraction's own curvature.
    """

    def residual(self, variable: Pose, args: Correspondences) -> Float[Tensor, "B M"]:
        """Residuals times the root of their weight, the loss's ``rho'`` included, which is held constant: the
        Gauss-Newton matrix ``J^T J`` is ``sum_i J_i^T rho'_i W_i J_i``. (The root's gradient at zero is infinite.)"""
        residual = self._residual(variable, args)
        _, factor, _ = _rho(args, (residual * weighting.apply(args.weights, residual)).sum(1))
        whitened = weighting.apply(weighting.root(args.weights), residual)
        return (whitened * factor.detach().sqrt()[:, None]).flatten(1)

    def cost(self, variable: Pose, args: Correspondences) -> Float[Tensor, " B"]:
        residual = self._residual(variable, args)
        value, _, _ = _rho(args, (residual * weighting.apply(args.weights, residual)).sum(1))
        return 0.5 * value.sum(-1)

    def feasible(self, variable: Pose, args: Correspondences) -> Tensor:
        valid = args.camera.project(variable.act(args.points3d)).valid
        return (valid | (weighting.strength(args.weights) == 0)).all(-1)

    def quadratic(self, variable: Pose, args: Correspondences, *, exact: bool) -> Quadratic:
        size, points2d = variable.t.shape[0], args.points2d
        items = max(1, _BLOCK // max(1, points2d.shape[1]))
        if items >= size or torch.is_grad_enabled() or points2d.device.type != "cpu":
            return self._quadratic(variable, args, exact=exact)
        starts = range(0, size, items)
        parts = [
            self._quadratic(batch.part(variable, i, items), batch.part(args, i, items), exact=exact)
            for i in starts
        ]
        return Quadratic(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _quadratic(self, variable: Pose, args: Correspondences, *, exact: bool) -> Quadratic:
        q = variable.R @ args.points3d.mT  # (B, 3, N); coordinates first from here on: one row, one pass
        points_cam = q + variable.t[..., None]
        projected = args.camera.project_with_jacobian(points_cam.mT)
        assert projected.jacobian is not None
        J = projected.jacobian.permute(0, 3, 2, 1)  # (B, 3, 2, N)
        residual = (projected.points2d - args.points2d).mT[:, None]
        # derivative of both pixel coordinates along the tangent, and the residual: one product of them makes all sums
        rows = torch.cat([_moments(q, J), residual], 1)  # (B, 7, 2, N)
        weighted = weighting.apply(args.weights, rows.transpose(1, 2)).transpose(1, 2)
        unbent, rho = weighted[:, 6:], None
        if not isinstance(args.loss, Squared):
            rho = args.loss.evaluate((residual * unbent).sum((1, 2)))
            weighted = weighted * rho.first[:, None, None]
        sums = torch.bmm(rows.flatten(2), weighted.flatten(2).mT)
        hessian = sums[:, :6, :6]
        if exact:
            force = (J * weighted[:, 6:]).sum(
                2
            )  # derivative of the cost by each point in the camera, (B, 3, N)
            hessian = hessian + self._curvature(args, q, points_cam, projected.valid, force, weighted[:, 6])
            if rho is not None:
                slopes = (rows[:, :6] * unbent).sum(2)
                hessian = hessian + (slopes * (2 * rho.second)[:, None]) @ slopes.mT
        return Quadratic(
            cost=0.5 * (sums[:, 6, 6] if rho is None else rho.value.sum(-1)),
            gradient=sums[:, :6, 6],
            hessian=hessian,
            feasible=(projected.valid | (weighting.strength(args.weights) == 0)).all(-1),
        )

    @staticmethod
    def _curvature(
        args: Correspondences,
        q: Float[Tensor, "B 3 N"],
        points_cam: Float[Tensor, "B 3 N"],
        valid: Bool[Tensor, "B N"],
        force: Float[Tensor, "B 3 N"],
        weighted: Float[Tensor, "B 2 N"],
    ) -> Float[Tensor, "B 6 6"]:
        """What the exact Hessian has beyond Gauss-Newton's: ``sum D^T S D`` with S the second derivative of
        ``<weighted, pixel>`` by the point, and the retraction's own ``sum f . (w x (w x q)) / 2``."""
        eye = torch.eye(3, dtype=q.dtype, device=q.device)
        if args.camera.perspective:
            # S = -(f e_z^T + e_z f^T) / z
            x, y, _ = q.split(1, 1)
            inverse = torch.where(valid[:, None], points_cam[:, 2:], 1.0).reciprocal()
            zero = torch.zeros_like(x)
            along = torch.cat([y, -x, zero, zero, zero, torch.ones_like(x)], 1) * inverse  # D^T e_z / z
            half = -torch.bmm(torch.cat([torch.linalg.cross(q, force, dim=1), force], 1), along.mT)
        else:
            S = args.camera.contracted_hessian(points_cam.mT, weighted.mT).permute(0, 2, 3, 1)
            D = _moments(q, eye[:, :, None].expand(1, 3, 3, q.shape[-1]))
            half = 0.5 * torch.bmm(_moments(q, S).flatten(2), D.flatten(2).mT)
        bend = 0.5 * torch.bmm(force, q.mT)
        bend = bend - bend.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] * eye
        half = half + torch.nn.functional.pad(bend, (0, 3, 0, 3))
        return half + half.mT

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

    @staticmethod
    def _residual(variable: Pose, args: Correspondences) -> Float[Tensor, "B 2 N"]:
        return (args.camera.project(variable.act(args.points3d)).points2d - args.points2d).mT


def _rho(args: Correspondences, s: Float[Tensor, "B N"]) -> Rho:
    """The loss of the weighted squares and its derivatives."""
    if isinstance(args.loss, Squared):
        return Rho(s, torch.ones_like(s), torch.zeros_like(s))
    return args.loss.evaluate(s)


def _moments(q: Float[Tensor, "B 3 N"], f: Float[Tensor, "_ 3 M N"]) -> Float[Tensor, "B 6 M N"]:
    """``D^T f = [q x f, f]``: from vectors at the points to the tangent."""
    turned = torch.linalg.cross(q[:, :, None], f, dim=1)
    return torch.cat([turned, f.expand_as(turned)], 1)
