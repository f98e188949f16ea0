"""The three kinds of weights, against each other and against their definition."""

import pytest
import torch

import posegrad as pg
from posegrad.problems import weighting
from posegrad.testing import central_difference, random_scene, relative_error


def _matrices(batch: int, points: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    L = torch.randn(batch, points, 2, 2, generator=generator, dtype=torch.float64)
    return L @ L.mT + 0.1 * torch.eye(2, dtype=torch.float64)


def test_apply_multiplies_point_by_point() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 6, 5, generator=generator, dtype=torch.float64)
    W = _matrices(3, 5)
    torch.testing.assert_close(weighting.apply(W, x), torch.einsum("bnij,bjkn->bikn", W, x))
    axes = W.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(weighting.apply(axes, x), weighting.apply(torch.diag_embed(axes), x))
    torch.testing.assert_close(
        weighting.apply(axes[..., 0], x), weighting.apply(axes[..., :1].expand(3, 5, 2), x)
    )


def test_root_squares_to_the_weight() -> None:
    W = torch.cat([_matrices(4, 6), torch.zeros(4, 1, 2, 2).double(), torch.ones(4, 1, 2, 2).double()], 1)
    root = weighting.root(W)
    torch.testing.assert_close(root @ root, W, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "count", "kind"),
    [
        ((7,), 7, 1),
        ((4, 7), 7, 1),
        ((7, 2), 7, 2),
        ((4, 7, 2), 7, 2),
        ((7, 2, 2), 7, 3),
        ((2, 2), 2, 1),
        ((6,), 7, 0),
    ],
)
def test_kinds_are_told_apart_by_shape(shape: tuple[int, ...], count: int, kind: int) -> None:
    assert weighting.trailing_dims(torch.Size(shape), count) == kind


def test_kinds_that_mean_the_same_give_the_same_pose() -> None:
    scene = random_scene(6, 8, noise=3.0, seed=1)
    w = scene.weights
    scalar = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=w)
    for same in (w[..., None].expand(-1, -1, 2), torch.diag_embed(w[..., None].expand(-1, -1, 2))):
        other = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=same)
        torch.testing.assert_close(other.pose.R, scalar.pose.R, rtol=0, atol=1e-11)
        torch.testing.assert_close(other.cost, scalar.cost, rtol=1e-10, atol=0)


def test_only_the_symmetric_part_counts() -> None:
    scene = random_scene(4, 8, noise=3.0, seed=2)
    W = _matrices(4, 8)
    skew = torch.tensor([[0.0, 0.7], [-0.7, 0.0]]).double()
    a = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=W)
    b = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=W + skew)
    torch.testing.assert_close(a.pose.t, b.pose.t, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["axes", "matrices"])
def test_gradient_by_weights_equals_re_solving(kind: str) -> None:
    scene = random_scene(8, 6, noise=5.0, seed=3)
    W = _matrices(8, 6)
    weights = W if kind == "matrices" else W.diagonal(dim1=-2, dim2=-1).clone()
    probe = torch.linspace(-1, 1, 3, dtype=torch.float64)

    def pose(w: torch.Tensor, init: pg.Pose) -> torch.Tensor:
        copies = len(w) // 8
        x, z = (v.repeat_interleave(copies, 0) for v in (scene.points2d, scene.points3d))
        start = pg.Pose(init.R.repeat_interleave(copies, 0), init.t.repeat_interleave(copies, 0))
        solution = pg.solve_pnp(x, z, scene.K, weights=w, init=start)
        assert bool(solution.ok.all()), solution.describe()
        return ((solution.pose.R @ probe) * probe + solution.pose.t).sum(-1)

    leaf = weights.clone().requires_grad_()
    (actual,) = torch.autograd.grad(pose(leaf, scene.pose).sum(), leaf)
    expected = central_difference(lambda w: pose(w, scene.pose).detach(), weights, 1e-3)
    assert relative_error(actual, expected, 1e-3).max() < 1e-6


def test_bad_weights_are_a_status() -> None:
    scene = random_scene(4, 6, noise=1.0, seed=4)
    W = _matrices(4, 6)
    W[1, 2] = torch.tensor([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1
    W[2] = 0
    W[3, 0, 0, 1] = float("nan")
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=W)
    wanted = [pg.Status.CONVERGED, pg.Status.BAD_WEIGHTS, pg.Status.TOO_FEW_POINTS, pg.Status.NOT_FINITE]
    assert solution.status.tolist() == [int(s) for s in wanted]


def test_semi_definite_weights_are_legal_and_may_leave_the_pose_open() -> None:
    scene = random_scene(4, 8, noise=1.0, seed=4)
    a, b = torch.tensor([[1.0, -0.3], [0.3, 1.0]], dtype=torch.float64)
    lines = torch.stack([a[:, None] * a, b[:, None] * b]).repeat(
        4, 1, 1
    )  # every point is seen along one direction
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=lines, init=scene.pose)
    assert bool(solution.ok.all()), solution.describe()
    parallel = lines[:1].expand(
        8, 2, 2
    )  # all of them along the same one: translation across it changes nothing
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=parallel, init=scene.pose)
    assert (solution.status == pg.Status.DEGENERATE).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_matrices_of_rank_one_are_semi_definite_whatever_dtype_they_come_in(dtype: torch.dtype) -> None:
    """Rounding leaves some with a negative eigenvalue, and points in float64 do not make it less; float64 weights may
    be float32 ones made wide."""
    scene = random_scene(1, 100, noise=1.0, seed=5)
    made = torch.float32 if dtype == torch.float64 else dtype
    a = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).to(made)
    W = (a[:, :, None] * a[:, None, :]).to(dtype)
    assert bool((torch.linalg.det(W.double()) < 0).any())
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=W)
    assert bool(solution.ok.all()), solution.describe()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_confidences_that_sum_to_one_are_weights_in_half_precision(dtype: torch.dtype) -> None:
    scene = random_scene(2, 500, noise=1.0, seed=6)
    x, z, K = (v.to(dtype) for v in (scene.points2d, scene.points3d, scene.K))
    w = torch.full((2, 500), 1 / 500, dtype=dtype).requires_grad_()
    solution = pg.solve_pnp(x, z, K, weights=w)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close(solution.pose.t, pg.solve_pnp(x, z, K).pose.t, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(solution.pose.t.sum(), w)
    assert bool(gradient.isfinite().all() & (gradient != 0).any())


def test_matrices_for_two_points_are_refused_with_the_way_out() -> None:
    """Or given by way of a third point that is masked."""
    scene = random_scene(3, 3, noise=1.0, seed=2)
    x, z, K, W = scene.points2d, scene.points3d, scene.K, _matrices(3, 3)
    known = {"constraint": pg.PoseConstraint(rotation=scene.pose.R)}
    with pytest.raises(ValueError, match=r"weights \(3, 2, 2\).*for N = 2 weights are numbers.*mask"):
        pg.solve_pnp(x[:, :2], z[:, :2], K, weights=W[:, :2], **known)
    mask = torch.tensor([True, True, False])
    solution = pg.solve_pnp(x, z, K, weights=W, mask=mask, **known)
    r = pg.reprojection_residuals(x, z, K, solution.pose)[:, :2]
    expected = 0.5 * (r[..., None, :] @ W[:, :2] @ r[..., None]).sum((-1, -2, -3))
    torch.testing.assert_close(solution.cost, expected)
