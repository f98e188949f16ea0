"""solve_pnp from three points: up to four exact fits, none at times, and a rule that chooses."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import Status, so3
from posegrad.testing import Scene, central_difference, random_scene, relative_error


def _scene(noise: float = 0.0, count: int = 40, seed: int = 0) -> Scene:
    return random_scene(count, 3, noise=noise, seed=seed)


def _all(x: Tensor, z: Tensor, K: Tensor, **options: Tensor) -> pg.PnPSolution:
    solution = pg.solve_pnp(x, z, K, num_solutions=4, **options)  # type: ignore[arg-type]
    assert solution.alternatives is not None
    return solution


def test_the_true_pose_is_among_up_to_four_exact_fits() -> None:
    scene = _scene(count=200)
    solution = _all(scene.points2d, scene.points3d, scene.K)
    fits = solution.alternatives
    assert fits is not None
    assert bool(solution.ok.all())
    exact = fits.ok & (fits.cost < 1e-12)
    off = (fits.pose.R - scene.pose.R[:, None]).abs().amax((-1, -2)) + (
        fits.pose.t - scene.pose.t[:, None]
    ).norm(dim=-1)
    assert float(torch.where(exact, off, torch.inf).amin(-1).max()) < 1e-6
    assert set(exact.sum(-1).tolist()) >= {2, 4}
    several = exact[:, 1]
    assert bool((solution.ambiguity == 1)[several].all())  # type: ignore[index]
    # farthest first, all of them different
    distance = (scene.points3d.mean(1)[:, None, None] @ fits.pose.R.mT).squeeze(2) + fits.pose.t
    distance = distance.norm(dim=-1)
    ordered = (distance[:, :-1] >= distance[:, 1:] - 1e-2) | ~exact[:, 1:]
    assert bool(ordered.all())
    for a in range(4):
        for b in range(a):
            angle = so3.log(fits.pose.R[:, a] @ fits.pose.R[:, b].mT).norm(dim=-1)
            assert float(angle[exact[:, a] & exact[:, b]].min()) > 1e-4
    torch.testing.assert_close(solution.pose.t, fits.pose.t[:, 0])


def test_one_solution_is_the_first_of_several() -> None:
    for noise in (0.0, 3.0):
        scene = _scene(noise, count=100, seed=1)
        one = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
        several = _all(scene.points2d, scene.points3d, scene.K)
        assert torch.equal(one.ok, several.ok)
        torch.testing.assert_close(one.pose.R, several.pose.R, rtol=0, atol=1e-7)
        torch.testing.assert_close(one.cost, several.cost, rtol=1e-9, atol=1e-18)


def test_of_a_noisy_needle_candidates_that_are_not_much_worse_are_followed_to_the_end() -> None:
    """On the way the best minimum's candidate costs a tenth more than another one, and more."""
    x = torch.tensor([[410.2061, 320.5035], [427.1593, 341.3047], [446.5599, 388.9644]]).double()
    z = torch.tensor([[-0.018577, 0.007544, 0.089634], [-0.015522, -0.010039, 0.394451]]).double()
    z = torch.cat([z, torch.tensor([[-0.002141, 0.012423, 0.971791]]).double()])
    K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]).double()
    several = _all(x, z, K)
    assert several.alternatives is not None
    assert float(several.alternatives.cost[1]) > 1.05 * float(several.cost)
    torch.testing.assert_close(pg.solve_pnp(x, z, K).cost, several.cost)


def test_a_symmetric_view_has_an_answer_too() -> None:
    """An equilateral triangle seen from ahead: the frontal pose is the farthest of four, the others are alike."""
    z = torch.tensor([[1.0, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]]).double()
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]).double()
    spin = so3.exp(torch.tensor([[0.0, 0, 1]]).double() * torch.linspace(-3, 3, 50)[:, None])
    truth = pg.Pose(spin, torch.tensor([0.0, 0, 3]).double().expand(50, 3))
    solution = _all(pg.project_points(z, K, truth), z, K)
    assert solution.alternatives is not None
    assert bool(solution.alternatives.ok.all())
    torch.testing.assert_close(solution.pose.R, truth.R, rtol=0, atol=1e-7)
    # of the three that are equally far the one whose first point is the farthest, then the second
    depth = (z @ solution.alternatives.pose.R.mT + solution.alternatives.pose.t[:, :, None]).norm(dim=-1)
    rule = depth @ torch.tensor([1.0, 1e-3, 0]).double()
    assert bool((rule[:, 1:3] >= rule[:, 2:4] - 1e-9).all())


def test_the_same_alone_and_in_any_batch() -> None:
    scene = _scene(count=30, seed=2)
    x, z = scene.points2d, scene.points3d
    together = _all(x, z, scene.K)
    assert together.alternatives is not None
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = _all(x[order], z[order], scene.K)
    poisoned = x.clone()
    poisoned[::2, 0] = torch.nan
    beside = _all(poisoned, z, scene.K)
    for i in range(0, 30, 3):
        alone = _all(x[i], z[i], scene.K)
        torch.testing.assert_close(alone.pose.t, together.pose.t[i], rtol=0, atol=1e-9)
        assert alone.alternatives is not None
        assert torch.equal(alone.alternatives.status, together.alternatives.status[i])
        mirrored = alone.alternatives.ok
        torch.testing.assert_close(
            alone.alternatives.pose.t[mirrored], together.alternatives.pose.t[i][mirrored], rtol=0, atol=1e-6
        )
    torch.testing.assert_close(shuffled.pose.t, together.pose.t[order], rtol=0, atol=1e-9)
    torch.testing.assert_close(beside.pose.t[1::2], together.pose.t[1::2], rtol=0, atol=1e-9)
    assert bool((beside.status[::2] == int(Status.NOT_FINITE)).all())


@pytest.mark.parametrize("by", ["mask", "weights"])
def test_three_of_many_beside_items_with_more(by: str) -> None:
    scene = random_scene(12, 8, seed=3)
    three = torch.arange(12)[:, None].remainder(2) == 0
    generator = torch.Generator().manual_seed(1)
    used = ~three | (torch.rand(12, 8, generator=generator).argsort(-1) < 3)
    x, z = scene.points2d.clone(), scene.points3d.clone()
    options = {by: used if by == "mask" else used.double()}
    solution = pg.solve_pnp(x, z, scene.K, **options)  # type: ignore[arg-type]
    assert bool(solution.ok.all())
    torch.testing.assert_close(solution.pose.t[1::2], scene.pose.t[1::2], rtol=0, atol=1e-9)
    for i in range(0, 12, 2):
        small = pg.solve_pnp(x[i][used[i]], z[i][used[i]], scene.K)
        torch.testing.assert_close(solution.pose.t[i], small.pose.t, rtol=0, atol=1e-8)
    if by == "mask":  # what is under the mask changes nothing, bitwise
        x[~used], z[~used] = torch.nan, torch.inf
        again = pg.solve_pnp(x, z, scene.K, mask=used)
        assert torch.equal(again.pose.t, solution.pose.t)


def _above_a_vertex(count: int) -> Scene:
    """Cameras that look at triangles from the axis of the cylinder of danger, 15 px of noise."""
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.rand(count, 3, 3, generator=generator).double() - 1
    z[..., 2] = 0
    R = torch.diag(torch.tensor([1.0, -1, -1]).double()).expand(count, 3, 3)
    pose = pg.Pose(R, torch.tensor([0.0, 0, 5]).double() - (R @ z[:, 0, :, None]).squeeze(-1))
    K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]).double()
    x = pg.project_points(z, K, pose)
    x = x + 15 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return Scene(x, z, torch.ones(count, 3).double(), K, pose)


def test_where_nothing_fits_exactly_no_other_start_is_better() -> None:
    """Seen from above a vertex two of the exact fits coincide, and noise takes both of them away."""
    scene = _above_a_vertex(count=150)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    inexact = solution.ok & (solution.cost > 1e-9)
    assert bool(solution.ok.all())
    assert 5 < int(inexact.sum()) < 130
    x, z, cost = scene.points2d[inexact], scene.points3d[inexact], solution.cost[inexact]
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(40, len(x), 4, generator=generator).double()
    init = pg.Pose.from_quat_wxyz(turn, scene.pose.t[inexact].expand(40, -1, -1))
    other = pg.solve_pnp(x, z, scene.K, init=init)
    assert float(other.ok.double().mean()) > 0.5
    assert not bool((other.ok & (other.cost < cost * (1 - 1e-6) - 1e-9)).any())


def test_gradients_are_those_of_solving_again() -> None:
    scene = _scene(count=20, seed=5)
    generator = torch.Generator().manual_seed(7)
    G_R, G_t = torch.randn(3, 3, generator=generator).double(), torch.randn(3, generator=generator).double()

    def number(pose: pg.Pose) -> Tensor:
        return (pose.R * G_R).sum((-1, -2)) + (pose.t * G_t).sum(-1)

    inputs = {"points2d": scene.points2d, "points3d": scene.points3d}
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    solution = pg.solve_pnp(leaves["points2d"], leaves["points3d"], scene.K)
    assert bool(solution.ok.all())
    gradients = torch.autograd.grad(number(solution.pose).sum(), list(leaves.values()))
    base = solution.pose.detach()
    gain = gradients[0].flatten(1).norm(dim=-1)
    well = gain < 1.0  # elsewhere answers nearly coincide: there differences leave the answer
    assert int(well.sum()) > 12
    for (name, value), actual in zip(inputs.items(), gradients, strict=True):

        def resolved(moved: Tensor, name: str = name) -> Tensor:
            copies = len(moved) // 20
            repeated = {key: v.repeat_interleave(copies, 0) for key, v in inputs.items()} | {name: moved}
            init = pg.Pose(base.R.repeat_interleave(copies, 0), base.t.repeat_interleave(copies, 0))
            return number(pg.solve_pnp(repeated["points2d"], repeated["points3d"], scene.K, init=init).pose)

        step = 1e-3 if name == "points2d" else 2e-6
        expected = central_difference(resolved, value, step)
        assert float(relative_error(actual, expected, 1e-3)[well].max()) < 1e-6, name


def test_bad_items_say_why() -> None:
    scene = _scene(count=5, seed=6)
    x, z = scene.points2d.clone(), scene.points3d.clone()
    z[1] = z[1, :1] * torch.linspace(-1, 2, 3)[:, None]
    x[2, 0] = torch.nan
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[3, 1] = False
    x.requires_grad_()
    solution = _all(x, z, scene.K, mask=mask)
    fits = solution.alternatives
    assert fits is not None
    assert solution.status.tolist() == [0, Status.DEGENERATE, Status.NOT_FINITE, Status.TOO_FEW_POINTS, 0]
    assert bool(fits.pose.t.isfinite().all() & fits.pose.R.isfinite().all())
    (gradient,) = torch.autograd.grad(fits.pose.t.sum(), x)
    assert bool((gradient[1:4] == 0).all())
    assert bool((gradient[[0, 4]] != 0).any())


def test_points_on_one_ray_or_seen_edge_on_do_not_disturb() -> None:
    """Pixels that coincide, a triangle seen within its plane: finite, with a status."""
    scene = _scene(count=4, seed=7)
    x = scene.points2d.clone()
    x[1, 1] = x[1, 0]
    x[2] = x[2, :1]
    solution = _all(x, scene.points3d, scene.K)
    assert solution.alternatives is not None
    assert bool(solution.alternatives.pose.t.isfinite().all())
    clean = _all(scene.points2d, scene.points3d, scene.K)
    torch.testing.assert_close(solution.pose.t[[0, 3]], clean.pose.t[[0, 3]], rtol=0, atol=1e-12)


def test_rays_behind_90_degrees() -> None:
    """A fisheye among three points that no pinhole camera sees together."""
    camera = pg.cameras.OpenCVFisheye(torch.tensor([200.0, 200, 320, 240, 0, 0, 0, 0]).double())
    y = torch.tensor([[1.0, 0.2, -0.3], [-0.9, 0.7, -0.2], [-0.2, -1.0, 0.1]]).double()
    truth = pg.Pose(so3.exp(torch.tensor([0.4, -1.0, 2.0]).double()), torch.tensor([0.05, 0.1, 0.2]).double())
    z = truth.inverse().act(y)
    solution = _all(camera.project(y).points2d, z, camera)  # type: ignore[arg-type]
    assert solution.alternatives is not None
    assert bool(solution.ok)
    off = (solution.alternatives.pose.R - truth.R).abs().amax((-1, -2))
    assert float(off[solution.alternatives.ok].min()) < 1e-9
