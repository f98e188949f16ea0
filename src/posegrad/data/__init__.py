"""Datasets: BOP reader and writer, crops and augmentation, keypoints, and the rendered toy dataset.

Needs the extra: `pip install posegrad[train]`. Lengths are millimetres, intrinsics row-major.
"""

from .augment import Augmentation
from .bop import BopDataset, Instance, read_split
from .bop_writer import Annotation, BopWriter
from .crops import CropDataset, crop_affine, extract_crop
from .errors import DatasetError, DatasetFileError
from .image import encode_image, load_image
from .keypoints import farthest_point_keypoints
from .mesh import Mesh, load_mesh, mesh_diameter
from .procedural import procedural_object
from .render import RenderConfig
from .toy import render_dataset, toy_dataset

__all__ = [
    "Annotation",
    "Augmentation",
    "BopDataset",
    "BopWriter",
    "CropDataset",
    "DatasetError",
    "DatasetFileError",
    "Instance",
    "Mesh",
    "RenderConfig",
    "crop_affine",
    "encode_image",
    "extract_crop",
    "farthest_point_keypoints",
    "load_image",
    "load_mesh",
    "mesh_diameter",
    "procedural_object",
    "read_split",
    "render_dataset",
    "toy_dataset",
]
