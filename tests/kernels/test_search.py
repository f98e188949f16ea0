"""Without a start: what needs more than the usual starts is found in compiled code too, and is what torch finds."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.kernels import families
from posegrad.problems import fused_layout
from posegrad.testing import random_scene
from tests.cameras.samples import camera, points_in_field

_ITEMS = 30


def _agree(
    monkeypatch: pytest.MonkeyPatch, points2d: Tensor, points3d: Tensor, model: object, **options: object
) -> pg.PnPSolution:
    """Solved both ways, with the long way barred to the kernels. (Where a cost falls on towards a point in the camera's
    centre it is a matter of rounding what the status calls it.)"""
    families.compile_further()
    expected = pg.solve_pnp(points2d, points3d, model, backend="torch", **options)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(fused_layout.Job, "_search_on", _barred)
        actual = pg.solve_pnp(points2d, points3d, model, backend="kernels", **options)  # type: ignore[arg-type]
    ok = expected.ok
    assert actual.ok.tolist() == ok.tolist()
    torch.testing.assert_close(actual.cost[ok], expected.cost[ok], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(actual.pose.R[ok], expected.pose.R[ok], rtol=0, atol=1e-6)
    torch.testing.assert_close(actual.pose.t[ok], expected.pose.t[ok], rtol=1e-6, atol=1e-6)
    return actual


def _barred(job: fused_layout.Job, outputs: tuple[Tensor, ...], *_: object) -> None:
    pytest.fail(f"{int((outputs[2] == fused_layout._PENDING).sum())} items were left to the long way")


@pytest.mark.parametrize("noise", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("spare", [0, 2])
def test_three_points(noise: float, spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of several exact fits, or the best of none; three of more points, too."""
    scene = random_scene(_ITEMS, 3 + spare, noise=noise, seed=spare)
    mask = torch.ones(_ITEMS, 3 + spare, dtype=torch.bool)
    order = torch.rand(_ITEMS, 3 + spare, generator=torch.Generator().manual_seed(1)).argsort(-1)
    mask.scatter_(1, order[:, :spare], False)
    solution = _agree(monkeypatch, scene.points2d, scene.points3d, scene.K, mask=mask)
    assert int(solution.ok.sum()) >= _ITEMS - 1
    if noise == 0:
        assert float(solution.cost.max()) < 1e-15


def test_three_points_seen_symmetrically(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distances of the first and the second point decide between fits whose centroids are equally far."""
    z = torch.tensor([[1.0, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]]).double()
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]).double()
    spin = pg.Pose.from_rotvec(
        torch.tensor([[0.0, 0, 1]]).double() * torch.linspace(-3, 3, _ITEMS)[:, None],
        torch.tensor([0.0, 0, 3]).double().expand(_ITEMS, 3),
    )
    _agree(monkeypatch, pg.project_points(z, K, spin), z, K)


@pytest.mark.parametrize("count", [4, 6])
@pytest.mark.parametrize("noise", [5.0, 40.0])
def test_needles_in_noise(count: int, noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minima by angle, candidates that were given up, and costs that fall towards a point in the camera's centre."""
    generator = torch.Generator().manual_seed(count)
    scene = random_scene(_ITEMS, count, seed=count)
    z = 2 * torch.rand(_ITEMS, count, 3, generator=generator, dtype=torch.float64) - 1
    z = z * torch.tensor([0.02, 0.02, 1.0])
    x = pg.project_points(z, scene.K, scene.pose)
    x = x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    _agree(monkeypatch, x, z, scene.K)


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("name", ["OPENCV", "OPENCV_FISHEYE"])
def test_few_points_through_a_distorting_lens(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts are pushed into the camera's field."""
    model = camera(name)
    seen = points_in_field(model, _ITEMS * count, within=0.8, seed=count).view(_ITEMS, count, 3)
    generator = torch.Generator().manual_seed(0)
    pose = pg.Pose.from_rotvec(
        torch.randn(_ITEMS, 3, generator=generator, dtype=torch.float64),
        torch.randn(_ITEMS, 3, generator=generator, dtype=torch.float64),
    )
    x = model.project(seen).points2d
    x = x + 3.0 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    _agree(monkeypatch, x, pose.inverse().act(seen), model)


def test_three_points_under_a_robust_loss_without_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(_ITEMS, 3, noise=0.3, seed=4)
    _agree(monkeypatch, scene.points2d, scene.points3d, scene.K, loss=pg.robust.Cauchy(500.0))


def test_what_few_items_need_is_compiled_once_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three points among many items that have more: the answers of the call that compiles are those of the next."""
    scene = random_scene(_ITEMS, 6, noise=1.0, seed=3)
    mask = torch.ones(_ITEMS, 6, dtype=torch.bool)
    mask[::7, 3:] = False
    monkeypatch.setattr(families, "_further", False)
    families._ready.clear()

    def solve() -> tuple[pg.PnPSolution, Tensor]:
        x = scene.points2d.clone().requires_grad_()
        solution = pg.solve_pnp(x, scene.points3d, scene.K, mask=mask, backend="kernels")
        return solution, torch.autograd.grad(solution.pose.t.sum() + solution.pose.R.sum(), x)[0]

    (first, gradient), (second, again) = solve(), solve()
    assert families._further
    assert bool(first.ok.all())
    for one, other in ((first.pose.R, second.pose.R), (first.pose.t, second.pose.t), (gradient, again)):
        assert torch.equal(one, other)
    assert torch.equal(first.cost, second.cost)
