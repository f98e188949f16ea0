"""Checking the annotations of one scene: JSON, poses, cameras, boxes, and that they agree with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posegrad.data.check_boxes import SLACK, Entry, Scene, Size, compare_boxes
from posegrad.data.check_json import by_frame, read_object
from posegrad.data.check_models import Models
from posegrad.data.entries import BadEntry, read_box, read_info, read_intrinsics, read_pose, read_visibility
from posegrad.data.findings import Findings
from posegrad.data.plausibility import camera_fault, scale_fault

_OFF_CENTRE = 0.2
"""Distance of the principal point from the middle, in widths and heights, from which it is odd."""


def read_scene(folder: Path, findings: Findings) -> Scene:
    """Reads the three files of a scene and checks each by itself."""
    poses = by_frame(read_object(folder / "scene_gt.json", findings), folder / "scene_gt.json", findings)
    cameras = by_frame(
        read_object(folder / "scene_camera.json", findings), folder / "scene_camera.json", findings
    )
    info_path = folder / "scene_gt_info.json"
    info = None
    if info_path.exists():
        info = by_frame(read_object(info_path, findings), info_path, findings)
    else:
        findings.note(
            info_path, "absent", "no such file", "boxes are those of the projected meshes, all visible"
        )
    if poses is not None and not poses:
        findings.add(
            folder / "scene_gt.json",
            "empty",
            "the scene has no frames",
            "annotate some, or delete the folder",
        )
    frames: dict[int, list[Entry]] = {}
    for frame, items in sorted((poses or {}).items()):
        K = _camera(frame, cameras, folder / "scene_camera.json", findings)
        frames[frame] = _entries(frame, items, K, folder / "scene_gt.json", findings)
    if poses is not None and cameras is not None:
        for frame in sorted(set(cameras) - set(poses)):
            findings.note(
                folder / "scene_camera.json", "no poses", "a camera, but no entry in scene_gt.json",
                "the frame is not read", frame,
            )  # fmt: skip
    return Scene(folder, frames, info)


def _camera(frame: int, cameras: dict[int, Any] | None, path: Path, findings: Findings) -> np.ndarray | None:
    if cameras is None:
        return None
    try:
        return read_intrinsics(cameras.get(frame))
    except BadEntry as error:
        findings.add(path, error.kind, error.what, error.fix, frame)
        return None


def _entries(frame: int, items: object, K: np.ndarray | None, path: Path, findings: Findings) -> list[Entry]:
    if not isinstance(items, list):
        findings.add(
            path, "list", f"expected a list of objects, got a {type(items).__name__}",
            'write [{"obj_id": .., "cam_R_m2c": .., "cam_t_m2c": ..}, ..]', frame,
        )  # fmt: skip
        return []
    if not items:
        findings.note(path, "none", "no object", "the frame is not trained on", frame)
    found: list[Entry] = []
    for number, item in enumerate(items):
        object_id = item.get("obj_id") if isinstance(item, dict) else None
        if isinstance(object_id, bool) or not isinstance(object_id, int) or object_id < 0:
            findings.add(
                path, "obj_id", f"entry {number}: obj_id is {object_id!r}", "write the object's number", frame
            )
            continue
        pose = _pose(frame, object_id, item, path, findings)
        if pose is not None and any(_same(pose, o.pose) for o in found if o.object_id == object_id):
            findings.add(
                path,
                "double",
                f"object {object_id} is there twice with one pose",
                "delete one of them",
                frame,
            )
        found.append(Entry(frame, number, object_id, pose, K))
    return found


def _same(pose: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray] | None) -> bool:
    return other is not None and all(
        np.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(pose, other, strict=True)
    )


def _pose(
    frame: int, object_id: int, item: dict, path: Path, findings: Findings
) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        return read_pose(item)
    except BadEntry as error:
        findings.add(path, error.kind, f"object {object_id}: {error.what}", error.fix, frame)
        return None


def check_geometry(scene: Scene, models: Models, sizes: dict[int, Size], findings: Findings) -> None:
    """Units, boxes, visible shares; `sizes` of the pictures that could be read, by frame."""
    path = scene.folder / "scene_gt.json"
    by_object: dict[int, list[Entry]] = {}
    for entries in scene.frames.values():
        for entry in entries:
            by_object.setdefault(entry.object_id, []).append(entry)
    wrong = _cameras_at_odds(scene, sizes, findings)
    for object_id, entries in sorted(by_object.items()):
        model = models.get(object_id)
        depths = np.array([e.pose[1][2] for e in entries if e.pose is not None])
        fault = scale_fault(depths, model.diameter) if model.diameter else None
        if fault:
            findings.add(path, f"unit {object_id}", f"object {object_id}: {fault.what}", fault.fix)
            continue
        boxes = _boxes(scene, [e for e in entries if e.frame not in wrong], sizes, findings)
        if model.hull is not None:
            compare_boxes(scene.folder / "scene_gt.json", object_id, boxes, model.hull, sizes, findings)


def _cameras_at_odds(scene: Scene, sizes: dict[int, Size], findings: Findings) -> set[int]:
    """Frames whose intrinsics cannot be those of their picture."""
    wrong = set()
    for frame, entries in scene.frames.items():
        K = entries[0].K if entries else None
        if K is None or frame not in sizes:
            continue
        if fault := camera_fault(K, sizes[frame]):
            kind = fault.what.partition("(")[0]
            findings.add(scene.folder / "scene_camera.json", kind, fault.what, fault.fix, frame)
            wrong.add(frame)
        elif np.abs(K[:2, 2] / sizes[frame] - 0.5).max() > _OFF_CENTRE:
            (width, height), (cx, cy) = sizes[frame], K[:2, 2]
            findings.note(
                scene.folder / "scene_camera.json", "off centre",
                f"the principal point ({cx:.4g}, {cy:.4g}) is far from the middle ({width} x {height} px)",
                "K is that of another resolution or crop, unless the camera is so", frame,
            )  # fmt: skip
    return wrong


def _boxes(
    scene: Scene, entries: list[Entry], sizes: dict[int, Size], findings: Findings
) -> list[tuple[Entry, np.ndarray]]:
    """The whole silhouettes' boxes (x, y, w, h) of an object that can be right."""
    path, found = scene.folder / "scene_gt_info.json", []
    for entry in entries if scene.info is not None else []:
        assert scene.info is not None
        try:
            info = read_info(scene.info.get(entry.frame), entry.number)
        except BadEntry as error:
            findings.add(path, error.kind, error.what, error.fix, entry.frame)
            continue
        box = _check_info(entry, info, sizes.get(entry.frame), path, findings)
        if box is not None:
            found.append((entry, box))
    return found


def _check_info(
    entry: Entry, info: dict, size: Size | None, path: Path, findings: Findings
) -> np.ndarray | None:
    name = f"object {entry.object_id}"
    share, boxes = 1.0, {}
    try:
        for key in ("bbox_visib", "bbox_obj"):
            if key in info or key == "bbox_visib":
                boxes[key] = read_box(info, key)
        share = read_visibility(info)
    except BadEntry as error:
        findings.add(path, error.kind, f"{name}: {error.what}", error.fix, entry.frame)
        if "bbox_visib" not in boxes:
            return None
    visible, whole = boxes["bbox_visib"], boxes.get("bbox_obj")
    if share > 0.1 and min(visible[2:]) <= 0:
        findings.add(
            path, "no box", f"{name}: bbox_visib is {_list(visible)}, though {100 * share:.0f} % are visible",
            "compute it again: the object is not read", entry.frame,
        )  # fmt: skip
        return None
    if share > 0 and size is not None and _outside(visible, size):
        findings.add(
            path, "outside", f"{name}: bbox_visib {_list(visible)} leaves the picture, {size[0]} x {size[1]} px",
            "boxes are [x, y, w, h] in pixels of this picture", entry.frame,
        )  # fmt: skip
        return None
    if share > 0 and whole is not None and min(whole[2:]) > 0:
        off = max(*(whole[:2] - visible[:2]), *(visible[:2] + visible[2:] - whole[:2] - whole[2:]))
        if off > SLACK:
            findings.add(
                path, "larger", f"{name}: bbox_visib {_list(visible)} is not inside bbox_obj {_list(whole)}",
                "compute both again", entry.frame,
            )  # fmt: skip
    return whole if whole is not None and min(whole[2:]) > 0 else None


def _list(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{v:g}" for v in box) + "]"


def _outside(box: np.ndarray, size: Size) -> bool:
    x, y, w, h = box
    return min(x, y) < -SLACK or x + w > size[0] + SLACK or y + h > size[1] + SLACK
