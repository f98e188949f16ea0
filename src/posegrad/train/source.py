"""From settings to instances: the embedded dataset, or any dataset in BOP layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrad.data import (
    BopDataset,
    DatasetError,
    Instance,
    Mesh,
    RenderConfig,
    farthest_point_keypoints,
    read_split,
    toy_dataset,
)
from posegrad.train.config import DataConfig
from posegrad.train.errors import RunError

__all__ = ["Source", "open_source"]


@dataclass(frozen=True)
class Source:
    """One object's images for training and testing.

    Attributes:
        name: of the dataset and the object.
        train, test: instances; lengths in millimetres.
        mesh: the object's mesh, mm.
        diameter: of the object, mm.
        keypoints: (N, 3) on the mesh, mm.
        symmetric: whether the dataset lists symmetries (then ADD-S is the metric that counts).
    """

    name: str
    train: list[Instance]
    test: list[Instance]
    mesh: Mesh
    diameter: float
    keypoints: np.ndarray
    symmetric: bool


def open_source(config: DataConfig) -> Source:
    """Read the annotations of one object, rendering the embedded dataset first if no dataset is given.

    Raises:
        DatasetError: content of the dataset is absent or damaged.
        RunError: the settings do not say which object or folder.
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
        test_set, train_ids, test_ids = (
            BopDataset(root, config.test_folder or _folder(root, "test")),
            None,
            None,
        )
        if test_set.split_folder == train_set.split_folder:
            raise RunError(
                f"{root} has only the folder {train_set.split_folder!r}: "
                "pass --split FILE to divide its images into train and test"
            )
    object_id = _object(train_set, config.object_id)
    kept = {"min_visibility": config.min_visibility, "allow_missing": config.skip_bad}
    train = train_set.instances(object_id, image_ids=train_ids, **kept)
    test = test_set.instances(object_id, image_ids=test_ids, **kept)
    mesh = train_set.load_mesh(object_id)
    return Source(
        name=f"{Path(root).name}, object {object_id}",
        train=train,
        test=test,
        mesh=mesh,
        diameter=train_set.diameter(object_id),
        keypoints=farthest_point_keypoints(mesh.vertices, config.keypoints),
        symmetric=train_set.is_symmetric(object_id),
    )


def _folder(root: Path, wanted: str) -> str:
    if not Path(root).is_dir():
        raise DatasetError(f"No dataset folder {root}: check the path.")
    present = sorted({p.parent.parent.name for p in Path(root).glob("*/*/scene_gt.json")})
    if wanted in present or len(present) != 1:
        return wanted
    return present[0]


def _object(dataset: BopDataset, object_id: int | None) -> int:
    present = dataset.object_ids
    if object_id is None:
        if len(present) != 1:
            raise RunError(f"--object: {dataset.root} has the objects {present}; choose one")
        return present[0]
    return object_id
