"""Direct regression: the numbers of a crop mean a pose whatever the crop; losses and gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.data import crop_affine
from posegrad.nn import (
    PoseRegressionNet,
    RegressedPose,
    kendall_loss,
    map_points,
    pose_from_crop,
    pose_loss,
    rotation_from_6d,
)
from posegrad.testing import random_scene

K = torch.tensor([[560.0, 0, 320], [0, 580, 240], [0, 0, 1]], dtype=torch.float64)
POINTS = 30 * torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def affine(centre: tuple[float, float], side: float, angle: float, size: int = 64) -> Tensor:
    return torch.from_numpy(crop_affine(np.array(centre), side, size, math.radians(angle)))[None]


def test_six_numbers_are_a_rotation() -> None:
    numbers = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    R = rotation_from_6d(numbers)
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(R.det(), torch.ones(50).double())
    again = rotation_from_6d(torch.cat([3 * R[..., 0], R[..., 1] - 2 * R[..., 0]], -1))
    torch.testing.assert_close(again, R)
    assert torch.autograd.gradcheck(rotation_from_6d, numbers[:3].requires_grad_())


@pytest.mark.parametrize("numbers", [[0.0] * 6, [1.0, 2, 3, 2, 4, 6], [1.0, 0, 0, 0, 0, 0]])
def test_degenerate_columns_give_a_rotation_and_finite_gradients(numbers: list[float]) -> None:
    leaf = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    R = rotation_from_6d(leaf)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double(), atol=1e-9, rtol=0)
    R.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_the_origin_is_seen_where_the_numbers_say() -> None:
    numbers = torch.tensor([[1.0, 0.2, 0, 0, 1, 0.3, 0.15, -0.2, 0.4]], dtype=torch.float64)
    A = affine((410.0, 150.0), 100.0, 30.0)
    pose = pose_from_crop(numbers, POINTS, K, A, 64)
    origin = pg.project_points(torch.zeros(1, 3).double(), K, pose)
    expected = map_points(31.5 + 64 * numbers[:, None, 6:8], A)
    torch.testing.assert_close(origin, expected)


def test_distance_fills_the_crop() -> None:
    """With s = 0 and no offset, the diagonal of the points' box seen from the front is as wide as the crop."""
    numbers = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0, 0, 0]], dtype=torch.float64)
    pose = pose_from_crop(numbers, POINTS, K, affine((320.0, 240.0), 50.0, 0.0), 64)
    extent = (POINTS.amax(0) - POINTS.amin(0)).norm()
    assert (K[0, 0] * extent / pose.t[0, 2]).item() == pytest.approx(50.0, rel=2e-3)


def test_a_turned_camera_sees_the_same_numbers() -> None:
    """Camera turned about its centre, by roll too, and the crop with it: the pose turns with the camera, exactly."""
    numbers = torch.tensor([[1.0, 0.2, 0.1, -0.3, 1, 0.3, 0.0, 0.0, 0.4]], dtype=torch.float64)
    square = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    first = pose_from_crop(numbers, POINTS, square, affine((320.0, 240.0), 60.0, 0.0), 64)
    rolled = pose_from_crop(numbers, POINTS, square, affine((320.0, 240.0), 60.0, 25.0), 64)
    turn = rolled.R[0] @ first.R[0].T
    torch.testing.assert_close(turn[2], torch.tensor([0.0, 0, 1]).double(), atol=1e-12, rtol=0)
    assert math.degrees(math.acos(float(turn[0, 0]))) == pytest.approx(25.0)
    torch.testing.assert_close(rolled.t, first.t)
    aside = pose_from_crop(numbers, POINTS, square, affine((420.0, 240.0), 60.0, 0.0), 64)
    turn = aside.R[0] @ first.R[0].T
    torch.testing.assert_close((turn @ first.t[0]) / first.t.norm(), aside.t[0] / aside.t.norm())


def test_scale_and_units_do_not_matter() -> None:
    numbers = torch.tensor([[1.0, 0.2, 0.1, -0.3, 1, 0.3, 0.1, 0.0, 0.4]], dtype=torch.float64)
    A = affine((300.0, 250.0), 60.0, 10.0)
    in_mm, in_m = pose_from_crop(numbers, POINTS, K, A, 64), pose_from_crop(numbers, POINTS / 1000, K, A, 64)
    torch.testing.assert_close(in_mm.t, 1000 * in_m.t)
    torch.testing.assert_close(in_mm.R, in_m.R)


def test_gradients_of_the_whole_way() -> None:
    """From the numbers to both losses, against central differences (gradcheck, float64)."""
    scene = random_scene(3, 8)
    A = affine((320.0, 240.0), 200.0, 20.0).expand(3, 2, 3)
    generator = torch.Generator().manual_seed(2)
    numbers = 0.5 * torch.randn(3, 9, generator=generator, dtype=torch.float64)
    log_variances = torch.tensor([0.2, -1.0], dtype=torch.float64)

    def losses(numbers: Tensor, log_variances: Tensor) -> tuple[Tensor, Tensor]:
        pose = pose_from_crop(numbers, scene.points3d, scene.K, A, 64)
        found = RegressedPose(pose, torch.ones(3, dtype=torch.bool))
        geometric = pose_loss(
            found, scene.pose, scene.points2d, scene.points3d, scene.K, extent=200.0, reprojection=0.0
        )
        return kendall_loss(found, scene.pose, scene.points3d, log_variances), geometric

    inputs = (numbers.requires_grad_(), log_variances.requires_grad_())
    assert torch.autograd.gradcheck(losses, inputs, rtol=1e-6, atol=1e-8)


def test_the_loss_at_the_truth_and_its_weights() -> None:
    scene = random_scene(4, 8)
    good = RegressedPose(scene.pose, torch.ones(4, dtype=torch.bool))
    log_variances = torch.tensor([0.5, -3.0], dtype=torch.float64, requires_grad=True)
    loss = kendall_loss(good, scene.pose, scene.points3d, log_variances)
    assert loss.item() == pytest.approx(-2.5)
    # The best weights are the logs of the mean errors.
    generator = torch.Generator().manual_seed(3)
    off = scene.pose.retract(0.1 * torch.randn(4, 6, generator=generator, dtype=torch.float64))
    found = RegressedPose(off, torch.ones(4, dtype=torch.bool))
    zero = torch.zeros(2, dtype=torch.float64)
    turned = kendall_loss(
        RegressedPose(pg.Pose(off.R, scene.pose.t), found.ok), scene.pose, scene.points3d, zero
    )
    moved = kendall_loss(
        RegressedPose(pg.Pose(scene.pose.R, off.t), found.ok), scene.pose, scene.points3d, zero
    )
    best = torch.stack([moved.log(), turned.log()]).detach().requires_grad_()
    kendall_loss(found, scene.pose, scene.points3d, best).backward()
    assert best.grad is not None
    assert best.grad.abs().max() < 1e-12
    angle = torch.full((4,), 0.7, dtype=torch.float64)
    turn = pg.so3.exp(angle[:, None] * torch.tensor([[0.0, 0.6, 0.8]], dtype=torch.float64))
    only = RegressedPose(pg.Pose(turn @ scene.pose.R, scene.pose.t), found.ok)
    expected = 2 * math.sin(0.35)
    assert kendall_loss(only, scene.pose, scene.points3d, zero).item() == pytest.approx(expected, abs=2e-3)


def test_a_crop_of_nan_is_a_failed_item_and_nothing_else() -> None:
    net = PoseRegressionNet("test_efficientnet", image_size=64, width=8).eval()
    image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    A = affine((320.0, 240.0), 100.0, 0.0).expand(3, 2, 3)
    alone = net.solve(net(image), POINTS, K, A)
    image[1] = torch.nan
    leaf = image.clone().requires_grad_()
    found = net.solve(net(leaf), POINTS, K, A)
    assert found.ok.tolist() == [True, False, True]
    assert found.pose.R.isfinite().all()
    torch.testing.assert_close(found.pose.t[[0, 2]], alone.pose.t[[0, 2]])


def test_each_object_has_a_layer_of_its_own() -> None:
    net = PoseRegressionNet("test_efficientnet", num_objects=3, image_size=64, width=8).eval()
    image = torch.rand(1, 3, 64, 64).expand(3, 3, 64, 64)
    numbers = net(image, torch.tensor([0, 2, 2])).numbers
    torch.testing.assert_close(numbers[1], numbers[2])
    assert (numbers[0] - numbers[1]).abs().max() > 1e-4
    everything = net.last(torch.relu(net.hidden(torch.zeros(1, net.hidden.in_features))))
    assert everything.shape == (1, 27)


def test_it_learns_a_few_crops_by_heart() -> None:
    """Both losses fall to a tenth of a radian and a few percent within some steps of Adam."""
    torch.manual_seed(0)
    net = PoseRegressionNet("test_efficientnet", image_size=64, width=16).eval()
    image = torch.rand(4, 3, 64, 64)
    A = affine((320.0, 240.0), 100.0, 0.0).expand(4, 2, 3)
    w = 0.4 * torch.randn(4, 3, dtype=torch.float64)
    true = pg.Pose.from_rotvec(w, torch.tensor([0.0, 0, 800]).double().expand(4, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    first = None
    for _ in range(60):
        loss = kendall_loss(net.solve(net(image), POINTS, K, A), true, POINTS, net.log_variances)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = loss.item() if first is None else first
    found = net.solve(net(image), POINTS, K, A).pose
    assert pg.so3.log(found.R @ true.R.mT).norm(dim=-1).mean() < 0.15
    assert (found.t - true.t).norm(dim=-1).mean() < 60
