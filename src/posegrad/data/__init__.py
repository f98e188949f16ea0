"""Datasets: BOP reader and writer, crops and augmentation, keypoints, and the rendered toy dataset.

Needs the extra: `pip install posegrad[train]`. Lengths are millimetres, intrinsics row-major.
"""

from posegrad.data.augment import Augmentation
from posegrad.data.bop import BopDataset, Instance
from posegrad.data.bop_results import (
    PoseEstimate,
    PoseTarget,
    read_bop_results,
    read_bop_targets,
    write_bop_results,
)
from posegrad.data.bop_writer import Annotation, BopWriter
from posegrad.data.check import check_dataset
from posegrad.data.cropping import crop_affine, extract_crop
from posegrad.data.crops import CropDataset
from posegrad.data.detections import Detection, best_detections, read_detections
from posegrad.data.errors import DatasetError, DatasetFileError
from posegrad.data.image import encode_image, load_image
from posegrad.data.json_files import read_split
from posegrad.data.keypoints import box_keypoints, farthest_point_keypoints, read_keypoints
from posegrad.data.mesh import Mesh, load_mesh, mesh_diameter
from posegrad.data.mesh_import import import_mesh
from posegrad.data.novel_views import NovelViews
from posegrad.data.procedural import procedural_object
from posegrad.data.render_config import FrameConfig, RenderConfig
from posegrad.data.render_objects import render_objects
from posegrad.data.symmetry import symmetry_transforms
from posegrad.data.texturing import texture_mesh
from posegrad.data.toy import render_dataset, toy_dataset

__all__ = [
    "Annotation",
    "Augmentation",
    "BopDataset",
    "BopWriter",
    "CropDataset",
    "DatasetError",
    "DatasetFileError",
    "Detection",
    "FrameConfig",
    "Instance",
    "Mesh",
    "NovelViews",
    "PoseEstimate",
    "PoseTarget",
    "RenderConfig",
    "best_detections",
    "box_keypoints",
    "check_dataset",
    "crop_affine",
    "encode_image",
    "extract_crop",
    "farthest_point_keypoints",
    "import_mesh",
    "load_image",
    "load_mesh",
    "mesh_diameter",
    "procedural_object",
    "read_bop_results",
    "read_bop_targets",
    "read_detections",
    "read_keypoints",
    "read_split",
    "render_dataset",
    "render_objects",
    "symmetry_transforms",
    "texture_mesh",
    "toy_dataset",
    "write_bop_results",
]
