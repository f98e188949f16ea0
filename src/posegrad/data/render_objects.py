"""A rendered dataset of any meshes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.bop_writer import BopWriter
from posegrad.data.errors import DatasetError
from posegrad.data.mesh import Mesh, simplify_mesh
from posegrad.data.placing import Target
from posegrad.data.render import Frame, render_frame
from posegrad.data.render_config import FrameConfig
from posegrad.data.splits import random_occluders, write_splits

_LARGEST_SPAN, _SMALLEST_SPAN = 0.6, 0.2
"""Of an object without a stated distance, share of the frame's shorter side."""
_EVAL_CELLS = 50
"""The meshes for evaluation have about one vertex per cell of 1 / 50 of the diameter."""


def render_objects(
    root: str | Path,
    meshes: Mapping[int, Mesh],
    config: FrameConfig,
    *,
    frames: Mapping[str, int],
    distance: tuple[float, float] | None = None,
    symmetries: Mapping[int, dict] | None = None,
    seed: int = 1,
    image_format: str = "jpg",
    masks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Renders meshes into a dataset in BOP layout: models, models_eval, and scene 1 of every split.

    Args:
        root: a new or empty folder.
        meshes: by object id, millimetres (`import_mesh`).
        config: camera, poses and surroundings.
        frames: number of frames by split, such as {"train": 2000, "test": 200}.
        distance: range of the objects' depth, mm; None: each spans 0.6 to about 0.2 of the frame's shorter side.
        symmetries: by object id, what models_info.json is to say of them.
        seed: of everything random, >= 0.
        image_format: "jpg" or "png".
        masks: write the masks of the visible parts, too.
        workers: threads, default one per available core; the files do not depend on it.
        progress: show a progress bar.

    Raises:
        DatasetError: an object would not fit into the frame.

    >>> import tempfile
    >>> from posegrad.data import BopDataset
    >>> block = Mesh(40 * np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]]))
    >>> camera = FrameConfig(np.array([[200.0, 0, 79.5], [0, 200, 59.5], [0, 0, 1]]), 160, 120, occluded_share=0.0)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     render_objects(root, {7: block}, camera, frames={"train": 2}, progress=False)
    ...     [item.object_id for item in BopDataset(root, "train").instances(7)]
    [7, 7]
    """
    root = Path(root)
    targets = [_target(number, mesh, config, distance) for number, mesh in sorted(meshes.items())]
    occluders = random_occluders(seed) if config.occluded_share else []

    def draw(rng: np.random.Generator) -> Frame:
        return render_frame(targets, occluders, config, rng)

    write_splits(
        root, frames, draw, config.K, seed=seed, image_format=image_format, masks=masks, workers=workers,
        progress=progress,
    )  # fmt: skip
    models = BopWriter(root, "train")
    for target in targets:
        mesh, info = meshes[target.id], (symmetries or {}).get(target.id, {})
        models.add_model(target.id, mesh, diameter=target.diameter, **info)
        coarse = even_mesh(mesh, target.diameter)
        models.add_model(target.id, coarse, diameter=target.diameter, folder="models_eval", **info)
    models.write_camera(config.K, config.width, config.height)


def even_mesh(mesh: Mesh, diameter: float) -> Mesh:
    """A mesh of the same surface with vertices everywhere: errors that are means over vertices need it."""
    import trimesh

    divided: Any = trimesh.remesh.subdivide_to_size(
        mesh.vertices, mesh.faces, max_edge=0.6 * diameter / _EVAL_CELLS, max_iter=20
    )
    vertices, faces = divided
    return simplify_mesh(Mesh(vertices, faces), diameter / _EVAL_CELLS)


def _target(number: int, mesh: Mesh, config: FrameConfig, distance: tuple[float, float] | None) -> Target:
    shorter = min(config.width, config.height)
    probe = Target.of_mesh(number, mesh, (1.0, 1.0))
    diameter = probe.diameter
    focal = float(max(config.K[0, 0], config.K[1, 1]))
    near, far = (
        0.5 + 2 * focal * probe.spread / (share * shorter) for share in (_LARGEST_SPAN, _SMALLEST_SPAN)
    )
    if distance is not None:
        near, far = distance[0] / diameter, distance[1] / diameter
        closest = 0.5 + 2 * focal * probe.spread / (shorter - 8)
        if near < closest:
            raise DatasetError(
                f"Object {number} (diameter {diameter:.0f} mm) does not fit into {config.width} x "
                f"{config.height} px at {distance[0]:g} mm: start the distance at {np.ceil(closest * diameter):.0f} "
                f"mm or farther, or take larger frames or a shorter focal length."
            )
    return replace(probe, distance=(float(near), float(far)))
