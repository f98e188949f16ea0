from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posegrad.data import Augmentation, CropDataset, Instance, crop_affine, encode_image, extract_crop

GEOMETRY_ONLY = Augmentation(
    shift=0.1,
    scale=0.3,
    rotation_deg=180,
    brightness=0,
    contrast=0,
    color=0,
    blur_probability=0,
    noise_probability=0,
    cutout_probability=0,
)


def dot(x: float, y: float, width: int, height: int, sigma: float = 3.0) -> np.ndarray:
    """A Gaussian dot whose centre is at pixel (x, y), integer = pixel centre."""
    columns, rows = np.arange(width) - x, np.arange(height) - y
    value = np.exp(-(columns[None] ** 2 + rows[:, None] ** 2) / (2 * sigma**2))
    return np.repeat(np.round(250 * value)[..., None], 3, axis=2).astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(np.float64)
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def apply(affine: np.ndarray, point: np.ndarray) -> np.ndarray:
    return affine[:, :2] @ point + affine[:, 2]


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, -2.5])
@pytest.mark.parametrize("side", [50.0, 100.0, 170.0, 290.0])
def test_dot_lands_where_the_affine_says(angle: float, side: float) -> None:
    place = np.array([301.37, 288.81])
    image = dot(*place, 600, 580, max(3.0, 3.0 * side / 64))
    affine = crop_affine(place + np.array([3.3, -4.1]) * side / 64, side, 64, angle)
    crop = extract_crop(image, affine, 64)
    found = centroid(crop)
    np.testing.assert_allclose(apply(affine, found), place, atol=0.03 * max(1, side / 64))
    inverse = cv2.invertAffineTransform(affine)
    np.testing.assert_allclose(found, apply(inverse, place), atol=0.03)


def test_affine_at_the_centre_and_at_the_edges() -> None:
    affine = crop_affine(np.array([30.5, 40.5]), 20.0, 10)
    np.testing.assert_allclose(apply(affine, np.array([4.5, 4.5])), [30.5, 40.5])
    # the crop's outer border, half a pixel outside the outermost centres, spans exactly `side`
    np.testing.assert_allclose(apply(affine, np.array([-0.5, -0.5])), [20.5, 30.5])
    np.testing.assert_allclose(apply(affine, np.array([9.5, 9.5])), [40.5, 50.5])
    quarter = crop_affine(np.zeros(2), 8.0, 8, np.pi / 2)
    np.testing.assert_allclose(quarter[:, :2] @ [1.0, 0.0], [0.0, 1.0], atol=1e-12)


def test_identity_and_integer_crops_copy_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(extract_crop(image, crop_affine(np.array([19.5, 19.5]), 40, 40), 40), image)
    part = extract_crop(image, crop_affine(np.array([9.5, 13.5]), 16, 16), 16)
    np.testing.assert_array_equal(part, image[6:22, 2:18])
    half = extract_crop(image, crop_affine(np.array([19.5, 19.5]), 40, 20), 20)
    blocks = image.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(half - blocks).max() <= 0.5
    outside = extract_crop(image, crop_affine(np.array([500.0, 0.0]), 16, 16), 16)
    assert (outside == 127).all()


@pytest.fixture
def make_instance(tmp_path: Path) -> Callable[..., Instance]:
    def make(number: int = 0) -> Instance:
        rng = np.random.default_rng(number)
        K = np.array([[400.0, 0, 160.2], [0, 410.0, 119.4], [0, 0, 1]])
        t = np.array([*rng.uniform(-30, 30, 2), 500.0])
        x, y = (K @ t)[:2] / t[2]
        path = tmp_path / f"{number:06d}.png"
        path.write_bytes(encode_image(dot(x, y, 320, 240, 4.0), "png"))
        bbox = np.array([x - 40, y - 30, 80.0, 60.0])
        return Instance(1, number, 1, path, K, np.eye(3), t, bbox, 1.0)

    return make


def test_augmented_crops_keep_the_pose(make_instance: Callable[..., Instance]) -> None:
    """The object's origin, projected with the item's own K, R, t, is where the crop shows it."""
    crops = CropDataset([make_instance(k) for k in range(12)], size=96, augmentation=GEOMETRY_ONLY)
    angles = []
    for epoch in range(2):
        crops.set_epoch(epoch)
        for item in crops:
            affine = item["full_from_crop"].numpy()
            projected = (item["K"] @ item["t"]).numpy()
            found = apply(affine, centroid(item["image"].numpy().transpose(1, 2, 0).copy()))
            np.testing.assert_allclose(found, projected[:2] / projected[2], atol=0.06)
            np.testing.assert_array_equal(item["R"].numpy(), np.eye(3))
            angles.append(np.arctan2(affine[1, 0], affine[0, 0]))
            assert 112 / 96 / 1.31 < np.sqrt(np.linalg.det(affine[:, :2])) < 112 / 96 * 1.31
    assert np.ptp(angles) > np.pi


def test_item_layout(make_instance: Callable[..., Instance]) -> None:
    instance = make_instance()
    crops = CropDataset([instance], size=32, padding=2.0)
    item = crops[0]
    assert item["image"].dtype == torch.uint8
    assert item["image"].shape == (3, 32, 32)
    assert {key: tuple(item[key].shape) for key in ("full_from_crop", "K", "R", "t", "index")} == {
        "full_from_crop": (2, 3),
        "K": (3, 3),
        "R": (3, 3),
        "t": (3,),
        "index": (),
    }
    assert all(item[key].dtype == torch.float64 for key in ("full_from_crop", "K", "R", "t"))
    np.testing.assert_allclose(item["full_from_crop"][:, :2], np.eye(2) * 160 / 32)
    center = item["full_from_crop"].numpy() @ [15.5, 15.5, 1]
    np.testing.assert_allclose(center, instance.bbox[:2] + instance.bbox[2:] / 2)


def test_items_depend_on_seed_epoch_and_index_only(make_instance: Callable[..., Instance]) -> None:
    instances = [make_instance(0)] * 6

    def images(seed: int, epoch: int, order: list[int]) -> dict[int, np.ndarray]:
        crops = CropDataset(instances, size=32, augmentation=Augmentation(), seed=seed)
        crops.set_epoch(epoch)
        return {k: crops[k]["image"].numpy() for k in order}

    base, again = images(3, 5, [0, 1, 2, 3, 4, 5]), images(3, 5, [5, 2, 0])
    assert all(np.array_equal(again[k], base[k]) for k in again)
    other = [base[1], *(images(seed, epoch, [0])[0] for seed, epoch in ((3, 6), (4, 5), (5, 3)))]
    assert not any(np.array_equal(image, base[0]) for image in other)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_see_the_epoch_and_the_same_crops(make_instance: Callable[..., Instance]) -> None:
    crops = CropDataset([make_instance(k) for k in range(4)], size=16, augmentation=Augmentation())
    loader = torch.utils.data.DataLoader(crops, batch_size=4, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        crops.set_epoch(epoch)
        (batch,) = list(loader)
        assert batch["full_from_crop"].shape == (4, 2, 3)
        torch.testing.assert_close(batch["image"], torch.stack([crops[k]["image"] for k in range(4)]))


def test_pictures_are_decoded_once_while_they_fit(make_instance: Callable[..., Instance]) -> None:
    instances = [make_instance(k) for k in range(3)]
    crops = CropDataset(instances, size=16).preload()
    limited = CropDataset(instances, size=16, cache_bytes=2 * 320 * 240 * 3 + 1).preload()
    for item in instances:
        item.image_path.unlink()
    assert len([crops[k] for k in range(3)]) == 3
    assert len([limited[k] for k in range(2)]) == 2
    with pytest.raises(FileNotFoundError):
        limited[2]


def test_bad_arguments(make_instance: Callable[..., Instance]) -> None:
    with pytest.raises(ValueError, match="instances"):
        CropDataset([])
    with pytest.raises(ValueError, match="padding"):
        CropDataset([make_instance()], padding=0)
    crops = CropDataset([make_instance()])
    with pytest.raises(IndexError):
        crops[1]
