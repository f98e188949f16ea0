"""The paper's experiments, and one on a real camera: `posegrad demo`. Needs `pip install posegrad[train]`.

Settings are those of the paper's public code. Each experiment is a settings class and a function that runs it.

Reference: Chen et al., "End-to-End Learnable Geometric Vision by Backpropagating PnP Optimization", CVPR 2020.
"""

from posegrad.experiments.calibration import CalibrationConfig, run_calibration
from posegrad.experiments.chessboards import ChessboardConfig, run_chessboards
from posegrad.experiments.pose import PoseConfig, run_pose
from posegrad.experiments.report import Report
from posegrad.experiments.sfm import SfmConfig, run_sfm

__all__ = [
    "CalibrationConfig",
    "ChessboardConfig",
    "PoseConfig",
    "Report",
    "SfmConfig",
    "run_calibration",
    "run_chessboards",
    "run_pose",
    "run_sfm",
]
