"""Single arguments of a call, as the kernels read them."""

from typing import Any

import torch
from torch import Tensor, nn

from posegrad.cameras import Camera
from posegrad.kernels.families import MATRIX, MODELS

PLAIN = (Tensor, nn.Parameter)
SINGLE = {torch.float64: 0, torch.float32: 1}


class Unserved(Exception):
    """Why the kernels do not serve a call."""


class Unusual(Exception):
    """A tensor that kernels do not read as it is: of half precision, or with several batch dimensions."""


def read(name: str, tensor: Tensor, trailing: int) -> tuple[int, tuple[int, ...], int]:
    """How many items a tensor has (-1: no batch dimension), strides, the batch's first, and whether it is float32."""
    if type(tensor) not in PLAIN or not tensor.is_cpu or tensor.is_neg():
        raise Unserved(f"{name} is not a plain tensor on the CPU")
    single = SINGLE.get(tensor.dtype)
    extra = tensor.ndim - trailing
    if single is None or extra > 1:
        raise Unusual(name)
    strides = tensor.stride()
    if extra == 0:
        return -1, (0, *strides), single
    items = tensor.shape[0]
    return items, strides if items != 1 else (0, *strides[1:]), single


def camera_of(camera: Camera | Tensor) -> tuple[Tensor, tuple[int, ...], str, int, Tensor | None]:
    """Parameters, which of them the coefficients are, family, how many of those are in pixels, limit of the field."""
    if isinstance(camera, Tensor):
        if camera.ndim < 2 or camera.shape[-2:] != (3, 3):
            raise Unserved("the camera is not (..., 3, 3)")
        family, coefficients, num_pixel = MATRIX
        return camera, coefficients, family, num_pixel, None
    model = MODELS.get(type(camera))
    if model is None:
        raise Unserved(f"the camera is a {type(camera).__name__}")
    return camera.params, model.coefficients, model.family, model.num_pixel, getattr(camera, "limit", None)


def kind_of(weights: Any, count: int) -> int:
    """How many dimensions of the weights belong to a point."""
    if type(weights) not in PLAIN:
        raise Unserved("the weights are not a plain tensor")
    shape = weights.shape
    if shape[-1:] == (count,):
        return 1
    if shape[-2:] == (count, 2):
        return 2
    if shape[-3:] == (count, 2, 2):
        return 3
    raise Unserved("the weights are of another shape")


def mask_of(mask: Any, count: int, items: list[int]) -> tuple[int, int, int]:
    """Address and strides of a mask, whose number of items is added to the others'."""
    if (
        type(mask) not in PLAIN
        or not mask.is_cpu
        or mask.dtype is not torch.bool
        or mask.shape[-1:] != (count,)
    ):
        raise Unserved("the mask is not a plain tensor (..., N)")
    if mask.ndim > 2:
        raise Unusual("mask")
    strides = mask.stride()
    if mask.ndim == 1:
        return mask.data_ptr(), 0, strides[0]
    items.append(mask.shape[0])
    return mask.data_ptr(), strides[0] if mask.shape[0] != 1 else 0, strides[1]
