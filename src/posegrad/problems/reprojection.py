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
        q = variable.R @ args.points3d.mT  # (B, 3, N); coordinates first from here on: one row, one pass
        points_cam = (q + variable.t[..., None]).mT
        projected = args.camera.project_with_jacobian(points_cam)
        assert projected.jacobian is not None
        J = projected.jacobian.permute(0, 2, 3, 1)  # (B, 2, 3, N)
        residual = (projected.points2d - args.points2d).mT  # (B, 2, N)
        weighted = args.weights[:, None] * residual
        tangent = torch.cat([_moments(q, J).transpose(1, 2), J.transpose(1, 2)], 1)  # (B, 6, 2, N)
        flat = tangent.flatten(2)
        hessian = (tangent * args.weights[:, None, None]).flatten(2) @ flat.mT
        if exact:
            hessian = hessian + _curvature(q, points_cam, J, weighted, args.camera)
        return Quadratic(
            cost=0.5 * (weighted * residual).sum((-1, -2)),
            gradient=(flat @ weighted.flatten(1)[..., None]).squeeze(-1),
            hessian=hessian,
            feasible=(projected.valid | (args.weights == 0)).all(-1),
        )

    def slope(self, variable: Pose, args: Correspondences, direction: Tensor) -> Tensor:
        q = variable.R @ args.points3d.mT
        projected = args.camera.project_with_jacobian((q + variable.t[..., None]).mT)
        assert projected.jacobian is not None
        J = projected.jacobian.permute(0, 2, 3, 1)
        motion = torch.linalg.cross(direction[:, :3, None].expand_as(q), q, dim=1) + direction[:, 3:, None]
        image_motion = (J * motion[:, None]).sum(2)
        residual = (projected.points2d - args.points2d).mT
        return (args.weights * (residual * image_motion).sum(1)).sum(-1)

    def pullback(self, variable: Pose, cotangent: Pose) -> Float[Tensor, "B 6"]:
        # <G, [w]x R> = <G R^T, [w]x>
        A = cotangent.R @ variable.R.mT
        rotation = torch.stack(
            [A[:, 2, 1] - A[:, 1, 2], A[:, 0, 2] - A[:, 2, 0], A[:, 1, 0] - A[:, 0, 1]], -1
        )
        return torch.cat([rotation, cotangent.t], -1)


def _moments(q: Float[Tensor, "B 3 N"], rows: Float[Tensor, "B R 3 N"]) -> Float[Tensor, "B R 3 N"]:
    """``q x row``, point by point: since ``row . (w x q) = w . (q x row)``, the rotation part of ``row D``."""
    x, y, z = q[:, None].unbind(2)
    a, b, c = rows.unbind(2)
    return torch.stack([y * c - z * b, z * a - x * c, x * b - y * a], 2)


def _curvature(
    q: Tensor, points_cam: Tensor, J: Tensor, weighted: Tensor, camera: Camera
) -> Float[Tensor, "B 6 6"]:
    """Second derivatives of projection and retraction, weighted by the residuals."""
    S = camera.contracted_hessian(points_cam, weighted.mT).permute(0, 2, 3, 1)  # (B, 3, 3, N), symmetric
    SD = _moments(q, S)
    mixed = SD.sum(-1)  # translation rows, rotation columns
    rotation = _moments(q, SD.transpose(1, 2)).sum(-1)
    force = (weighted[:, :, None] * J).sum(1)  # d cost / d point in the camera
    C = force @ q.mT
    trace = C.diagonal(dim1=-2, dim2=-1).sum(-1)
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    # second order of the retraction: force . (w x (w x q)) / 2
    rotation = rotation + 0.5 * (C + C.mT) - trace[:, None, None] * eye
    return torch.cat([torch.cat([rotation, mixed.mT], -1), torch.cat([mixed, S.sum(-1)], -1)], -2)
