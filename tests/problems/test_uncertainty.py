"""Covariances of poses against what noise does to them."""

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import posegrad as pg
from posegrad import so3
from posegrad.testing import Scene, central_difference, random_scene, relative_error


def _trials(
    count: int, points: int, sigma: float, seed: int, weights: Tensor | None = None
) -> tuple[Scene, Tensor]:
    """One scene, noise drawn again and again: sigma / sqrt(weight) per coordinate."""
    scene = random_scene(1, points, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    noise = sigma * torch.randn(count, points, 2, generator=generator, dtype=torch.float64)
    if weights is not None:
        noise = noise / weights.sqrt()[:, None]
    return scene, scene.points2d + noise


def _error(solution: pg.PnPSolution, truth: pg.Pose) -> Tensor:
    w = so3.log(truth.R @ solution.pose.R.mT)
    return torch.cat([w, truth.t - solution.pose.t], -1)


def _nees(error: Tensor, covariance: Tensor) -> Tensor:
    """Normalised estimation error squared: e^T C^-1 e."""
    return (error * torch.linalg.solve(covariance, error)).sum(-1)


def _check_coverage(nees: Tensor, freedom: int = 6) -> None:
    """Shares below the quantiles of chi-square, within 2 % of nominal."""
    for nominal in (0.5, 0.9, 0.95, 0.99):
        share = (nees < chi2.ppf(nominal, freedom)).double().mean().item()
        assert abs(share - nominal) < 0.02, f"{share:.3f} below the {nominal} quantile"


def test_errors_are_covered_as_often_as_they_should_be() -> None:
    weights = torch.linspace(0.3, 3.0, 20, dtype=torch.float64)
    scene, x = _trials(4000, 20, 1.0, seed=3, weights=weights)
    solution = pg.solve_pnp(x, scene.points3d[0], scene.K, weights=weights, init=scene.pose)
    assert bool(solution.ok.all())
    covariance = pg.pose_covariance(solution, x, scene.points3d[0], scene.K, weights=weights, noise=1.0)
    _check_coverage(_nees(_error(solution, scene.pose), covariance))


def test_the_sandwich_holds_under_a_robust_loss_and_noise_that_is_not_what_the_weights_say() -> None:
    """It needs many points: with 300 the sum of products is still so uncertain that coverage is 4 % off."""
    loss, nees = pg.robust.SoftL1(1.5), []
    scene = random_scene(1, 1000, seed=4)
    sigma = 1 + 3.0 * torch.linspace(0, 1, 1000, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(0)
    for part in range(20):  # 100 trials at a time stay in the cache
        x = scene.points2d + sigma * torch.randn(100, 1000, 2, generator=generator, dtype=torch.float64)
        solution = pg.solve_pnp(x, scene.points3d[0], scene.K, loss=loss, init=scene.pose)
        covariance = pg.pose_covariance(solution, x, scene.points3d[0], scene.K, loss=loss, form="sandwich")
        error = _error(solution, scene.pose)
        nees.append(_nees(error, covariance))
        if part == 0:  # too sure of itself; 5.35 is right
            wrong = pg.pose_covariance(solution, x, scene.points3d[0], scene.K, loss=loss, noise=1.0)
            assert _nees(error, wrong).median() > 8
    _check_coverage(torch.cat(nees))


def test_estimated_noise_is_unbiased() -> None:
    scene, x = _trials(4000, 6, 2.0, seed=5)
    solution = pg.solve_pnp(x, scene.points3d[0], scene.K, init=scene.pose)
    given = pg.pose_covariance(solution, x, scene.points3d[0], scene.K, noise=2.0)
    estimated = pg.pose_covariance(solution, x, scene.points3d[0], scene.K)
    ratio = (estimated / given)[:, 0, 0].mean().item()
    assert abs(ratio - 1) < 0.03  # sqrt(2 / 6 / 4000) = 0.9 % standard deviation
    four = pg.solve_pnp(x[:2, :4], scene.points3d[0, :4], scene.K)
    assert bool(pg.pose_covariance(four, x[:2, :4], scene.points3d[0, :4], scene.K).isfinite().all())


def test_gradient_equals_differences_with_the_pose_solved_anew() -> None:
    scene = random_scene(4, 8, noise=2.0, seed=6)
    probe = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    for form in ("hessian", "sandwich"):

        def value(x: Tensor, form: str = form) -> Tensor:
            copies = len(x) // 4
            z = scene.points3d.repeat_interleave(copies, 0)
            init = pg.Pose(
                scene.pose.R.repeat_interleave(copies, 0), scene.pose.t.repeat_interleave(copies, 0)
            )
            solution = pg.solve_pnp(x, z, scene.K, init=init)
            covariance = pg.pose_covariance(solution, x, z, scene.K, form=form)  # pyright: ignore
            return 1e4 * (covariance * probe).sum((-1, -2))

        x = scene.points2d.clone().requires_grad_()
        (actual,) = torch.autograd.grad(value(x).sum(), x)
        expected = central_difference(lambda x: value(x).detach(), scene.points2d, 3e-3)
        assert relative_error(actual, expected, 1e-6).max() < 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    scene = random_scene(3, 8, noise=2.0, seed=7)
    a = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    b = pg.solve_pnp(scene.points2d, scene.points3d * scale, scene.K)
    expected = pg.pose_covariance(a, scene.points2d, scene.points3d, scene.K)
    actual = pg.pose_covariance(b, scene.points2d, scene.points3d * scale, scene.K)
    unit = torch.tensor([1.0] * 3 + [scale] * 3, dtype=torch.float64)
    torch.testing.assert_close(actual / unit / unit[:, None], expected, rtol=1e-7, atol=1e-14)


def test_what_failed_is_infinitely_uncertain_and_gets_no_gradient() -> None:
    scene = random_scene(3, 8, noise=2.0, seed=8)
    x = scene.points2d.clone()
    x[1, 0, 0] = float("nan")
    x.requires_grad_()
    solution = pg.solve_pnp(x, scene.points3d, scene.K)
    covariance = pg.pose_covariance(solution, x, scene.points3d, scene.K)
    assert covariance[1].diagonal().isinf().all()
    assert covariance[[0, 2]].isfinite().all()
    (gradient,) = torch.autograd.grad(covariance[[0, 2]].sum(), x)
    assert bool((gradient[1] == 0).all())
    assert bool(gradient.isfinite().all())


def test_wrong_calls() -> None:
    scene = random_scene(2, 8, noise=1.0, seed=9)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    data = (scene.points2d, scene.points3d, scene.K)
    with pytest.raises(TypeError, match=r"solution: got Pose"):
        pg.pose_covariance(solution.pose, *data)  # pyright: ignore
    with pytest.raises(ValueError, match="form: got 'exact'"):
        pg.pose_covariance(solution, *data, form="exact")  # pyright: ignore
    with pytest.raises(ValueError, match="robust loss"):
        pg.pose_covariance(solution, *data, loss=pg.robust.Huber(1.0))
    for noise in (-1.0, 0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"noise: got .* > 0 in pixels"):
            pg.pose_covariance(solution, *data, noise=noise)
    for noise in ("1", True, torch.tensor([1, 2])):
        with pytest.raises(TypeError, match=r"noise: got (str|bool|dtype torch\.int64)"):
            pg.pose_covariance(solution, *data, noise=noise)  # pyright: ignore
    with pytest.raises(ValueError, match=r"noise: got shape \(3,\)"):
        pg.pose_covariance(solution, *data, noise=torch.ones(3))
    with pytest.raises(ValueError, match=r"batch shape \(2,\), the data \(3, 2\)"):
        pg.pose_covariance(solution, scene.points2d.expand(3, 2, 8, 2), scene.points3d, scene.K, noise=1.0)
