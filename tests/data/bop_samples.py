"""Small hand-made datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posegrad.data import Annotation, BopWriter, Mesh


def box_mesh(size: tuple[float, float, float] = (40.0, 60.0, 80.0)) -> Mesh:
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return Mesh(corners, np.array(faces))


def write_tiny(root: Path, *, frames: int = 3, image_format: str = "png") -> dict:
    """A dataset with objects 2 and 5 in every frame; returns what was written, by frame."""
    rng = np.random.default_rng(7)
    written: dict = {}
    with BopWriter(root, "test", image_format=image_format) as writer:
        writer.add_model(2, box_mesh())
        writer.add_model(
            5, box_mesh((10, 20, 30)), diameter=37.5, symmetries_discrete=[np.eye(4).ravel().tolist()]
        )
        K = np.array([[500.1, 0, 31.7], [0, 499.3, 23.9], [0, 0, 1]])
        writer.write_camera(K, 64, 48)
        for index in range(frames):
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            labels = []
            for object_id in (2, 5):
                R = np.linalg.qr(rng.standard_normal((3, 3)))[0]
                R *= np.linalg.det(R)
                t = rng.uniform([-20, -20, 400], [20, 20, 900])
                mask = np.zeros((48, 64), bool)
                mask[10:31, 20:46] = True
                labels.append(Annotation(object_id, R, t, (18, 9, 30, 25), (20, 10, 25, 20), 1000, 546, mask))
            writer.add_frame(3, 10 * index, image, K, labels)
            written[10 * index] = (image, K, labels)
    return written
