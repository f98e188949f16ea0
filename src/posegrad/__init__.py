"""Backpropagate through geometric-vision optimisation, first of all Perspective-n-Point.

>>> import posegrad as pg
>>> pg.Status.CONVERGED.advice
'Converged to a minimum: the answer and its gradient are exact.'
"""

import importlib
from typing import TYPE_CHECKING, Any

from posegrad import cameras as cameras
from posegrad import manifolds as manifolds
from posegrad import robust as robust
from posegrad import so3 as so3
from posegrad.generic.least_squares import least_squares as least_squares
from posegrad.generic.minimise import minimise as minimise
from posegrad.generic.problems import objective_problem as objective_problem
from posegrad.generic.problems import residual_problem as residual_problem
from posegrad.optim.adjoint import Implicit as Implicit
from posegrad.optim.adjoint import Unrolled as Unrolled
from posegrad.optim.argmin import argmin_layer as argmin_layer
from posegrad.optim.conjugate_gradients import ConjugateGradients as ConjugateGradients
from posegrad.optim.constrained import ConstrainedSolution as ConstrainedSolution
from posegrad.optim.damped_steps import DampedPath as DampedPath
from posegrad.optim.damped_steps import damped_steps as damped_steps
from posegrad.optim.gauss_newton import Dogleg as Dogleg
from posegrad.optim.gauss_newton import GaussNewton as GaussNewton
from posegrad.optim.interior_point import InteriorPoint as InteriorPoint
from posegrad.optim.lbfgs import LBFGS as LBFGS
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from posegrad.optim.newton import Newton as Newton
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
from posegrad.problems.reprojection_problem import ReprojectionProblem as ReprojectionProblem
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
