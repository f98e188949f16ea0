"""How often the search for a start ends in the minimum that lies next to the truth: always, in these random draws."""

import pytest
import torch

import posegrad as pg
from tests.problems.calibration_scenes import SIZE, rig, views

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("target", ["board", "rig"])
@pytest.mark.parametrize("num_views", [3, 6])
@pytest.mark.parametrize("name", ["RADIAL", "OPENCV", "OPENCV_FISHEYE", "FOV"])
def test_no_start_is_worse_than_the_truth(name: str, num_views: int, target: str) -> None:
    """60 cameras: focal lengths from half to twice the usual, principal points 60 pixels off, half a pixel of noise."""
    pixels, params = [], []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        factor = 0.5 + 1.5 * torch.rand(1, generator=generator).double()
        scene = views(name, num_views=num_views, target=rig(20) if target == "rig" else None, seed=seed)
        n, own = scene.camera.num_focal, scene.camera.params.clone()
        own[:n] *= factor
        own[n : n + 2] += 60 * torch.randn(2, generator=generator).double()
        exact = pg.project_points(scene.points3d, type(scene.camera)(own), scene.pose)
        pixels.append(exact + 0.5 * torch.randn(exact.shape, generator=generator).double())
        params.append(own)
    points2d, truth = torch.stack(pixels), type(scene.camera)(torch.stack(params))
    found = pg.calibrate_camera(points2d, scene.points3d, model=name, image_size=SIZE)
    near = pg.calibrate_camera(points2d, scene.points3d, model=name, image_size=SIZE, init=truth)
    assert bool(near.ok.all()), near.describe()
    assert bool(found.ok.all()), found.describe()
    assert (found.cost <= near.cost * (1 + 1e-6)).all()
    assert bool((found.view_status == pg.Status.CONVERGED).all())
