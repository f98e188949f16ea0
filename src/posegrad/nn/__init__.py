"""Learning parts: keypoint network, heatmap decoding, losses and pose metrics (needs `posegrad[train]`)."""

from posegrad.nn.backbone import Backbone, create_backbone, load_backbone_weights
from posegrad.nn.heatmaps import (
    crop_from_cell,
    gaussian_heatmap,
    heatmap_covariance,
    heatmap_spread,
    information_matrices,
    map_covariance,
    map_points,
    soft_argmax,
    spatial_softmax,
)
from posegrad.nn.losses import crop_extent, heatmap_loss, inside_crop, mixture, pose_loss, warm_up
from posegrad.nn.metrics import (
    MSPD_THRESHOLDS,
    MSSD_THRESHOLDS,
    add,
    adds,
    average_recall,
    mspd,
    mssd,
    projection_2d,
    recall,
    recall_5cm_5deg,
    rotation_error_deg,
    translation_error,
)
from posegrad.nn.network import KeypointPoseNet, KeypointPrediction
from posegrad.nn.normalisation import set_normalisation
from posegrad.nn.symmetric import nearest_symmetric_pose, stack_symmetries

__all__ = [
    "MSPD_THRESHOLDS",
    "MSSD_THRESHOLDS",
    "Backbone",
    "KeypointPoseNet",
    "KeypointPrediction",
    "add",
    "adds",
    "average_recall",
    "create_backbone",
    "crop_extent",
    "crop_from_cell",
    "gaussian_heatmap",
    "heatmap_covariance",
    "heatmap_loss",
    "heatmap_spread",
    "information_matrices",
    "inside_crop",
    "load_backbone_weights",
    "map_covariance",
    "map_points",
    "mixture",
    "mspd",
    "mssd",
    "nearest_symmetric_pose",
    "pose_loss",
    "projection_2d",
    "recall",
    "recall_5cm_5deg",
    "rotation_error_deg",
    "set_normalisation",
    "soft_argmax",
    "spatial_softmax",
    "stack_symmetries",
    "translation_error",
    "warm_up",
]
