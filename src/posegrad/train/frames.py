"""Images given by their paths: which ones, their ids, camera and boxes."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrad.data import BopDataset, Detection, best_detections
from posegrad.data.bop_layout import IMAGE_FOLDERS, IMAGE_SUFFIXES
from posegrad.data.camera_file import read_camera
from posegrad.data.entries import BadEntry, read_intrinsics
from posegrad.data.json_files import read_json_object
from posegrad.data.plausibility import camera_fault, positive, short
from posegrad.train.errors import RunError

__all__ = ["Frame", "annotated_boxes", "camera_file", "detected_boxes", "frame_camera", "frames", "pinhole"]


@dataclass(frozen=True)
class Frame:
    """An image.

    Attributes:
        path: the picture.
        scene_id, image_id: of its dataset; scene 0 and a number for any other image.
        scene: folder of the scene in a dataset in BOP layout, or None.
    """

    path: Path
    scene_id: int
    image_id: int
    scene: Path | None


def frames(paths: Sequence[Path]) -> list[Frame]:
    """The images of paths, each once, folders replaced by their images in the order of names.

    Images outside of a BOP dataset get scene 0 and as image id the number at the end of the name where all such
    names have one, each another, else 0, 1, .. in their order.

    Raises:
        RunError: nothing there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p for p in path.iterdir() if p.suffix.lower() in (*IMAGE_SUFFIXES, ".tiff", ".bmp")
            )
            if not inside:
                raise RunError(f"{path}: no image in this folder; give images, or a folder of them")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise RunError(f"{path}: no such image; check the path")
    places = {path.absolute(): path for path in reversed(found)}
    found = [places[place] for place in dict.fromkeys(path.absolute() for path in found)]
    scenes = [_scene(path) for path in found]
    others = [path for path, scene in zip(found, scenes, strict=True) if scene is None]
    numbers = [match and int(match[0]) for match in (re.search(r"\d+$", path.stem) for path in others)]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(len(others)))
    ids = iter(numbers)
    return [
        Frame(path, 0, next(ids) or 0, None)
        if scene is None
        else Frame(path, int(scene.name), int(path.stem), scene)
        for path, scene in zip(found, scenes, strict=True)
    ]


def _scene(path: Path) -> Path | None:
    """The scene's folder of DATASET/SPLIT/SCENE/rgb/IMAGE.png."""
    path = path.resolve()
    scene = path.parent.parent
    inside = path.parent.name in IMAGE_FOLDERS and path.stem.isdigit() and scene.name.isdigit()
    return scene if inside and (scene / "scene_camera.json").is_file() else None


@functools.cache
def _cameras(scene: Path) -> dict:
    return read_json_object(scene / "scene_camera.json")


def frame_camera(frame: Frame) -> np.ndarray:
    """K (3, 3) of an image in a dataset, pixels.

    Raises:
        RunError: it is in none, or has no usable entry there.
    """
    if frame.scene is None:
        raise RunError(f"{frame.path}: the camera is not known: give --camera FILE or --K fx fy cx cy")
    try:
        return read_intrinsics(_cameras(frame.scene).get(str(frame.image_id)))
    except BadEntry as error:
        file = frame.scene / error.file
        raise RunError(f"{file}, frame {frame.image_id}: {error.what}: give --camera or --K") from error


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K (3, 3)."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def camera_file(path: Path) -> tuple[np.ndarray, tuple[int, int] | None, list[str]]:
    """K (3, 3) of a camera.json in BOP's form or of `posegrad calibrate`, the size (width, height) that it is for, if
    it says, and the names of its distortion parameters, which K leaves out.

    Raises:
        RunError, DatasetError: no such file, or other content.
    """
    content = read_json_object(path)
    if "parameters" in content:
        camera = read_camera(path)
        return camera.K, (camera.width, camera.height), camera.lens
    if "cam_K" in content:
        try:
            K = read_intrinsics(content)
        except BadEntry as error:
            raise RunError(f"--camera: {path}: {error}") from error
    else:
        entries = [content.get(key) for key in ("fx", "fy", "cx", "cy")]
        if not all(isinstance(e, int | float) and not isinstance(e, bool) for e in entries):
            raise RunError(f'--camera: {path}: expected numbers "fx", "fy", "cx", "cy", got {short(entries)}')
        K = pinhole(*(float(e) for e in entries if e is not None))
    if fault := camera_fault(K):
        raise RunError(f"--camera: {path}: {fault.what}: {fault.fix}")
    width, height = positive(content.get("width")), positive(content.get("height"))
    return K, None if width is None or height is None else (int(width), int(height)), []


@functools.cache
def _dataset(root: Path, folder: str) -> BopDataset:
    return BopDataset(root, folder)


def annotated_boxes(frame: Frame, object_ids: Sequence[int], min_visibility: float) -> list[Detection]:
    """The annotated boxes of objects in an image of a dataset, each with score 1.

    Raises:
        RunError: the image is in no dataset, or not annotated.
    """
    scene = frame.scene
    if scene is None or not (scene / "scene_gt.json").is_file():
        raise RunError(
            f"{frame.path}: where the objects are is not known: give --detections FILE, or --box x y w h"
        )
    dataset = _dataset(scene.parent.parent, scene.parent.name)
    return [
        Detection(frame.scene_id, frame.image_id, object_id, item.bbox, 1.0)
        for object_id in object_ids
        for item in dataset.annotations(object_id, {frame.image_id})
        if item.scene_id == frame.scene_id and item.visibility >= min_visibility and min(item.bbox[2:]) > 0
    ]


def detected_boxes(
    frame: Frame, detections: Sequence[Detection], object_ids: Sequence[int], min_score: float
) -> list[Detection]:
    """The detections of objects in an image, the best first."""
    here = (
        d
        for d in detections
        if (d.scene_id, d.image_id) == (frame.scene_id, frame.image_id)
        and d.object_id in object_ids
        and d.score >= min_score
    )
    return best_detections(here, len(detections))
