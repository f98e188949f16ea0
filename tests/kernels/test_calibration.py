"""The kernel of calibrations does what the torch operations do: derivatives, minima, and what it leaves to them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.problems import calibration_fused as fused
from posegrad.problems.calibration_problem import Calibrated, Calibration, Observations
from posegrad.robust import Squared
from tests.cameras.samples import PARAMS
from tests.problems.calibration_scenes import SIZE, board, rig, views

_MODELS = [model.name for model in fused.MODELS]
# all twelve parameters of the rational model are not determined by any amount of such data
_FIXED = {"FULL_OPENCV": ("k4", "k5", "k6")}


def _problem(name: str, free: tuple[int, ...] | None = None) -> tuple[Calibration, Calibrated, Observations]:
    """Two calibrations of four views, not at a minimum; a view without weights, points without."""
    scenes = [views(name, num_views=4, noise=2.0, seed=seed) for seed in (0, 1)]
    focal = 500.0
    camera = type(scenes[0].camera)
    params = torch.stack([s.camera.in_units_of(torch.tensor(focal).double()).params for s in scenes])
    pose = pg.Pose(*(torch.stack([getattr(s.pose, part) for s in scenes]) for part in ("R", "t")))
    generator = torch.Generator().manual_seed(0)
    delta = 0.01 * torch.randn(2, 4, 6, generator=generator).double()
    weights = torch.rand(2, 4, 48, generator=generator).double() * (
        torch.rand(2, 4, 48, generator=generator) < 0.9
    )
    used = torch.ones(2, 4).double()
    used[0, 2] = 0
    args = Observations(
        torch.stack([s.points2d for s in scenes]) / focal, board().expand(2, 4, 48, 3), weights, Squared()
    )
    free = tuple(range(params.shape[1])) if free is None else free
    variable = Calibrated(params * 1.02, pose.retract(delta), used)
    return Calibration(camera, free, 4).unbounded(), variable, args


@pytest.mark.parametrize("exact", [False, True], ids=["gauss_newton", "exact"])
@pytest.mark.parametrize("name", _MODELS)
def test_the_same_derivatives(name: str, exact: bool) -> None:
    problem, variable, args = _problem(name)
    _same_derivatives(problem, variable, args, exact)


def test_the_same_derivatives_by_some_parameters() -> None:
    _same_derivatives(*_problem("FULL_OPENCV", (1, 2, 4, 7, 9, 11)), exact=True)


def _same_derivatives(problem: Calibration, variable: Calibrated, args: Observations, exact: bool) -> None:
    assert fused.serves(problem, variable, args)
    settings = pg.LevenbergMarquardt()
    wanted = problem.arrow_quadratic(variable, args, exact=exact)
    done = torch.ones(2, dtype=torch.bool)
    state = fused.descended(problem, variable, args, settings, 1, done=done)
    if exact:
        # no step is left
        state = state._replace(steps=torch.full_like(state.steps, settings.max_steps))
        state = fused.finished(problem, state, args, settings)
    torch.testing.assert_close(state.variable.params, variable.params, rtol=0, atol=0)
    assert bool(wanted.feasible.all())
    assert bool(state.model.feasible.all())
    parts = ("view_cost", "by_params", "by_poses")
    pairs = [(getattr(state.model, part), getattr(wanted, part)) for part in parts]
    for ours, theirs in [*pairs, *zip(state.model.hessian, wanted.hessian, strict=True)]:
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


def _both(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> tuple[Any, Any, list[Any]]:
    """With the kernel, without it; and what the kernel's whole course came to at each call."""
    seen = []

    def course(*arguments: Any) -> Any:
        seen.append(_course(*arguments))
        return seen[-1]

    monkeypatch.setattr(fused, "course", course)
    ours = pg.calibrate_camera(*args, image_size=SIZE, **options)
    monkeypatch.setattr(fused, "serves", lambda *_: False)
    return ours, pg.calibrate_camera(*args, image_size=SIZE, **options), seen


_course: Callable[..., Any] = fused.course


def _assert_same(ours: pg.CalibrationSolution, theirs: pg.CalibrationSolution) -> None:
    for name in ("status", "view_status", "num_steps"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("cost", "rms", "covariance", "pose_covariance", "hessian", "residuals"):
        value, wanted = getattr(ours, name), getattr(theirs, name)
        torch.testing.assert_close(
            value, wanted, rtol=1e-7, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}"
        )
    torch.testing.assert_close(ours.camera.params, theirs.camera.params, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.pose.t, theirs.pose.t, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", _MODELS)
def test_the_same_minima(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = views(name, num_views=6, noise=0.3, tilt=0.7)
    init = scene.camera if name in _FIXED else None
    ours, theirs, seen = _both(
        monkeypatch, scene.points2d, scene.points3d, model=name, fixed=_FIXED.get(name, ()), init=init
    )
    assert bool(ours.ok)
    assert seen[0] is not None
    _assert_same(ours, theirs)


def test_the_same_with_weights_masks_and_bad_views(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [views("OPENCV", num_views=7, noise=0.3, tilt=0.7, seed=seed) for seed in (3, 4)]
    points2d = torch.stack([s.points2d for s in scenes])
    generator = torch.Generator().manual_seed(0)
    weights = 0.2 + torch.rand(2, 7, 48, generator=generator).double()
    mask = torch.rand(2, 7, 48, generator=generator) < 0.8
    mask[0, 3] = False
    points2d[1, 2, 5] = torch.nan
    ours, theirs, seen = _both(
        monkeypatch, points2d, scenes[0].points3d, weights=weights, mask=mask, fixed=("p1", "cy")
    )
    assert bool(ours.ok.all())
    assert seen[0] is not None
    _assert_same(ours, theirs)


def test_no_plane_from_an_init(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = views("RADIAL", num_views=3, target=rig(), noise=0.3)
    init = pg.cameras.Radial(scene.camera.params * 1.03)
    ours, theirs, seen = _both(monkeypatch, scene.points2d, scene.points3d, model="RADIAL", init=init)
    assert bool(ours.ok)
    assert seen[0] is not None
    _assert_same(ours, theirs)


def _moved_view(scene: Any) -> Tensor:
    """A view of which a part of the corners was found elsewhere."""
    points2d = scene.points2d.clone()
    points2d[2, :10] += 30
    return points2d


def _from_afar(scene: Any) -> Tensor:
    """A view from so far that, with its noise, it looks the same mirrored."""
    pose = pg.Pose(scene.pose.R[2], torch.tensor([0.0, 0.0, 400.0]).double())
    points2d = scene.points2d.clone()
    noise = torch.randn(48, 2, generator=torch.Generator().manual_seed(0)).double()
    points2d[2] = pg.project_points(scene.points3d, scene.camera, pose) + 0.2 * noise
    return points2d


@pytest.mark.parametrize("change", [_moved_view, _from_afar])
def test_the_extraordinary_gets_a_second_look(
    change: Callable[[Any], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = views("RADIAL", num_views=8, noise=0.05, tilt=0.6)
    ours, theirs, seen = _both(monkeypatch, change(scene), scene.points3d, model="RADIAL")
    assert seen[0] is None
    assert bool(ours.ok)
    _assert_same(ours, theirs)


def test_a_degenerate_calibration_gets_a_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = views("PINHOLE", num_views=4, tilt=0.0, noise=0.1)
    ours, theirs, seen = _both(monkeypatch, scene.points2d, scene.points3d, model="PINHOLE")
    assert seen[0] is None
    assert ours.status.item() == theirs.status.item() == int(pg.Status.DEGENERATE)


def test_points_beyond_the_fold_get_a_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of a camera that folds, at radii where the model's continuation fits them exactly."""
    scene = views("SIMPLE_RADIAL", num_views=6, tilt=0.6)
    params = scene.camera.params.clone()
    r = (scene.pose.act(scene.points3d)[..., :2] / scene.pose.act(scene.points3d)[..., 2:]).norm(dim=-1)
    params[3] = -1 / (3 * (0.9 * r.max()) ** 2)
    m = scene.pose.act(scene.points3d)
    m = m[..., :2] / m[..., 2:]
    points2d = params[0] * m * (1 + params[3] * m.square().sum(-1, keepdim=True)) + params[1:3]
    ours, theirs, seen = _both(monkeypatch, points2d, scene.points3d, model="SIMPLE_RADIAL")
    assert seen[0] is None
    assert torch.equal(ours.status, theirs.status)
    torch.testing.assert_close(ours.camera.params, theirs.camera.params)


def test_what_the_kernel_does_not_serve() -> None:
    problem, variable, args = _problem("OPENCV")
    assert fused.serves(problem, variable, args)
    loss = pg.robust.Huber(torch.ones(2, 4).double())
    assert not fused.serves(problem, variable, args._replace(loss=loss))
    assert not fused.serves(
        problem, variable, args._replace(weights=args.weights[..., None].expand(2, 4, 48, 2))
    )
    assert not fused.serves(problem, variable, args._replace(points2d=args.points2d.clone().requires_grad_()))
    assert not fused.serves(Calibration(problem.model, problem.free, 4), variable, args)
    assert len(PARAMS) > len(_MODELS)
