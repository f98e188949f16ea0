"""New viewpoints of photographed objects: crops as a camera moved about the object would have taken them.

A dataset of a hundred photographs shows an object from directions many degrees apart, and a network learns
them by heart. Mesh and pose say what the views between them look like: every ray that meets the mesh takes its
colour from the photograph, where that sees the same point, and the rest of the picture is moved as a plane.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from posegrad.data.bop import Instance
from posegrad.data.cropping import crop_affine, extract_crop
from posegrad.data.mesh import Mesh
from posegrad.data.raycast import RayCaster
from posegrad.data.texturing import DEPTH_TOLERANCE, SILHOUETTE_MARGIN, seen_by, square

__all__ = ["NovelViews"]


class NovelViews:
    """Moves the camera of instances about their object, and draws what it then sees.

    Args:
        mesh: the object's mesh, mm; its colours are used where the photograph does not see the surface
            (`texture_mesh` takes them from all photographs).
        share: of the crops that get a new viewpoint, in [0, 1].
        angle_deg: largest rotation of the object in the camera, about any axis, degrees.
        swap: share of the new views whose background is cut from another photograph, in [0, 1]: else a network can
            tell the photograph, and with it roughly the pose, by what stands around the object.
        repaint: share of the new views that take all of the object's colours from the mesh, under a random light, in
            [0, 1]: else it can tell the photograph by its light, its blur and what hides the object.

    >>> import pathlib
    >>> from posegrad.data import procedural_object
    >>> views = NovelViews(procedural_object(12, spacing=4.0), angle_deg=20.0)
    >>> K, t = np.array([[300.0, 0, 79.5], [0, 300, 59.5], [0, 0, 1]]), np.array([0.0, 0, 600])
    >>> box, path = np.array([60.0, 40, 40, 40]), pathlib.Path("rgb/000000.png")
    >>> item = Instance(1, 0, 1, path, K, np.eye(3), t, box, 1.0)
    >>> moved = views.move(item, np.random.default_rng(0))
    >>> bool(np.trace(moved.R) > 1 + 2 * np.cos(np.radians(20.0)))  # turned by less
    True
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        share: float = 0.5,
        angle_deg: float = 20.0,
        swap: float = 0.5,
        repaint: float = 0.5,
    ) -> None:
        self.mesh, self.share, self.angle_deg = mesh, share, angle_deg
        self.swap, self.repaint = swap, repaint
        self._caster = RayCaster(mesh)
        self._center = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
        self._size = float(np.ptp(mesh.vertices, axis=0).max())
        self._cleared: dict[tuple[str, int], tuple[np.ndarray, tuple[slice, slice]]] = {}

    def random_light(self, rng: np.random.Generator) -> np.ndarray | None:
        """The light of `draw` for a share `repaint` of the calls, else None."""
        return 0.3 * rng.random() * rng.standard_normal(3) if rng.random() < self.repaint else None

    def move(self, item: Instance, rng: np.random.Generator, *, whole: bool = False) -> Instance:
        """The instance in a rotated pose, its centre where it was.

        Its box is that of the silhouette where `whole`, else it keeps its place and share in the silhouette's box.
        """
        axis = rng.standard_normal(3)
        turn = cv2.Rodrigues(np.radians(self.angle_deg) * rng.random() * axis / np.linalg.norm(axis))[0]
        R = turn @ item.R
        t = item.R @ self._center + item.t - R @ self._center
        before, after = (self._box(item.K, *pose) for pose in ((item.R, item.t), (R, t)))
        zoom = (after[2:] - after[:2]) / (before[2:] - before[:2])
        if whole:
            bbox = np.concatenate([after[:2], after[2:] - after[:2]])
        else:
            bbox = np.concatenate([after[:2] + (item.bbox[:2] - before[:2]) * zoom, item.bbox[2:] * zoom])
        return replace(item, R=R, t=t, bbox=bbox)

    def background(
        self, image: np.ndarray, item: Instance, side: float, size: int, rng: np.random.Generator
    ) -> np.ndarray:
        """A (size, size, 3) crop of a photograph without the object, anywhere, about `side` pixels wide."""
        side *= 1.5 ** rng.uniform(-1, 1)
        center = rng.uniform(0.15, 0.85, 2) * (image.shape[1], image.shape[0])
        affine = crop_affine(center, side, size, rng.uniform(-0.5, 0.5))
        return extract_crop(self._without_object(image, item), affine, size)

    def draw(
        self,
        image: np.ndarray,
        seen: Instance,
        moved: Instance,
        full_from_crop: np.ndarray,
        size: int,
        *,
        background: np.ndarray | None = None,
        light: np.ndarray | None = None,
    ) -> np.ndarray:
        """The (size, size, 3) uint8 crop of the moved instance.

        Args:
            image: the photograph of `seen`, (H, W, 3) uint8.
            seen, moved: the instance as photographed, and as `move` returned it.
            full_from_crop: (2, 3) of the crop, see `crop_affine`.
            background: (size, size, 3) uint8; None: that of the photograph, moved as a plane.
            light: (3,) in camera axes: all colours are the mesh's times 1 + light . normal; None: the photograph's
                where it sees the surface.
        """
        K = np.linalg.inv(np.vstack([full_from_crop, [0, 0, 1]])) @ moved.K
        if background is not None:
            crop = background.copy()
        else:
            crop = cv2.warpPerspective(
                self._without_object(image, seen),
                self._plane_map(seen, moved, K),
                (size, size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        window = self._caster.window(K, moved.R, moved.t, size, size)
        x0, y0, x1, y1 = window
        if x0 >= x1 or y0 >= y1:
            return crop
        hits = self._caster.cast(K, moved.R, moved.t, window, 1)
        albedo = 255 * hits.albedo
        if light is None:
            camera = hits.direction * (hits.depth / hits.direction[:, 2])[:, None]
            color, visible = self._look_up(image, seen, (camera - moved.t) @ moved.R)
            if visible.any():  # as bright as the photograph
                albedo *= np.clip(np.median(color[visible]) / max(np.median(albedo[visible]), 1), 0.5, 2)
            color = np.where(visible[:, None], color, albedo)
        else:
            color = albedo * (1 + hits.normal @ light)[:, None]
        layer = np.zeros((*hits.mask.shape, 4), dtype=np.float32)
        layer[hits.mask, :3] = color.clip(0, 255)
        layer[hits.mask, 3] = 1
        # as soft as the photograph, whose pixels are larger or smaller than those of the crop
        zoom = 1 / np.sqrt(abs(np.linalg.det(full_from_crop[:, :2])))
        layer = cv2.GaussianBlur(layer, (0, 0), max(0.5, 0.4 * float(zoom)))
        blended = layer[..., :3] + (1 - layer[..., 3:]) * crop[y0:y1, x0:x1]
        crop[y0:y1, x0:x1] = np.round(blended).astype(np.uint8)
        return crop

    def _box(self, K: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
        """(x_min, y_min, x_max, y_max) of the projected mesh."""
        points = (self.mesh.vertices @ R.T + t) @ K.T
        pixels = points[:, :2] / points[:, 2:]
        return np.concatenate([pixels.min(0), pixels.max(0)])

    def _plane_map(self, seen: Instance, moved: Instance, K_crop: np.ndarray) -> np.ndarray:
        """Photograph from crop pixels (3, 3), for the plane through the object's centre that faced the camera."""
        turn = seen.R @ moved.R.T
        center = seen.R @ self._center + seen.t
        normal = center / np.linalg.norm(center)
        # X_seen = turn X_moved + shift, and turn^T normal . (X_moved - center) = 0 on the plane
        shift, across = center - turn @ center, turn.T @ normal
        return seen.K @ (turn + np.outer(shift, across) / (across @ center)) @ np.linalg.inv(K_crop)

    def _look_up(
        self, image: np.ndarray, seen: Instance, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours (n, 3) of object points (n, 3) in a photograph, and which of them it sees (n,)."""
        pixels, visible = seen_by(self._caster, seen, points, image.shape, DEPTH_TOLERANCE * self._size, 0)
        x, y = pixels.astype(np.float32).T
        if not len(x):
            return np.zeros((0, 3), dtype=np.float32), visible
        # OpenCV's maps are limited to 32767 rows: lay the points out as a picture
        pad = -len(x) % 256
        x, y = (np.pad(v, (0, pad)).reshape(-1, 256) for v in (x, y))
        color = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return color.reshape(-1, 3)[: len(points)].astype(np.float32), visible

    def _without_object(self, image: np.ndarray, seen: Instance) -> np.ndarray:
        """The photograph with the object painted over from around it; the patch is computed once."""
        key = (str(seen.image_path), seen.object_id)
        if key not in self._cleared:
            height, width = image.shape[:2]
            x0, y0, x1, y1 = self._caster.window(seen.K, seen.R, seen.t, width, height)
            hits = self._caster.cast(seen.K, seen.R, seen.t, (x0, y0, x1, y1), 1)
            around = 3 * SILHOUETTE_MARGIN
            rows = slice(max(y0 - around, 0), y1 + around)
            columns = slice(max(x0 - around, 0), x1 + around)
            hole = np.zeros((height, width), dtype=np.uint8)
            hole[y0:y1, x0:x1] = hits.mask
            hole = cv2.dilate(hole, square(SILHOUETTE_MARGIN + 1))
            self._cleared[key] = (
                cv2.inpaint(image[rows, columns], hole[rows, columns], 3, cv2.INPAINT_TELEA),
                (rows, columns),
            )
        patch, place = self._cleared[key]
        image = image.copy()
        image[place] = patch
        return image
