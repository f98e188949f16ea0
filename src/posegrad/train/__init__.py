"""Training and evaluation of keypoint pose networks (needs `posegrad[train]`)."""

from posegrad.train.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.evaluation import Predictions, mean_pose, measure, predict, table
from posegrad.train.run import evaluate, train
from posegrad.train.scoring import Scores, bop_scores, score
from posegrad.train.source import Source, open_source

__all__ = [
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Predictions",
    "RunConfig",
    "RunError",
    "Scores",
    "Source",
    "TrainConfig",
    "bop_scores",
    "evaluate",
    "mean_pose",
    "measure",
    "open_source",
    "predict",
    "score",
    "table",
    "train",
]
