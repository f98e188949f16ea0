"""solve_pnp from scratch and from a start, against OpenCV; its call surface."""

import cv2
import numpy as np
import pytest
import torch
from torch.utils import _pytree

import posegrad as pg
from posegrad.problems.reprojection import Correspondences, Reprojection
from posegrad.testing import check_problem, random_scene


@pytest.mark.parametrize("planar", [False, True], ids=["general", "planar"])
@pytest.mark.parametrize("points", [4, 6, 50])
@pytest.mark.parametrize("noise", [0.0, 1.0, 5.0])
def test_cost_is_never_above_opencv(points: int, noise: float, planar: bool) -> None:
    """OpenCV refined from its own best start and from the truth, on a camera without skew."""
    scene = random_scene(40, points, noise=noise, planar=planar, seed=2)
    K = scene.K * torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 1]])
    solution = pg.solve_pnp(scene.points2d, scene.points3d, K)
    assert bool(solution.ok.all()), solution.describe()
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-14)
    for i in range(40):
        x, z, k = scene.points2d[i].numpy(), scene.points3d[i].numpy(), K.numpy()
        starts = [cv2.solvePnP(z, x, k, None, flags=cv2.SOLVEPNP_SQPNP)[1:]]
        starts.append(
            (scene.pose.rotvec()[i].numpy()[:, None].copy(), scene.pose.t[i].numpy()[:, None].copy())
        )
        for rotvec, t in starts:
            rotvec, t = cv2.solvePnPRefineLM(z, x, k, None, rotvec, t, criteria)
            rival = 0.5 * np.square(cv2.projectPoints(z, rotvec, t, k, None)[0][:, 0] - x).sum()
            assert solution.cost[i].item() <= rival * (1 + 1e-6) + 1e-9


def test_reported_numbers_are_in_the_users_units() -> None:
    scene = random_scene(3, 10, noise=2.0, seed=3)
    z = 1000 * scene.points3d + torch.tensor([5000.0, -300.0, 200.0])
    solution = pg.solve_pnp(scene.points2d, z, scene.K, weights=scene.weights)
    residual = pg.reprojection_residuals(scene.points2d, z, scene.K, solution.pose)
    torch.testing.assert_close(solution.cost, 0.5 * (scene.weights * residual.square().sum(-1)).sum(-1))

    def cost(delta: torch.Tensor) -> torch.Tensor:
        r = pg.reprojection_residuals(scene.points2d, z, scene.K, solution.pose.retract(delta))
        return 0.5 * (scene.weights * r.square().sum(-1)).sum(-1)

    zero = torch.zeros(3, 6, dtype=torch.float64)
    hessian = (
        torch.func.jacrev(torch.func.grad(lambda d: cost(d).sum()))(zero)
        .diagonal(dim1=0, dim2=2)
        .movedim(-1, 0)
    )
    scale = hessian.diagonal(dim1=1, dim2=2).sqrt()
    normalised = (solution.hessian - hessian) / scale[:, :, None] / scale[:, None, :]
    assert normalised.abs().max() < 1e-7
    assert bool((solution.decrement < 1e-8).all())


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_and_origin_change_nothing(unit: float) -> None:
    scene = random_scene(5, 8, noise=2.0, seed=4)
    reference = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    origin = torch.tensor([1e4, -2e4, 5e3])
    moved = pg.solve_pnp(scene.points2d, unit * (scene.points3d + origin), scene.K)
    assert bool(moved.ok.all())
    torch.testing.assert_close(moved.pose.R, reference.pose.R, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.cost, reference.cost, rtol=1e-8, atol=0)


def test_weights_scale_does_not_matter_and_zero_weight_is_absence() -> None:
    scene = random_scene(5, 8, noise=2.0, seed=5)
    w = scene.weights.clone()
    w[:, 6:] = 0
    reference = pg.solve_pnp(scene.points2d[:, :6], scene.points3d[:, :6], scene.K, weights=w[:, :6])
    scaled = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, weights=1e9 * w)
    torch.testing.assert_close(scaled.pose.R, reference.pose.R, rtol=0, atol=1e-11)


def test_init_is_refined_locally() -> None:
    """From near a mirror minimum of a plane the answer is that minimum; without init it is the better one."""
    scene = random_scene(30, 6, noise=1.0, planar=True, seed=6)
    best = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    normal = best.pose.R[:, :, 2]
    ray = torch.nn.functional.normalize(best.pose.t, dim=-1)
    mirrored = normal - 2 * ((normal * ray).sum(-1, keepdim=True) * ray)
    axis = torch.linalg.cross(normal, -mirrored)
    angle = torch.atan2(axis.norm(dim=-1, keepdim=True), (normal * -mirrored).sum(-1, keepdim=True))
    turn = pg.so3.exp(axis / axis.norm(dim=-1, keepdim=True) * angle)
    local = pg.solve_pnp(
        scene.points2d, scene.points3d, scene.K, init=pg.Pose(turn @ best.pose.R, best.pose.t)
    )
    other = local.ok & ((local.cost - best.cost) > 1e-3)
    assert int(other.sum()) > 5
    assert bool((local.cost[local.ok] >= best.cost[local.ok] * (1 - 1e-9)).all())


def test_a_point_of_weight_zero_may_be_behind_the_camera() -> None:
    scene = random_scene(3, 8, noise=1.0, seed=16)
    w, z = scene.weights.clone(), scene.points3d.clone()
    w[:, 0] = 0
    z[:, 0] = scene.pose.inverse().act(torch.tensor([[0.5, 0.5, -3.0]], dtype=torch.float64))[:, 0]
    reference = pg.solve_pnp(scene.points2d[:, 1:], z[:, 1:], scene.K, weights=w[:, 1:])
    for init in (None, scene.pose):
        solution = pg.solve_pnp(scene.points2d, z, scene.K, weights=w, init=init)
        assert bool(solution.ok.all())
        torch.testing.assert_close(solution.pose.R, reference.pose.R, rtol=0, atol=1e-11)


def test_an_init_off_the_rotations_is_brought_back_or_refused() -> None:
    scene = random_scene(3, 8, noise=1.0, seed=17)
    reference = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    drifted = pg.solve_pnp(
        scene.points2d, scene.points3d, scene.K, init=pg.Pose(scene.pose.R + 1e-3, scene.pose.t)
    )
    torch.testing.assert_close(drifted.pose.R, reference.pose.R, rtol=0, atol=1e-10)
    identity = torch.eye(3).double().expand(3, 3, 3)
    torch.testing.assert_close(drifted.pose.R @ drifted.pose.R.mT, identity, rtol=0, atol=1e-14)
    for wrong in (2 * scene.pose.R, -scene.pose.R, 0 * scene.pose.R, 1e160 * scene.pose.R):
        refused = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, init=pg.Pose(wrong, scene.pose.t))
        assert set(refused.status.tolist()) == {pg.Status.BAD_INIT}
        assert bool(refused.pose.R.isfinite().all())


def test_points_far_from_the_origin_in_float32_are_solved_as_they_are() -> None:
    scene = random_scene(10, 8, seed=18)
    z = (scene.points3d + torch.tensor([1e5, 0, 0])).float()
    solution = pg.solve_pnp(scene.points2d.float(), z, scene.K.float())
    assert bool(solution.ok.all()), solution.describe()


def test_steps_are_bounded() -> None:
    scene = random_scene(5, 8, noise=5.0, seed=19)
    for most in (1, 2, 3):
        solver = pg.LevenbergMarquardt(max_steps=most)
        solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K, init=scene.pose, solver=solver)
        assert int(solution.num_steps.max()) <= most


def test_closed_forms_of_the_problem() -> None:
    scene = random_scene(3, 6, noise=5.0, seed=8)
    camera = pg.cameras.SkewPinhole.from_matrix(scene.K.expand(3, 3, 3))
    check_problem(
        Reprojection(), scene.pose, Correspondences(scene.points2d, scene.points3d, scene.weights, camera)
    )


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0,), (2, 0)])
def test_batch_shapes(shape: tuple[int, ...]) -> None:
    scene = random_scene(1, 6, seed=9)
    x = scene.points2d[0].expand(*shape, 6, 2)
    solution = pg.solve_pnp(x, scene.points3d[0], scene.K)
    assert solution.status.shape == shape
    assert solution.pose.R.shape == (*shape, 3, 3)
    assert solution.pose.t.shape == (*shape, 3)
    assert solution.hessian.shape == (*shape, 6, 6)
    assert bool(solution.ok.all())


def test_leading_dimensions_broadcast() -> None:
    scene = random_scene(2, 6, noise=1.0, seed=10)
    K = torch.stack([scene.K, scene.K * torch.tensor([[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]])])
    solution = pg.solve_pnp(
        scene.points2d[:, None], scene.points3d[:, None], K[None], weights=scene.weights[:, None]
    )
    assert solution.ok.shape == (2, 2)
    single = pg.solve_pnp(scene.points2d[1], scene.points3d[1], K[0], weights=scene.weights[1])
    torch.testing.assert_close(solution.pose.R[1, 0], single.pose.R, rtol=0, atol=1e-12)


@pytest.mark.parametrize("points", [0, 1, 2])
def test_hardly_any_points(points: int) -> None:
    scene = random_scene(3, 4, seed=11)
    solution = pg.solve_pnp(scene.points2d[:, :points], scene.points3d[:, :points], scene.K)
    assert set(solution.status.tolist()) == {pg.Status.TOO_FEW_POINTS}
    assert bool(solution.pose.t.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    scene = random_scene(3, 12, seed=12)
    x, z, K = (v.to(dtype) for v in (scene.points2d, scene.points3d, scene.K))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solution = pg.solve_pnp(x, z, K)
    assert solution.pose.R.dtype == (torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype)
    assert bool(solution.ok.all()), solution.describe()
    exact = pg.solve_pnp(x.double(), z.double(), K.double())
    torch.testing.assert_close(solution.pose.R.double(), exact.pose.R, rtol=0, atol=1e-6)


def test_cameras_and_module_agree_with_k() -> None:
    scene = random_scene(2, 6, noise=1.0, seed=13)
    K = scene.K.clone()
    K[0, 1] = 0
    by_k = pg.solve_pnp(scene.points2d, scene.points3d, K)
    camera = pg.cameras.Pinhole(torch.stack([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]))
    torch.testing.assert_close(pg.PnP()(scene.points2d, scene.points3d, camera).pose.R, by_k.pose.R)
    K[1, 1] = K[0, 0]
    simple = pg.cameras.SimplePinhole(torch.stack([K[0, 0], K[0, 2], K[1, 2]]))
    torch.testing.assert_close(
        pg.solve_pnp(scene.points2d, scene.points3d, simple).pose.t,
        pg.solve_pnp(scene.points2d, scene.points3d, K).pose.t,
    )


def test_solution_is_a_pytree() -> None:
    scene = random_scene(2, 6, seed=14)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    leaves, spec = _pytree.tree_flatten(solution)
    assert len(leaves) == 7
    rebuilt = _pytree.tree_unflatten(leaves, spec)
    assert isinstance(rebuilt, pg.PnPSolution)
    assert rebuilt.pose.R is solution.pose.R
    assert "2 x CONVERGED" in rebuilt.describe()


def test_no_gradient_no_graph_and_no_grad_leak() -> None:
    scene = random_scene(2, 6, seed=15)
    solution = pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
    assert not solution.pose.R.requires_grad
    x = scene.points2d.clone().requires_grad_()
    with torch.no_grad():
        assert not pg.solve_pnp(x, scene.points3d, scene.K).pose.R.requires_grad
    assert torch.is_grad_enabled()
    graph = pg.solve_pnp(x, scene.points3d, scene.K)
    assert graph.pose.R.requires_grad
    assert not graph.cost.requires_grad


_X, _Z, _K = torch.zeros(5, 2), torch.zeros(5, 3), torch.eye(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: pg.solve_pnp(_Z, _X, _K),
            ValueError,
            "the arguments are swapped; the order is points2d, points3d",
        ),
        (
            lambda: pg.solve_pnp(_X[:4], _Z, _K),
            ValueError,
            "points3d: got 5 points, expected 4 as in points2d",
        ),
        (
            lambda: pg.solve_pnp(_X[0], _Z, _K),
            ValueError,
            r"points2d: got shape \(2,\), expected \(\.\.\., N, 2\)",
        ),
        (lambda: pg.solve_pnp(_X.numpy(), _Z, _K), TypeError, "points2d: got ndarray"),
        (lambda: pg.solve_pnp(_X.long(), _Z, _K), TypeError, r"points2d: got dtype torch\.int64"),
        (lambda: pg.solve_pnp(_X, _Z, torch.eye(4)), ValueError, r"camera: got a tensor of shape \(4, 4\)"),
        (lambda: pg.solve_pnp(_X, _Z, _K, weights=torch.ones(4)), ValueError, r"weights: got shape \(4,\)"),
        (lambda: pg.solve_pnp(_X, _Z, _K, weights=torch.ones(5).int()), TypeError, "weights: got dtype"),
        (
            lambda: pg.solve_pnp(_X, _Z, _K, mask=torch.ones(5)),
            TypeError,
            r"expected torch\.bool .* use mask\.bool",
        ),
        (
            lambda: pg.solve_pnp(_X, _Z, _K, init=torch.zeros(6)),
            TypeError,
            "init: got Tensor, expected a pg.Pose",
        ),
        (lambda: pg.solve_pnp(_X, _Z, _K, solver="lm"), TypeError, "solver: got str"),
        (lambda: pg.solve_pnp(_X, _Z, _K, adjoint="implicit"), TypeError, "adjoint: got str"),
        (lambda: pg.solve_pnp(_X, _Z, _K, backend="cuda"), ValueError, "backend: got 'cuda'"),
        (lambda: pg.solve_pnp(_X.expand(2, 5, 2), _Z.expand(3, 5, 3), _K), ValueError, "do not broadcast"),
        (lambda: pg.solve_pnp(_X, _Z.to("meta"), _K), ValueError, "points3d: is on meta, expected cpu"),
        (lambda: pg.solve_pnp(_X, _Z, _K, wheights=None), TypeError, "wheights"),
        (lambda: pg.solve_pnp(_X, _Z, _K, num_solutions=True), ValueError, "num_solutions: got True"),
    ],
)
def test_wrong_calls_name_the_argument(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_settings_from_numpy_do_what_python_numbers_do(backend: str) -> None:
    def solve(integer: type, real: type) -> pg.Pose:
        solver = pg.LevenbergMarquardt(max_steps=integer(20), tolerance=real(2.0**-20))
        loss = pg.robust.Huber(real(2.0))
        return pg.solve_pnp(
            _X, _Z, _K, solver=solver, loss=loss, num_solutions=integer(2), backend=backend
        ).pose

    expected, found = solve(int, float), solve(np.int64, np.float32)
    assert torch.equal(found.R, expected.R)
    assert torch.equal(found.t, expected.t)


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
@pytest.mark.parametrize("size", [0, 2])
def test_gradients_of_a_batch_without_a_good_item_are_zero(
    size: int, adjoint: pg.Implicit | pg.Unrolled
) -> None:
    points2d = torch.full((size, 5, 2), torch.nan, requires_grad=True)
    solution = pg.solve_pnp(points2d, _Z, _K, adjoint=adjoint)
    assert solution.status.tolist() == [pg.Status.NOT_FINITE] * size
    (gradient,) = torch.autograd.grad(solution.pose.t.sum(), points2d)
    assert torch.equal(gradient, torch.zeros_like(points2d))
