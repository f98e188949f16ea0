"""Training and evaluation of keypoint pose networks (needs `posegrad[train]`)."""

from posegrad.train.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.evaluation import Predictions, mean_pose, measure, predict, table
from posegrad.train.run import evaluate, train
from posegrad.train.source import Source, open_source

__all__ = [
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Predictions",
    "RunConfig",
    "RunError",
    "Source",
    "TrainConfig",
    "evaluate",
    "mean_pose",
    "measure",
    "open_source",
    "predict",
    "table",
    "train",
]
