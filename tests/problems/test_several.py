"""Several minima of one problem, and how ambiguous it is."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import Scene, central_difference, random_scene, relative_error


def _two_faced(batch: int, noise: float) -> Scene:
    """Small planes far away: the mirrored pose fits nearly as well."""
    scene = random_scene(batch, 6, planar=True, seed=3)
    far = pg.Pose(scene.pose.R, scene.pose.t * torch.tensor([1.0, 1.0, 6.0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    x = pg.project_points(scene.points3d, scene.K, far)
    x = x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return Scene(x, scene.points3d, scene.weights, scene.K, far)


def test_the_first_is_the_answer_and_the_others_are_other_minima() -> None:
    scene = _two_faced(20, noise=0.5)
    one = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    two = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, num_solutions=3)
    assert two.alternatives is not None
    assert two.ambiguity is not None
    assert two.alternatives.status.shape == (20, 3)
    torch.testing.assert_close(two.pose.R, one.pose.R, rtol=0, atol=1e-9)
    torch.testing.assert_close(two.cost, one.cost, rtol=1e-9, atol=0)
    second = two.alternatives.ok[:, 1]
    assert second.double().mean() > 0.9
    cost = two.alternatives.cost
    assert bool((cost[second, 1] >= cost[second, 0]).all())
    torch.testing.assert_close(two.ambiguity[second], (cost[:, 0] / cost[:, 1])[second], rtol=1e-9, atol=0)
    assert float(two.ambiguity[second].max()) > 0.5
    # each is a minimum of the same cost: a local refinement stays there
    other = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, init=two.alternatives.pose[:, 1])
    torch.testing.assert_close(other.pose.t[second], two.alternatives.pose.t[second, 1], rtol=0, atol=1e-7)


def test_where_there_is_no_second_minimum_the_status_says_so_and_nothing_is_ambiguous() -> None:
    scene = random_scene(20, 12, noise=1.0, seed=1)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, num_solutions=4)
    assert solution.alternatives is not None
    assert solution.ambiguity is not None
    alone = ~solution.alternatives.ok[:, 1]
    assert bool(solution.ok.all())
    assert bool(alone.any())
    assert bool((solution.alternatives.status[alone, 1] == pg.Status.NO_OTHER).all())
    assert bool((solution.ambiguity[alone] == 0).all())
    assert bool(solution.alternatives.pose.t.isfinite().all())


def test_alternatives_are_differentiable() -> None:
    scene = _two_faced(6, noise=0.5)
    second = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, num_solutions=2).alternatives
    assert second is not None
    assert bool(second.ok.all()), second.describe()
    start = second.pose[:, 1].detach()
    probe = torch.linspace(-1, 1, 3, dtype=torch.float64)

    def number(pose: pg.Pose) -> Tensor:
        return ((pose.R @ probe) * probe + pose.t).sum(-1)

    x = scene.points2d.clone().requires_grad_()
    found = pg.solve_pnp(x, scene.points3d, scene.K, num_solutions=2).alternatives
    assert found is not None
    (actual,) = torch.autograd.grad(number(found.pose[:, 1]).sum(), x)

    def resolved(x: Tensor) -> Tensor:
        copies = len(x) // 6
        init = pg.Pose(start.R.repeat_interleave(copies, 0), start.t.repeat_interleave(copies, 0))
        return number(pg.solve_pnp(x, scene.points3d.repeat_interleave(copies, 0), scene.K, init=init).pose)

    expected = central_difference(resolved, scene.points2d, 1e-3)
    assert relative_error(actual, expected, 1e-3).max() < 1e-6


def test_one_item_without_a_batch_and_a_bad_one_in_a_batch() -> None:
    scene = random_scene(3, 8, noise=1.0, seed=2)
    single = pg.solve_pnp(scene.points2d[0], scene.points3d[0], scene.K, num_solutions=2)
    assert single.alternatives is not None
    assert single.alternatives.pose.t.shape == (2, 3)
    x = scene.points2d.clone()
    x[1] = float("nan")
    solution = pg.solve_pnp(x, scene.points3d, scene.K, num_solutions=2)
    assert solution.alternatives is not None
    assert bool((solution.alternatives.status[1] == pg.Status.NOT_FINITE).all())
    torch.testing.assert_close(solution.pose.t[0], single.pose.t, rtol=0, atol=1e-10)


def test_vmap_passes() -> None:
    scene = _two_faced(4, noise=0.5)

    def both(x: Tensor, z: Tensor) -> Tensor:
        found = pg.solve_pnp(x, z, scene.K, num_solutions=2).alternatives
        assert found is not None
        return found.pose.t

    together = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, num_solutions=2).alternatives
    assert together is not None
    mapped = torch.func.vmap(both)(scene.points2d, scene.points3d)
    torch.testing.assert_close(mapped, together.pose.t, rtol=0, atol=1e-9)


def test_wrong_calls() -> None:
    scene = random_scene(2, 8, noise=1.0, seed=2)
    data = (scene.points2d, scene.points3d, scene.K)
    with pytest.raises(ValueError, match="num_solutions: got 0"):
        pg.solve_pnp(*data, num_solutions=0)
    with pytest.raises(ValueError, match="num_solutions"):
        pg.solve_pnp(*data, num_solutions=torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with an init"):
        pg.solve_pnp(*data, num_solutions=2, init=scene.pose)
