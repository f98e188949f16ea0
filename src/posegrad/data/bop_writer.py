"""Writing datasets in the BOP scene-wise layout; `bop.BopDataset` reads back what is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from posegrad.data.image import encode_image
from posegrad.data.mesh import Mesh, encode_ply, mesh_diameter


@dataclass(frozen=True)
class Annotation:
    """One object in one frame to be written.

    Args:
        object_id: the BOP id.
        R, t: (3, 3), (3,): x_cam = R X + t, millimetres.
        bbox_obj, bbox_visib: (x, y, w, h) in pixels of the whole silhouette and of its visible part.
        px_count_all, px_count_visib: pixels of the whole silhouette and of its visible part.
        mask_visib: (H, W) bool, the visible part, or None (then no mask file is written).

    >>> label = Annotation(1, np.eye(3), np.array([0.0, 0, 500]), (10, 10, 40, 40), (10, 10, 40, 20), 1600, 800)
    >>> label.px_count_visib / label.px_count_all  # the visible share
    0.5
    """

    object_id: int
    R: np.ndarray
    t: np.ndarray
    bbox_obj: Sequence[float]
    bbox_visib: Sequence[float]
    px_count_all: int
    px_count_visib: int
    mask_visib: np.ndarray | None = None


class BopWriter:
    """Writes models and scenes below `root`; use it as a context manager, or call `close` at the end.

    Args:
        root: the dataset folder, made where it is absent.
        split_folder: the folder of scenes below it, such as "train".
        image_format: "png" (exact) or "jpg" (about five times smaller).

    >>> import tempfile
    >>> tetrahedron = Mesh(40 * np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]]))
    >>> K = np.array([[300.0, 0, 79.5], [0, 300, 59.5], [0, 0, 1]])
    >>> label = Annotation(1, np.eye(3), np.array([0.0, 0, 500]), (79, 59, 24, 24), (79, 59, 24, 24), 288, 288)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with BopWriter(root, "train") as writer:
    ...         writer.add_model(1, tetrahedron)
    ...         writer.add_frame(1, 0, np.zeros((120, 160, 3), np.uint8), K, [label])
    ...     sorted(p.name for p in (Path(root) / "train" / "000001").iterdir())
    ['rgb', 'scene_camera.json', 'scene_gt.json', 'scene_gt_info.json']
    """

    def __init__(self, root: str | Path, split_folder: str, *, image_format: str = "png") -> None:
        if image_format not in ("png", "jpg"):
            raise ValueError(f"image_format: expected 'png' or 'jpg', got {image_format!r}.")
        self.root, self.split_folder, self.image_format = Path(root), split_folder, image_format
        self._scenes: dict[int, tuple[dict, dict, dict]] = {}

    def add_model(
        self,
        object_id: int,
        mesh: Mesh,
        *,
        diameter: float | None = None,
        folder: str = "models",
        **info: object,
    ) -> None:
        """Writes a mesh and its line of models_info.json (`info`: e.g. symmetries_discrete, as given)."""
        target = self.root / folder
        target.mkdir(parents=True, exist_ok=True)
        (target / f"obj_{object_id:06d}.ply").write_bytes(encode_ply(mesh))
        low, size = mesh.vertices.min(0), np.ptp(mesh.vertices, axis=0)
        entry: dict = {"diameter": float(diameter if diameter is not None else mesh_diameter(mesh.vertices))}
        entry |= {f"min_{axis}": float(value) for axis, value in zip("xyz", low, strict=True)}
        entry |= {f"size_{axis}": float(value) for axis, value in zip("xyz", size, strict=True)}
        path = target / "models_info.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        known[str(object_id)] = entry | info
        path.write_text(_by_line({key: known[key] for key in sorted(known, key=int)}))

    def add_frame(
        self,
        scene_id: int,
        image_id: int,
        image: np.ndarray | bytes,
        K: np.ndarray,
        annotations: Sequence[Annotation],
    ) -> None:
        """Writes a picture ((H, W, 3) uint8 RGB, or bytes encoded in `image_format`) and keeps its labels."""
        scene = self.root / self.split_folder / f"{scene_id:06d}"
        poses, camera, info = self._scenes.setdefault(scene_id, ({}, {}, {}))
        key = str(image_id)
        if key in poses:
            raise ValueError(f"image_id: frame {image_id} of scene {scene_id} was already added.")
        (scene / "rgb").mkdir(parents=True, exist_ok=True)
        encoded = image if isinstance(image, bytes) else encode_image(image, self.image_format)
        (scene / "rgb" / f"{image_id:06d}.{self.image_format}").write_bytes(encoded)
        camera[key] = {"cam_K": _floats(K, 9), "depth_scale": 1.0}
        poses[key] = [
            {"cam_R_m2c": _floats(a.R, 9), "cam_t_m2c": _floats(a.t, 3), "obj_id": int(a.object_id)}
            for a in annotations
        ]
        info[key] = [
            {
                "bbox_obj": _floats(a.bbox_obj, 4),
                "bbox_visib": _floats(a.bbox_visib, 4),
                "px_count_all": int(a.px_count_all),
                "px_count_valid": int(a.px_count_all),
                "px_count_visib": int(a.px_count_visib),
                "visib_fract": a.px_count_visib / a.px_count_all if a.px_count_all else 0.0,
            }
            for a in annotations
        ]
        for number, annotation in enumerate(annotations):
            if annotation.mask_visib is not None:
                folder = scene / "mask_visib"
                folder.mkdir(exist_ok=True)
                mask = (np.asarray(annotation.mask_visib) > 0).astype(np.uint8) * 255
                (folder / f"{image_id:06d}_{number:06d}.png").write_bytes(encode_image(mask, "png"))

    def write_camera(self, K: np.ndarray, width: int, height: int) -> None:
        """Writes `camera.json`, the nominal camera of the dataset."""
        K = np.asarray(K, dtype=np.float64)
        values = {"cx": K[0, 2], "cy": K[1, 2], "depth_scale": 1.0, "fx": K[0, 0], "fy": K[1, 1]}
        content = {key: float(value) for key, value in values.items()} | {"height": height, "width": width}
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "camera.json").write_text(json.dumps(content, indent=2) + "\n")

    def close(self) -> None:
        """Writes the JSON files of the scenes."""
        for scene_id, (poses, camera, info) in self._scenes.items():
            scene = self.root / self.split_folder / f"{scene_id:06d}"
            (scene / "scene_gt.json").write_text(_by_line(poses))
            (scene / "scene_camera.json").write_text(_by_line(camera))
            (scene / "scene_gt_info.json").write_text(_by_line(info))

    def __enter__(self) -> BopWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def _floats(values: np.ndarray | Sequence[float], count: int) -> list[float]:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(array) != count:
        raise ValueError(f"expected {count} numbers, got {len(array)}.")
    return [float(value) for value in array]


def _by_line(content: dict) -> str:
    """JSON with one line per key, as BOP writes it: small, and still readable."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"
