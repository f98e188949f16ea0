"""The command that finds poses in images: `posegrad predict RUN IMAGE...`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from posegrad.data import (
    DatasetError,
    Detection,
    Mesh,
    PoseEstimate,
    encode_image,
    load_image,
    load_mesh,
    read_detections,
)
from posegrad.data.bop_layout import model_path
from posegrad.data.plausibility import camera_fault
from posegrad.optim.status import Status
from posegrad.train.errors import RunError
from posegrad.train.evaluation import aligned
from posegrad.train.feed import or_skip
from posegrad.train.files import check_writable, write_bytes
from posegrad.train.frames import (
    Frame,
    annotated_boxes,
    camera_file,
    detected_boxes,
    frame_camera,
    frames,
    pinhole,
)
from posegrad.train.poses import pose_lines, write_poses
from posegrad.train.predictor import PosePredictor, Predictions
from posegrad.train.resume import stored_config
from posegrad.train.use_config import PredictConfig
from posegrad.viz import MAGENTA, draw_axes, draw_keypoints, draw_mesh_outline

__all__ = ["Found", "predict"]


@dataclass(frozen=True)
class Found:
    """Outcome of `predict`: lines of poses.csv, and a table of all boxes, those without a pose too."""

    lines: list[PoseEstimate]
    table: str


def predict(config: PredictConfig) -> Found:
    """Find the poses of objects in images; writes poses.csv (BOP's format) and a picture of each image.

    Raises:
        RunError, DatasetError: run, images, camera or boxes cannot be used, in one sentence.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    predictor = PosePredictor.load(config.run)
    boxes = _Boxes(config, predictor)
    images = frames(config.images)
    K, size, lens = _camera(config)
    out = config.run / "predictions" if config.out is None else config.out
    check_writable(out)
    meshes = _Meshes(config.run)
    lines: list[PoseEstimate] = []
    rows: list[list[str]] = []
    left_out: list[str] = []
    for frame in images:
        camera = frame_camera(frame) if K is None else K
        looked = boxes.of(frame)
        try:
            image = load_image(frame.path)
        except DatasetError as error:
            if not config.skip_bad:
                raise DatasetError(or_skip(str(error))) from error
            left_out.append(f"left out: {' '.join(str(error).split())}")
            continue
        _check_size(frame, image, camera, size)
        begin = time.perf_counter()
        found = predictor(
            image,
            camera,
            [d.bbox for d in looked],
            [d.object_id for d in looked],
            [d.score for d in looked],
        )
        seconds = time.perf_counter() - begin
        lines += pose_lines(looked, found, seconds)
        rows += _rows(frame, looked, found)
        if config.pictures:
            picture = _picture(image, camera, looked, found, predictor, meshes.of(frame))
            write_bytes(out / _picture_name(frame, images), encode_image(picture, "png"))
    write_poses(out / "poses.csv", lines)
    head = ["image", "object", "score", "x", "y", "z (mm)", "+- (mm)", "status"]
    ending = [*left_out, f"{len(lines)} pose{'s' * (len(lines) != 1)} in {out / 'poses.csv'}"]
    if lens:
        ending.append(
            f"{config.camera}: its distortion ({', '.join(lens)}) was left out: poses are right for photographs that "
            f"are undistorted (cv2.undistort, same K)"
        )
    return Found(lines, "\n".join([aligned([head, *rows]), "", *ending]))


class _Boxes:
    """Where to look: --box, --detections, or what is annotated."""

    def __init__(self, config: PredictConfig, predictor: PosePredictor) -> None:
        known = predictor.object_ids
        if config.object_id is not None and config.object_id not in known:
            raise RunError(f"--object: got {config.object_id}, the network of {config.run} knows {known}")
        self.wanted = known if config.object_id is None else [config.object_id]
        if config.box is not None and len(self.wanted) > 1:
            raise RunError(
                f"--box: say what is in it with --object; the network of {config.run} knows {known}"
            )
        self.config = config
        self.detections = None if config.detections is None else read_detections(config.detections)
        self.min_visibility = stored_config(config.run).data.min_visibility

    def of(self, frame: Frame) -> list[Detection]:
        """The boxes of one image."""
        if self.config.box is not None:
            box = np.array(self.config.box)
            return [Detection(frame.scene_id, frame.image_id, self.wanted[0], box, 1.0)]
        if self.detections is not None:
            return detected_boxes(frame, self.detections, self.wanted, self.config.min_score)
        return annotated_boxes(frame, self.wanted, self.min_visibility)


def _camera(config: PredictConfig) -> tuple[np.ndarray | None, tuple[int, int] | None, list[str]]:
    """The camera of all images, if one was given, the size of the images that it is for, if that is known, and the
    names of the distortion parameters that are left out."""
    if config.camera is not None:
        return camera_file(config.camera)
    if config.K is None:
        return None, None, []
    K = pinhole(*config.K)
    if fault := camera_fault(K):
        raise RunError(f"--K: got {' '.join(map(str, config.K))}: {fault.what}; expected fx fy cx cy, pixels")
    return K, None, []


def _check_size(frame: Frame, image: np.ndarray, K: np.ndarray, size: tuple[int, int] | None) -> None:
    height, width = image.shape[:2]
    if size is not None and size != (width, height):
        raise RunError(
            f"--camera: is for images of {size[0]} x {size[1]} px, {frame.path} has {width} x {height}: scale the "
            f"intrinsics with the images"
        )
    if fault := camera_fault(K, (width, height)):
        raise RunError(f"{frame.path}: {fault.what}: {fault.fix}")


def _rows(frame: Frame, looked: Sequence[Detection], found: Predictions) -> list[list[str]]:
    if not looked:
        return [[frame.path.name, *[""] * 6, "no box"]]
    rows = []
    for k, detection in enumerate(looked):
        told = Status(int(found.status[k])).name.lower().replace("_", " ")
        numbers = [""] * 5
        if bool(found.ok[k]):
            spread = float(found.covariance[k].diagonal()[3:].sum().sqrt())
            numbers = [
                f"{float(found.score[k]):.3f}",
                *(f"{v:.1f}" for v in found.pose.t[k].tolist()),
                f"{spread:.1f}" if spread > 0 else "",  # zero: not known, as of a regression
            ]
        rows.append([frame.path.name, str(detection.object_id), *numbers, told])
    return rows


class _Meshes:
    """Meshes for the outlines, from the image's own dataset or the run's; without one there is no outline."""

    def __init__(self, run: Path) -> None:
        self._of_run = stored_config(run).data.root
        self._loaded: dict[tuple[Path, int], Mesh | None] = {}

    def of(self, frame: Frame) -> Callable[[int], Mesh | None]:
        """A function from object id to mesh or None, for one image."""
        own = None if frame.scene is None else frame.scene.parent.parent
        roots = [root for root in (own, self._of_run) if root is not None]

        def mesh(object_id: int) -> Mesh | None:
            return next((m for m in (self._load(root, object_id) for root in roots) if m is not None), None)

        return mesh

    def _load(self, root: Path, object_id: int) -> Mesh | None:
        key = root, object_id
        if key not in self._loaded:
            try:
                self._loaded[key] = load_mesh(model_path(root, object_id))
            except DatasetError:
                self._loaded[key] = None
        return self._loaded[key]


def _picture(
    image: np.ndarray,
    K: np.ndarray,
    looked: Sequence[Detection],
    found: Predictions,
    predictor: PosePredictor,
    mesh_of: Callable[[int], Mesh | None],
) -> np.ndarray:
    """Outline (without a mesh, the keypoints) and axes of every pose."""
    for k, detection in enumerate(looked):
        if not bool(found.ok[k]):
            continue
        R, t, mesh = found.pose.R[k].numpy(), found.pose.t[k].numpy(), mesh_of(detection.object_id)
        if mesh is None:
            image = draw_keypoints(image, found.points2d[k].numpy())
        else:
            image = draw_mesh_outline(image, mesh, K, R, t, color=MAGENTA)
        extent = float(np.linalg.norm(np.ptp(predictor.keypoints[detection.object_id], axis=0)))
        image = draw_axes(image, K, R, t, extent / 2)
    return image


def _picture_name(frame: Frame, images: Sequence[Frame]) -> str:
    if frame.scene is not None:
        return f"{frame.scene_id:06d}_{frame.image_id:06d}_poses.png"
    alone = sum(other.path.stem == frame.path.stem for other in images) == 1
    return f"{frame.path.stem}_poses.png" if alone else f"{frame.image_id:06d}_{frame.path.stem}_poses.png"
