"""A camera's file: camera.json of a dataset, or of `posegrad calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from posegrad.data.errors import DatasetError
from posegrad.data.json_files import read_json_object
from posegrad.data.plausibility import camera_fault, positive

_PINHOLE = ("f", "fx", "fy", "cx", "cy")


class CameraFile(NamedTuple):
    """Intrinsics (3, 3) and size, pixels; `lens` names the distortion parameters that are not zero and not in K."""

    K: np.ndarray
    width: int
    height: int
    lens: list[str]


def read_camera(path: str | Path) -> CameraFile:
    """Reads {"fx", "fy", "cx", "cy", "width", "height"}, BOP's, or {"parameters": {..}, "image_size": [w, h]}, the
    calibration's; both have the centre of the first pixel at (0, 0).

    Raises:
        DatasetError: absent, other content, or a camera that cannot be.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "camera.json"
    ...     _ = path.write_text('{"parameters": {"f": 500, "cx": 320, "cy": 240, "k": -0.1}, "image_size": [640, 480]}')
    ...     read_camera(path).lens
    ['k']
    """
    path = Path(path)
    content = read_json_object(path)
    lens: list[str] = []
    try:
        if "parameters" in content:
            values, (width, height) = dict(content["parameters"]), content["image_size"]
            lens = [name for name, value in values.items() if name not in _PINHOLE and value != 0]
        else:
            values, width, height = content, content["width"], content["height"]
        fx, fy = values.get("fx", values.get("f")), values.get("fy", values.get("f"))
        K = np.array([[fx, 0, values["cx"]], [0, fy, values["cy"]], [0, 0, 1]], dtype=np.float64)
        size = positive(width), positive(height)
        if size[0] is None or size[1] is None:
            raise ValueError(f"width {width!r}, height {height!r}")
        width, height = int(size[0]), int(size[1])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(
            f'{path}: expected {{"fx": .., "fy": .., "cx": .., "cy": .., "width": .., "height": ..}} or the '
            f"camera.json of posegrad calibrate ({type(error).__name__}: {error})."
        ) from error
    if fault := camera_fault(K, (width, height)):
        raise DatasetError(f"{path}: {fault.what.replace('cam_K', 'the camera')}: {fault.fix}.")
    return CameraFile(K, width, height, lens)
