"""The job of `posegrad demo`."""

from __future__ import annotations

from typing import Annotated

import tyro

from posegrad.experiments.calibration import CalibrationConfig, run_calibration
from posegrad.experiments.chessboards import ChessboardConfig, run_chessboards
from posegrad.experiments.pose import PoseConfig, run_pose
from posegrad.experiments.report import Report
from posegrad.experiments.sfm import SfmConfig, run_sfm

__all__ = ["demo"]


def demo(
    experiment: Annotated[PoseConfig, tyro.conf.subcommand("pose")]
    | Annotated[SfmConfig, tyro.conf.subcommand("sfm")]
    | Annotated[CalibrationConfig, tyro.conf.subcommand("calibration")]
    | Annotated[ChessboardConfig, tyro.conf.subcommand("chessboards")],
) -> Report:
    """Run an experiment of the paper (Chen et al., CVPR 2020): figures and numbers in a run folder, a table."""
    match experiment:
        case PoseConfig():
            return run_pose(experiment)
        case SfmConfig():
            return run_sfm(experiment)
        case CalibrationConfig():
            return run_calibration(experiment)
        case ChessboardConfig():
            return run_chessboards(experiment)
