"""The reprojection cost of a camera and the poses of its views, with closed-form derivatives."""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.cameras import Camera
from posegrad.optim import batch
from posegrad.optim.arrow import Arrow
from posegrad.optim.problem import Problem, Quadratic
from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.robust import Rho, RobustLoss, Squared


class Observations(NamedTuple):
    """What a calibration depends on: every view's points, weights and loss."""

    points2d: Float[Tensor, "B V N 2"]
    points3d: Float[Tensor, "B V N 3"]
    weights: Float[Tensor, "B V N *kind"]
    loss: RobustLoss  # its parameters (B, V)


class Calibrated(NamedTuple):
    """The variable: the camera's parameters, the poses, and (a constant) which views take part, 1 or 0."""

    params: Float[Tensor, "B P"]
    pose: Pose  # (B, V)
    used: Float[Tensor, "B V"]


class CameraAndPose(NamedTuple):
    """What a user gets of it."""

    camera: Camera
    pose: Pose


class ArrowQuadratic(NamedTuple):
    """Second-order model of the cost, as :class:`posegrad.optim.problem.Quadratic`, but with an arrow for a matrix."""

    view_cost: Float[Tensor, "B V"]
    by_params: Float[Tensor, "B F"]
    by_poses: Float[Tensor, "B V 6"]
    hessian: Arrow
    feasible: Bool[Tensor, " B"]

    @property
    def cost(self) -> Float[Tensor, " B"]:
        """The minimised cost."""
        return self.view_cost.sum(-1)


@dataclass(frozen=True, eq=False)
class Calibration(Problem):
    """``f = 1/2 sum_vi rho(r_vi^T W_vi r_vi)`` with ``r_vi = pi(camera, R_v z_vi + t_v) - x_vi``.

    The tangent is [free parameters (F), then rotation and translation of each view (6 V)]; parameters that are not
    free stay as the variable has them.

    Args:
        model: the camera model.
        free: positions of the free parameters.
        num_views: V.
        bounded: whether points must lie in the valid field of the distorted model, which is computed at every
            evaluation then; otherwise in that of the lens alone.
    """

    model: type[Camera]
    free: tuple[int, ...]
    num_views: int
    bounded: bool = True

    @property
    def dimension(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return len(self.free) + 6 * self.num_views

    def unbounded(self) -> "Calibration":
        """The same without the distortion's field."""
        return replace(self, bounded=False)

    def camera(self, params: Float[Tensor, "B P"]) -> Camera:
        """A camera for every view, (B V)."""
        if self.bounded:
            return batch.repeat(self.model(params), self.num_views)
        return _undistorted(self.model, params.dtype, params.device).in_same_field(
            batch.repeat(params, self.num_views)
        )

    def retract(self, variable: Calibrated, delta: Float[Tensor, "B D"]) -> Calibrated:
        count = len(self.free)
        return self.moved(variable, delta[:, :count], delta[:, count:].unflatten(-1, (self.num_views, 6)))

    def moved(
        self, variable: Calibrated, params: Float[Tensor, "B F"], poses: Float[Tensor, "B V 6"]
    ) -> Calibrated:
        """As :meth:`retract`, from the two parts of the tangent."""
        R, t = variable.pose.R, variable.pose.t
        return variable._replace(
            params=variable.params + self._spread(params),
            pose=Pose(so3.cayley(poses[..., :3]) @ R, t + poses[..., 3:]),
        )

    def _spread(self, params: Float[Tensor, "B F"]) -> Float[Tensor, "B P"]:
        count = len(self.model.parameter_names)
        if len(self.free) == count:
            return params
        index = torch.tensor(self.free, device=params.device)
        return params.new_zeros(params.shape[0], count).index_copy(1, index, params)

    def residual(self, variable: Calibrated, args: Observations) -> Float[Tensor, "B M"]:
        """Residuals times the root of their weight, the loss's ``rho'`` included, which is held constant."""
        points = self._points(variable, args)
        residual = self._residual(variable, points)
        _, factor, _ = _rho(points.loss, (residual * weighting.apply(points.weights, residual)).sum(1))
        whitened = weighting.apply(weighting.root(points.weights), residual)
        return (whitened * factor.detach().sqrt()[:, None]).reshape(variable.params.shape[0], -1)

    def cost(self, variable: Calibrated, args: Observations) -> Float[Tensor, " B"]:
        return self.view_costs(variable, args)[0].sum(-1)

    def feasible(self, variable: Calibrated, args: Observations) -> Bool[Tensor, " B"]:
        return self.view_costs(variable, args)[1].all(-1)

    def view_costs(
        self, variable: Calibrated, args: Observations
    ) -> tuple[Float[Tensor, "B V"], Bool[Tensor, "B V"]]:
        """Each view's share of the cost, and whether its points lie in the camera's field."""
        points = self._points(variable, args)
        projected = self.camera(variable.params).project(_points_cam(points))
        residual = (projected.points2d - points.points2d).mT
        value, _, _ = _rho(points.loss, (residual * weighting.apply(points.weights, residual)).sum(1))
        valid = projected.valid | (weighting.strength(points.weights) == 0)
        views = (-1, self.num_views)
        return 0.5 * value.sum(-1).view(views), valid.all(-1).view(views)

    def quadratic(self, variable: Calibrated, args: Observations, *, exact: bool) -> Quadratic:
        model = self.arrow_quadratic(variable, args, exact=exact)
        gradient = torch.cat([model.by_params, model.by_poses.flatten(1)], -1)
        return Quadratic(model.cost, gradient, model.hessian.dense(), model.feasible)

    def arrow_quadratic(self, variable: Calibrated, args: Observations, *, exact: bool) -> ArrowQuadratic:
        """As :meth:`quadratic`, without what is zero."""
        points = self._points(variable, args)
        camera = self.camera(variable.params)
        points_cam = _points_cam(points)
        projected, J = self._jacobian(camera, points, points_cam)
        residual = (projected.points2d - points.points2d).mT  # (B V, 2, N)
        weighted = weighting.apply(points.weights, residual)
        rho, factor, bend = _rho(points.loss, (residual * weighted).sum(1))
        plain = isinstance(points.loss, Squared)
        force = weighted if plain else factor[:, None] * weighted
        weighted_J = weighting.apply(points.weights, J)
        hessian = (J @ (weighted_J if plain else factor[:, None, None] * weighted_J).mT).sum(1)
        gradient = (J @ force[..., None]).sum(1).squeeze(-1)
        if exact:
            hessian = hessian + self._curvature(camera, points, points_cam, J, force)
            if not plain:
                pull = (J * weighted[:, :, None]).sum(1)
                hessian = hessian + (2 * bend[:, None] * pull) @ pull.mT
        valid = projected.valid | (weighting.strength(points.weights) == 0)
        count, views = len(self.free), self.num_views
        hessian = hessian.view(-1, views, *hessian.shape[1:])
        gradient = gradient.view(-1, views, gradient.shape[-1])
        idle = (1 - variable.used)[..., None, None] * torch.eye(6, dtype=hessian.dtype, device=hessian.device)
        return ArrowQuadratic(
            view_cost=0.5 * rho.sum(-1).view(-1, views),
            by_params=gradient[..., :count].sum(1),
            by_poses=gradient[..., count:],
            hessian=Arrow(
                corner=hessian[..., :count, :count].sum(1),
                cross=hessian[..., :count, count:],
                blocks=hessian[..., count:, count:] + idle,
            ),
            feasible=valid.all(-1).view(-1, views).all(-1),
        )

    def _jacobian(self, camera: Camera, points: "_Points", points_cam: Tensor) -> tuple[Any, Tensor]:
        """Projected points, and (B V, 2, F + 6, N): by free parameters, rotation and translation."""
        projected, by_params = camera.project_with_jacobians(points_cam)
        assert projected.jacobian is not None
        J = projected.jacobian.permute(0, 2, 3, 1)
        by_params = self._free(by_params.permute(0, 2, 3, 1), 2)
        turn = torch.linalg.cross(points.turned[:, None].expand_as(J), J, dim=2)
        return projected, torch.cat([by_params, turn, J], 2)

    def _curvature(
        self, camera: Camera, points: "_Points", points_cam: Tensor, J: Tensor, force: Tensor
    ) -> Float[Tensor, "BV F+6 F+6"]:
        """What the exact Hessian has beside ``J^T W J``: the projection's second derivative and the retraction's."""
        second = camera.contracted_hessians(points_cam, force.mT)
        q = points.turned
        S = second.points.permute(0, 2, 3, 1)
        turned = torch.linalg.cross(q[:, :, None].expand_as(S), S, dim=1)
        mixed = self._free(second.mixed.permute(0, 2, 3, 1), 1)
        # by [parameters, rotation, translation], then by the point in the camera
        rows = torch.cat([mixed, turned, S], 1)
        by_turn = torch.linalg.cross(q[:, None].expand_as(rows), rows, dim=2).sum(-1)
        by_pose = torch.cat([by_turn, rows.sum(-1)], -1)
        outer = (J[:, :, -3:] * force[:, :, None]).sum(1) @ q.mT
        eye = torch.eye(3, dtype=q.dtype, device=q.device)
        trace = outer.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        bend = torch.nn.functional.pad(0.5 * (outer + outer.mT) - trace * eye, (0, 3, 0, 3))
        count = len(self.free)
        across, own = by_pose[:, :count], by_pose[:, count:] + bend
        params = self._free(self._free(second.params, 1), 2)
        return torch.cat([torch.cat([params, across], -1), torch.cat([across.mT, own], -1)], -2)

    def slope(
        self, variable: Calibrated, args: Observations, direction: Float[Tensor, "B D"]
    ) -> Float[Tensor, " B"]:
        points = self._points(variable, args)
        projected, J = self._jacobian(self.camera(variable.params), points, _points_cam(points))
        count = len(self.free)
        of_params = batch.repeat(direction[:, :count], self.num_views)
        moved = torch.cat([of_params, direction[:, count:].reshape(-1, 6)], -1)
        image_motion = (moved[:, None, None] @ J).squeeze(2)
        residual = (projected.points2d - points.points2d).mT
        weighted = weighting.apply(weighting.symmetric(points.weights), residual)
        _, factor, _ = _rho(points.loss, (residual * weighted).sum(1))
        return (factor * (weighted * image_motion).sum(1)).sum(-1).view(-1, self.num_views).sum(-1)

    def pullback(self, variable: Calibrated, cotangent: Calibrated) -> Float[Tensor, "B D"]:
        # <G, [w]x R> = <G R^T, [w]x>
        A = cotangent.pose.R @ variable.pose.R.mT
        skew = A - A.mT
        poses = torch.cat(
            [torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1), cotangent.pose.t], -1
        )
        return torch.cat([self._free(cotangent.params, 1), poses.flatten(1)], -1)

    def _free(self, value: Tensor, dim: int) -> Tensor:
        """The entries of the free parameters."""
        if len(self.free) == len(self.model.parameter_names):
            return value
        return value.index_select(dim, torch.tensor(self.free, device=value.device))

    def _points(self, variable: Calibrated, args: Observations) -> "_Points":
        weights = args.weights.flatten(0, 1)
        used = (variable.used.flatten() > 0)[:, None]
        weights = weighting.keep(weights, used.expand(weights.shape[:2]))
        q = variable.pose.R.flatten(0, 1) @ args.points3d.flatten(0, 1).mT
        loss = _pytree.tree_map(lambda leaf: leaf.flatten(0, 1), args.loss)
        return _Points(args.points2d.flatten(0, 1), q, variable.pose.t.flatten(0, 1), weights, loss)

    def _residual(self, variable: Calibrated, points: "_Points") -> Float[Tensor, "BV 2 N"]:
        return (self.camera(variable.params).project(_points_cam(points)).points2d - points.points2d).mT


@functools.cache
def _undistorted(model: type[Camera], dtype: torch.dtype, device: torch.device) -> Camera:
    """A camera without distortion, for its field: that of the lens alone."""
    with torch.inference_mode(False), torch.no_grad():
        return model(torch.zeros(len(model.parameter_names), dtype=dtype, device=device))


class _Points(NamedTuple):
    """All views' points in one flat batch; coordinates first: one row, one pass."""

    points2d: Float[Tensor, "BV N 2"]
    turned: Float[Tensor, "BV 3 N"]  # R z
    t: Float[Tensor, "BV 3"]
    weights: Float[Tensor, "BV N *kind"]
    loss: RobustLoss


def _points_cam(points: _Points) -> Float[Tensor, "BV N 3"]:
    return (points.turned + points.t[..., None]).mT


def _rho(loss: RobustLoss, s: Float[Tensor, "BV N"]) -> Rho:
    if isinstance(loss, Squared):
        return Rho(s, torch.ones_like(s), torch.zeros_like(s))
    return loss.evaluate(s)
