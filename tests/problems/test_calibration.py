"""Calibrations of known cameras: recovery, what is left out, what cannot be determined, how sure the answer is."""

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.cameras import MODELS
from posegrad.problems.calibration_problem import Calibrated, Calibration, Observations
from posegrad.testing import check_problem
from tests.problems.calibration_scenes import SIZE, board, rig, views

# all twelve parameters of the rational model are not determined by any amount of such data
_FIXED = {"FULL_OPENCV": ("k4", "k5", "k6")}


def _start_for(name: str) -> pg.cameras.Camera | None:
    """The rational model's held parameters are not zero here."""
    return views(name, num_views=1).camera if name in _FIXED else None


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_recovered_from_a_board(name: str) -> None:
    scene = views(name, num_views=6)
    solution = pg.calibrate_camera(
        scene.points2d,
        scene.points3d,
        model=name,
        image_size=SIZE,
        fixed=_FIXED.get(name, ()),
        init=_start_for(name),
    )
    assert bool(solution.ok), solution.describe()
    torch.testing.assert_close(solution.camera.params, scene.camera.params, rtol=1e-9, atol=1e-9)
    assert pg.so3.log(solution.pose.R @ scene.pose.R.mT).norm(dim=-1).max() < 1e-10
    torch.testing.assert_close(solution.pose.t, scene.pose.t, rtol=1e-10, atol=1e-10)
    assert solution.rms < 1e-10


@pytest.mark.parametrize("name", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE"])
def test_points_that_are_no_plane(name: str) -> None:
    scene = views(name, num_views=5, target=rig(), noise=0.3)
    solution = pg.calibrate_camera(scene.points2d, scene.points3d, model=name, image_size=SIZE)
    assert bool(solution.ok), solution.describe()
    assert ((solution.camera.params - scene.camera.params) / solution.std).abs().max() < 4
    assert solution.rms.item() == pytest.approx(0.3 * 2**0.5, rel=0.1)


def test_the_cost_agrees_with_its_definition_and_its_derivatives() -> None:
    scene = views("OPENCV", num_views=2, target=board(3, 2, 2.0), noise=0.01)
    camera = scene.camera.in_units_of(torch.tensor(500.0).double())
    free = (0, 1, 3, 4, 6)
    problem = Calibration(type(camera), free, 2)
    variable = Calibrated(
        camera.params[None] * 1.01, pg.Pose(scene.pose.R[None], scene.pose.t[None]), torch.ones(1, 2).double()
    )
    weights = (
        torch.diag_embed(torch.rand(1, 2, 6, 2, generator=torch.Generator().manual_seed(0)).double()) + 0.1
    )
    loss = pg.robust.Cauchy(torch.full((1, 2), 0.01, dtype=torch.float64))
    args = Observations(scene.points2d[None] / 500, scene.points3d.expand(1, 2, 6, 3), weights, loss)
    check_problem(problem, variable, args)
    whole = problem.unbounded().quadratic(variable, args, exact=True)
    torch.testing.assert_close(whole.hessian, problem.quadratic(variable, args, exact=True).hessian)
    r = pg.project_points(scene.points3d, type(camera)(variable.params), scene.pose) - args.points2d[0]
    s = torch.einsum("vna,vnab,vnb->vn", r, weights[0], r)
    torch.testing.assert_close(problem.cost(variable, args)[0], 0.5 * loss.evaluate(s[None]).value.sum())


def test_parameters_are_held() -> None:
    scene = views("OPENCV", noise=0.2)
    solution = pg.calibrate_camera(
        scene.points2d, scene.points3d, model="OPENCV", image_size=SIZE, fixed=("p1", "p2", "cx")
    )
    assert bool(solution.ok)
    assert solution.camera.params[[2, 6, 7]].tolist() == [319.5, 0.0, 0.0]
    assert solution.std[[2, 6, 7]].tolist() == [0.0, 0.0, 0.0]
    assert bool((solution.std[[0, 1, 3, 4, 5]] > 0).all())
    held = pg.calibrate_camera(
        scene.points2d, scene.points3d, model="OPENCV", image_size=SIZE, fixed=("fx", "p1"), init=scene.camera
    )
    assert bool(held.ok)
    assert held.camera.params[[0, 6]].tolist() == scene.camera.params[[0, 6]].tolist()


def test_bad_views_are_left_out_and_change_nothing() -> None:
    scene = views("RADIAL", num_views=9, noise=0.2)
    points2d, mask = scene.points2d.clone(), torch.ones(9, 48, dtype=torch.bool)
    weights = torch.ones(9, 48, dtype=torch.float64)
    points3d = scene.points3d.expand(9, 48, 3).clone()
    points2d[0, 3] = torch.nan
    mask[1, 2:] = False
    weights[2, 0] = -1.0
    points3d[3, :, 1] = 0.0  # on a line
    mask[4, ::2], points2d[4, ::2] = False, torch.inf  # half of a view will do
    points2d.requires_grad_()

    def solve(chosen: list[int]) -> pg.CalibrationSolution:
        return pg.calibrate_camera(
            points2d[chosen],
            points3d[chosen],
            mask=mask[chosen],
            weights=weights[chosen],
            model="RADIAL",
            image_size=SIZE,
        )

    everything, good = solve(list(range(9))), solve([4, 5, 6, 7, 8])
    names = [pg.Status(code).name for code in everything.view_status.tolist()]
    assert names == ["NOT_FINITE", "TOO_FEW_POINTS", "BAD_WEIGHTS", "DEGENERATE", *["CONVERGED"] * 5]
    assert bool(everything.ok)
    torch.testing.assert_close(everything.camera.params, good.camera.params, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(everything.pose.t[4:], good.pose.t, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(everything.covariance, good.covariance, rtol=1e-8, atol=0)
    assert everything.pose.t[:4].tolist() == [[0.0, 0.0, 1.0]] * 4
    assert everything.view_rms[:4].tolist() == [0.0] * 4
    assert bool(everything.pose_covariance[:4].diagonal(dim1=-2, dim2=-1).isinf().all())
    total = everything.camera.params.sum() + everything.pose.R.sum() + everything.pose.t.sum()
    (gradient,) = torch.autograd.grad(total, points2d)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[:4] == 0).all())
    assert bool((gradient[4, ::2] == 0).all())
    assert bool((gradient[5:] != 0).any(-1).all())


def test_calibrations_of_a_batch_do_not_influence_each_other() -> None:
    first, second = (views("RADIAL", noise=0.2, num_views=5, seed=seed) for seed in (1, 2))
    alone = [
        pg.calibrate_camera(s.points2d, s.points3d, model="RADIAL", image_size=SIZE) for s in (first, second)
    ]
    both = torch.stack([first.points2d, torch.full_like(first.points2d, torch.nan), second.points2d])
    both.requires_grad_()
    solution = pg.calibrate_camera(both, first.points3d, model="RADIAL", image_size=SIZE)
    assert [pg.Status(code).name for code in solution.status.tolist()] == [
        "CONVERGED",
        "NOT_FINITE",
        "CONVERGED",
    ]
    for index, other in ((0, alone[0]), (2, alone[1])):
        torch.testing.assert_close(solution.camera.params[index], other.camera.params, rtol=1e-11, atol=1e-11)
    assert bool(solution.camera.params.isfinite().all())
    assert bool(solution.pose.t.isfinite().all())
    (gradient,) = torch.autograd.grad(solution.camera.params.sum() + solution.pose.t.sum(), both)
    assert bool((gradient[1] == 0).all())
    assert bool(gradient[[0, 2]].isfinite().all())


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_boards_parallel_to_the_image_do_not_determine_the_focal_length(noise: float) -> None:
    scenes = [views("PINHOLE", tilt=0.0, noise=noise, seed=seed) for seed in range(4)]
    points2d = torch.stack([scene.points2d for scene in scenes])
    solver = pg.LevenbergMarquardt(max_steps=25)
    solution = pg.calibrate_camera(
        points2d, scenes[0].points3d, model="PINHOLE", image_size=SIZE, solver=solver
    )
    degenerate = solution.status == pg.Status.DEGENERATE
    # noise tilts the boards a little, and in some draws enough to seem to say something
    assert degenerate.double().mean() > (0.6 if noise else 0.99)
    assert bool((degenerate | (solution.std[..., 0] > 0.1 * solution.camera.params[..., 0])).all())
    assert "tilt" in solution.describe()
    assert bool(solution.std[degenerate].isinf().all())
    single = pg.estimate_focal(points2d[0], scenes[0].points3d, image_size=SIZE)
    assert (single.status == pg.Status.DEGENERATE).double().mean() > 0.8


def test_too_little_data() -> None:
    scene = views("PINHOLE", num_views=1, tilt=0.7)
    one = pg.calibrate_camera(scene.points2d, scene.points3d, model="PINHOLE", image_size=SIZE)
    assert one.status.item() == pg.Status.DEGENERATE
    none = pg.calibrate_camera(scene.points2d[:, :2], scene.points3d[:2], model="PINHOLE", image_size=SIZE)
    assert none.status.item() == pg.Status.TOO_FEW_POINTS


def test_results_do_not_depend_on_units() -> None:
    scene = views("RADIAL", noise=0.3)
    plain = pg.calibrate_camera(scene.points2d, scene.points3d, model="RADIAL", image_size=SIZE)
    for factor, shift in ((1e-6, 0.0), (1e5, 3e7)):
        moved = pg.calibrate_camera(
            scene.points2d, factor * scene.points3d + shift, model="RADIAL", image_size=SIZE
        )
        torch.testing.assert_close(moved.camera.params, plain.camera.params, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(moved.covariance, plain.covariance, rtol=1e-6, atol=1e-12)


def test_outliers_under_a_robust_loss() -> None:
    scene = views("RADIAL", noise=0.2)
    points2d = scene.points2d.clone()
    points2d[::2, 5] += 30.0
    loss = pg.robust.Cauchy(0.5)
    solution = pg.calibrate_camera(
        points2d, scene.points3d, model="RADIAL", image_size=SIZE, loss=loss, noise=0.2
    )
    assert bool(solution.ok)
    assert ((solution.camera.params - scene.camera.params) / solution.std).abs().max() < 5
    without = pg.calibrate_camera(points2d, scene.points3d, model="RADIAL", image_size=SIZE)
    assert (without.camera.params - scene.camera.params)[0].abs() > 1
    unknown = pg.calibrate_camera(points2d, scene.points3d, model="RADIAL", image_size=SIZE, loss=loss)
    assert bool(unknown.std.isinf().all())


def test_float32_comes_back_as_float32() -> None:
    scene = views("RADIAL", noise=0.3)
    wide = pg.calibrate_camera(scene.points2d, scene.points3d, model="RADIAL", image_size=SIZE)
    narrow = pg.calibrate_camera(
        scene.points2d.float(), scene.points3d.float(), model="RADIAL", image_size=SIZE
    )
    assert narrow.camera.params.dtype == narrow.covariance.dtype == torch.float32
    torch.testing.assert_close(narrow.camera.params.double(), wide.camera.params, rtol=1e-5, atol=1e-4)


def test_covariances_agree_with_repeated_calibrations() -> None:
    """200 of them: a standard deviation is known to 5 %, the mean of a chi-square to as much."""
    count, sigma = 200, 0.3
    scene = views("RADIAL", num_views=4, target=board(4, 4, 2.0))
    noise = torch.randn(count, *scene.points2d.shape, generator=torch.Generator().manual_seed(0)).double()
    solution = pg.calibrate_camera(
        scene.points2d + sigma * noise, scene.points3d, model="RADIAL", image_size=SIZE, init=scene.camera
    )
    assert bool(solution.ok.all())
    error = solution.camera.params - scene.camera.params
    assert (error.std(0) / solution.std.mean(0) - 1).abs().max() < 0.15
    squares = (error[:, None] @ torch.linalg.inv(solution.covariance) @ error[..., None]).flatten()
    assert squares.mean().item() == pytest.approx(5.0, rel=0.12)
    turn = pg.so3.log(solution.pose.R @ scene.pose.R.mT)
    tangent = torch.cat([turn, solution.pose.t - scene.pose.t], -1)
    ratio = tangent.std(0) / solution.pose_covariance.mean(0).diagonal(dim1=-2, dim2=-1).sqrt()
    assert (ratio - 1).abs().max() < 0.2
    known = pg.calibrate_camera(
        scene.points2d + sigma * noise[0], scene.points3d, model="RADIAL", image_size=SIZE, noise=sigma
    )
    torch.testing.assert_close(known.std, solution.std.mean(0), rtol=0.1, atol=0)


def test_a_mirrored_view_is_found_again() -> None:
    """From afar a plane looks the same mirrored: views that start so end in the better of the two poses."""
    scene = views("PINHOLE", num_views=12, target=board(6, 5), distance=60.0, noise=0.05, tilt=0.6, seed=5)
    solution = pg.calibrate_camera(
        scene.points2d, scene.points3d, model="PINHOLE", image_size=SIZE, init=None
    )
    assert bool(solution.ok), solution.describe()
    alone = pg.solve_pnp(scene.points2d, scene.points3d, solution.camera)
    ours = 0.5 * solution.residuals.square().sum((-1, -2))
    assert (ours <= alone.cost * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"model": "OPENVC"}, ValueError, ("model", "'OPENVC'", "OPENCV")),
        ({"model": 3}, TypeError, ("model",)),
        ({"fixed": "k1"}, TypeError, ("fixed", "names")),
        ({"fixed": ("k9",)}, ValueError, ("fixed", "'k9'", "k1")),
        ({"fixed": ("fx",)}, ValueError, ("fixed", "init")),
        ({"fixed": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")}, ValueError, ("fixed",)),
        ({"image_size": 640}, TypeError, ("image_size",)),
        ({"image_size": (0, 480)}, ValueError, ("image_size",)),
        ({"init": pg.cameras.Pinhole(torch.ones(4))}, TypeError, ("init", "OPENCV")),
        ({"noise": torch.ones(3)}, ValueError, ("noise",)),
        ({"solver": 1}, TypeError, ("solver",)),
        ({"adjoint": 1}, TypeError, ("adjoint",)),
        ({"loss": 1}, TypeError, ("loss",)),
    ],
)
def test_wrong_calls(change: dict[str, object], error: type[Exception], parts: tuple[str, ...]) -> None:
    scene = views("OPENCV", num_views=3)
    with pytest.raises(error) as raised:
        pg.calibrate_camera(scene.points2d, scene.points3d, **({"image_size": SIZE} | change))  # type: ignore[arg-type]
    for part in parts:
        assert part in str(raised.value)


def test_wrong_shapes() -> None:
    scene = views("OPENCV", num_views=3)

    def fails(points2d: Tensor, points3d: Tensor, part: str) -> None:
        with pytest.raises(ValueError, match=part):
            pg.calibrate_camera(points2d, points3d, image_size=SIZE)

    fails(scene.points2d[0], scene.points3d, "views in front")
    fails(scene.points2d[:0], scene.points3d, "at least one view")
    fails(scene.points3d.expand(3, 48, 3), scene.points2d[0], "swapped")
    fails(scene.points2d, scene.points3d[:5], "points3d")
    with pytest.raises(ValueError, match="principal_point"):
        pg.estimate_focal(scene.points2d, scene.points3d)
    empty = pg.calibrate_camera(scene.points2d[None][:0], scene.points3d, image_size=SIZE)
    assert empty.camera.params.shape == (0, 8)
    assert empty.pose.t.shape == (0, 3, 3)


def test_nothing_to_calibrate_from_is_a_status() -> None:
    x, z = torch.zeros(3, 0, 2, requires_grad=True), torch.zeros(0, 3)
    for solution in (
        pg.calibrate_camera(x, z, image_size=SIZE),
        pg.estimate_focal(x, z, image_size=SIZE),
    ):
        assert bool((solution.status == int(pg.Status.TOO_FEW_POINTS)).all())
        assert solution.residuals.numel() == 0
        assert bool(solution.camera.params.isfinite().all())
        assert torch.autograd.grad(solution.camera.params.sum(), x)[0].shape == x.shape
