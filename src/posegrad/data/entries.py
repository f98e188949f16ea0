"""Single entries of scene_gt.json, scene_camera.json and scene_gt_info.json: numbers, or what is wrong with them."""

from __future__ import annotations

import numpy as np

from posegrad.data.plausibility import Fault, as_float, camera_fault, numbers, pose_fault, short


class BadEntry(ValueError):
    """An entry that cannot be used.

    Args:
        file: the name of the file that it is in.
        what: is wrong.
        fix: how to put it right.
    """

    def __init__(self, file: str, what: str, fix: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.file, self.what, self.fix = file, what, fix

    @property
    def kind(self) -> str:
        """The same for all frames with the same problem, whatever the numbers."""
        return self.what.partition("(")[0].partition(" is ")[0].partition(" has focal")[0]

    @classmethod
    def of(cls, file: str, fault: Fault) -> BadEntry:
        """The same in the file's name."""
        return cls(file, fault.what, fault.fix)


def read_pose(item: dict) -> tuple[np.ndarray, np.ndarray]:
    """R (3, 3) and t (3,) mm of an entry of scene_gt.json."""
    found = []
    for name, count, form in (("cam_R_m2c", 9, "R row-major"), ("cam_t_m2c", 3, "t in millimetres")):
        if name not in item:
            raise BadEntry("scene_gt.json", f"{name} is absent", f"write {form}")
        try:
            found.append(numbers(item[name], count))
        except ValueError as error:
            raise BadEntry("scene_gt.json", f"{name}: {error}", f"write {form}") from error
    R, t = found[0].reshape(3, 3), found[1]
    if fault := pose_fault(R, t):
        raise BadEntry.of("scene_gt.json", fault)
    return R, t


def read_intrinsics(entry: object) -> np.ndarray:
    """K (3, 3) of a frame's entry of scene_camera.json; None is a frame without one."""
    file = "scene_camera.json"
    if entry is None:
        raise BadEntry(file, "no entry for a frame of scene_gt.json", "add its intrinsics")
    if not isinstance(entry, dict) or "cam_K" not in entry:
        raise BadEntry(file, "no cam_K", "add the intrinsics: fx 0 cx 0 fy cy 0 0 1")
    try:
        K = numbers(entry["cam_K"], 9).reshape(3, 3)
    except ValueError as error:
        raise BadEntry(file, f"cam_K: {error}", "write fx 0 cx 0 fy cy 0 0 1") from error
    if fault := camera_fault(K):
        raise BadEntry.of(file, fault)
    return K


def read_info(infos: object, number: int) -> dict:
    """The entry of one object in a frame's list of scene_gt_info.json; None is a frame without one."""
    file = "scene_gt_info.json"
    if infos is None:
        raise BadEntry(file, "no entry for a frame of scene_gt.json", "compute it again")
    if not isinstance(infos, list) or number >= len(infos) or not isinstance(infos[number], dict):
        count = len(infos) if isinstance(infos, list) else 0
        raise BadEntry(
            file,
            f"{count} objects, fewer than in scene_gt.json",
            "write one entry per object, in the order of scene_gt.json",
        )
    return infos[number]


def read_visibility(info: dict) -> float:
    """The visible share, in [0, 1]."""
    share = as_float(info.get("visib_fract"))
    if not 0 <= share <= 1 + 1e-6:
        given = short(info.get("visib_fract"))
        raise BadEntry("scene_gt_info.json", f"visib_fract is {given}", "it is a share in [0, 1]")
    return share


def read_box(info: dict, key: str) -> np.ndarray:
    """A box (x, y, w, h), pixels."""
    try:
        box = numbers(info.get(key), 4)
        if not np.isfinite(box).all():
            raise ValueError("it is not finite")
    except ValueError as error:
        raise BadEntry("scene_gt_info.json", f"{key}: {error}", "write [x, y, w, h], pixels") from error
    return box
