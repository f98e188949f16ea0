"""Camera models against OpenCV and their own defaults."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

import posegrad as pg
from posegrad.cameras import (
    Camera,
    Pinhole,
    Projected,
    SimplePinhole,
    SkewPinhole,
    Unprojected,
    as_camera,
)
from posegrad.testing import check_camera, random_scene

_PARAMS = {
    "SIMPLE_PINHOLE": [500.0, 320.0, 240.0],
    "PINHOLE": [500.0, 520.0, 320.0, 240.0],
    "SKEW_PINHOLE": [500.0, 520.0, 320.0, 240.0, 3.0],
}
_MODELS = {model.name: model for model in (SimplePinhole, Pinhole, SkewPinhole)}
_POINTS = torch.tensor(
    [[0.3, -0.2, 2.0], [1.0, 1.0, 1.5], [-0.4, 0.1, 4.0], [0.0, 0.0, 1.0]], dtype=torch.float64
)


def _camera(name: str) -> Camera:
    return _MODELS[name](torch.tensor(_PARAMS[name], dtype=torch.float64))


@pytest.mark.parametrize("name", _MODELS)
def test_closed_forms(name: str) -> None:
    check_camera(_camera(name), _POINTS)


@pytest.mark.parametrize("name", ["SIMPLE_PINHOLE", "PINHOLE"])
def test_projection_equals_opencv(name: str) -> None:
    camera = _camera(name)
    expected, _ = cv2.projectPoints(_POINTS.numpy(), np.zeros(3), np.zeros(3), camera.matrix().numpy(), None)  # type: ignore[attr-defined]
    torch.testing.assert_close(camera.project(_POINTS).points2d, torch.from_numpy(expected[:, 0]))


@pytest.mark.parametrize("name", _MODELS)
def test_units_keep_the_image(name: str) -> None:
    camera = _camera(name)
    scaled = camera.in_units_of(torch.tensor(250.0).double())
    torch.testing.assert_close(scaled.project(_POINTS).points2d * 250, camera.project(_POINTS).points2d)


def test_resize_follows_the_pixel_centre_rule_of_opencv() -> None:
    """A linear ramp stays a linear ramp: the value at a resized pixel tells where OpenCV took it from."""
    ramp = np.tile(np.arange(64, dtype=np.float32), (48, 1))
    resized = cv2.resize(ramp, (160, 120), interpolation=cv2.INTER_LINEAR)
    camera = Pinhole(torch.tensor([80.0, 80, 31, 20], dtype=torch.float64))
    bigger = camera.resize(2.5)
    point = torch.tensor([[0.1, 0.05, 1.0]], dtype=torch.float64)
    u, v = camera.project(point).points2d[0].tolist()
    u2, v2 = bigger.project(point).points2d[0].tolist()
    low = int(np.floor(u2))
    value = resized[round(v2), low] * (low + 1 - u2) + resized[round(v2), low + 1] * (u2 - low)
    assert value == pytest.approx(u, abs=1e-4)
    assert (v2 + 0.5) / 2.5 - 0.5 == pytest.approx(v)


def test_crop_then_project_is_project_then_shift() -> None:
    camera = _camera("SKEW_PINHOLE")
    shifted = camera.project(_POINTS).points2d - torch.tensor([100.0, 50.0])
    torch.testing.assert_close(camera.crop(100, 50).project(_POINTS).points2d, shifted)
    torch.testing.assert_close(
        camera.resize(2.0, 3.0).project(_POINTS).points2d,
        (camera.project(_POINTS).points2d + 0.5) * torch.tensor([2.0, 3.0]) - 0.5,
    )
    with pytest.raises(ValueError, match="one focal length"):
        _camera("SIMPLE_PINHOLE").resize(1.0, 2.0)


def test_points_behind_are_invalid_and_finite() -> None:
    points = torch.tensor([[0.0, 0, -1], [1, 1, 0], [0, 0, 0], [1, 0, 1e-12]], dtype=torch.float64)
    projected = _camera("PINHOLE").project_with_jacobian(points)
    assert not projected.valid.any()
    assert projected.points2d.isfinite().all()
    assert projected.jacobian is not None
    assert projected.jacobian.isfinite().all()


def test_matrix_stands_for_a_camera_with_its_skew() -> None:
    K = torch.tensor([[500.0, 3, 320], [7, 520, 240], [0, 0, 1]])
    camera = as_camera(K)
    assert isinstance(camera, SkewPinhole)
    assert camera.params.tolist() == [500, 520, 320, 240, 3]


def test_wrong_cameras_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"Pinhole\.params: got shape \(3,\), expected \(\.\.\., 4\) = \(fx, fy, cx, cy\)"
    ):
        Pinhole(torch.ones(3))
    with pytest.raises(ValueError, match=r"camera: got a tensor of shape \(4,\)"):
        as_camera(torch.ones(4))
    with pytest.raises(TypeError, match="camera: got ndarray"):
        as_camera(np.eye(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"camera: got dtype torch\.int64"):
        as_camera(torch.eye(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="points2d comes before points3d"):
        pg.project_points(torch.zeros(4, 2), torch.eye(3), pg.Pose.identity())


def test_a_camera_of_ones_own_works_in_the_solver() -> None:
    """With ``project`` and ``unproject`` alone: derivatives and pytree come with the base class."""

    @dataclass(frozen=True, eq=False)
    class Mirrored(Camera):
        name = "MIRRORED"
        parameter_names = ("f", "cx", "cy")

        def project(self, points_cam: torch.Tensor) -> Projected:
            f, cx, cy = self.params.unsqueeze(-2).unbind(-1)
            x, y, z = points_cam.unbind(-1)
            safe = torch.where(z > 0, z, torch.ones_like(z))
            return Projected(torch.stack([cx - f * x / safe, cy + f * y / safe], -1), z > 0)

        def unproject(self, points2d: torch.Tensor) -> Unprojected:
            f, cx, cy = self.params.unsqueeze(-2).unbind(-1)
            ray = torch.stack(
                [(cx - points2d[..., 0]) / f, (points2d[..., 1] - cy) / f, torch.ones_like(f)], -1
            )
            ray = ray / ray.norm(dim=-1, keepdim=True)
            return Unprojected(ray, torch.ones_like(ray[..., 0], dtype=torch.bool))

    scene = random_scene(1, 8, noise=1.0, seed=0)
    params = torch.tensor([600.0, 320.0, 240.0], dtype=torch.float64, requires_grad=True)
    pixels = (
        Mirrored(params.detach()).project(scene.pose.act(scene.points3d)).points2d
        + 0.3 * scene.points3d[..., :2]
    )
    solution = pg.solve_pnp(pixels, scene.points3d, Mirrored(params), init=scene.pose)
    assert bool(solution.ok.all())
    K = torch.tensor([[-600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
    by_k = pg.solve_pnp(pixels, scene.points3d, K, init=scene.pose)
    torch.testing.assert_close(solution.pose.R, by_k.pose.R, rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(solution.pose.t.sum(), params)
    assert bool((gradient != 0).all())


def test_a_shared_camera_with_one_focal_length_gets_its_gradient() -> None:
    params = torch.tensor(_PARAMS["SIMPLE_PINHOLE"], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: SimplePinhole(p).project(_POINTS).points2d, params)


def test_resize_by_mapped_factors() -> None:
    """Under vmap nobody can ask whether they are positive; for one focal length two factors are refused."""
    simple = SimplePinhole(torch.tensor(_PARAMS["SIMPLE_PINHOLE"], dtype=torch.float64))
    factors = torch.tensor([0.5, 2.0], dtype=torch.float64)
    mapped = torch.func.vmap(lambda factor: simple.resize(factor).params)(factors)
    torch.testing.assert_close(mapped, torch.stack([simple.resize(0.5).params, simple.resize(2.0).params]))
    with pytest.raises(ValueError, match="has one focal length"):
        torch.func.vmap(lambda x, y: simple.resize(x, y).params)(factors, factors)
    with pytest.raises(ValueError, match="scale_x"):
        simple.resize(-factors)
