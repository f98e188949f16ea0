"""The object-space start: its minima against brute force."""

import torch

from posegrad import so3
from posegrad.cameras import SkewPinhole
from posegrad.minimal.sqpnp import sqpnp
from posegrad.testing import Scene, random_scene


def _bearings(scene: Scene) -> torch.Tensor:
    return SkewPinhole.from_matrix(scene.K).unproject(scene.points2d).bearings


def _object_space_cost(scene: Scene, R: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    v = _bearings(scene)
    y = scene.points3d @ R.mT + t[:, None]
    off = y - (y * v).sum(-1, keepdim=True) * v
    return (scene.weights * off.square().sum(-1)).sum(-1)


def test_the_true_pose_is_the_first_candidate_of_exact_data() -> None:
    for planar in (False, True):
        scene = random_scene(50, 6, planar=planar, seed=0)
        pose, valid = sqpnp(_bearings(scene), scene.points3d, scene.weights)
        assert bool(valid[:, 0].all())
        torch.testing.assert_close(pose.R[:, 0], scene.pose.R, rtol=0, atol=1e-6)


def test_no_random_start_finds_a_lower_object_space_cost() -> None:
    scene = random_scene(20, 5, noise=5.0, seed=1)
    pose, _ = sqpnp(_bearings(scene), scene.points3d, scene.weights)
    found = _object_space_cost(scene, pose.R[:, 0], pose.t[:, 0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        w = torch.randn(20, 3, generator=generator).double().requires_grad_()
        t = (scene.pose.t + 0.1).clone().requires_grad_()
        optimiser = torch.optim.LBFGS([w, t], max_iter=60, line_search_fn="strong_wolfe")

        def closure(
            w: torch.Tensor = w, t: torch.Tensor = t, o: torch.optim.LBFGS = optimiser
        ) -> torch.Tensor:
            o.zero_grad()
            total = _object_space_cost(scene, so3.exp(w), t).sum()
            total.backward()
            return total

        optimiser.step(closure)  # pyright: ignore
        rival = _object_space_cost(scene, so3.exp(w), t).detach()
        assert bool((found <= rival + 1e-9).all())


def test_candidates_are_distinct_rotations() -> None:
    scene = random_scene(20, 4, noise=2.0, planar=True, seed=2)
    pose, valid = sqpnp(_bearings(scene), scene.points3d, scene.weights)
    torch.testing.assert_close(
        pose.R @ pose.R.mT, torch.eye(3).double().expand(20, 4, 3, 3), rtol=0, atol=1e-13
    )
    for a in range(4):
        for b in range(a):
            both = valid[:, a] & valid[:, b]
            angle = so3.log(pose.R[:, a] @ pose.R[:, b].mT).norm(dim=-1)
            assert bool((angle[both] > 0.08).all())
    assert int(valid.sum(-1).min()) >= 1
