"""Shapes are checked at run time in the tests only, and only behind the public door, whose own errors come first."""

import jaxtyping
import torch

jaxtyping.install_import_hook(
    [
        "posegrad.optim.problem",
        "posegrad.optim.linear",
        "posegrad.minimal",
        "posegrad.problems.reprojection",
        "posegrad.problems.conditioning",
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)
