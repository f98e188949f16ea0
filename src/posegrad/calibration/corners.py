"""Corners of a chessboard in an image, by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

# Sub-pixel refinement looks at this many pixels around a corner at most, and never as far as the next one.
_LARGEST_WINDOW, _SMALLEST_WINDOW = 11, 2
_STOP = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 1e-3)


def board_points(columns: int, rows: int, square: float = 1.0) -> np.ndarray:
    """The board's inner corners (columns * rows, 3), row by row, z = 0, from the first at the origin."""
    y, x = np.divmod(np.arange(columns * rows), columns)
    return square * np.stack([x, y, np.zeros_like(x)], -1).astype(np.float64)


def find_corners(image: np.ndarray, columns: int, rows: int) -> np.ndarray | None:
    """Pixels (columns * rows, 2) of the inner corners, row by row, to a fraction of a pixel; None: not found.

    Args:
        image: (H, W, 3) uint8 RGB; the centre of the top-left pixel is (0, 0).
        columns, rows: inner corners. On a board with as many columns as rows, or with both odd, which corner is the
            first is not determined: all views stay usable, their poses then differ by a turn of the board.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found, corners = cv2.findChessboardCorners(grey, (columns, rows))
    if not found:
        found, corners = cv2.findChessboardCornersSB(grey, (columns, rows))
        return corners.reshape(-1, 2).astype(np.float64) if found else None
    grid = corners.reshape(rows, columns, 2)
    steps = [np.linalg.norm(np.diff(grid, axis=axis), axis=-1).min() for axis in (0, 1)]
    window = int(np.clip(min(steps) / 2, _SMALLEST_WINDOW, _LARGEST_WINDOW))
    refined = cv2.cornerSubPix(grey, corners, (window, window), (-1, -1), _STOP)
    return refined.reshape(-1, 2).astype(np.float64)
