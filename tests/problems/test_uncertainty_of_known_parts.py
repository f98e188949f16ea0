"""Covariances of poses with a prior, and of poses of which a part is known."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import central_difference, random_scene, relative_error

from .test_uncertainty import _check_coverage, _error, _nees, _trials

_DOWN = torch.tensor([0.2, -1.0, 0.3], dtype=torch.float64)
_SIGMAS = torch.tensor([0.02, 0.01, 0.03, 0.05, 0.02, 0.1], dtype=torch.float64)


def _information(seed: int = 0) -> Tensor:
    """Full, of about the size that the points of a scene have."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.eye(6, dtype=torch.float64) + 0.3 * torch.randn(6, 6, generator=generator).double()
    return (mixed @ mixed.mT) / _SIGMAS / _SIGMAS[:, None]


def _prior_about(truth: pg.Pose, information: Tensor, sigma: float, count: int) -> pg.PosePrior:
    """Means drawn about the true pose, as the prior says."""
    generator = torch.Generator().manual_seed(7)
    draw = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    delta = sigma * draw @ torch.linalg.cholesky(torch.linalg.inv(information)).mT
    return pg.PosePrior(truth.retract(delta), information)


def _constraint(kind: str, pose: pg.Pose) -> pg.PoseConstraint:
    down = (pose.R @ _DOWN[:, None]).squeeze(-1)
    return {
        "gravity": pg.PoseConstraint(gravity=(_DOWN, down)),
        "rotation": pg.PoseConstraint(rotation=pose.R),
        "height": pg.PoseConstraint(translation=pose.t, axes="z"),
        "gravity and height": pg.PoseConstraint(gravity=(_DOWN, down), translation=pose.t, axes="z"),
    }[kind]


def _free_directions(kind: str, pose: pg.Pose) -> Tensor:
    """(B, 6, K), written down by hand."""
    eye = torch.eye(6, dtype=torch.float64).expand(len(pose.t), 6, 6)
    down = (pose.R @ (_DOWN / _DOWN.norm())[:, None]).squeeze(-1)
    about = torch.cat([down, torch.zeros_like(down)], -1)[..., None]
    turns = {"rotation": [], "height": [eye[..., :3]]}.get(kind, [about])
    shifts = eye[..., 3:5] if "height" in kind else eye[..., 3:]
    return torch.cat([*turns, shifts], -1)


KINDS = ("gravity", "rotation", "height", "gravity and height")


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_the_posterior_covers_the_error_as_often_as_it_should(sigma: float) -> None:
    """With weights that are inverse variances but for sigma^2, a prior's covariance is sigma^2 L^-1, too."""
    weights = torch.linspace(0.3, 3.0, 6, dtype=torch.float64)
    scene, x = _trials(3000, 6, sigma, seed=3, weights=weights)
    prior = _prior_about(scene.pose, _information() / 4, sigma, 3000)
    data = (x, scene.points3d[0], scene.K)
    solution = pg.solve_pnp(*data, weights=weights, prior=prior, init=scene.pose)
    assert bool(solution.ok.all())
    covariance = pg.pose_covariance(solution, *data, weights=weights, prior=prior, noise=sigma)
    _check_coverage(_nees(_error(solution, scene.pose), covariance))
    without = pg.pose_covariance(solution, *data, weights=weights, noise=sigma)
    assert bool((torch.linalg.eigvalsh(without - covariance)[:, 0] > 0).double().mean() > 0.99)


@pytest.mark.parametrize("kind", ["gravity", "gravity and height"])
@pytest.mark.parametrize("with_prior", [False, True], ids=["alone", "with_prior"])
def test_coverage_in_the_directions_that_are_left(kind: str, with_prior: bool) -> None:
    scene, x = _trials(3000, 5, 1.0, seed=5)
    constraint = _constraint(kind, scene.pose)
    prior = _prior_about(scene.pose, _information(), 1.0, 3000) if with_prior else None
    if prior is not None:  # the mean of what is held is known: the prior tells of the other directions alone
        free = _free_directions(kind, scene.pose)[0]
        L = prior.information @ free @ torch.linalg.inv(free.mT @ prior.information @ free)
        prior = pg.PosePrior(prior.pose, L @ free.mT @ prior.information)
    data = (x, scene.points3d[0], scene.K)
    solution = pg.solve_pnp(*data, constraint=constraint, prior=prior, init=scene.pose)
    assert bool(solution.ok.all())
    covariance = pg.pose_covariance(solution, *data, constraint=constraint, prior=prior, noise=1.0)
    free = _free_directions(kind, scene.pose)
    error = _error(solution, scene.pose)
    assert (error - (free @ (torch.linalg.pinv(free) @ error[..., None])).squeeze(-1)).abs().max() < 1e-3
    inner = torch.linalg.pinv(free)
    _check_coverage(
        _nees((inner @ error[..., None]).squeeze(-1), inner @ covariance @ inner.mT), constraint.dimension
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_prior", [False, True], ids=["alone", "with_prior"])
def test_for_a_perfect_fit_informations_add_up_and_a_constraint_picks_directions(
    kind: str, with_prior: bool
) -> None:
    scene = random_scene(3, 6, seed=11)
    prior = pg.PosePrior(scene.pose, _information()) if with_prior else None
    constraint = _constraint(kind, scene.pose)
    data = (scene.points2d, scene.points3d, scene.K)
    H = pg.solve_pnp(*data).hessian + (prior.information if prior is not None else 0.0)
    free = _free_directions(kind, scene.pose)
    expected = 4.0 * free @ torch.linalg.inv(free.mT @ H @ free) @ free.mT
    solution = pg.solve_pnp(*data, prior=prior, constraint=constraint)
    actual = pg.pose_covariance(solution, *data, prior=prior, constraint=constraint, noise=2.0)
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-12)
    assert bool((torch.linalg.matrix_rank(actual, hermitian=True) == constraint.dimension).all())
    unconstrained = pg.pose_covariance(pg.solve_pnp(*data, prior=prior), *data, prior=prior, noise=2.0)
    torch.testing.assert_close(unconstrained, 4.0 * torch.linalg.inv(H), rtol=1e-7, atol=1e-12)


def test_without_points_the_prior_is_what_is_known() -> None:
    scene = random_scene(2, 4, seed=1)
    prior = pg.PosePrior(scene.pose, _information())
    mask = torch.zeros(2, 4, dtype=torch.bool)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, mask=mask, prior=prior)
    actual = pg.pose_covariance(
        solution, scene.points2d, scene.points3d, scene.K, mask=mask, prior=prior, noise=2.0
    )
    torch.testing.assert_close(actual, 4.0 * torch.linalg.inv(prior.information).expand(2, 6, 6))


@pytest.mark.parametrize("kind", [None, "gravity"])
def test_the_sandwich_is_what_it_says(kind: str | None) -> None:
    """Bread and filling by automatic differentiation of the cost along the free directions."""
    scene = random_scene(1, 40, noise=3.0, seed=12)
    prior = pg.PosePrior(scene.pose.retract(0.3 * _SIGMAS), _information())
    constraint = None if kind is None else _constraint(kind, scene.pose)
    data, loss = (scene.points2d, scene.points3d, scene.K), pg.robust.SoftL1(2.0)
    solution = pg.solve_pnp(*data, loss=loss, prior=prior, constraint=constraint)
    actual = pg.pose_covariance(
        solution, *data, loss=loss, prior=prior, constraint=constraint, noise=1.5, form="sandwich"
    )
    free = torch.eye(6).double() if kind is None else _free_directions(kind, scene.pose)[0]
    base = solution.pose[0]

    def costs(y: Tensor) -> Tensor:
        r = pg.reprojection_residuals(scene.points2d[0], scene.points3d[0], scene.K, base.retract(free @ y))
        return 0.5 * loss.evaluate(r.square().sum(-1)).value

    def error(y: Tensor) -> Tensor:
        pose = base.retract(free @ y)
        mean = prior.pose[0]
        return torch.cat([pg.so3.log(pose.R @ mean.R.mT), pose.t - mean.t])

    zero = torch.zeros(free.shape[1], dtype=torch.float64)
    H = torch.func.hessian(lambda y: costs(y).sum() + 0.5 * error(y) @ prior.information @ error(y))(zero)
    g, J = torch.func.jacrev(costs)(zero), torch.func.jacrev(error)(zero)
    total = g.sum(0) + J.mT @ prior.information @ error(zero)
    assert total.abs().max() < 1e-6 * g.abs().sum(0).max()
    freedom = free.shape[1]
    filling = 80 / (80 - freedom) * g.mT @ g + 1.5**2 * J.mT @ prior.information @ J
    expected = free @ torch.linalg.inv(H) @ filling @ torch.linalg.inv(H) @ free.mT
    torch.testing.assert_close(actual[0], expected, rtol=1e-6, atol=1e-12)


def test_the_sandwich_with_a_prior_is_the_covariance_of_the_errors() -> None:
    scene, x = _trials(2000, 100, 1.0, seed=13)
    x = scene.points2d + 2.5 * (x - scene.points2d)  # more noise than the weights say; the prior is right
    information = 40 * _information()
    prior = _prior_about(scene.pose, information, 1.0, 2000)
    data = (x, scene.points3d[0], scene.K)
    solution = pg.solve_pnp(*data, prior=prior, init=scene.pose)
    mean = pg.pose_covariance(solution, *data, prior=prior, noise=1.0, form="sandwich").mean(0)
    error = _error(solution, scene.pose)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(mean), error.mT, upper=False)
    spread = torch.linalg.eigvalsh(whitened @ whitened.mT / 2000)
    assert bool(((spread - 1).abs() < 0.12).all()), spread  # 2 sqrt(6 / 2000) = 0.11 of chance
    wrong = pg.pose_covariance(solution, *data, prior=prior, noise=1.0)
    assert _nees(error, wrong).mean() > 7.5  # 6 is right


@pytest.mark.parametrize("form", ["hessian", "sandwich"])
def test_gradient_equals_differences_with_the_pose_solved_anew(form: str) -> None:
    scene = random_scene(3, 8, noise=2.0, seed=14)
    probe = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = scene.pose.retract(0.3 * _SIGMAS)
    unit = _information()
    inputs = {"points2d": scene.points2d, "t0": mean.t, "L": torch.ones(3, 6, dtype=torch.float64)}

    def value(values: dict[str, Tensor]) -> Tensor:
        copies = len(next(iter(values.values()))) // 3
        x, t0, scale = (
            values[name] if name in values else inputs[name].repeat_interleave(copies, 0) for name in inputs
        )
        pose, R0, z = (v.repeat_interleave(copies, 0) for v in (scene.pose.R, mean.R, scene.points3d))
        start = pg.Pose(pose, scene.pose.t.repeat_interleave(copies, 0))
        L = scale[:, :, None] * unit * scale[:, None, :]
        prior, constraint = pg.PosePrior(pg.Pose(R0, t0), L), _constraint("gravity and height", start)
        solution = pg.solve_pnp(x, z, scene.K, prior=prior, constraint=constraint, init=start)
        assert bool(solution.ok.all())
        covariance = pg.pose_covariance(
            solution, x, z, scene.K, prior=prior, constraint=constraint, noise=1.0, form=form  # pyright: ignore
        )  # fmt: skip
        return 1e4 * (covariance * probe).sum((-1, -2))

    leaves = {name: v.clone().requires_grad_() for name, v in inputs.items()}
    gradients = torch.autograd.grad(value(leaves).sum(), list(leaves.values()))
    steps = {"points2d": 3e-3, "t0": 1e-4, "L": 1e-3}
    for (name, start), actual in zip(inputs.items(), gradients, strict=True):
        expected = central_difference(lambda v, n=name: value({n: v}).detach(), start, steps[name])
        assert relative_error(actual, expected, 1e-6).max() < 1e-6, name


def test_noise_estimated_under_a_constraint_counts_the_freedom_that_is_left() -> None:
    scene, x = _trials(4000, 3, 2.0, seed=15)
    constraint = _constraint("gravity and height", scene.pose)
    data = (x, scene.points3d[0], scene.K)
    solution = pg.solve_pnp(*data, constraint=constraint, init=scene.pose)
    given = pg.pose_covariance(solution, *data, constraint=constraint, noise=2.0)
    estimated = pg.pose_covariance(solution, *data, constraint=constraint)
    ratio = (estimated / given)[:, 3, 3].mean().item()
    assert abs(ratio - 1) < 0.04  # 3 numbers are left of 6: sqrt(2 / 3 / 4000) = 1.3 % standard deviation


def test_failed_items_and_wrong_calls() -> None:
    scene = random_scene(3, 6, noise=1.0, seed=16)
    L = _information().expand(3, 6, 6).clone()
    L[1, 0, 0] = -1.0
    L.requires_grad_()
    prior, constraint = pg.PosePrior(scene.pose, L), _constraint("height", scene.pose)
    data = (scene.points2d, scene.points3d, scene.K)
    solution = pg.solve_pnp(*data, prior=prior, constraint=constraint)
    assert solution.ok.tolist() == [True, False, True]
    for form in ("hessian", "sandwich"):
        covariance = pg.pose_covariance(
            solution, *data, prior=prior, constraint=constraint, noise=1.0, form=form  # pyright: ignore
        )  # fmt: skip
        assert covariance[1].diagonal().isinf().all()
        assert covariance[[0, 2]].isfinite().all()
        (gradient,) = torch.autograd.grad(covariance[[0, 2]].sum(), L, retain_graph=True)
        assert bool((gradient[1] == 0).all())
        assert bool(gradient.isfinite().all())
        noise = torch.tensor(-1.0)
        unknown = pg.pose_covariance(solution, *data, prior=prior, constraint=constraint, noise=noise, form=form)  # pyright: ignore  # fmt: skip
        assert unknown.diagonal(dim1=-2, dim2=-1).isinf().all()
        with pytest.raises(ValueError, match=r"noise: got None with a prior"):
            pg.pose_covariance(solution, *data, prior=prior, form=form)  # pyright: ignore
    with pytest.raises(TypeError, match=r"prior: got Pose"):
        pg.pose_covariance(solution, *data, prior=scene.pose, noise=1.0)  # pyright: ignore


def test_every_solution_of_several_has_its_own() -> None:
    scene = random_scene(2, 5, noise=1.0, planar=True, seed=17)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, num_solutions=2)
    assert solution.alternatives is not None
    data = (scene.points2d[:, None], scene.points3d[:, None], scene.K)
    covariance = pg.pose_covariance(solution.alternatives, *data, noise=1.0)
    assert covariance.shape == (2, 2, 6, 6)
    torch.testing.assert_close(
        covariance[:, 0], pg.pose_covariance(solution, scene.points2d, scene.points3d, scene.K, noise=1.0)
    )
