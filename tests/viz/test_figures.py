from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from posegrad.data import Mesh, load_image
from posegrad.viz import GREEN, MAGENTA, picture_grid, plot_curves, pose_picture

K = np.array([[300.0, 0, 79.3], [0, 310.0, 60.8], [0, 0, 1]])


def like(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Where a picture on black has the hue of `color`, at 40 % of its brightness or more."""
    scaled = image / np.maximum(image.max(-1, keepdims=True), 1)
    return (np.abs(scaled - np.array(color) / max(color)).max(-1) < 0.1) & (image.max(-1) > 0.4 * max(color))


def test_pose_picture_centres_the_object_and_shows_both_poses() -> None:
    solid = trimesh.creation.box((40, 40, 40))
    mesh = Mesh(solid.vertices, solid.faces)
    image = np.zeros((120, 160, 3), np.uint8)
    truth, predicted = (np.eye(3), np.array([20.0, 5, 400])), (np.eye(3), np.array([28.0, 5, 400]))
    picture = pose_picture(image, mesh, K, truth, None, size=200, zoom=2.0)
    assert picture.shape == (200, 200, 3)
    rows, columns = np.nonzero(like(picture, GREEN))
    assert np.ptp(columns) == pytest.approx(100, abs=5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(99.5, abs=2)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(99.5, abs=2)
    both = pose_picture(image, mesh, K, truth, predicted, size=200, zoom=2.0)
    shift = np.nonzero(like(both, MAGENTA))[1].max() - columns.max()
    assert shift == pytest.approx(100 * 8 / 40, abs=4)
    with pytest.raises(ValueError, match="at least one pose"):
        pose_picture(image, mesh, K, None, None)


def test_grid_places_pictures() -> None:
    images = [np.full((10 + k, 20, 3), 10 * k + 5, np.uint8) for k in range(5)]
    sheet = picture_grid(images, columns=3, gap=2)
    assert sheet.shape == (2 * 16 + 2, 3 * 22 + 2, 3)
    for k, image in enumerate(images):
        y, x = 2 + k // 3 * 16, 2 + k % 3 * 22
        np.testing.assert_array_equal(sheet[y : y + 10 + k, x : x + 20], image)
    with_text = picture_grid(images, ["a very long caption that does not fit"] * 5, columns=3, gap=2)
    assert with_text.shape == (2 * (16 + 18) + 2, 68, 3)
    assert (with_text[14:34, 2:22] < 100).any()
    with pytest.raises(ValueError, match="captions"):
        picture_grid(images, ["a"])
    with pytest.raises(ValueError, match="at least one"):
        picture_grid([])


def test_curves_are_written_and_skip_what_is_not_a_number(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"step": k, "loss": 10.0 / (k + 1) ** 2, "note": "text", "late": float("nan") if k < 5 else 1.0 * k}
        for k in range(40)
    ]
    records.append({"step": 40, "recall": 0.5})
    plot_curves(records, tmp_path / "all.png", title="a run")
    plot_curves(records, tmp_path / "one.png", panels=[["loss", "late", "absent"], ["absent"]])
    everything, one = load_image(tmp_path / "all.png"), load_image(tmp_path / "one.png")
    assert everything.shape[1] == pytest.approx(3 * one.shape[1], abs=3)
    assert everything.std() > 5
    with pytest.raises(ValueError, match="no finite number"):
        plot_curves([{"step": 1}], tmp_path / "none.png")
