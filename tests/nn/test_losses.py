from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

import posegrad as pg
from posegrad.nn import crop_extent, gaussian_heatmap, heatmap_loss, mixture, pose_loss, warm_up

K = torch.tensor([[560.0, 0, 160], [0, 560, 120], [0, 0, 1]], dtype=torch.float64)


def scene(batch: int = 3, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, pg.Pose]:
    generator = torch.Generator().manual_seed(0)
    points3d = 30 * torch.randn(8, 3, generator=generator, dtype=torch.float64)
    rotvec = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
    pose = pg.Pose.from_rotvec(rotvec, torch.tensor([10.0, -5, 500], dtype=torch.float64).expand(batch, 3))
    points2d = pg.project_points(points3d, K, pose)
    return (
        points2d + noise * torch.randn(points2d.shape, generator=generator, dtype=torch.float64),
        points3d,
        pose,
    )


def test_heatmap_loss_against_scipy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    target = torch.rand(2, 3, 2, dtype=torch.float64) * 31
    p = logits.flatten(-2).softmax(-1).numpy()
    g = gaussian_heatmap(target, (8, 8), 4, 3.0).flatten(-2).numpy()
    v, u = np.mgrid[:8, :8]
    centres = (np.stack([u, v], -1).reshape(-1, 2) + 0.5) * 4 - 0.5
    distance = (np.sqrt(1 + ((p @ centres - target.numpy()) ** 2).sum(-1)) - 1) / 32
    expected = (rel_entr(g, p).sum(-1) + 10 * distance).mean()
    assert heatmap_loss(logits, target, stride=4, sigma=3.0, coordinate=10).item() == pytest.approx(expected)


def test_heatmap_loss_vanishes_at_the_target_and_ignores_points_outside() -> None:
    target = torch.tensor([[[15.5, 15.5], [-200.0, 5.0]]], dtype=torch.float64)
    logits = gaussian_heatmap(target, (8, 8), 4, 3.0).clamp(min=1e-300).log().requires_grad_()
    loss = heatmap_loss(logits, target, stride=4, sigma=3.0)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    other = logits.detach().clone()
    other[:, 1] = torch.randn(8, 8)
    other.requires_grad_()
    loss = heatmap_loss(other, target, stride=4, sigma=3.0)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    loss.backward()
    assert other.grad is not None
    assert other.grad[:, 1].abs().max() == 0
    everything_outside = heatmap_loss(other, target - 1000, stride=4)
    assert everything_outside.item() == 0


def test_heatmap_loss_gradient() -> None:
    torch.manual_seed(1)
    logits = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[3.3, 8.1], [20.0, 1.0]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: heatmap_loss(x, target, stride=4), (logits,))


def test_the_squared_pose_loss_is_the_papers_formula() -> None:
    points2d, points3d, true = scene()
    solution = pg.solve_pnp(points2d, points3d, K)
    extent = torch.tensor([100.0, 150, 200], dtype=torch.float64)
    loss = pose_loss(solution, true, points2d, points3d, K, extent=extent, reprojection=0.5, robust=None)
    terms = []
    for i in range(3):
        seen = pg.project_points(points3d, K, solution.pose[i]).numpy()
        actual = pg.project_points(points3d, K, true[i]).numpy()
        off, residual = (seen - actual) / extent[i].item(), (points2d[i].numpy() - seen) / extent[i].item()
        terms.append((off**2).sum(-1).mean() + 0.5 * (residual**2).sum(-1).mean())
    assert loss.item() == pytest.approx(np.mean(terms))


def test_the_distance_in_space_is_that_of_the_points() -> None:
    points2d, points3d, true = scene()
    solution = pg.solve_pnp(points2d, points3d, K)

    def loss(distance: float, robust: float | None, points: torch.Tensor = points3d) -> float:
        return pose_loss(
            solution, true, points2d, points, K, extent=128.0, distance=distance, robust=robust
        ).item()

    shift = solution.pose.act(points3d) - true.act(points3d)
    squared = shift.square().sum(-1).numpy() / np.square(np.ptp(points3d.numpy(), axis=0)).sum()
    assert loss(0.5, None) - loss(0, None) == pytest.approx(0.5 * squared.mean())
    robust = 0.02 * (np.sqrt(1 + squared / 0.01) - 1)
    assert loss(2.0, 0.1) - loss(0, 0.1) == pytest.approx(2 * robust.mean())
    assert loss(2.0, 0.1, points3d.expand(3, -1, -1)) == pytest.approx(loss(2.0, 0.1))


def test_the_distance_in_space_pulls_at_the_depth() -> None:
    # Keypoints drawn towards their mean by one percent: the object looks one percent too far.
    _, points3d, true = scene()
    exact = pg.project_points(points3d, K, true)
    points2d = (exact.mean(-2, keepdim=True) + 0.99 * (exact - exact.mean(-2, keepdim=True))).requires_grad_()
    solution = pg.solve_pnp(points2d, points3d, K, init=true)
    assert ((solution.pose.t - true.t)[:, 2] > 3).all()
    pose_loss(solution, true, points2d, points3d, K, extent=128.0, reprojection=0, distance=1.0).backward()
    assert points2d.grad is not None
    outwards = exact - exact.mean(-2, keepdim=True)
    assert (-(points2d.grad * outwards).sum((-1, -2)) > 0).all()


def test_pose_loss_vanishes_at_the_truth() -> None:
    points2d, points3d, true = scene(noise=0)
    solution = pg.solve_pnp(points2d.requires_grad_(), points3d, K)
    loss = pose_loss(solution, true, points2d, points3d, K, extent=128.0)
    loss.backward()
    assert loss.item() < 1e-18
    assert points2d.grad is not None
    assert points2d.grad.abs().max() < 1e-9


def test_the_robust_loss_is_squared_near_and_linear_far() -> None:
    points2d, points3d, true = scene(noise=0.01)

    def both(pose: pg.Pose, robust: float | None) -> float:
        solution = replace(pg.solve_pnp(points2d, points3d, K), variable=pose)
        return pose_loss(
            solution, true, points2d, points3d, K, extent=128.0, reprojection=0, robust=robust
        ).item()

    near = pg.Pose(true.R, true.t + 0.01)
    assert both(near, 0.1) == pytest.approx(both(near, None), rel=1e-3)
    far, twice = (pg.Pose(true.R, true.t + torch.tensor([x, 0, 0])) for x in (2000.0, 4000.0))
    assert both(twice, 0.1) / both(far, 0.1) == pytest.approx(2, rel=0.05)
    assert both(twice, None) / both(far, None) == pytest.approx(4, rel=0.05)


def test_failed_items_add_nothing_and_leave_the_others_alone() -> None:
    points2d, points3d, true = scene(4)
    clean = points2d.clone().requires_grad_()
    poisoned = points2d.clone()
    poisoned[1] = float("nan")
    poisoned[2] = 7.0
    poisoned.requires_grad_()
    kept = torch.tensor([0, 3])
    for robust, distance in ((None, 0.0), (0.1, 0.0), (0.1, 1.0)):
        options = {"extent": 128.0, "robust": robust, "distance": distance}
        clean.grad = poisoned.grad = None
        solution = pg.solve_pnp(poisoned, points3d, K, init=true)
        assert solution.ok.tolist() == [True, False, False, True]
        loss = pose_loss(solution, true, poisoned, points3d, K, **options)
        loss.backward()
        part = pg.solve_pnp(clean[kept], points3d, K, init=true[kept])
        alone = pose_loss(part, true[kept], clean[kept], points3d, K, **options)
        alone.backward()
        assert poisoned.grad is not None
        assert clean.grad is not None
        assert poisoned.grad.isfinite().all()
        assert poisoned.grad[1:3].abs().max() == 0
        # Two of four items failed: half of the mean over the two that did not.
        assert loss.item() == pytest.approx(alone.item() / 2)
        torch.testing.assert_close(poisoned.grad[kept], clean.grad[kept] / 2)


def test_all_failed_is_zero_with_zero_gradient() -> None:
    points2d, points3d, true = scene()
    points2d = torch.full_like(points2d, float("nan")).requires_grad_()
    solution = pg.solve_pnp(points2d, points3d, K)
    loss = pose_loss(solution, true, points2d, points3d, K, extent=128.0)
    loss.backward()
    assert loss.item() == 0
    assert points2d.grad is not None
    assert points2d.grad.abs().max() == 0


def test_the_gradient_of_the_default_loss_is_bounded_whatever_the_keypoints() -> None:
    # Keypoints as an untrained network gives them: all near the centre, in no relation to the object.
    generator = torch.Generator().manual_seed(3)
    _, points3d, true = scene(64)
    norms = []
    for spread in (0.01, 0.1, 1.0, 10.0, 100.0):
        noise = spread * torch.randn(64, 8, 2, generator=generator, dtype=torch.float64)
        points2d = (torch.tensor([160.0, 120]) + noise).requires_grad_()
        solution = pg.solve_pnp(points2d, points3d, K, adjoint=pg.Implicit(max_gain=2.0), init=true)
        pose_loss(solution, true, points2d, points3d, K, extent=128.0).backward()
        assert points2d.grad is not None
        norms.append((64 * points2d.grad).flatten(1).norm(dim=-1).max().item())
    # 2 c / (S sqrt(N)) per term bounds the gradient by the projections; PnP passes on at most twice that.
    bound = (2 + 1 + 2) * 2 * 0.1 / (128 * np.sqrt(8))
    assert max(norms) < bound


def test_crop_extent_warm_up_and_mixture() -> None:
    angle = 0.3
    rotation = 1.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = torch.from_numpy(np.column_stack([rotation, [5.0, 6.0]]))
    assert crop_extent(affine, 128).item() == pytest.approx(1.7 * 128)
    assert [warm_up(p, 0.2, 0.4) for p in (0.0, 0.2, 0.3, 0.4, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert warm_up(0.0, 0.0, 0.0) == 1
    assert mixture(torch.tensor(2.0), torch.tensor(0.5), 4.0) == 4
