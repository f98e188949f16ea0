"""Backpropagate through geometric-vision optimisation, first of all Perspective-n-Point.

>>> import posegrad as pg
>>> pg.Status.CONVERGED.advice
'Converged to a minimum: the answer and its gradient are exact.'
"""

import importlib
from typing import TYPE_CHECKING, Any

from posegrad import cameras as cameras
from posegrad import robust as robust
from posegrad import so3 as so3
from posegrad.optim.adjoint import Implicit as Implicit
from posegrad.optim.adjoint import Unrolled as Unrolled
from posegrad.optim.argmin import argmin_layer as argmin_layer
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from posegrad.optim.problem import Problem as Problem
from posegrad.optim.solution import Solution as Solution
from posegrad.optim.solution import masked_mean as masked_mean
from posegrad.optim.status import Status as Status
from posegrad.pose import Pose as Pose
from posegrad.problems.calibration import CalibrationSolution as CalibrationSolution
from posegrad.problems.calibration import calibrate_camera as calibrate_camera
from posegrad.problems.constraints import PoseConstraint as PoseConstraint
from posegrad.problems.focal import FocalSolution as FocalSolution
from posegrad.problems.focal import estimate_focal as estimate_focal
from posegrad.problems.pnp import PnP as PnP
from posegrad.problems.pnp import PnPSolution as PnPSolution
from posegrad.problems.pnp import solve_pnp as solve_pnp
from posegrad.problems.prior import PosePrior as PosePrior
from posegrad.problems.uncertainty import pose_covariance as pose_covariance
from posegrad.projection import project_points as project_points
from posegrad.projection import reprojection_residuals as reprojection_residuals
from posegrad.ragged import pad as pad

if TYPE_CHECKING:
    from posegrad import compat as compat
    from posegrad import data as data
    from posegrad import nn as nn

__version__ = "0.1.0"

_LAZY = ("compat", "data", "nn")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"posegrad.{name}")
    raise AttributeError(f"module 'posegrad' has no attribute {name!r}")
