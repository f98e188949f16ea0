"""The job of `posegrad data show`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from posegrad.authoring.config import ShowConfig
from posegrad.authoring.outcome import Outcome
from posegrad.data import (
    BopDataset,
    DatasetError,
    DatasetFileError,
    Instance,
    Mesh,
    encode_image,
    farthest_point_keypoints,
    load_image,
    mesh_diameter,
)
from posegrad.train.errors import RunError
from posegrad.viz import draw_axes, draw_keypoints, draw_mesh_outline, picture_grid
from posegrad.viz.overlay import project

_WIDTH = 640
"""Of a picture on the sheet, pixels; larger frames are scaled down."""


def show(config: ShowConfig) -> Outcome:
    """Draw frames into a sheet or a folder; frames without a picture are passed over and counted.

    Raises:
        RunError, DatasetError: nothing that can be drawn, in one sentence.
    """
    folders = [config.folder] if config.folder else _folders(config.path)
    datasets = [BopDataset(config.path, name) for name in folders]
    known = sorted({number for dataset in datasets for number in dataset.object_ids})
    if config.object_id is not None and config.object_id not in known:
        raise RunError(f"--object: got {config.object_id}, {', '.join(folders)} have {known}")
    frames = [frame for dataset in datasets for frame in _frames(dataset, config.object_id)]
    present = [frame for frame in frames if frame[1][0].image_path.is_file()]
    if not present:
        raise DatasetError(f"{config.path}: no annotated picture to draw in {', '.join(folders)}.")
    chosen = [present[i] for i in np.unique(np.linspace(0, len(present) - 1, config.frames).astype(int))]
    drawer = _Drawer(config)
    pictures = [drawer.draw(*frame) for frame in chosen]
    captions = [
        f"{dataset.split_folder}/{items[0].scene_id:06d}/{items[0].image_id:06d}: object "
        + ", ".join(f"{i.object_id} ({100 * i.visibility:.0f}% visible)" for i in items)
        for dataset, items in chosen
    ]
    written = _write(config.out, pictures, captions, chosen)
    lines = [f"{written}: {len(chosen)} of {len(present)} annotated frames"]
    if absent := len(frames) - len(present):
        lines.append(f"{absent} annotated frames have no picture (posegrad data check names them)")
    lines.append("green: outline of the mesh; yellow: box of its visible part; axes: x red, y green, z blue")
    lines.append("discs: keypoints; below each picture: folder/scene/image and the objects in it")
    return Outcome("\n".join(lines))


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise DatasetFileError(f"No dataset folder {root}: check the path.")
    return sorted({p.parent.parent.name for p in root.glob("*/*/scene_gt.json")}) or ["test"]


def _frames(dataset: BopDataset, object_id: int | None) -> list[tuple[BopDataset, list[Instance]]]:
    """The instances of every frame (of those with the object), by scene and image."""
    by_frame: dict[tuple[int, int], list[Instance]] = {}
    for number in dataset.object_ids:
        for item in dataset.annotations(number):
            by_frame.setdefault((item.scene_id, item.image_id), []).append(item)
    groups = [by_frame[key] for key in sorted(by_frame)]
    return [(dataset, g) for g in groups if object_id is None or any(i.object_id == object_id for i in g)]


class _Drawer:
    """Draws frames; meshes and keypoints are kept."""

    def __init__(self, config: ShowConfig) -> None:
        self.config = config
        self._models: dict[int, tuple[Mesh, float, np.ndarray]] = {}

    def draw(self, dataset: BopDataset, items: list[Instance]) -> np.ndarray:
        image = load_image(items[0].image_path)
        scale = min(1.0, _WIDTH / image.shape[1])
        size = (round(scale * image.shape[1]), round(scale * image.shape[0]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        for item in sorted(items, key=lambda i: -i.t[2]):
            if self.config.object_id in (None, item.object_id):
                image = self._draw(image, dataset, item, scale)
        return image

    def _draw(self, image: np.ndarray, dataset: BopDataset, item: Instance, scale: float) -> np.ndarray:
        mesh, diameter, keypoints = self._model(dataset, item.object_id)
        shift = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
        K = shift @ item.K  # an integer is the centre of a pixel, before and after
        image = draw_mesh_outline(image, mesh, K, item.R, item.t)
        x, y, w, h = scale * item.bbox
        corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) + (scale - 1) / 2
        cv2.polylines(image, [np.round(corners).astype(np.int32)], True, (250, 210, 40), 1, cv2.LINE_AA)
        image = draw_axes(image, K, item.R, item.t, diameter / 2)
        return draw_keypoints(image, project(keypoints, K, item.R, item.t)[0])

    def _model(self, dataset: BopDataset, object_id: int) -> tuple[Mesh, float, np.ndarray]:
        if object_id not in self._models:
            mesh = dataset.load_mesh(object_id)
            count = min(self.config.keypoints, len(np.unique(mesh.vertices, axis=0)))
            points = farthest_point_keypoints(mesh.vertices, count) if count else np.zeros((0, 3))
            self._models[object_id] = mesh, mesh_diameter(mesh.vertices), points
        return self._models[object_id]


def _write(out: Path, pictures: list[np.ndarray], captions: list[str], chosen: list) -> Path:
    if suffix := out.suffix.lower().lstrip("."):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(encode_image(picture_grid(pictures, captions, columns=3), suffix))
        return out
    out.mkdir(parents=True, exist_ok=True)
    for picture, (dataset, items) in zip(pictures, chosen, strict=True):
        name = f"{dataset.split_folder}_{items[0].scene_id:06d}_{items[0].image_id:06d}.jpg"
        (out / name).write_bytes(encode_image(picture, "jpg"))
    return out
