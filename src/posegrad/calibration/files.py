"""A calibrated camera as files: JSON with everything, COLMAP's cameras.txt, OpenCV's YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posegrad.cameras import MODELS, Camera, to_colmap

# Of OpenCV's coefficients (k1, k2, p1, p2, k3, k4, k5, k6), those that a model has.
_OPENCV = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 0,
    "SIMPLE_RADIAL": 5,
    "RADIAL": 5,
    "OPENCV": 5,
    "FULL_OPENCV": 8,
    "OPENCV_FISHEYE": 4,
}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented, with a newline at the end."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_colmap(path: Path, camera: Camera, image_size: tuple[int, int]) -> bool:
    """COLMAP's cameras.txt, its centre of the first pixel at (0.5, 0.5); False where COLMAP has no such model."""
    try:
        name, params = to_colmap(camera)
    except ValueError:
        return False
    numbers = " ".join(repr(value) for value in params.tolist())
    path.write_text(
        "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
        f"# Number of cameras: 1\n1 {name} {image_size[0]} {image_size[1]} {numbers}\n"
    )
    return True


def opencv_parameters(camera: Camera) -> tuple[np.ndarray, np.ndarray] | None:
    """OpenCV's camera matrix and distortion coefficients (those of ``cv2.fisheye`` for OPENCV_FISHEYE); None where it
    has no such model."""
    if type(camera) is not MODELS.get(camera.name) or camera.name not in _OPENCV:
        return None
    values = dict(zip(camera.parameter_names, camera.params.tolist(), strict=True))
    fx, fy = values.get("fx", values.get("f")), values.get("fy", values.get("f"))
    K = np.array([[fx, 0, values["cx"]], [0, fy, values["cy"]], [0, 0, 1]], dtype=np.float64)
    if camera.name == "OPENCV_FISHEYE":
        order: tuple[str, ...] = ("k1", "k2", "k3", "k4")
    else:
        order = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")[: max(_OPENCV[camera.name], 4)]
        values.setdefault("k1", values.get("k", 0.0))
    return K, np.array([values.get(name, 0.0) for name in order], dtype=np.float64)


def write_opencv(path: Path, camera: Camera, image_size: tuple[int, int], rms: float) -> bool:
    """The YAML of OpenCV's calibration samples, read by ``cv2.FileStorage``; False where OpenCV has no such model."""
    parameters = opencv_parameters(camera)
    if parameters is None:
        return False
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    if not storage.isOpened():
        raise OSError(f"cannot write {path}")
    storage.write("image_width", image_size[0])
    storage.write("image_height", image_size[1])
    storage.write("camera_model", "fisheye" if camera.name == "OPENCV_FISHEYE" else "pinhole")
    storage.write("camera_matrix", parameters[0])
    storage.write("distortion_coefficients", parameters[1][None])
    storage.write("avg_reprojection_error", rms)
    storage.release()
    return True
