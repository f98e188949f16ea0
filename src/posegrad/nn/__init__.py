"""Learning parts: keypoint network, heatmap decoding, losses and pose metrics (needs `posegrad[train]`)."""

from posegrad.nn.backbone import Backbone, create_backbone, load_backbone_weights
from posegrad.nn.heatmaps import (
    crop_from_cell,
    gaussian_heatmap,
    heatmap_moments,
    heatmap_spread,
    map_points,
    soft_argmax,
    spatial_softmax,
)
from posegrad.nn.losses import crop_extent, heatmap_loss, inside_crop, mixture, pose_loss, warm_up
from posegrad.nn.metrics import (
    add,
    adds,
    projection_2d,
    recall,
    recall_5cm_5deg,
    rotation_error_deg,
    translation_error,
)
from posegrad.nn.network import KeypointPoseNet, KeypointPrediction
from posegrad.nn.normalisation import set_normalisation

__all__ = [
    "Backbone",
    "KeypointPoseNet",
    "KeypointPrediction",
    "add",
    "adds",
    "create_backbone",
    "crop_extent",
    "crop_from_cell",
    "gaussian_heatmap",
    "heatmap_loss",
    "heatmap_moments",
    "heatmap_spread",
    "inside_crop",
    "load_backbone_weights",
    "map_points",
    "mixture",
    "pose_loss",
    "projection_2d",
    "recall",
    "recall_5cm_5deg",
    "rotation_error_deg",
    "set_normalisation",
    "soft_argmax",
    "spatial_softmax",
    "translation_error",
    "warm_up",
]
