"""What all solvers of ``posegrad.minimal`` keep: exact data, both dtypes, and finite poses whatever comes."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from posegrad import so3
from posegrad.cameras import SkewPinhole
from posegrad.minimal.dlt import dlt
from posegrad.minimal.ippe import ippe
from posegrad.minimal.p3p import p3p
from posegrad.minimal.sqpnp import sqpnp
from posegrad.pose import Pose
from posegrad.testing import Scene, random_scene

Solver = Callable[[Tensor, Tensor, Tensor], tuple[Pose, Bool[Tensor, "B C"]]]


def _p3p(bearings: Tensor, points3d: Tensor, weights: Tensor) -> tuple[Pose, Tensor]:
    del weights
    return p3p(bearings[:, :3], points3d[:, :3])


#: with how many points, whether in a plane, and how exact (radians) in float64 and float32. SQPnP minimises a square:
#: at its minimum half of the digits are lost.
SOLVERS: dict[str, tuple[Solver, int, bool, float, float]] = {
    "p3p": (_p3p, 3, False, 1e-9, 1e-3),
    "sqpnp": (sqpnp, 6, False, 1e-7, 1e-3),
    "sqpnp, plane": (sqpnp, 6, True, 1e-7, 1e-3),
    "ippe": (ippe, 5, True, 1e-12, 1e-4),
    "dlt": (dlt, 7, False, 1e-12, 1e-4),
}
every_solver = pytest.mark.parametrize("name", SOLVERS)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def _rays(scene: Scene) -> Tensor:
    return SkewPinhole.from_matrix(scene.K).unproject(scene.points2d).bearings


def _data(name: str, count: int = 200) -> tuple[Scene, Tensor]:
    _, points, planar, _, _ = SOLVERS[name]
    scene = random_scene(count, points, planar=planar, seed=1)
    return scene, _rays(scene)


@every_solver
@both_dtypes
def test_exact_data_give_the_true_pose(name: str, dtype: torch.dtype) -> None:
    solve, _, _, fine, coarse = SOLVERS[name]
    scene, v = _data(name)
    pose, valid = solve(v.to(dtype), scene.points3d.to(dtype), scene.weights.to(dtype))
    assert pose.R.dtype == pose.t.dtype == dtype
    turn = so3.log(pose.R.double() @ scene.pose.R[:, None].mT).norm(dim=-1)
    shift = (pose.t.double() - scene.pose.t[:, None]).norm(dim=-1)
    nearest = torch.where(valid, turn + 0.1 * shift, torch.inf).amin(-1)
    assert float(nearest.max()) < (fine if dtype == torch.float64 else coarse)


@every_solver
def test_rays_need_no_optical_axis(name: str) -> None:
    """Turned to look sideways and back: the same poses, turned."""
    solve = SOLVERS[name][0]
    scene, v = _data(name, 50)
    pose, valid = solve(v, scene.points3d, scene.weights)
    turn = so3.exp(torch.tensor([0.3, 2.5, -0.4]).double())
    turned, turned_valid = solve(v @ turn.mT, scene.points3d, scene.weights)
    best = turned.R[:, :, None] @ (turn @ pose.R[:, None]).mT
    angle = torch.where(turned_valid[:, :, None] & valid[:, None], so3.log(best).norm(dim=-1), torch.inf)
    nearest = torch.where(valid, angle.amin(1), 0.0)
    assert float(nearest[:, 0].max()) < 1e-5
    if (
        "sqpnp" not in name
    ):  # whose starts are turned against the data: of its other minima it may find more or fewer
        assert float(nearest.max()) < 1e-5


@every_solver
@both_dtypes
@pytest.mark.parametrize(
    "bad", ["points", "rays", "nan", "inf", "weights", "line", "same ray", "huge", "tiny"]
)
def test_whatever_comes_poses_are_finite_and_neighbours_do_not_notice(
    name: str, dtype: torch.dtype, bad: str
) -> None:
    solve = SOLVERS[name][0]
    scene, v = _data(name, 3)
    v, z, w = v.to(dtype), scene.points3d.to(dtype), scene.weights.to(dtype)
    expected, expected_valid = solve(v, z, w)
    v, z, w = v.clone(), z.clone(), w.clone()
    line = torch.linspace(0, 1, z.shape[1], dtype=dtype)[:, None] * torch.ones(3, dtype=dtype)
    {
        "points": lambda: z[1].zero_(),
        "rays": lambda: v[1].zero_(),
        "nan": lambda: z[1, 0].fill_(torch.nan),
        "inf": lambda: z[1, 0].fill_(torch.inf),
        "weights": lambda: w[1].zero_(),
        "line": lambda: z[1].copy_(line),
        "same ray": lambda: v[1].copy_(v[1, :1].expand_as(v[1])),
        "huge": lambda: z[1].mul_(1e15),
        "tiny": lambda: z[1].mul_(1e-15),
    }[bad]()
    pose, valid = solve(v, z, w)
    assert bool(pose.R.isfinite().all() & pose.t.isfinite().all())
    assert bool(so3.is_rotation(pose.R, 1e-3).all())
    if bad in ("points", "nan", "inf", "line") and "sqpnp" not in name:
        assert not bool(valid[1].any())
    for i in (0, 2):
        assert torch.equal(valid[i], expected_valid[i])
        torch.testing.assert_close(
            pose.R[i], expected.R[i], rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-9
        )


@every_solver
def test_no_item_at_all(name: str) -> None:
    solve, points, _, _, _ = SOLVERS[name]
    pose, valid = solve(torch.zeros(0, points, 3), torch.zeros(0, points, 3), torch.zeros(0, points))
    assert pose.R.shape[0] == valid.shape[0] == 0


def test_ippe_gives_both_poses_of_a_plane_in_any_plane_and_unit() -> None:
    """The other one explains the image as well up to first order: both are minima of the object-space cost."""
    scene = random_scene(100, 8, planar=True, seed=2)
    far = Pose(scene.pose.R, scene.pose.t * torch.tensor([1.0, 1.0, 40.0]))
    turn = so3.exp(torch.tensor([1.0, -0.5, 2.0]).double())
    z = 50 * (scene.points3d @ turn.mT) + torch.tensor([3.0, 1000.0, -5.0])
    y = scene.points3d @ far.R.mT + far.t[:, None]
    v = y / y.norm(dim=-1, keepdim=True)
    pose, valid = ippe(v, z, scene.weights)
    assert bool(valid.all())
    moved = z @ pose.R[:, 0].mT + pose.t[:, :1]
    other = z @ pose.R[:, 1].mT + pose.t[:, 1:]
    off = torch.stack([(m / m.norm(dim=-1, keepdim=True) - v).norm(dim=-1).amax(-1) for m in (moved, other)])
    assert float(off.amin(0).max()) < 1e-10
    assert float(off.amax(0).max()) < 1e-3
    assert float(so3.log(pose.R[:, 0] @ pose.R[:, 1].mT).norm(dim=-1).min()) > 0.5


def test_dlt_refuses_planes_and_five_points() -> None:
    scene = random_scene(20, 9, planar=True, seed=3)
    assert not bool(dlt(_rays(scene), scene.points3d, scene.weights)[1].any())
    scene = random_scene(20, 9, seed=3)
    few = torch.where(torch.arange(9) < 5, scene.weights, 0.0)
    assert not bool(dlt(_rays(scene), scene.points3d, few)[1].any())
    assert not bool(dlt(_rays(scene)[:, :5], scene.points3d[:, :5], scene.weights[:, :5])[1].any())


_V, _Z, _W = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3), torch.ones(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: p3p(_V, _Z), ValueError, r"bearings: got shape \(2, 4, 3\), expected \(B, 3, 3\)"),
        (
            lambda: p3p(_V[:, :3], _Z[:1, :3]),
            ValueError,
            r"points3d: got shape \(1, 3, 3\), expected \(2, 3, 3\)",
        ),
        (lambda: p3p(_V[0, :3], _Z[0, :3]), ValueError, r"use bearings\[None\]"),
        (lambda: dlt(_V, _Z.double(), _W), TypeError, r"points3d: got torch.float64 .* use points3d.to"),
        (lambda: dlt(_V, _Z[:, :3], _W), ValueError, r"points3d: got shape \(2, 3, 3\)"),
        (lambda: ippe(_V, _Z, _W[:, :3]), ValueError, r"weights: got shape \(2, 3\), expected \(2, 4\)"),
        (lambda: ippe(_V, _Z, None), TypeError, "weights: got NoneType"),  # type: ignore[arg-type]
        (lambda: ippe(_V.half(), _Z, _W), TypeError, r"bearings: got dtype torch\.float16"),
        (lambda: sqpnp(_V.numpy(), _Z, _W), TypeError, "bearings: got ndarray"),  # type: ignore[arg-type]
        (lambda: sqpnp(_V[..., :2], _Z, _W), ValueError, r"bearings: got shape \(2, 4, 2\)"),
        (lambda: sqpnp(_V, _Z, _W, 0), ValueError, "num_candidates: got 0, expected an integer >= 1"),
        (lambda: sqpnp(_V, _Z, _W, True), ValueError, "num_candidates: got True"),
    ],
)
def test_wrong_calls_name_the_argument(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "p3p"])
def test_points_may_be_shared(name: str) -> None:
    scene, v = _data(name, 4)
    solve, z = SOLVERS[name][0], scene.points3d[:1]
    pose, valid = solve(v, z, scene.weights)
    expected, expected_valid = solve(v, z.expand(4, -1, -1), scene.weights)
    assert torch.equal(valid, expected_valid)
    torch.testing.assert_close(pose.R, expected.R, rtol=0, atol=1e-9)
