"""The paper's experiments, smaller, by what they claim."""

import json
from pathlib import Path

import pytest
import torch

import posegrad as pg
from posegrad.experiments import calibration, pose, sfm
from posegrad.experiments.scenes import cube_scene, data_folder, solid_scene
from posegrad.train.errors import RunError


def test_lambda_decides_whether_the_keypoints_converge(tmp_path: Path) -> None:
    config = pose.PoseConfig(out=tmp_path, steps=100, keypoint_lr=1.0, loss_below=1e-4)
    target = pg.project_points(cube_scene(None).points3d, pose._matrix(config), cube_scene(None).pose)[0]
    off = {}
    for weight in (1.0, 0.0):
        run = pose.learn_keypoints(config, cube_scene(None), network=False, weight=weight)
        row = pose._measure(run, cube_scene(None), target[None])
        assert row["rotation_deg"] < 0.5
        assert row["translation_share"] < 5e-3
        assert row["projections_rms_px"] < 1
        off[weight] = row["keypoints_rms_px"]
    assert off[1.0] < 0.1
    assert off[0.0] > 30


def test_a_network_learns_the_pose(tmp_path: Path) -> None:
    config = pose.PoseConfig(out=tmp_path, steps=100, lr=1e-4, loss_below=1.0)
    run = pose.learn_keypoints(config, cube_scene(None), network=True, weight=1.0)
    assert run.descent.losses[0] > 1e3
    assert run.descent.reached
    assert pose._measure(run, cube_scene(None), run.projections[-1:])["rotation_deg"] < 1


def test_structure_from_masked_projections() -> None:
    config = sfm.SfmConfig(points=60, steps=200, loss_below=6e-12, stall=6e-14)
    scene = solid_scene(None, config.points, config.views)
    run = sfm.reconstruct(config, scene)
    assert run.descent.reached
    assert run.aligned_errors[0] > 0.8
    assert run.aligned_errors[-1] < 0.1
    assert sfm._measure(run, scene, config)["median_rotation_deg"] < 5


@pytest.mark.parametrize("views", [1, 6, 8])
def test_half_spaces(views: int) -> None:
    points = torch.randn(101, 3, generator=torch.Generator().manual_seed(0)).double()
    seen = sfm.half_spaces(points, views)
    assert seen.shape == (views, 101)
    for view, row in enumerate(seen):
        axis, above = view % 6 // 2, view % 2 == 0
        assert int(row.sum()) == (51 if above else 50)
        values = points[:, axis]
        assert (values[row].min() >= values[~row].max()) == above


def test_intrinsics_from_one_view() -> None:
    scene = cube_scene(None)
    config = calibration.CalibrationConfig(spread=0.6, lr=3e-5, steps=400, loss_below=0.3)
    run = calibration.learn_intrinsics(config, scene)
    assert run.descent.reached
    assert run.descent.losses[0] > 1e3
    assert (run.values[-1] - torch.tensor([800.0, 700, 400, 300]).double()).abs().max() < 8
    assert (run.values[0] - run.values[-1]).abs().max() > 50


def test_where_the_loss_is_what_pnp_minimised_the_layer_adds_no_gradient() -> None:
    """As docs/paper.md says of the calibration: by the envelope theorem a detached pose does as well."""
    scene = cube_scene(None)
    pixels = pg.project_points(
        scene.points3d, pg.cameras.Pinhole(torch.tensor([800.0, 700, 400, 300]).double()), scene.pose
    )
    gradients = []
    for detached in (False, True):
        params = torch.tensor([600.0, 650, 380, 340], dtype=torch.float64, requires_grad=True)
        camera = pg.cameras.Pinhole(params)
        found = pg.solve_pnp(pixels, scene.points3d, camera).pose
        found = found.detach() if detached else found
        pg.reprojection_residuals(pixels, scene.points3d, camera, found).square().sum().backward()
        gradients.append(params.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)
    assert gradients[0].abs().min() > 1e-3


def test_a_run_folder(tmp_path: Path) -> None:
    config = calibration.CalibrationConfig(out=tmp_path / "new" / "run", steps=5)
    report = calibration.run_calibration(config)
    stored = json.loads((config.out / "calibration.json").read_text())
    assert stored["run"]["steps"] == 5
    assert stored["scene"].startswith("a cube")
    assert stored["run"]["found"] == pytest.approx(report.numbers["run"]["found"])
    assert (config.out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "800.00" in report.table


def test_quick_keeps_what_was_asked_for() -> None:
    assert sfm.SfmConfig(quick=True).settled().points == 200
    assert sfm.SfmConfig(quick=True, points=50).settled().points == 50
    assert sfm.SfmConfig().settled() == sfm.SfmConfig()


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder(None) is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_folder(None) == Path("..", "shared", "data")
    monkeypatch.setenv("POSEGRAD_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(tmp_path / "shared") == tmp_path / "shared"
    with pytest.raises(RunError, match="--data: no folder"):
        data_folder(tmp_path / "missing")
    with pytest.raises(RunError, match="bpnp_demo"):
        cube_scene(tmp_path / "shared")


@pytest.mark.real
def test_the_published_points(real_data: Path) -> None:
    """The cube is the same; the duck is as large as the demo makes it."""
    scene = cube_scene(real_data)
    assert set(map(tuple, scene.points3d.tolist())) == set(map(tuple, cube_scene(None).points3d.tolist()))
    duck = solid_scene(real_data, 1000, 12)
    assert duck.points3d.shape == (1000, 3)
    assert 0.1 < duck.points3d.std() < 0.2
    assert (duck.pose.act(duck.points3d)[..., 2] > 3).all()
