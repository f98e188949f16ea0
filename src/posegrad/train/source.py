"""From settings to instances: the embedded dataset, or any dataset in BOP layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posegrad.data import (
    BopDataset,
    DatasetError,
    Instance,
    Mesh,
    RenderConfig,
    box_keypoints,
    farthest_point_keypoints,
    read_keypoints,
    read_split,
    toy_dataset,
)
from posegrad.train.config import DataConfig
from posegrad.train.errors import RunError

__all__ = ["ObjectModel", "Source", "open_source"]

_SAME_MESH = 0.02
"""Largest distance of two boxes of one object, of its diameter: simplified meshes differ a little."""


@dataclass(frozen=True)
class ObjectModel:
    """What is known of an object besides its images.

    Attributes:
        id: of the object in its dataset.
        mesh: mm.
        diameter: mm.
        keypoints: (N, 3) mm, in the frame of the mesh.
        symmetries: rotations (S, 3, 3) and translations (S, 3) mm onto itself, identity first.
    """

    id: int
    mesh: Mesh
    diameter: float
    keypoints: np.ndarray
    symmetries: tuple[np.ndarray, np.ndarray]

    @property
    def symmetric(self) -> bool:
        """Whether it looks the same in several poses (then ADD-S is the metric that counts)."""
        return len(self.symmetries[0]) > 1


@dataclass(frozen=True)
class Source:
    """Images of one or several objects for training and testing.

    Attributes:
        name: of the dataset and the objects.
        train, test: instances, by object in ascending order; lengths in millimetres.
        extra: more of them for training, of other datasets (`--extra-data`).
        objects: by object id, ascending; all with the same number of keypoints.
    """

    name: str
    train: list[Instance]
    test: list[Instance]
    objects: dict[int, ObjectModel]
    extra: list[Instance] = field(default_factory=list)

    @property
    def keypoints(self) -> dict[int, np.ndarray]:
        """(N, 3) mm, by object id."""
        return {object_id: model.keypoints for object_id, model in self.objects.items()}


def open_source(config: DataConfig, keypoints: Mapping[int, np.ndarray] | None = None) -> Source:
    """Read the annotations of the objects, rendering the embedded dataset first if no dataset is given.

    Args:
        config: which dataset, objects, frames and keypoints.
        keypoints: (N, 3) mm by object id, those of a trained network in place of the settings'.

    Raises:
        DatasetError: content of the dataset is absent or damaged.
        RunError: the settings do not say which folder.
    """
    root = config.root
    if root is None:
        hard = {"viewpoints": "sphere", "distance": (4.0, 10.0)} if config.all_views else {}
        root = toy_dataset(config.cache, RenderConfig(in_plane_deg=config.in_plane, **hard))
    train_set = BopDataset(root, config.train_folder or _folder(root, "train"))
    if config.split is not None:
        ids = read_split(config.split)
        for part in ("train", "test"):
            if part not in ids:
                raise RunError(f'{config.split}: no list "{part}"; expected {{"train": [..], "test": [..]}}')
        if both := set(ids["train"]) & set(ids["test"]):
            raise RunError(f"{config.split}: {len(both)} images are in both lists, image {min(both)} for one")
        test_set, train_ids, test_ids = train_set, ids["train"], ids["test"]
    else:
        test_set = BopDataset(root, config.test_folder or _folder(root, "test"))
        train_ids = test_ids = None
        if test_set.split_folder == train_set.split_folder:
            raise RunError(
                f"{root} has only the folder {train_set.split_folder!r}: "
                "pass --split FILE to divide its images into train and test"
            )
    object_ids = sorted(train_set.object_ids if config.objects is None else config.objects)
    train: list[Instance] = []
    test: list[Instance] = []
    for part, dataset, image_ids in ((train, train_set, train_ids), (test, test_set, test_ids)):
        for object_id in object_ids:
            part += dataset.instances(
                object_id,
                image_ids=image_ids,
                min_visibility=config.min_visibility,
                allow_missing=config.skip_bad,
            )
    listed = f"object{'s' if len(object_ids) > 1 else ''} {', '.join(map(str, object_ids))}"
    name = f"{Path(root).name}, {listed}"
    models = _models(train_set, object_ids, config, keypoints)
    return Source(name, train, test, models, _extra(config, models, test))


def _extra(config: DataConfig, models: Mapping[int, ObjectModel], test: list[Instance]) -> list[Instance]:
    """Training instances of further datasets, which may have some of the objects only."""
    found: list[Instance] = []
    held_out = {item.image_path.resolve() for item in test} if config.extra_data else set()
    for root in config.extra_data:
        dataset = BopDataset(root, _folder(root, "train", "--extra-data"))
        shared = sorted(set(models) & set(dataset.object_ids))
        if not shared:
            raise RunError(
                f"--extra-data {root}: has objects {dataset.object_ids}, none of {sorted(models)}: "
                "leave it out, or render it with the ids of --data (`posegrad data render --object`)"
            )
        for object_id in shared:
            _check_same(models[object_id], dataset)
            instances = dataset.instances(
                object_id, min_visibility=config.min_visibility, allow_missing=config.skip_bad
            )
            if seen := held_out & {item.image_path.resolve() for item in instances}:
                raise RunError(
                    f"--extra-data {root}: has {len(seen)} of the held-out images, {min(seen)} for one: "
                    "pass a folder without them, or the numbers would be those of images that were trained on"
                )
            found += instances
    return found


def _check_same(model: ObjectModel, dataset: BopDataset) -> None:
    """Poses of two datasets are poses of the same thing only if its mesh lies in the same place in both."""
    boxes = [
        np.stack([v.min(0), v.max(0)]) for v in (model.mesh.vertices, dataset.load_mesh(model.id).vertices)
    ]
    apart = float(np.abs(boxes[0] - boxes[1]).max())
    if apart > _SAME_MESH * model.diameter:
        raise RunError(
            f"--extra-data {dataset.root}: the box of the mesh of object {model.id} differs by {apart:.3g} mm from "
            f"that of --data: use the same mesh, in the same frame, in both"
        )


def _models(
    dataset: BopDataset,
    object_ids: list[int],
    config: DataConfig,
    keypoints: Mapping[int, np.ndarray] | None,
) -> dict[int, ObjectModel]:
    meshes = {object_id: dataset.load_mesh(object_id) for object_id in object_ids}
    if keypoints is None:
        vertices = {object_id: mesh.vertices for object_id, mesh in meshes.items()}
        keypoints = _keypoints(config, vertices, dataset.root.name)
    return {
        object_id: ObjectModel(
            id=object_id,
            mesh=mesh,
            diameter=dataset.diameter(object_id),
            keypoints=keypoints[object_id],
            symmetries=dataset.symmetries(object_id),
        )
        for object_id, mesh in meshes.items()
    }


def _keypoints(config: DataConfig, vertices: dict[int, np.ndarray], dataset: str) -> dict[int, np.ndarray]:
    if config.keypoints_from == "box":
        return {object_id: box_keypoints(points) for object_id, points in vertices.items()}
    if config.keypoints_from != "farthest":
        path = Path(config.keypoints_from)
        if not path.is_file():
            raise RunError(
                f'--keypoints-from: got {config.keypoints_from}, expected "farthest", "box" or a JSON file'
            )
        return read_keypoints(path, vertices, dataset=dataset)
    found = {}
    for object_id, points in vertices.items():
        try:
            found[object_id] = farthest_point_keypoints(points, config.keypoints)
        except ValueError as error:
            raise RunError(f"--keypoints: object {object_id}: {error}") from error
    return found


def _folder(root: Path, wanted: str, option: str = "--data") -> str:
    if not Path(root).is_dir():
        raise DatasetError(f"No dataset folder {root}: pass with {option} where it is now.")
    present = sorted({p.parent.parent.name for p in Path(root).glob("*/*/scene_gt.json")})
    if wanted in present or len(present) != 1:
        return wanted
    return present[0]
