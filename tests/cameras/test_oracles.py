"""Every model against COLMAP, and those that OpenCV has against OpenCV."""

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from torch import Tensor

from posegrad.cameras import MODELS, Camera, from_opencv, from_opencv_fisheye, to_colmap
from tests.cameras.samples import STRONG, camera, points_in_field

_CASES = [(name, None) for name in MODELS if name != "SKEW_PINHOLE"]
_CASES += [case for case in STRONG if case[0] != "FOV" or abs(case[1][-1]) > 0.1]  # COLMAP truncates a series
_IDS = [f"{name}-{i}" for i, (name, _) in enumerate(_CASES)]
_PX = 1e-9


def _colmap(model: Camera) -> pycolmap.Camera:
    name, params = to_colmap(model)
    return pycolmap.Camera(model=name, width=640, height=480, params=params.numpy())


def _image(oracle: pycolmap.Camera, points: Tensor) -> Tensor:
    return torch.from_numpy(oracle.img_from_cam(points.numpy())) - 0.5


def _where_exact(name: str, points: Tensor) -> Tensor:
    """Within 0.01 of the axis COLMAP truncates a series of FOV."""
    return points[points[:, :2].norm(dim=-1) > 0.011 * points[:, 2]] if name == "FOV" else points


@pytest.mark.parametrize(("name", "params"), _CASES, ids=_IDS)
def test_projection_equals_colmap(name: str, params: list[float] | None) -> None:
    model = camera(name, params)
    points = points_in_field(model, within=0.999)
    if "DIVISION" not in name:  # its fisheyes end at 90 degrees
        points = points[points[:, 2] > 1e-3]
    points = _where_exact(name, points)
    assert len(points) >= 40
    projected = model.project(points)
    assert bool(projected.valid.all())
    expected = _image(_colmap(model), points)
    # relative far outside of any image, where the pixel has no more digits
    torch.testing.assert_close(projected.points2d, expected, rtol=1e-12, atol=_PX)


@pytest.mark.parametrize(("name", "params"), _CASES, ids=_IDS)
def test_unprojection_equals_colmap(name: str, params: list[float] | None) -> None:
    """COLMAP's Newton iteration ends with a step of 1e-5, so the stricter test is that it projects ours back."""
    model = camera(name, params)
    points = points_in_field(model, within=0.9, seed=1)
    points = _where_exact(name, points[points[:, 2] > 0.1])
    assert len(points) >= 20
    pixels = model.project(points).points2d
    bearings, valid = model.unproject(pixels)
    assert bool(valid.all())
    oracle = _colmap(model)
    torch.testing.assert_close(_image(oracle, bearings), pixels, rtol=1e-12, atol=_PX)
    theirs = torch.from_numpy(oracle.cam_from_img(pixels.numpy() + 0.5))
    theirs = torch.cat([theirs, torch.ones(len(theirs), 1)], -1)
    off = torch.linalg.cross(bearings, theirs / theirs.norm(dim=-1, keepdim=True)).norm(dim=-1)
    found = off < 1e-3  # under strong distortion it gives up, or ends beyond the fold
    assert found.double().mean() > (0.99 if params is None else 0.4)
    assert off[found].max() < 1e-8


def test_rays_behind_equal_colmap() -> None:
    model = camera("DIVISION")
    points = points_in_field(model)
    points = points[points[:, 2] < 0]
    assert len(points) > 50
    pixels = model.project(points).points2d
    torch.testing.assert_close(pixels, _image(_colmap(model), points), rtol=1e-12, atol=_PX)


@pytest.mark.parametrize("count", [4, 5, 8])
def test_opencv_projects_and_undistorts_the_same(count: int) -> None:
    K = np.array([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]])
    dist = np.array([-0.25, 0.08, 1e-3, -2e-3, 0.02, 0.05, 0.01, 0.002])[:count]
    model = from_opencv(torch.from_numpy(K), torch.from_numpy(dist))
    points = points_in_field(model, within=0.5)
    expected, _ = cv2.projectPoints(points.numpy(), np.zeros(3), np.zeros(3), K, dist)
    pixels = model.project(points).points2d
    torch.testing.assert_close(pixels, torch.from_numpy(expected[:, 0]), rtol=0, atol=_PX)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 1000, 1e-15)
    flat = cv2.undistortPointsIter(pixels.numpy()[:, None], K, dist, None, None, criteria)[:, 0]
    bearings, valid = model.unproject(pixels)
    assert bool(valid.all())
    ours = bearings[:, :2] / bearings[:, 2:]
    torch.testing.assert_close(ours, torch.from_numpy(flat), rtol=0, atol=_PX / 500)


def test_opencv_fisheye_projects_and_undistorts_the_same() -> None:
    K = np.array([[300.0, 0, 320], [0, 310, 240], [0, 0, 1]])
    D = np.array([-0.02, 0.01, -0.004, 0.0005])
    model = from_opencv_fisheye(torch.from_numpy(K), torch.from_numpy(D))
    points = points_in_field(model, within=0.5)
    points = points[points[:, 2] > 0.1]
    zero = np.zeros((1, 1, 3))
    expected, _ = cv2.fisheye.projectPoints(points.numpy()[:, None], zero, zero, K, D)
    pixels = model.project(points).points2d
    torch.testing.assert_close(pixels, torch.from_numpy(expected[:, 0]), rtol=0, atol=_PX)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 1000, 1e-15)
    flat = cv2.fisheye.undistortPoints(pixels.numpy()[:, None], K, D, criteria=criteria)[:, 0]
    bearings = model.unproject(pixels).bearings
    ours = bearings[:, :2] / bearings[:, 2:]
    torch.testing.assert_close(ours, torch.from_numpy(flat), rtol=1e-11, atol=_PX / 300)


def test_fisheye_beyond_90_degrees_follows_its_formula() -> None:
    """No library serves as oracle there: the angle in plain Python."""
    model = camera("OPENCV_FISHEYE")
    points = points_in_field(model, within=0.99)
    points = points[points[:, 2] < 0]
    assert len(points) > 50
    fx, fy, cx, cy, *k = model.params.tolist()
    pixels = model.project(points).points2d
    for point, pixel in zip(points.numpy(), pixels.numpy(), strict=True):
        x, y, z = point
        theta = np.arccos(z / np.linalg.norm(point))
        bent = theta * (1 + sum(c * theta ** (2 * i + 2) for i, c in enumerate(k)))
        direction = np.array([x, y]) / np.hypot(x, y)
        expected = np.array([fx, fy]) * bent * direction + np.array([cx, cy])
        assert np.abs(pixel - expected).max() < _PX
