"""Kinds of damage to a small dataset, what the check is to say of each, and what training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posegrad.data import encode_image, load_image, load_mesh
from posegrad.data.mesh import Mesh, encode_ply

TRAIN = Path("train/000001")
GT, CAMERA, INFO = (TRAIN / f"scene_{name}.json" for name in ("gt", "camera", "gt_info"))
IMAGE = TRAIN / "rgb/000002.jpg"
MESH, MODELS_INFO = Path("models_eval/obj_000001.ply"), Path("models_eval/models_info.json")


@dataclass(frozen=True)
class Damage:
    """One kind.

    Args:
        name: of the test.
        hurt: does it to a dataset.
        file: where the check finds it.
        check: words of the check's line.
        train: words of the one line with which training stops; None where training does not meet it.
    """

    name: str
    hurt: Callable[[Path], object]
    file: Path
    check: tuple[str, ...]
    train: tuple[str, ...] | None


def edit(file: Path, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Changes the content of a JSON file in place."""

    def hurt(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))

    return hurt


def every(key: str, change: Callable[[np.ndarray], np.ndarray], file: Path = GT) -> Callable[[Path], None]:
    """Changes a list of numbers of all objects in all frames."""

    def change_all(content: dict) -> None:
        for frame in content.values():
            for item in frame:
                item[key] = change(np.array(item[key])).tolist()

    return edit(file, change_all)


def set_in(file: Path, *path: Any, value: Any) -> Callable[[Path], None]:
    """Puts a value at a path of keys and indices."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return edit(file, change)


def cut(file: Path, share: float = 0.5) -> Callable[[Path], object]:
    """Keeps the first part of a file."""
    return lambda root: (root / file).write_bytes(
        (data := (root / file).read_bytes())[: int(share * len(data))]
    )


def smaller_image(root: Path) -> None:
    (root / IMAGE).write_bytes(encode_image(cv2.resize(load_image(root / IMAGE), (48, 40)), "jpg"))


def scaled_mesh(factor: float) -> Callable[[Path], None]:
    def hurt(root: Path) -> None:
        mesh = load_mesh(root / MESH)
        (root / MESH).write_bytes(encode_ply(Mesh(factor * mesh.vertices, mesh.faces)))

    return hurt


def doubled_key(root: Path) -> None:
    text = (root / GT).read_text()
    line = next(line for line in text.splitlines() if '"2":' in line)
    (root / GT).write_text(text.replace("{", "{\n" + line.rstrip(",") + ",", 1))


def scaled_info(content: dict) -> None:
    content["1"] = {key: value / 1000 for key, value in content["1"].items()}


def _transposed(R: np.ndarray) -> np.ndarray:
    return R.reshape(3, 3).T.ravel()


NAN = float("nan")
DAMAGES = [
    Damage("truncated scene_gt", cut(GT), GT, ("truncated or not JSON", "again"), ("truncated or not JSON",)),
    Damage("truncated info", cut(INFO), INFO, ("truncated or not JSON",), ("truncated or not JSON",)),
    Damage("no scene_camera", lambda r: (r / CAMERA).unlink(), CAMERA, ("no such file",), ("No file", "restore")),
    Damage(
        "list for an object", lambda r: (r / GT).write_text("[]"), GT, ("expected a JSON object",), ("JSON object",)
    ),
    Damage(
        "frame without camera", edit(CAMERA, lambda c: c.pop("2")), CAMERA, ("frame 2", "no entry", "add"),
        ("frame 2", "no entry"),
    ),
    Damage(
        "frame without info", edit(INFO, lambda c: c.pop("2")), INFO, ("frame 2", "no entry"), ("frame 2", "no entry")
    ),
    Damage(
        "info of fewer objects", set_in(INFO, "2", value=[]), INFO, ("frame 2", "0 objects"), ("frame 2", "0 objects")
    ),
    Damage(
        "scaled rotation", every("cam_R_m2c", lambda R: 2 * R), GT, ("frames 0, 1, 2, 3", "no rotation"),
        ("frame 0", "no rotation"),
    ),
    Damage(
        "mirrored", every("cam_R_m2c", lambda R: R * np.tile([1, 1, -1], 3)), GT, ("reflection", "right-handed"),
        ("reflection",),
    ),
    Damage(
        "column-major", every("cam_R_m2c", _transposed), GT, ("projected mesh", "column-major; transpose"), None
    ),
    Damage(
        "metres", every("cam_t_m2c", lambda t: t / 1000), GT, ("metres", "translations in scene_gt.json by 1000"),
        ("metres", "translations in scene_gt.json by 1000"),
    ),
    Damage(
        "OpenGL's axes", every("cam_t_m2c", lambda t: t * [1, -1, -1]), GT, ("behind the camera", "OpenGL"),
        ("behind the camera", "OpenGL"),
    ),
    Damage(
        "not a number", set_in(GT, "2", 0, "cam_t_m2c", 0, value=NAN), GT, ("frame 2", "not finite"),
        ("frame 2", "not finite"),
    ),
    Damage(
        "eight numbers", set_in(GT, "2", 0, "cam_R_m2c", value=[1.0] * 8), GT, ("expected 9 numbers, got 8",),
        ("expected 9 numbers, got 8",),
    ),
    Damage(
        "text for an id", set_in(GT, "2", 0, "obj_id", value="1"), GT, ("frame 2", "obj_id is '1'"), ("obj_id",)
    ),
    Damage(
        "no focal length", set_in(CAMERA, "2", "cam_K", 0, value=0.0), CAMERA, ("frame 2", "focal lengths 0"),
        ("frame 2", "focal lengths 0"),
    ),
    Damage(
        "principal point outside", set_in(CAMERA, "2", "cam_K", 2, value=640.0), CAMERA,
        ("frame 2", "outside the picture", "another resolution"), None,
    ),
    Damage(
        "picture missing", lambda r: (r / IMAGE).unlink(), TRAIN / "rgb", ("frame 2", "missing", "--split"),
        ("missing", "000002", "split"),
    ),
    Damage("truncated JPEG", cut(IMAGE), IMAGE, ("truncated",), ("truncated", "000002.jpg", "copy it again")),
    Damage(
        "no picture", lambda r: (r / IMAGE).write_text("<html>not found</html>"), IMAGE, ("not a picture",),
        ("not an image", "000002.jpg"),
    ),
    Damage("empty picture", lambda r: (r / IMAGE).write_bytes(b""), IMAGE, ("not a picture",), ("000002.jpg",)),
    Damage("another size", smaller_image, IMAGE, ("48 x 40 px", "192 x 160"), None),
    Damage(
        "box outside", set_in(INFO, "2", 0, "bbox_visib", value=[300, 300, 40, 40]), INFO,
        ("frame 2", "leaves the picture"), None,
    ),
    Damage(
        "share above one", set_in(INFO, "2", 0, "visib_fract", value=87.0), INFO, ("visib_fract is 87.0",),
        ("visib_fract is 87.0", "frame 2"),
    ),
    Damage(
        "corners for boxes", every("bbox_obj", lambda b: np.r_[b[:2], b[:2] + b[2:]], INFO), GT,
        ("projected mesh", "[x0, y0, x1, y1]"), None,
    ),
    Damage(
        "no mesh", lambda r: [p.unlink() for p in r.glob("models*/*.ply")], Path("models_eval"),
        ("object 1", "no obj_000001.ply"), ("No mesh obj_000001.ply",),
    ),
    Damage("truncated mesh", cut(MESH), MESH, ("not a readable",), ("not a readable PLY", "obj_000001.ply")),
    Damage(
        "mesh in metres", scaled_mesh(0.001), MESH, ("mesh seems to be in metres", "by 1000"),
        ("mesh seems to be in metres", "by 1000"),
    ),
    Damage(
        "diameter in metres", edit(MODELS_INFO, scaled_info), MODELS_INFO, ("seems to be in metres",),
        ("metres", "models_info.json"),
    ),
    Damage(
        "truncated models_info", cut(MODELS_INFO), MODELS_INFO, ("truncated or not JSON",), ("truncated or not JSON",)
    ),
    Damage("frame twice", doubled_key, GT, ("'2' is there twice", "delete one"), None),
    Damage(
        "object twice", lambda r: [edit(f, lambda c: c["2"].append(c["2"][0]))(r) for f in (GT, INFO)], GT,
        ("twice with one pose",), None,
    ),
    Damage(
        "empty scene", lambda r: (r / GT).write_text("{}"), GT, ("the scene has no frames",),
        ("no object is annotated",),
    ),
    Damage(
        "mask of another size",
        lambda r: (r / TRAIN / "mask_visib/000002_000000.png").write_bytes(
            encode_image(np.zeros((40, 48), np.uint8), "png")
        ),
        TRAIN / "mask_visib/000002_000000.png", ("48 x 40 px", "192 x 160"), None,
    ),
]  # fmt: skip
