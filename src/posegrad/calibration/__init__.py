"""`posegrad calibrate`: from images of a chessboard to files and figures (needs `posegrad[train]`).

The solver is :func:`posegrad.calibrate_camera`.
"""

from posegrad.calibration.config import CalibrateConfig
from posegrad.calibration.corners import board_points, find_corners
from posegrad.calibration.coverage import Coverage, judge_coverage
from posegrad.calibration.run import CalibrationReport, calibrate

__all__ = [
    "CalibrateConfig",
    "CalibrationReport",
    "Coverage",
    "board_points",
    "calibrate",
    "find_corners",
    "judge_coverage",
]
