from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from posegrad.data import Mesh
from posegrad.viz import draw_axes, draw_keypoints, draw_mesh_outline, keypoint_color, silhouette
from posegrad.viz.overlay import GREEN, project

K = np.array([[300.0, 0, 79.3], [0, 310.0, 60.8], [0, 0, 1]])


@pytest.fixture
def ball() -> Mesh:
    solid = trimesh.creation.icosphere(subdivisions=4, radius=30.0)
    return Mesh(solid.vertices, solid.faces)


def pose(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    R, _ = cv2.Rodrigues(rng.standard_normal(3))
    return R, np.array([*rng.uniform(-15, 15, 2), rng.uniform(300, 400)])


def drawn(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box of what is at least 40 % as bright as the line's colour (anti-aliasing spreads beyond)."""
    rows, columns = np.nonzero(image.max(-1) > 0.4 * max(GREEN))
    return np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])


@pytest.mark.parametrize("seed", range(4))
def test_outline_has_the_box_of_the_projected_mesh(seed: int) -> None:
    solid = trimesh.creation.box((30, 50, 70))
    mesh, (R, t) = Mesh(solid.vertices, solid.faces), pose(seed)
    image = np.zeros((120, 160, 3), np.uint8)
    result = draw_mesh_outline(image, mesh, K, R, t, halo=False)
    assert not image.any()
    expected, _ = cv2.projectPoints(mesh.vertices, R, t, K, None)
    low, high = drawn(result)
    np.testing.assert_allclose(low, expected[:, 0].min(0), atol=1.0)
    np.testing.assert_allclose(high, expected[:, 0].max(0), atol=1.0)
    lit = result[result.max(-1) > 60] / 220.0
    assert len(lit) > 100
    np.testing.assert_allclose(lit[:, [0, 2]], lit[:, 1:2] * np.array([60, 70]) / 220, atol=0.05)
    inside = np.round(project(np.zeros((1, 3)), K, R, t)[0][0]).astype(int)
    assert not result[inside[1], inside[0]].any()


@pytest.mark.parametrize("samples", [1, 4])
def test_silhouette_area_and_centre(ball: Mesh, samples: int) -> None:
    t = np.array([3.0, -2.0, 400.0])
    mask = silhouette(ball, K, np.eye(3), t, 160, 120, samples=samples)
    assert mask.shape == (120 * samples, 160 * samples)
    # a ball's outline is the cone of half angle asin(r / d): nearly a circle here
    radius = 300 * np.tan(np.arcsin(30 / np.linalg.norm(t)))
    area = np.pi * radius**2 * 310 / 300
    assert mask.sum() / samples**2 == pytest.approx(area, rel=0.09 if samples == 1 else 0.03)
    rows, columns = np.nonzero(mask)
    center = (np.array([columns.mean(), rows.mean()]) + 0.5) / samples - 0.5
    np.testing.assert_allclose(center, (K @ t)[:2] / t[2], atol=0.15)


def test_outline_survives_bad_views(ball: Mesh) -> None:
    image = np.full((40, 40, 3), 9, np.uint8)
    for t in ([0, 0, -500.0], [0, 0, 10.0], [1e6, 0, 500.0], [np.nan, 0, 500.0]):
        result = draw_mesh_outline(image, ball, K, np.eye(3), np.array(t))
        assert result.shape == image.shape
    np.testing.assert_array_equal(
        draw_mesh_outline(image, ball, K, np.eye(3), np.array([0, 0, -500.0])), image
    )


def test_axes_end_where_they_project() -> None:
    R, t = pose(1)
    image = np.full((120, 160, 3), 128, np.uint8)
    result = draw_axes(image, K, R, t, 25.0, thickness=3)
    ends, _ = cv2.projectPoints(25.0 * np.eye(3), R, t, K, None)
    for axis, end in enumerate(ends[:, 0]):
        near_end = np.round(0.85 * end + 0.15 * project(np.zeros((1, 3)), K, R, t)[0][0]).astype(int)
        assert int(np.argmax(result[near_end[1], near_end[0]])) == axis
    behind = draw_axes(image, K, np.eye(3), np.array([0, 0, -100.0]), 10.0)
    np.testing.assert_array_equal(behind, image)


def test_keypoints_are_discs_at_sub_pixel_places() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    for place in ([30.0, 20.0], [30.5, 20.25], [17.3, 41.8]):
        result = draw_keypoints(image, np.array([place]), radius=4)
        weight = result.sum(-1).astype(float)
        rows, columns = np.indices(weight.shape)
        center = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        np.testing.assert_allclose(center, place, atol=0.15)
    two = draw_keypoints(image, np.array([[10, 10], [np.nan, 5]]), truth=np.array([[30, 10], [1, 1]]))
    assert (np.abs(two[10, 15:28].astype(int) - keypoint_color(0, 2)).max(-1) < 40).all()
    far = draw_keypoints(image, np.array([[1e12, -1e12]]))
    np.testing.assert_array_equal(far, image)


def test_images_are_checked() -> None:
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match="image: expected"):
            draw_keypoints(image, np.zeros((1, 2)))
