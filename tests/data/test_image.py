"""Reading pictures of all depths."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posegrad.data.errors import DatasetError
from posegrad.data.image import load_image


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_upper_8(tmp_path: Path, suffix: str) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(load_image(tmp_path / f"a.{suffix}"), np.repeat(grey[..., None], 3, -1))


def test_floats_are_one_line(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(
        DatasetError, match=r"a\.tif is truncated or not an image \(mode F instead of 8 or 16 bits\)"
    ):
        load_image(tmp_path / "a.tif")
