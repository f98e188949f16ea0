"""Training and evaluation of keypoint pose networks (needs `posegrad[train]`)."""

from posegrad.train.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.evaluation import compare, mean_pose, mean_row, measure, table
from posegrad.train.poses import pose_lines, write_poses
from posegrad.train.predictor import PosePredictor, Predictions
from posegrad.train.run import evaluate, train
from posegrad.train.scoring import Scores, bop_scores, score
from posegrad.train.source import ObjectModel, Source, open_source

__all__ = [
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "ObjectModel",
    "OptimizerConfig",
    "PosePredictor",
    "Predictions",
    "RunConfig",
    "RunError",
    "Scores",
    "Source",
    "TrainConfig",
    "bop_scores",
    "compare",
    "evaluate",
    "mean_pose",
    "mean_row",
    "measure",
    "open_source",
    "pose_lines",
    "score",
    "table",
    "train",
    "write_poses",
]
