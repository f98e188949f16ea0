"""Reading datasets in the BOP scene-wise layout.

Lengths are millimetres; `cam_K` and `cam_R_m2c` are row-major; a pose maps object to camera, x_cam = R X + t,
in OpenCV axes; an integer pixel coordinate is a pixel centre; a box is (x, y, w, h) with
w = x_max - x_min between the outermost pixel centres. Format:
https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from posegrad.data.bop_layout import MODEL_FOLDERS, image_path, model_path, scene_folders
from posegrad.data.entries import BadEntry, read_box, read_info, read_intrinsics, read_pose, read_visibility
from posegrad.data.errors import DatasetError, DatasetFileError
from posegrad.data.json_files import read_json_object
from posegrad.data.mesh import Mesh, load_mesh, mesh_diameter
from posegrad.data.plausibility import mesh_fault, positive, scale_fault, short
from posegrad.data.symmetry import symmetry_transforms


@dataclass(frozen=True)
class Instance:
    """One object in one picture.

    Args:
        scene_id, image_id, object_id: the ids of the BOP annotation.
        image_path: the picture.
        K: (3, 3) float64 intrinsics, pixels.
        R, t: (3, 3) and (3,) float64, x_cam = R X + t, t in millimetres.
        bbox: (4,) float64, (x, y, w, h) of the visible part, pixels.
        visibility: visible share of the silhouette, in [0, 1].

    >>> box = np.array([79.0, 59, 24, 24])
    >>> item = Instance(1, 0, 1, Path("rgb/000000.png"), np.eye(3), np.eye(3), np.array([0.0, 0, 500]), box, 1.0)
    >>> item.bbox[2:] / 2 + item.bbox[:2]  # the centre of the box
    array([91., 71.])
    """

    scene_id: int
    image_id: int
    object_id: int
    image_path: Path
    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    bbox: np.ndarray
    visibility: float


class BopDataset:
    """A dataset folder in BOP layout: `root/models*/` and `root/<split_folder>/<scene>/{rgb,*.json}`.

    Args:
        root: the dataset folder.
        split_folder: the folder of scenes below it, such as "train", "test" or "train_pbr".

    Raises:
        DatasetFileError: no such folder, or no scene in it.

    >>> import tempfile
    >>> from posegrad.data import Annotation, BopWriter
    >>> label = Annotation(1, np.eye(3), np.array([0.0, 0, 500]), (79, 59, 24, 24), (79, 59, 24, 12), 288, 144)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with BopWriter(root, "train") as writer:
    ...         writer.add_frame(1, 0, np.zeros((120, 160, 3), np.uint8), np.eye(3), [label])
    ...     (instance,) = BopDataset(root, "train").instances(1)
    >>> instance.t.tolist(), instance.visibility
    ([0.0, 0.0, 500.0], 0.5)
    """

    def __init__(self, root: str | Path, split_folder: str = "test") -> None:
        self.root, self.split_folder = Path(root), split_folder
        self._scenes = scene_folders(self.root, split_folder)

    @cached_property
    def _annotations(self) -> list[tuple[int, Path, dict, dict, dict | None]]:
        """Per scene: id, folder, scene_gt, scene_camera, scene_gt_info (None where that file is absent)."""
        found = []
        for scene in self._scenes:
            frames, info = read_json_object(scene / "scene_gt.json"), scene / "scene_gt_info.json"
            _check_frames(frames, scene / "scene_gt.json")
            found.append(
                (
                    int(scene.name),
                    scene,
                    frames,
                    read_json_object(scene / "scene_camera.json"),
                    read_json_object(info) if info.is_file() else None,
                )
            )
        if not any(frame for _, _, frames, _, _ in found for frame in frames.values()):
            raise DatasetError(
                f"{self.root / self.split_folder}: no object is annotated in any scene_gt.json: annotate some frames."
            )
        return found

    @cached_property
    def object_ids(self) -> list[int]:
        """The ids of the annotated objects, ascending."""
        return sorted(
            {
                item["obj_id"]
                for _, _, frames, _, _ in self._annotations
                for frame in frames.values()
                for item in frame
            }
        )

    @cached_property
    def models_info(self) -> dict[int, dict]:
        """`models_info.json` by object id (diameter, size, symmetries), {} where the dataset has none."""
        for folder in MODEL_FOLDERS:
            path = self.root / folder / "models_info.json"
            if path.is_file():
                content = read_json_object(path)
                if not all(key.isdigit() and isinstance(value, dict) for key, value in content.items()):
                    raise DatasetError(f'{path}: expected {{"<object id>": {{"diameter": .., ..}}, ..}}.')
                return {int(key): value for key, value in content.items()}
        return {}

    def model_path(self, object_id: int, folder: str | None = None) -> Path:
        """The mesh file of an object: the first in models_eval, models, models_color, or that in `folder`."""
        return model_path(self.root, object_id, folder)

    def load_mesh(self, object_id: int, folder: str | None = None) -> Mesh:
        """The mesh of an object, millimetres (`model_path` says which file).

        Raises:
            DatasetError: no mesh, a damaged one, or one that is not of the size that models_info.json gives.
        """
        path = self.model_path(object_id, folder)
        mesh, diameter = load_mesh(path), positive(self.models_info.get(object_id, {}).get("diameter"))
        if diameter is not None and (fault := mesh_fault(mesh.vertices, diameter)):
            raise DatasetError(f"{path}: {fault.what}: {fault.fix}.")
        return mesh

    def diameter(self, object_id: int) -> float:
        """The object's diameter in millimetres: from models_info.json, else computed from the mesh."""
        info = self.models_info.get(object_id, {})
        if "diameter" in info:
            if (diameter := positive(info["diameter"])) is None:
                raise DatasetError(
                    f"models_info.json of {self.root}: the diameter of object {object_id} is "
                    f"{short(info['diameter'])}: write millimetres."
                )
            return diameter
        return mesh_diameter(self.load_mesh(object_id).vertices)

    def is_symmetric(self, object_id: int) -> bool:
        """Whether models_info.json lists discrete or continuous symmetries for the object."""
        info = self.models_info.get(object_id, {})
        return bool(info.get("symmetries_discrete") or info.get("symmetries_continuous"))

    def symmetries(self, object_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Transforms of the object onto itself, those of models_info.json: see `symmetry_transforms`."""
        info = self.models_info.get(object_id, {})
        try:
            return symmetry_transforms(info)
        except DatasetError as error:
            raise DatasetError(f"{self.root}, object {object_id}: {error}") from error

    def instances(
        self,
        object_id: int,
        *,
        image_ids: Iterable[int] | None = None,
        min_visibility: float = 0.1,
        allow_missing: bool = False,
    ) -> list[Instance]:
        """All annotations of an object, ordered by scene and image.

        Args:
            object_id: one of `object_ids`.
            image_ids: only these frames (of every scene); the others may lack their picture.
            min_visibility: smallest visible share of the silhouette, in [0, 1].
            allow_missing: keep instances whose picture is missing.

        Raises:
            DatasetError: absent object or annotation, nothing left after the filters, or (DatasetFileError) no picture.
        """
        if object_id not in self.object_ids:
            raise DatasetError(
                f"No object {object_id} in {self.root / self.split_folder}: present are {self.object_ids}."
            )
        wanted = None if image_ids is None else {int(i) for i in image_ids}
        if wanted is not None:
            annotated = {int(key) for _, _, frames, _, _ in self._annotations for key in frames}
            if unknown := sorted(wanted - annotated):
                raise DatasetError(
                    f"{len(unknown)} of the requested frames have no annotation in scene_gt.json below "
                    f"{self.root / self.split_folder} (first: {unknown[:5]}): correct the split."
                )
        found = self.annotations(object_id, wanted)
        kept = [item for item in found if item.visibility >= min_visibility and min(item.bbox[2:]) > 0]
        if not kept:
            raise DatasetError(
                f"Object {object_id} has no instance with visibility >= {min_visibility} in the requested "
                f"frames of {self.root / self.split_folder}: lower min_visibility or widen the split."
            )
        stated = self.diameter(object_id) if "diameter" in self.models_info.get(object_id, {}) else 0.0
        if fault := scale_fault(np.array([item.t[2] for item in kept]), stated):
            raise DatasetError(
                f"{self.root / self.split_folder}, object {object_id}: {fault.what}: {fault.fix}."
            )
        missing = [item.image_path for item in kept if not (allow_missing or item.image_path.is_file())]
        if missing:
            start = f"{len(missing)} annotated images are missing (first: {missing[0]})"
            raise DatasetFileError(f"{start}: restore them, or give a split that lists only existing frames.")
        return kept

    def annotations(self, object_id: int, image_ids: set[int] | None = None) -> list[Instance]:
        """All annotations of an object, by scene and image, whether visible or not, with or without a picture."""
        found: list[Instance] = []
        for scene_id, folder, frames, cameras, info in self._annotations:
            for key in sorted(frames, key=int):
                if image_ids is None or int(key) in image_ids:
                    found += self._frame_instances(scene_id, folder, key, frames, cameras, info, object_id)
        return found

    def _frame_instances(
        self,
        scene_id: int,
        folder: Path,
        key: str,
        frames: dict,
        cameras: dict,
        info: dict | None,
        object_id: int,
    ) -> list[Instance]:
        found = []
        for number, item in enumerate(frames[key]):
            if item["obj_id"] != object_id:
                continue
            try:
                K, (R, t) = read_intrinsics(cameras.get(key)), read_pose(item)
                if info is None:  # the box of the projected mesh, taken as fully visible
                    bbox, visibility = self._projected_box(object_id, K, R, t), 1.0
                else:
                    entry = read_info(info.get(key), number)
                    bbox, visibility = read_box(entry, "bbox_visib"), read_visibility(entry)
            except BadEntry as error:
                raise DatasetError(
                    f"{folder / error.file}, frame {key}, object {object_id}: {error.what}: {error.fix}."
                ) from error
            path = image_path(folder, int(key))
            found.append(Instance(scene_id, int(key), object_id, path, K, R, t, bbox, visibility))
        return found

    def _projected_box(self, object_id: int, K: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
        if object_id not in self._vertices:
            self._vertices[object_id] = self.load_mesh(object_id).vertices
        camera = self._vertices[object_id] @ R.T + t
        pixels = (camera @ K.T)[:, :2] / camera[:, 2:]
        return np.concatenate([pixels.min(0), np.ptp(pixels, axis=0)])

    @cached_property
    def _vertices(self) -> dict[int, np.ndarray]:
        return {}


def _check_frames(frames: dict, path: Path) -> None:
    valid = all(
        key.isdigit()
        and isinstance(frame, list)
        and all(isinstance(i, dict) and type(i.get("obj_id")) is int for i in frame)
        for key, frame in frames.items()
    )
    if not valid:
        raise DatasetError(
            f'{path}: expected {{"<image id>": [{{"obj_id": .., "cam_R_m2c": .., ..}}, ..], ..}}.'
        )
