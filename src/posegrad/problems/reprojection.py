"""The weighted reprojection cost of a pose, with closed-form derivatives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.cameras import Camera
from posegrad.optim.problem import Problem, Quadratic
from posegrad.pose import Pose


@_pytree.register
@dataclass(frozen=True, eq=False)
class Correspondences:
    """What a pose depends on. Leading dimensions are the batch, or 1 where shared by it."""

    points2d: Float[Tensor, "B N 2"]
    points3d: Float[Tensor, "B N 3"]
    weights: Float[Tensor, "B N"]
    camera: Camera


class Reprojection(Problem):
    """``f = 1/2 sum_i w_i |pi(camera, R z_i + t) - x_i|^2`` over a :class:`Pose`, tangent [rotation, translation].

    With ``q = R z`` the point moves as ``w x q + dt + 1/2 w x (w x q)``: its first-order part is ``D = [-[q]x, I]``,
    its second-order part is the retraction's own curvature.
    """

    dimension = 6

    def residual(self, variable: Pose, args: Correspondences) -> Float[Tensor, "B M"]:
        """Residuals times the square root of the weights (whose gradient at weight zero is infinite)."""
        residual = args.camera.project(variable.act(args.points3d)).points2d - args.points2d
        return (residual * args.weights.sqrt()[..., None]).flatten(-2)

    def retract(self, variable: Pose, delta: Float[Tensor, "B 6"]) -> Pose:
        return Pose(so3.cayley(delta[:, :3]) @ variable.R, variable.t + delta[:, 3:])

    def cost(self, variable: Pose, args: Correspondences) -> Float[Tensor, " B"]:
        residual = args.camera.project(variable.act(args.points3d)).points2d - args.points2d
        return 0.5 * (args.weights * residual.square().sum(-1)).sum(-1)

    def feasible(self, variable: Pose, args: Correspondences) -> Tensor:
        valid = args.camera.project(variable.act(args.points3d)).valid
        return (valid | (args.weights == 0)).all(-1)

    def quadratic(self, variable: Pose, args: Correspondences, *, exact: bool) -> Quadratic:
        q = args.points3d @ variable.R.mT
        points_cam = q + variable.t[:, None]
        projected = args.camera.project_with_jacobian(points_cam)
        J = projected.jacobian
        assert J is not None
        residual = projected.points2d - args.points2d
        weighted = args.weights[..., None] * residual
        rotation = torch.linalg.cross(q[..., None, :].expand_as(J), J, dim=-1)  # w . (q x row) = row . (w x q)
        tangent = torch.cat([rotation, J], -1)  # (B, N, 2, 6)
        flat = tangent.flatten(-3, -2)
        hessian = (tangent * args.weights[..., None, None]).flatten(-3, -2).mT @ flat
        gradient = (weighted.flatten(-2)[:, None] @ flat).squeeze(-2)
        if exact:
            hessian = hessian + self._curvature(q, points_cam, J, weighted, args.camera)
        return Quadratic(
            cost=0.5 * (weighted * residual).sum((-1, -2)),
            gradient=gradient,
            hessian=hessian,
            feasible=(projected.valid | (args.weights == 0)).all(-1),
        )

    @staticmethod
    def _curvature(q: Tensor, points_cam: Tensor, J: Tensor, weighted: Tensor, camera: Camera) -> Tensor:
        """Second derivatives of projection and retraction, weighted by the residuals: (B, 6, 6)."""
        S = camera.contracted_hessian(points_cam, weighted)  # (B, N, 3, 3)
        # S times D's rotation columns: S [-q]x, whose rows are q x (row of S)
        SD = torch.linalg.cross(q[..., None, :].expand_as(S), S, dim=-1)
        translation = S.sum(-3)
        mixed = SD.sum(-3).mT  # rotation rows, translation columns
        # D^T S D for rotation: rows again crossed with q
        rotation = torch.linalg.cross(q[..., None, :].expand_as(S), SD.mT, dim=-1).sum(-3)
        force = (weighted[..., None, :] @ J).squeeze(-2)  # d cost / d point in the camera
        C = force.mT @ q
        trace = C.diagonal(dim1=-2, dim2=-1).sum(-1)
        eye = torch.eye(3, dtype=q.dtype, device=q.device)
        rotation = rotation + 0.5 * (C + C.mT) - trace[:, None, None] * eye
        return torch.cat([torch.cat([rotation, mixed], -1), torch.cat([mixed.mT, translation], -1)], -2)

    def slope(self, variable: Pose, args: Correspondences, direction: Tensor) -> Tensor:
        q = args.points3d @ variable.R.mT
        projected = args.camera.project_with_jacobian(q + variable.t[:, None])
        assert projected.jacobian is not None
        motion = torch.linalg.cross(direction[:, None, :3].expand_as(q), q, dim=-1) + direction[:, None, 3:]
        image_motion = (projected.jacobian @ motion[..., None]).squeeze(-1)
        residual = projected.points2d - args.points2d
        return (args.weights * (residual * image_motion).sum(-1)).sum(-1)

    def pullback(self, variable: Pose, cotangent: Pose) -> Float[Tensor, "B 6"]:
        # <G, [w]x R> = <G R^T, [w]x>
        A = cotangent.R @ variable.R.mT
        rotation = torch.stack(
            [A[:, 2, 1] - A[:, 1, 2], A[:, 0, 2] - A[:, 2, 0], A[:, 1, 0] - A[:, 0, 1]], -1
        )
        return torch.cat([rotation, cotangent.t], -1)
