"""Cameras from and to what OpenCV and COLMAP call one."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.cameras.base import Camera
from posegrad.cameras.models import MODELS, FullOpenCV, OpenCV, OpenCVFisheye
from posegrad.cameras.pinhole import SkewPinhole


def as_camera(camera: "Camera | Float[Tensor, '*batch 3 3']") -> Camera:
    """The camera itself, or the one a calibration matrix K (..., 3, 3) stands for.

    Raises:
        TypeError, ValueError: for anything else.

    >>> K = torch.tensor([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    >>> as_camera(K).name
    'SKEW_PINHOLE'
    """
    if isinstance(camera, Camera):
        return camera
    if not isinstance(camera, Tensor):
        raise TypeError(
            f"camera: got {type(camera).__name__}, expected a (..., 3, 3) calibration matrix K as a torch.Tensor "
            "or a camera object such as pg.cameras.Pinhole"
        )
    if camera.ndim < 2 or tuple(camera.shape[-2:]) != (3, 3):
        raise ValueError(
            f"camera: got a tensor of shape {tuple(camera.shape)}, expected a calibration matrix K (..., 3, 3); "
            "for a parameter vector use pg.cameras.Pinhole(params)"
        )
    if not camera.is_floating_point():
        raise TypeError(f"camera: got dtype {camera.dtype}, expected a floating-point dtype; use K.double()")
    return SkewPinhole.from_matrix(camera)


def from_opencv(K: Float[Tensor, "*batch 3 3"], dist: Float[Tensor, "*batch D"]) -> OpenCV | FullOpenCV:
    """The camera of OpenCV's ``cameraMatrix`` and ``distCoeffs``.

    Four coefficients (k1, k2, p1, p2) make an :class:`OpenCV` camera, five (k3) or eight (k4, k5, k6) a
    :class:`FullOpenCV` one. Differentiable; pixel centres are the same.

    Args:
        K: (..., 3, 3) in pixels, without skew (OpenCV ignores it); a tensor or an array.
        dist: (..., D) with D = 4, 5 or 8; a tensor or an array. Leading dimensions broadcast. OpenCV's own (1, D)
            and (D, 1) arrays of a single camera are taken as (D,).

    Raises:
        ValueError: for a skew (under ``vmap``, which cannot raise for one item, its parameters are NaN), for other
            numbers of coefficients (the thin-prism and tilt terms of 12 and 14 are not supported: calibrate without
            them, or pass ``dist[..., :8]`` where they are zero).

    >>> K = torch.tensor([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    >>> from_opencv(K, torch.tensor([-0.2, 0.05, 1e-3, 0.0])).name
    'OPENCV'
    """
    K, dist = _matrix(K, "from_opencv"), _coefficients(K, dist, "dist")
    count = dist.shape[-1]
    if count not in (4, 5, 8):
        hint = "calibrate without tilt and thin-prism terms, or pass dist[..., :8] where they are zero"
        hint = (
            hint if count in (12, 14) else "fill up with zeros to (k1, k2, p1, p2, k3)" if count < 4 else hint
        )
        raise ValueError(
            f"dist: got {count} coefficients (shape {tuple(dist.shape)}), expected 4, 5 or 8; {hint}"
        )
    params = _joined(K, dist)
    if count == 4:
        return OpenCV(params)
    missing = params.new_zeros(*params.shape[:-1], 8 - count)
    return FullOpenCV(torch.cat([params, missing], -1))


def from_opencv_fisheye(K: Float[Tensor, "*batch 3 3"], D: Float[Tensor, "*batch 4"]) -> OpenCVFisheye:
    """The camera of the ``K`` and ``D`` of OpenCV's ``fisheye`` module.

    Args:
        K: (..., 3, 3) in pixels, without skew; a tensor or an array.
        D: (..., 4) = (k1, k2, k3, k4); OpenCV's own (1, 4) and (4, 1) arrays of a single camera are taken as (4,).

    Raises:
        ValueError: for a skew (calibrate with ``cv2.fisheye.CALIB_FIX_SKEW``), for another number of coefficients.

    >>> K = torch.tensor([[200.0, 0, 320], [0, 200, 240], [0, 0, 1]])
    >>> from_opencv_fisheye(K, torch.zeros(4)).params
    tensor([200., 200., 320., 240.,   0.,   0.,   0.,   0.])
    """
    K, D = _matrix(K, "from_opencv_fisheye"), _coefficients(K, D, "D")
    if D.shape[-1] != 4:
        raise ValueError(
            f"D: got {D.shape[-1]} coefficients (shape {tuple(D.shape)}), expected 4 = (k1, k2, k3, k4); "
            "for cv2.calibrateCamera's coefficients use from_opencv"
        )
    return OpenCVFisheye(_joined(K, D))


def from_colmap(model_name: str, params: Any) -> Camera:
    """The camera of a COLMAP model name and its parameters; the centre moves by half a pixel.

    COLMAP's first pixel has its centre at (0.5, 0.5), here it is (0, 0): ``cx -= 0.5, cy -= 0.5``. So are the points:
    subtract 0.5 from COLMAP's image coordinates, too.

    Args:
        model_name: such as ``"SIMPLE_RADIAL"``; ``pycolmap.Camera.model_name`` (a :class:`pycolmap.CameraModelId`'s
            name).
        params: (..., P) in COLMAP's order: a tensor, an array or a list. Differentiable.

    Raises:
        ValueError: for a name that is not a COLMAP model supported here, or a wrong number of parameters.

    >>> from_colmap("SIMPLE_PINHOLE", [500.0, 320.0, 240.0]).params.tolist()
    [500.0, 319.5, 239.5]
    """
    known = {name: model for name, model in MODELS.items() if model is not SkewPinhole}
    if model_name not in known:
        raise ValueError(f"model_name: got {model_name!r}, expected one of {', '.join(known)}")
    if not isinstance(params, Tensor):
        params = torch.as_tensor(np.asarray(params, dtype=np.float64))
    return _shifted(known[model_name](params), -0.5)


def to_colmap(camera: Camera) -> tuple[str, Tensor]:
    """COLMAP's name and parameters of a camera, the inverse of :func:`from_colmap`.

    Raises:
        ValueError: for a model that COLMAP does not have, as one with skew.

    >>> to_colmap(OpenCVFisheye(torch.tensor([200.0, 200, 320, 240, 0, 0, 0, 0])))[1][:4].tolist()
    [200.0, 200.0, 320.5, 240.5]
    """
    if not isinstance(camera, Camera):
        raise TypeError(f"camera: got {type(camera).__name__}, expected a pg.cameras.Camera")
    if type(camera) is not MODELS.get(camera.name) or isinstance(camera, SkewPinhole):
        raise ValueError(
            f"camera: COLMAP has no model like {type(camera).__name__}; without skew use pg.cameras.Pinhole"
        )
    return camera.name, _shifted(camera, 0.5).params


def _shifted(camera: Camera, offset: float) -> Camera:
    moved = [
        offset if name in ("cx", "cy") else 0.0 for name in camera.parameter_names
    ]  # of the centre, in pixels
    return camera.in_same_field(camera.params + camera.params.new_tensor(moved))


def _matrix(K: Any, function: str) -> Tensor:
    K = torch.as_tensor(K)
    if not K.is_floating_point():
        raise TypeError(f"K: got dtype {K.dtype}, expected a floating-point dtype")
    if K.ndim < 2 or tuple(K.shape[-2:]) != (3, 3):
        raise ValueError(f"K: got shape {tuple(K.shape)}, expected (..., 3, 3)")
    skewed = K.detach()[..., 0, 1] != 0
    if _is_mapped(skewed):  # its values cannot be asked for
        return torch.where(skewed[..., None, None], torch.nan, K)
    if bool(skewed.any()):
        raise ValueError(
            f"K: got a skew (K[..., 0, 1] != 0), which {function} has no model for; set it to zero, or use K as it is "
            "where there is no distortion"
        )
    return K


def _is_mapped(value: Tensor) -> bool:
    """Whether torch.func.vmap is at work on a tensor."""
    transforms = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while transforms.is_gradtrackingtensor(value):
        value = transforms.get_unwrapped(value)
    return transforms.is_batchedtensor(value)


def _coefficients(K: Any, values: Any, name: str) -> Tensor:
    single = not isinstance(values, Tensor) and len(K.shape) == 2
    values = torch.as_tensor(values)
    if not values.is_floating_point():
        raise TypeError(f"{name}: got dtype {values.dtype}, expected a floating-point dtype")
    if values.ndim == 0:
        raise ValueError(f"{name}: got shape (), expected (..., D)")
    return values.flatten() if single else values


def _joined(K: Tensor, coefficients: Tensor) -> Tensor:
    """fx, fy, cx, cy and the coefficients, (..., 4 + D)."""
    pixels = torch.stack([K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2]], -1)
    batch = torch.broadcast_shapes(pixels.shape[:-1], coefficients.shape[:-1])
    return torch.cat([pixels.expand(*batch, 4), coefficients.expand(*batch, -1)], -1)
