"""What a trained network is used for; every field is an option of `posegrad eval` or `posegrad predict`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from posegrad.train.errors import RunError
from posegrad.train.ranges import at_least, distinct, require

__all__ = ["EvalConfig", "PredictConfig"]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """A finished run, and the data to evaluate it on: by default those it was to be tested on."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished `posegrad train`."""
    root: Annotated[Path | None, tyro.conf.arg(name="data")] = None
    """Another dataset folder in BOP layout, in millimetres."""
    objects: Annotated[tuple[int, ...] | None, tyro.conf.arg(name="object")] = None
    """Ids of the objects to evaluate, of those the network knows; of a network for one object, its id in --data."""
    split: Path | None = None
    """Another split file {"train": [image ids], "test": [...]}."""
    detections: Path | None = None
    """JSON file of detected boxes, in BOP's format, to look into in place of the annotated ones: a list of
    {"scene_id", "image_id", "category_id": object id, "bbox": [x, y, w, h], "score"}."""
    pictures: int = 0
    """Test crops drawn with predicted and true pose, in the run folder."""

    def __post_init__(self) -> None:
        at_least("pictures", self.pictures, 0)
        distinct("object", self.objects)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """A finished run, images, and where the objects are in them.

    For an image of a dataset in BOP layout (DATASET/SPLIT/SCENE/rgb/IMAGE.png) camera and boxes are the annotated ones
    unless others are given. For any other, say --camera or --K, and --detections or --box.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished `posegrad train`."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Pictures, or folders of them."""
    out: Path | None = None
    """Folder for poses.csv and a picture of each image; None: "predictions" in the run folder."""
    camera: Path | None = None
    """JSON file of the camera of all images, as BOP's camera.json: {"fx", "fy", "cx", "cy", "width", "height"}, pixels;
    or with "cam_K": 9 numbers, row-major."""
    K: Annotated[tuple[float, float, float, float] | None, tyro.conf.arg(name="K")] = None
    """The same as four numbers: fx fy cx cy, pixels."""
    detections: Path | None = None
    """JSON file of detected boxes in BOP's format: a list of {"scene_id", "image_id", "category_id": object id,
    "bbox": [x, y, w, h], "score"}. Images outside of a BOP dataset are scene 0; their image_id is the number at the
    end of the name where all names have one, each another, else 0, 1, .. in the order given."""
    min_score: float = 0.0
    """Smallest score of a detection that is looked at."""
    box: tuple[float, float, float, float] | None = None
    """x y w h, pixels: the box of one object, the same in all images."""
    object_id: Annotated[int | None, tyro.conf.arg(name="object")] = None
    """Which object is in --box; else the only one that is looked for. None: all that the network knows."""
    pictures: bool = True
    """Draw the poses."""
    skip_bad: bool = False
    """Leave out images that cannot be read, and name them; else the first one ends the command."""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice."""

    def __post_init__(self) -> None:
        if not self.images:
            raise RunError("IMAGE: got none, expected at least one picture")
        if self.threads is not None:
            at_least("threads", self.threads, 1)
        require("min-score", self.min_score, math.isfinite(self.min_score), "a finite number")
        given = [name for name in ("camera", "K") if getattr(self, name) is not None]
        require("camera", "also --K", len(given) < 2, "one of the two")
        given = [name for name in ("detections", "box") if getattr(self, name) is not None]
        require("detections", "also --box", len(given) < 2, "one of the two")
        if self.box is not None:
            valid = all(map(math.isfinite, self.box)) and min(self.box[2:]) > 0
            require("box", " ".join(map(str, self.box)), valid, "x y w h with w, h > 0")
