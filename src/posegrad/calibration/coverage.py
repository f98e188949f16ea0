"""Whether a set of views can determine a camera well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 5
# What counts as weak.
_FEWEST_VIEWS, _LEAST_CELLS, _LEAST_REACH = 5, 0.6, 0.7
_TILT_DEGREES, _FEWEST_TILTED, _LARGEST_FOCAL_STD = 15.0, 3, 0.01


@dataclass(frozen=True)
class Coverage:
    """How the views cover image and angles, and what is weak about it.

    Args:
        cells: (5, 5) corners in each cell of a grid over the image.
        reach: distance of the farthest corner from the image's centre over half the image's diagonal.
        tilts: of the boards against the image, degrees (V,).
        warnings: one sentence for each weakness.
    """

    cells: np.ndarray
    reach: float
    tilts: np.ndarray
    warnings: tuple[str, ...]


def judge_coverage(
    points2d: np.ndarray, rotations: np.ndarray, image_size: tuple[int, int], focal_std: float
) -> Coverage:
    """Judge views by five rules; each is a warning, none an error.

    - at least 5 views;
    - corners in at least 60 % of the cells of a 5 x 5 grid over the image;
    - a corner farther from the centre than 70 % of half the diagonal: beyond the farthest, distortion is extrapolated;
    - at least 3 views of a board tilted by 15 degrees or more: boards parallel to the image do not tell focal length
      from distance;
    - a standard deviation of the focal length of at most 1 %.

    Args:
        points2d: (V, N, 2) pixels.
        rotations: (V, 3, 3) ``cam_from_board``; the board is its plane z = 0.
        image_size: (width, height).
        focal_std: standard deviation of the focal length over the focal length.
    """
    size = np.asarray(image_size, dtype=np.float64)
    at = np.floor((points2d.reshape(-1, 2) + 0.5) / size * GRID).astype(int).clip(0, GRID - 1)
    cells = np.zeros((GRID, GRID), dtype=int)
    np.add.at(cells, (at[:, 1], at[:, 0]), 1)
    from_centre = points2d.reshape(-1, 2) - (size - 1) / 2
    reach = float(np.linalg.norm(from_centre, axis=-1).max() / (np.linalg.norm(size) / 2))
    tilts = np.degrees(np.arccos(np.abs(rotations[:, 2, 2]).clip(0, 1)))
    covered, tilted = float((cells > 0).mean()), int((tilts >= _TILT_DEGREES).sum())
    rules = (
        (len(points2d) >= _FEWEST_VIEWS, f"{len(points2d)} views: take at least {_FEWEST_VIEWS}"),
        (
            covered >= _LEAST_CELLS,
            f"corners in {covered:.0%} of the image's cells: move the board over all of the image "
            f"(at least {_LEAST_CELLS:.0%})",
        ),
        (
            reach >= _LEAST_REACH,
            f"the farthest corner is at {reach:.0%} of half the diagonal: distortion beyond is extrapolated "
            f"(at least {_LEAST_REACH:.0%})",
        ),
        (
            tilted >= _FEWEST_TILTED,
            f"{tilted} views are tilted by {_TILT_DEGREES:.0f} degrees or more: tilt the board in at least "
            f"{_FEWEST_TILTED}",
        ),
        (
            not focal_std > _LARGEST_FOCAL_STD or not np.isfinite(focal_std),
            f"the focal length is known to {focal_std:.1%} only: tilt the board more, come closer, add views",
        ),
    )
    return Coverage(cells, reach, tilts, tuple(sentence for fine, sentence in rules if not fine))
