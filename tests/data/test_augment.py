from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from posegrad.data import Augmentation
from posegrad.data.augment import change_pixels, jitter_box

NONE = Augmentation(**{field.name: 0 for field in dataclasses.fields(Augmentation)})


def only(**changes: float) -> Augmentation:
    return dataclasses.replace(NONE, **changes)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def image() -> np.ndarray:
    rows, columns = np.indices((64, 64))
    return np.stack([60 + columns, 80 + rows, 100 + (rows + columns) // 2], axis=-1).astype(np.uint8)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_all_zero_changes_nothing(image: np.ndarray) -> None:
    before = image.copy()
    for seed in range(5):
        np.testing.assert_array_equal(change_pixels(image, NONE, rng(seed)), before)
        center, side, angle = jitter_box(np.array([3.0, 4.0]), 10.0, NONE, rng(seed))
        assert (center.tolist(), side, angle) == ([3.0, 4.0], 10.0, 0.0)


def test_input_is_left_alone(image: np.ndarray) -> None:
    before = image.copy()
    for seed in range(20):
        result = change_pixels(image, Augmentation(cutout_probability=1), rng(seed))
        assert result.shape == image.shape
        assert result.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_box_jitter_stays_in_its_range() -> None:
    augmentation = only(shift=0.1, scale=0.5, rotation_deg=30)
    draws = [jitter_box(np.zeros(2), 100.0, augmentation, rng(seed)) for seed in range(400)]
    centers, sides, angles = (
        np.array([d[0] for d in draws]),
        np.array([d[1] for d in draws]),
        [d[2] for d in draws],
    )
    assert 9 < np.abs(centers).max() <= 10
    assert 66.6 < sides.min() < 70
    assert 145 < sides.max() <= 150
    assert np.abs(np.log(sides / 100)).mean() == pytest.approx(np.log(1.5) / 2, rel=0.1)
    assert 28 < np.degrees(np.abs(angles)).max() <= 30


def test_brightness_and_contrast(image: np.ndarray) -> None:
    offsets = [change_pixels(image, only(brightness=0.2), rng(s)).astype(float) - image for s in range(60)]
    assert max(np.ptp(offset) for offset in offsets) == 0
    assert 40 < max(abs(offset.mean()) for offset in offsets) <= 51
    for seed in range(20):
        result = change_pixels(image, only(contrast=0.5), rng(seed)).astype(float)
        factor = result[..., 0].std() / image[..., 0].std()
        assert 1 / 1.52 < factor < 1.52
        assert result.mean() == pytest.approx(image.mean(), abs=1)


def test_color_mixes_channels_and_keeps_the_mean(image: np.ndarray) -> None:
    differences = []
    for seed in range(20):
        result = change_pixels(image, only(color=0.3), rng(seed)).astype(float)
        np.testing.assert_allclose(result.mean((0, 1)), image.mean((0, 1)), atol=1.5)
        differences.append(np.abs(result - image).mean())
    assert np.mean(differences) > 2


def test_noise_has_the_right_strength_and_no_bias(image: np.ndarray) -> None:
    deviations = []
    for seed in range(60):
        noise = (
            change_pixels(image, only(noise_probability=1, noise_sigma=10), rng(seed)).astype(float) - image
        )
        assert abs(noise.mean()) < 0.5
        deviations.append(noise.std())
    assert 8.5 < max(deviations) < 10.3
    assert np.mean(deviations) == pytest.approx(5, abs=1)


def test_blur_smooths(image: np.ndarray) -> None:
    noisy = rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    for seed in range(10):
        assert change_pixels(noisy, only(blur_probability=1, blur_sigma=2), rng(seed)).std() < noisy.std()


def test_cutout_covers_a_few_rectangles(image: np.ndarray) -> None:
    shares = []
    for seed in range(40):
        augmentation = only(cutout_probability=1, cutout_count=3, cutout_size=0.3)
        changed = (change_pixels(image, augmentation, rng(seed)) != image).any(-1)
        shares.append(changed.mean())
    assert max(shares) <= 3 * 0.32**2
    assert np.mean(shares) > 0.03
    assert np.array(
        [
            change_pixels(
                image, only(cutout_probability=0.5, cutout_count=1, cutout_size=0.5), rng(s)
            ).tobytes()
            != image.tobytes()
            for s in range(100)
        ]
    ).mean() == pytest.approx(0.5, abs=0.15)
