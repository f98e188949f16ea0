"""For tests of this package and of yours: scenes with a known answer, differences, checks of cameras and problems."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import so3
from posegrad._pytree import tree_flatten, tree_map, tree_unflatten
from posegrad.cameras import Camera
from posegrad.optim.problem import Problem
from posegrad.pose import Pose
from posegrad.projection import project_points


@dataclass(frozen=True)
class Scene:
    """A batch of PnP problems, float64: noisy pixels (B, N, 2), points (B, N, 3), weights (B, N), K, true pose.

    >>> scene = random_scene(5, 8)
    >>> scene[:2].points2d.shape, scene.pose.R.shape
    (torch.Size([2, 8, 2]), torch.Size([5, 3, 3]))
    """

    points2d: Float[Tensor, "B N 2"]
    points3d: Float[Tensor, "B N 3"]
    weights: Float[Tensor, "B N"]
    K: Float[Tensor, "3 3"]
    pose: Pose

    def __getitem__(self, item: slice) -> "Scene":
        return replace(
            self,
            points2d=self.points2d[item],
            points3d=self.points3d[item],
            weights=self.weights[item],
            pose=self.pose[item],
        )


def random_scene(
    batch: int, points: int, *, noise: float = 0.0, planar: bool = False, focal: float = 600.0, seed: int = 0
) -> Scene:
    """Points in a cube of half side 1 at 4 to 8 units from the camera, seen from anywhere.

    Args:
        batch: number of items.
        points: points of each.
        noise: standard deviation in pixels of a camera with f = 600: multiples of f / 600.
        planar: all points in the object's plane z = 0, tilted by 29 to 63 degrees against the image.
        focal: focal length; the principal point is at (320, 240) f / 600, skew at f / 300.
        seed: of a generator of its own.

    Returns:
        :class:`Scene`, the same for the same arguments.

    >>> import posegrad as pg
    >>> scene = random_scene(2, 8)
    >>> pg.reprojection_residuals(scene.points2d, scene.points3d, scene.K, scene.pose).abs().max().item()
    0.0
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    pixel = focal / 600
    z = uniform(batch, points, 3)
    # four points in different octants keep every scene well posed; the rest lie anywhere
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()[:points]
    z[:, :4] = corners * (0.3 + 0.7 * z[:, :4].abs())
    if planar:
        z[..., 2] = 0
    K = torch.tensor([[focal, 2 * pixel, 320 * pixel], [0, 1.02 * focal, 240 * pixel], [0, 0, 1]]).double()
    spin = so3.exp(torch.cat([torch.zeros(batch, 2).double(), torch.pi * uniform(batch, 1)], -1))
    tilt = uniform(batch, 3)
    tilt[:, 2] = 0
    tilt = tilt / tilt.norm(dim=-1, keepdim=True) * (0.8 + 0.3 * uniform(batch, 1))
    R = so3.exp(tilt) @ spin if planar else so3.exp(3 * uniform(batch, 3))
    t = torch.cat([uniform(batch, 2), 6 + 2 * uniform(batch, 1)], -1)
    pose = Pose(R, t)
    jitter = torch.randn(batch, points, 2, generator=generator, dtype=torch.float64)
    points2d = project_points(z, K, pose) + noise * pixel * jitter
    return Scene(points2d, z, 1 + 0.5 * uniform(batch, points), K, pose)


def central_difference(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "B ..."], step: float
) -> Float[Tensor, "B ..."]:
    """Gradient by x of a function (M, ...) -> (M,) of independent items; fourth order, error O(step^4).

    The function is called with all displaced copies at once: M = B times the number of entries of an item.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    >>> central_difference(lambda x: x[:, 0] * x[:, 1] ** 2, x, 1e-3)
    tensor([[ 4.0000,  4.0000],
            [16.0000, 24.0000]], dtype=torch.float64)
    """
    batch, entries = x.shape[0], x[0].numel()
    shift = step * torch.eye(entries, dtype=x.dtype).reshape(1, entries, *x.shape[1:])

    def at(multiple: int) -> Tensor:
        return function((x[:, None] + multiple * shift).flatten(0, 1)).view(batch, entries)

    difference = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    return difference.view(x.shape)


def relative_error(
    actual: Float[Tensor, "B ..."], expected: Float[Tensor, "B ..."], floor: float
) -> Float[Tensor, " B"]:
    """``|actual - expected| / max(|expected|, floor)`` for each item.

    >>> relative_error(torch.tensor([[3.0, 4.5]]), torch.tensor([[3.0, 4.0]]), floor=1e-9)
    tensor([0.1000])
    """
    batch = len(expected)
    difference = (actual - expected).reshape(batch, -1).norm(dim=1)
    return difference / expected.reshape(batch, -1).norm(dim=1).clamp(min=floor)


def check_camera(camera: Camera, points_cam: Float[Tensor, "N 3"], tolerance: float = 1e-9) -> None:
    """Assert what the package relies on of a camera model: derivatives, inverse, gradients, and nothing but numbers.

    - Closed forms agree with automatic differentiation of ``project``, at the points and on the axis.
    - ``unproject`` inverts ``project``; wherever it says ``valid``, projecting its answer gives the pixel.
    - First and second derivatives of both, by points, pixels and parameters, agree with differences.
    - Points anywhere, pixels anywhere: the results are finite, and so are the gradients; without ``wide`` no point
      with z <= 0 is valid.

    Args:
        camera: one camera (parameters (P,), float64).
        points_cam: points in its valid field, off its edge by more than a hundredth: some three will do.
        tolerance: relative, of the first two; in focal lengths of the image.

    >>> import posegrad as pg
    >>> camera = pg.cameras.SimpleRadial(torch.tensor([500.0, 320, 240, -0.1], dtype=torch.float64))
    >>> check_camera(camera, torch.tensor([[0.1, 0.2, 1.0], [-0.5, 0.3, 1.0]], dtype=torch.float64))
    """
    camera = camera.in_units_of(camera.focal_scale()).detach()
    axis = points_cam.new_tensor([[0.0, 0.0, 1.0], [1e-9, 0.0, 1.0], [2e-5, -1e-5, 2.0]])
    points = torch.cat([points_cam, axis])
    _check_camera_derivatives(camera, points, tolerance)
    _check_camera_inverse(camera, points, tolerance)
    _check_camera_gradients(camera, points_cam)
    _check_camera_everywhere(camera, points_cam, tolerance)


def _check_camera_derivatives(camera: Camera, points_cam: Tensor, tolerance: float) -> None:
    projected = camera.project_with_jacobian(points_cam)
    assert projected.jacobian is not None
    assert bool(projected.valid.all()), "the points must lie in the model's valid field"
    plain = camera.project(points_cam)
    assert bool(plain.valid.all()), "project and project_with_jacobian differ in validity"
    cotangent = torch.linspace(-1, 2, points_cam.shape[0] * 2, dtype=points_cam.dtype).view(-1, 2)
    for name, actual, expected in (
        ("pixels", projected.points2d, plain.points2d),
        ("jacobian", projected.jacobian, Camera.project_with_jacobian(camera, points_cam).jacobian),
        (
            "contracted_hessian",
            camera.contracted_hessian(points_cam, cotangent),
            Camera.contracted_hessian(camera, points_cam, cotangent),
        ),
    ):
        torch.testing.assert_close(
            actual, expected, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


def _check_camera_inverse(camera: Camera, points_cam: Tensor, tolerance: float) -> None:
    pixels = camera.project(points_cam).points2d
    bearings, valid = camera.unproject(pixels)
    assert bool(valid.all()), "unproject: not valid for the image of a valid point"
    expected = points_cam / points_cam.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(bearings, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(camera.project(bearings).points2d, pixels, rtol=tolerance, atol=tolerance)


def _check_camera_gradients(camera: Camera, points_cam: Tensor) -> None:
    def project(params: Tensor, points: Tensor) -> Tensor:
        return replace(camera, params=params).project(points).points2d

    def unproject(params: Tensor, pixels: Tensor) -> Tensor:
        return replace(camera, params=params).unproject(pixels).bearings

    points = torch.cat([points_cam[:3], points_cam.new_tensor([[0.0, 0.0, 1.0]])])
    for function, values in ((project, points), (unproject, camera.project(points).points2d)):
        inputs = (camera.params.clone().requires_grad_(), values.detach().clone().requires_grad_())
        assert torch.autograd.gradcheck(function, inputs, eps=1e-6, rtol=1e-6, atol=1e-7, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, eps=1e-6, rtol=1e-5, atol=1e-6, fast_mode=True)


def _check_camera_everywhere(camera: Camera, points_cam: Tensor, tolerance: float) -> None:
    angle = torch.linspace(0, 2 * torch.pi, 25, dtype=points_cam.dtype)
    ring = torch.stack([angle.cos(), angle.sin()], -1)
    depth = points_cam.new_tensor([-1e3, -2.0, -0.1, -1e-9, 0.0, 1e-12, 1e-3, 0.1, 0.5, 2.0])
    points = torch.cat([ring.repeat(len(depth), 1), depth.repeat_interleave(len(ring))[:, None]], -1)
    points = torch.cat([points, points_cam.new_tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1e30, 0.0, 1.0]])])
    radius = torch.logspace(-3, 9, 40, dtype=points_cam.dtype)
    pixels = (radius[:, None, None] * ring).flatten(0, 1)
    valid = camera.project(points).valid
    assert camera.wide or not bool((valid & (points[:, 2] <= 0)).any()), (
        "valid behind the camera without wide"
    )

    params = camera.params.clone().requires_grad_()
    points, pixels = points.requires_grad_(), pixels.requires_grad_()
    model = replace(camera, params=params)
    projected, unprojected = model.project_with_jacobian(points), model.unproject(pixels)
    assert projected.jacobian is not None
    hessian = model.contracted_hessian(points, torch.ones_like(projected.points2d))
    results = (projected.points2d, projected.jacobian, hessian, unprojected.bearings)
    for result, inputs in zip(results, (points, points, points, pixels), strict=True):
        assert bool(result.isfinite().all())
        for gradient in torch.autograd.grad(result.sum(), (params, inputs), retain_graph=True):
            assert bool(gradient.isfinite().all())
    torch.testing.assert_close(
        unprojected.bearings.norm(dim=-1), torch.ones_like(pixels[:, 0]), rtol=0, atol=tolerance
    )
    found = unprojected.valid
    again = model.project(unprojected.bearings[found])
    assert bool(again.valid.all()), "unproject: valid, but outside of the field"
    torch.testing.assert_close(again.points2d, pixels[found], rtol=tolerance, atol=tolerance)


def check_problem(problem: Problem, variable: Any, args: Any, tolerance: float = 1e-9) -> None:
    """Assert that a problem's closed forms agree with the defaults made by automatic differentiation.

    Args:
        problem: an instance.
        variable: where, float64, with the batch in front.
        args: its arguments, likewise.
        tolerance: relative and absolute.

    Raises:
        AssertionError: naming what differs.

    >>> class Mean(Problem):
    ...     dimension = 2
    ...     def residual(self, variable, args):
    ...         return variable - args
    ...     def pullback(self, variable, cotangent):  # optional, and right
    ...         return cotangent
    >>> check_problem(Mean(), torch.zeros(3, 2).double(), torch.ones(3, 2).double())
    """
    for exact in (False, True):
        actual = problem.quadratic(variable, args, exact=exact)
        expected = Problem.quadratic(problem, variable, args, exact=exact)
        for name in ("cost", "gradient", "hessian"):
            torch.testing.assert_close(
                getattr(actual, name),
                getattr(expected, name),
                rtol=tolerance,
                atol=tolerance,
                msg=f"{name}, {exact=}",
            )
    generator = torch.Generator().manual_seed(0)

    def random_like(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator, dtype=value.dtype)

    direction = random_like(actual.gradient)
    leaves, spec = tree_flatten(args)
    slopes = []
    for kind in (type(problem), Problem):
        inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        slope = kind.slope(problem, variable, tree_unflatten(inputs, spec), direction)
        slopes.append((slope, *torch.autograd.grad(slope.sum(), inputs, materialize_grads=True)))
    for got, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(
            got, wanted, rtol=tolerance, atol=tolerance, msg="slope, or its derivative by args"
        )
    cotangent = tree_map(random_like, variable)
    torch.testing.assert_close(
        problem.pullback(variable, cotangent),
        Problem.pullback(problem, variable, cotangent),
        rtol=tolerance,
        atol=tolerance,
        msg="pullback",
    )
