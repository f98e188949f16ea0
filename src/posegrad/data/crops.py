"""Square crops of instances as a torch dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from posegrad.data.augment import Augmentation, change_pixels, jitter_box
from posegrad.data.bop import Instance
from posegrad.data.cropping import crop_affine, extract_crop
from posegrad.data.image import load_image
from posegrad.data.novel_views import NovelViews


class CropDataset(Dataset):
    """Crops around the visible box of each instance; items are dicts of tensors.

    An item has `image (3, S, S) uint8 RGB`, `full_from_crop (2, 3) float64` (crop pixel to full-image pixel,
    integer = pixel centre), `K (3, 3)`, `R (3, 3)`, `t (3,) mm` float64, `index` and `object_id`. The pose is that of
    the full image, whatever the crop's shift, scale or rotation: `full_from_crop` absorbs them. It depends
    on (seed, epoch, index) only, in any order and in any worker process.

    Args:
        instances: what to crop (`BopDataset.instances`).
        size: pixels per side of the crop, >= 8.
        padding: side of the crop over the longer side of the box, >= 1 unless the box is to be cut.
        augmentation: random changes, or None for plain crops.
        novel_views: draws a share of the crops from other viewpoints, their pose and box with them; or None. Of several
            objects, one for each by its id.
        seed: of the random changes.
        cache_bytes: decoded pictures are kept while they fit into this much memory (per process).

    Raises:
        ValueError: for no instances, or a size or padding out of range.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from posegrad.data import encode_image
    >>> K, box = np.array([[300.0, 0, 79.5], [0, 300, 59.5], [0, 0, 1]]), np.array([60.0, 40, 40, 40])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "0.png"
    ...     _ = path.write_bytes(encode_image(np.zeros((120, 160, 3), np.uint8), "png"))
    ...     item = Instance(1, 0, 1, path, K, np.eye(3), np.array([0.0, 0, 600]), box, 1.0)
    ...     crops = CropDataset([item], size=64, augmentation=Augmentation())
    ...     tuple(crops[0]["image"].shape), crops[0]["full_from_crop"].dtype
    ((3, 64, 64), torch.float64)
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        *,
        size: int = 128,
        padding: float = 1.4,
        augmentation: Augmentation | None = None,
        novel_views: NovelViews | Mapping[int, NovelViews] | None = None,
        seed: int = 0,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if not len(instances):
            raise ValueError("instances: expected at least one, got none.")
        if size < 8 or padding <= 0:
            raise ValueError(f"size, padding: expected size >= 8 and padding > 0, got {size} and {padding}.")
        self.instances, self.size, self.padding = list(instances), size, padding
        if isinstance(novel_views, NovelViews):
            novel_views = dict.fromkeys((item.object_id for item in self.instances), novel_views)
        self.augmentation, self.novel_views = augmentation, novel_views or {}
        self.seed, self.cache_bytes = seed, cache_bytes
        # shared memory, so that set_epoch also reaches the persistent workers of a DataLoader
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._cache: dict[str, np.ndarray] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.instances)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the random changes of this epoch."""
        self._epoch.fill_(epoch)

    def preload(self) -> CropDataset:
        """Decodes all pictures that fit the cache now, so that forked workers share them; returns itself."""
        for path in dict.fromkeys(str(item.image_path) for item in self.instances):
            if self._cached_bytes >= self.cache_bytes:
                break
            self._image(path)
        return self

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.crop(index, int(self._epoch))

    def crop(self, index: int, epoch: int) -> dict[str, torch.Tensor]:
        """An item with the random changes of `epoch`, whatever `set_epoch` chose."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} crops.")
        index = index % len(self)
        seen = item = self.instances[index]
        image = self._image(str(item.image_path))
        rng = np.random.default_rng([self.seed, epoch, index])
        light, views = None, self.novel_views.get(seen.object_id)
        if views is not None and rng.random() < views.share:
            light = views.random_light(rng)
            item = views.move(seen, rng, whole=light is not None)
        center, side, angle = (
            item.bbox[:2] + item.bbox[2:] / 2,
            self.padding * float(item.bbox[2:].max()),
            0.0,
        )
        if self.augmentation is not None:
            center, side, angle = jitter_box(center, side, self.augmentation, rng)
        full_from_crop = crop_affine(center, side, self.size, angle)
        if item is seen or views is None:
            crop = extract_crop(image, full_from_crop, self.size)
        else:
            crop = self._novel_crop(views, image, seen, item, full_from_crop, light, rng)
        if self.augmentation is not None:
            crop = change_pixels(crop, self.augmentation, rng)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))),
            "full_from_crop": torch.from_numpy(full_from_crop),
            "K": torch.from_numpy(item.K),
            "R": torch.from_numpy(item.R),
            "t": torch.from_numpy(item.t),
            "index": torch.tensor(index),
            "object_id": torch.tensor(item.object_id),
        }

    def _novel_crop(
        self,
        views: NovelViews,
        image: np.ndarray,
        seen: Instance,
        item: Instance,
        full_from_crop: np.ndarray,
        light: np.ndarray | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        background = None
        if rng.random() < views.swap:
            other = self.instances[int(rng.integers(len(self)))]
            side = self.padding * float(item.bbox[2:].max())
            eraser = self.novel_views.get(other.object_id, views)
            background = eraser.background(self._image(str(other.image_path)), other, side, self.size, rng)
        return views.draw(image, seen, item, full_from_crop, self.size, background=background, light=light)

    def _image(self, path: str) -> np.ndarray:
        image = self._cache.get(path)
        if image is None:
            image = load_image(path)
            if self._cached_bytes + image.nbytes <= self.cache_bytes:
                self._cache[path] = image
                self._cached_bytes += image.nbytes
        return image
