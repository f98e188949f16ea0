from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from posegrad.data import RenderConfig, mesh_diameter, procedural_object
from posegrad.data.procedural import random_rotation
from posegrad.data.surface_nets import surface_nets


def test_surface_nets_of_a_torus() -> None:
    def distance(p: np.ndarray) -> np.ndarray:
        return np.hypot(np.hypot(p[:, 0], p[:, 1]) - 1.0, p[:, 2]) - 0.4

    vertices, faces = surface_nets(distance, np.full(3, -1.6), np.full(3, 1.6), 0.08)
    assert np.abs(distance(vertices)).max() < 1e-4
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.4**2, rel=0.02)


@pytest.mark.parametrize("seed", [RenderConfig().object_seed, 1013])
def test_objects_are_closed_centred_colourful_and_reproducible(seed: int) -> None:
    mesh, again = procedural_object(seed, spacing=1.8), procedural_object(seed, spacing=1.8)
    np.testing.assert_array_equal(mesh.vertices, again.vertices)
    np.testing.assert_array_equal(mesh.colors, again.colors)
    assert mesh_diameter(mesh.vertices) == pytest.approx(100, abs=1e-4)
    np.testing.assert_allclose(mesh.vertices.min(0) + mesh.vertices.max(0), 0, atol=1e-4)
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts % 2 == 0).all()
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.volume > 2e4
    assert solid.body_count == 1
    assert mesh.colors is not None
    hues = np.unique(mesh.colors // 64, axis=0)
    assert len(hues) > 20


def test_the_object_is_asymmetric() -> None:
    """No rotation by 40 degrees or more comes near to mapping the surface onto itself."""
    points = procedural_object(RenderConfig().object_seed, spacing=4).vertices
    tree, rng = cKDTree(points), np.random.default_rng(0)
    closest = np.inf
    for _ in range(300):
        R = random_rotation(rng)
        if np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1)) > np.radians(40):
            closest = min(closest, tree.query(points @ R.T)[0].mean())
    assert closest > 4.0


def test_random_rotations_are_rotations() -> None:
    rng = np.random.default_rng(0)
    rotations = np.stack([random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (2000, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    assert np.abs(rotations.mean(0)).max() < 0.06  # uniform: every entry has mean 0
