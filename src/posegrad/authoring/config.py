"""The options of `posegrad data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from posegrad.train.errors import RunError
from posegrad.train.ranges import at_least, distinct, positive, require, share

__all__ = ["CheckConfig", "RenderJob", "ShowConfig"]


@dataclass(frozen=True, kw_only=True)
class RenderJob:
    """Render meshes into a dataset in BOP layout, with train and test frames."""

    meshes: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MESH...")]
    """Mesh files (PLY, OBJ, STL, GLB, ...)."""
    out: Path
    """Folder of the new dataset."""
    objects: Annotated[tuple[int, ...] | None, tyro.conf.arg(name="object")] = None
    """Ids of the objects, one for each mesh, such as those that another dataset gives them; None: 1, 2, ..."""
    unit: Literal["mm", "cm", "m"] | None = None
    """Of the meshes' coordinates; None: millimetres, if that makes an object of 5 mm to 3 m."""
    train_frames: int = 2000
    """Frames in train."""
    test_frames: int = 200
    """Frames in test, from other random streams."""
    width: int = 640
    """Frame width, pixels."""
    height: int = 480
    """Frame height, pixels."""
    focal: float | None = None
    """Focal length, pixels; None: the frame's width (a field of view of 53 degrees)."""
    camera: Path | None = None
    """camera.json of a BOP dataset or of `posegrad calibrate`, instead of --width, --height and --focal."""
    distance: tuple[float, float] | None = None
    """Nearest and farthest depth of the objects, mm; None: each spans 0.6 to 0.2 of the frame's shorter side."""
    viewpoints: Literal["hemisphere", "sphere"] = "hemisphere"
    """Cameras above the object only, or all around it."""
    up: Literal["x", "y", "z", "-x", "-y", "-z"] = "z"
    """Axis of the mesh that points up (hemisphere only)."""
    in_plane: float = 45.0
    """The camera rolls within plus or minus this angle, degrees, in [0, 180] (hemisphere only)."""
    objects_per_frame: int = 3
    """Most objects in one frame."""
    occluded: float = 0.3
    """Share of the frames with a foreign thing in front of the objects, in [0, 1]."""
    min_visibility: float = 0.4
    """Smallest visible share of an object that is left, in [0, 0.9]."""
    backgrounds: Path | None = None
    """Folder of photographs without the objects; None: procedural backgrounds."""
    symmetric_axis: tuple[str, ...] = ()
    """The object looks the same at any angle about this axis through the centre of its box: z; after a quarter of a
    turn: z:4. With several meshes 1=z 2=x:2, by object id."""
    symmetry_file: Path | None = None
    """JSON {"<object id>": {"symmetries_discrete": [..], "symmetries_continuous": [..]}}, as in models_info.json."""
    center: bool = False
    """Move the origin of every mesh to the centre of its bounding box; else poses are those of the file's frame."""
    masks: bool = False
    """Write the masks of the visible parts."""
    image_format: Literal["jpg", "png"] = "jpg"
    """Of the frames; jpg has quality 95."""
    samples: int = 2
    """Rays per pixel and axis."""
    seed: int = 1
    """Of everything random."""
    workers: int | None = None
    """Threads; None: one per core."""

    def __post_init__(self) -> None:
        if not self.meshes:
            raise RunError("MESH: got none, expected at least one mesh file")
        distinct("object", self.objects)
        if self.objects is not None:
            fits = len(self.objects) == len(self.meshes) and min(self.objects) >= 0
            listed = " ".join(map(str, self.objects))
            require("object", listed, fits, f"an id >= 0 for each of {len(self.meshes)} meshes")
        at_least("train-frames", self.train_frames, 1)
        at_least("test-frames", self.test_frames, 1)
        require("width", self.width, 32 <= self.width <= 20000, "pixels in [32, 20000]")
        require("height", self.height, 32 <= self.height <= 20000, "pixels in [32, 20000]")
        if self.focal is not None:
            positive("focal", self.focal)
        if self.distance is not None:
            near, far = self.distance
            ordered = 0 < near <= far < float("inf")
            require("distance", f"{near:g} {far:g}", ordered, "0 < nearest <= farthest, mm")
        require("in-plane", self.in_plane, 0 <= self.in_plane <= 180, "degrees in [0, 180]")
        at_least("objects-per-frame", self.objects_per_frame, 1)
        share("occluded", self.occluded)
        visibility = self.min_visibility
        require("min-visibility", visibility, 0 <= visibility <= 0.9, "a number in [0, 0.9]")
        require("samples", self.samples, 1 <= self.samples <= 16, "1 to 16")
        require("seed", self.seed, 0 <= self.seed < 2**63, "an integer in [0, 2^63)")
        if self.workers is not None:
            at_least("workers", self.workers, 1)

    @property
    def files(self) -> dict[int, Path]:
        """Mesh files by object id."""
        return dict(zip(self.objects or range(1, len(self.meshes) + 1), self.meshes, strict=True))


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Check a dataset in BOP layout: one line per problem, with file, frame and fix; exit code 1 if there is any."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Dataset folder."""
    split: Path | None = None
    """JSON file {"train": [image ids], "test": [...]}: only these frames need their pictures; it is checked, too."""
    quick: bool = False
    """Read the pictures' headers only: damage further down in a picture goes unnoticed."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Draw the annotations of a few frames: outline, axes, box and keypoints, on one sheet."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Dataset folder."""
    out: Path = Path("annotations.jpg")
    """The sheet, .jpg or .png; or a folder for one picture per frame."""
    folder: str | None = None
    """Folder of scenes, such as test; None: all."""
    object_id: Annotated[int | None, tyro.conf.arg(name="object")] = None
    """Only frames with this object; None: all objects."""
    frames: int = 12
    """Frames that are drawn, evenly spread over the dataset."""
    keypoints: int = 8
    """Keypoints, by farthest-point sampling of the mesh; 0: none."""

    def __post_init__(self) -> None:
        suffix = self.out.suffix.lower()
        require("out", self.out, suffix in ("", ".jpg", ".png"), "a .jpg, a .png or a folder")
        require("frames", self.frames, 1 <= self.frames <= 1000, "1 to 1000")
        require("keypoints", self.keypoints, 0 <= self.keypoints <= 1000, "0 to 1000")
