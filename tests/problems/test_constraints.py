"""Hard constraints and priors in solve_pnp."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import so3
from posegrad.testing import central_difference, random_scene, relative_error

_DOWN = torch.tensor([0.2, -1.0, 0.3], dtype=torch.float64)


def test_gravity_is_kept_and_the_answer_is_the_best_that_keeps_it() -> None:
    scene = random_scene(10, 6, noise=3.0, seed=0)
    in_camera = (scene.pose.R @ _DOWN[:, None]).squeeze(-1)
    constraint = pg.PoseConstraint(gravity=(_DOWN, in_camera))
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, constraint=constraint)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close((solution.pose.R @ _DOWN[:, None]).squeeze(-1), in_camera, rtol=0, atol=1e-12)
    free = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    assert bool((solution.cost > free.cost).all())
    # nothing near that keeps gravity costs less: turns about it, and shifts
    axis = in_camera / in_camera.norm(dim=-1, keepdim=True)
    for turn in (-1e-4, 0.0, 1e-4):
        for shift in (-1e-4, 0.0, 1e-4):
            moved = pg.Pose(so3.exp(turn * axis) @ solution.pose.R, solution.pose.t + shift)
            r = pg.reprojection_residuals(scene.points2d, scene.points3d, scene.K, moved)
            assert bool((0.5 * r.square().sum((-1, -2)) >= solution.cost * (1 - 1e-12)).all())


@pytest.mark.parametrize("axes", ["z", "xy", "xyz"])
def test_held_components_of_the_translation_stay(axes: str) -> None:
    scene = random_scene(10, 6, noise=3.0, seed=1)
    z = scene.points3d + 2.0  # the centroid is not the origin
    x = pg.project_points(z, scene.K, scene.pose) + scene.points2d - pg.project_points(
        scene.points3d, scene.K, scene.pose
    )  # fmt: skip
    constraint = pg.PoseConstraint(translation=scene.pose.t, axes=axes)
    solution = pg.solve_pnp(x, z, scene.K, constraint=constraint, init=scene.pose)
    assert bool(solution.ok.all()), solution.describe()
    for i, name in enumerate("xyz"):
        same = (solution.pose.t[:, i] - scene.pose.t[:, i]).abs() < 1e-12
        assert bool(same.all()) == (name in axes)
    zero = torch.zeros(10, 6, dtype=torch.float64)
    hessian = solution.hessian
    for i, name in enumerate("xyz"):
        assert bool(torch.equal(hessian[:, 3 + i], zero)) == (name in axes)


def test_a_known_rotation_leaves_the_translation_and_two_points_are_enough() -> None:
    scene = random_scene(10, 2, seed=2)
    constraint = pg.PoseConstraint(rotation=scene.pose.R)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, constraint=constraint)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close(solution.pose.R, scene.pose.R, rtol=0, atol=1e-12)
    torch.testing.assert_close(solution.pose.t, scene.pose.t, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("what", ["gravity", "rotation", "translation"])
def test_gradient_equals_re_solving(what: str) -> None:
    scene = random_scene(5, 6, noise=3.0, seed=3)
    in_camera = (scene.pose.R @ _DOWN[:, None]).squeeze(-1)

    def number(x: Tensor) -> Tensor:
        copies = len(x) // 5
        R, t, b = (v.repeat_interleave(copies, 0) for v in (scene.pose.R, scene.pose.t, in_camera))
        constraint = {
            "gravity": pg.PoseConstraint(gravity=(_DOWN, b)),
            "rotation": pg.PoseConstraint(rotation=R),
            "translation": pg.PoseConstraint(translation=t, axes="xz"),
        }[what]
        z = scene.points3d.repeat_interleave(copies, 0)
        solution = pg.solve_pnp(x, z, scene.K, constraint=constraint, init=pg.Pose(R, t))
        assert bool(solution.ok.all())
        return (solution.pose.R[..., 0] + solution.pose.R[..., 1] + solution.pose.t).sum(-1)

    x = scene.points2d.clone().requires_grad_()
    (actual,) = torch.autograd.grad(number(x).sum(), x)
    expected = central_difference(lambda x: number(x).detach(), scene.points2d, 1e-3)
    assert relative_error(actual, expected, 1e-3).max() < 1e-6


def test_a_prior_pulls_as_much_as_it_should() -> None:
    """The cost of the answer is that of reprojection plus prior, and lower than at the prior's mean or without it."""
    scene = random_scene(8, 6, noise=3.0, seed=4)
    mean = scene.pose.retract(0.02 * torch.ones(8, 6, dtype=torch.float64))
    prior = pg.PosePrior.from_sigmas(mean, rotation_rad=0.01, translation=0.05)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, prior=prior)
    assert bool(solution.ok.all()), solution.describe()

    def total(pose: pg.Pose) -> Tensor:
        r = pg.reprojection_residuals(scene.points2d, scene.points3d, scene.K, pose)
        xi = torch.cat([so3.log(pose.R @ mean.R.mT), pose.t - mean.t], -1)
        return 0.5 * r.square().sum((-1, -2)) + 0.5 * (xi * (prior.information @ xi[..., None])[..., 0]).sum(
            -1
        )

    torch.testing.assert_close(solution.cost, total(solution.pose), rtol=1e-9, atol=0)
    free = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    assert bool((solution.cost < total(free.pose)).all())
    for k in range(6):
        step = torch.zeros(8, 6, dtype=torch.float64)
        step[:, k] = 1e-4
        assert bool((total(solution.pose.retract(step)) > solution.cost).all())


def test_gradients_reach_the_prior() -> None:
    scene = random_scene(5, 6, noise=3.0, seed=5)
    off = 0.02 * torch.linspace(-1, 1, 30, dtype=torch.float64).view(5, 6)
    L = torch.diag_embed(torch.linspace(50, 500, 30, dtype=torch.float64).view(5, 6))

    def number(off: Tensor, L: Tensor) -> Tensor:
        copies = len(off) // 5
        R, t, x, z = (
            v.repeat_interleave(copies, 0)
            for v in (scene.pose.R, scene.pose.t, scene.points2d, scene.points3d)
        )
        prior = pg.PosePrior(pg.Pose(R, t).retract(off), L)
        solution = pg.solve_pnp(x, z, scene.K, prior=prior, init=pg.Pose(R, t))
        assert bool(solution.ok.all())
        return (solution.pose.R[..., 0] + solution.pose.R[..., 1] + solution.pose.t).sum(-1)

    leaves = [off.clone().requires_grad_(), L.clone().requires_grad_()]
    by_off, by_L = torch.autograd.grad(number(*leaves).sum(), leaves)
    expected = central_difference(
        lambda v: number(v, L.repeat_interleave(len(v) // 5, 0)).detach(), off, 1e-4
    )
    assert relative_error(by_off, expected, 1e-3).max() < 1e-6
    # symmetric moves only: the solver reads the symmetric part
    expected = central_difference(
        lambda v: number(off.repeat_interleave(len(v) // 5, 0), (v + v.mT) / 2).detach(), L, 0.1
    )
    assert relative_error((by_L + by_L.mT) / 2, expected, 1e-9).max() < 1e-6


def test_with_a_prior_any_number_of_points_will_do() -> None:
    scene = random_scene(4, 5, noise=1.0, seed=6)
    prior = pg.PosePrior.from_sigmas(scene.pose, rotation_rad=0.1, translation=0.1)
    for count in (0, 1, 2, 3):
        solution = pg.solve_pnp(scene.points2d[:, :count], scene.points3d[:, :count], scene.K, prior=prior)
        assert bool(solution.ok.all()), f"{count} points: {solution.describe()}"
        if count == 0:
            torch.testing.assert_close(solution.pose.t, scene.pose.t, rtol=0, atol=1e-9)


def test_bad_items_are_statuses() -> None:
    scene = random_scene(3, 6, noise=1.0, seed=7)
    R = scene.pose.R.clone()
    R[1] = 0
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, constraint=pg.PoseConstraint(rotation=R))
    assert solution.status.tolist() == [0, int(pg.Status.BAD_CONSTRAINT), 0]
    L = torch.eye(6).double().repeat(3, 1, 1)
    L[2, 0, 0] = -1
    L[0, 3, 3] = float("nan")
    prior = pg.PosePrior(scene.pose, L.requires_grad_())
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, prior=prior)
    bad = int(pg.Status.BAD_PRIOR)
    assert solution.status.tolist() == [bad, 0, bad]
    (gradient,) = torch.autograd.grad(solution.pose.t.sum(), L)
    assert bool((gradient[[0, 2]] == 0).all())
    assert bool(gradient.isfinite().all())


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match="got nothing"):
        pg.PoseConstraint()
    with pytest.raises(ValueError, match="nothing is left"):
        pg.PoseConstraint(rotation=torch.eye(3), translation=torch.zeros(3))
    with pytest.raises(ValueError, match="rotation and gravity"):
        pg.PoseConstraint(rotation=torch.eye(3), gravity=(_DOWN, _DOWN))
    with pytest.raises(ValueError, match=r"axes: got 'zx'"):
        pg.PoseConstraint(translation=torch.zeros(3), axes="zx")
    with pytest.raises(ValueError, match=r"rotation: got shape \(3,\)"):
        pg.PoseConstraint(rotation=torch.zeros(3))
    scene = random_scene(2, 6, seed=0)
    with pytest.raises(TypeError, match="constraint: got str"):
        pg.solve_pnp(scene.points2d, scene.points3d, scene.K, constraint="yaw")  # pyright: ignore


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()], ids=["implicit", "unrolled"])
def test_an_answer_beyond_its_dtype_has_failed(adjoint: pg.Implicit | pg.Unrolled) -> None:
    """A prior in float64 takes the pose out of float32; its neighbour does not notice."""
    scene = random_scene(2, 5, noise=1.0, seed=8)
    mean = pg.Pose(scene.pose.R, scene.pose.t.clone())
    mean.t[0, 2] = 1e150
    prior = pg.PosePrior(mean, 1e9 * torch.eye(6, dtype=torch.float64))
    x = scene.points2d.float().requires_grad_()
    solution = pg.solve_pnp(x, scene.points3d.float(), scene.K.float(), prior=prior, adjoint=adjoint)
    assert solution.status.tolist() == [pg.Status.NOT_FINITE, pg.Status.CONVERGED]
    assert bool(solution.pose.t.isfinite().all())
    assert bool((solution.hessian[0] == 0).all())
    (gradient,) = torch.autograd.grad(solution.pose.t.sum(), x)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[0] == 0).all())
    assert bool((gradient[1] != 0).any())
