"""From and to OpenCV's and COLMAP's cameras: order, half pixels, batches, gradients, wrong calls."""

from collections.abc import Callable

import numpy as np
import pycolmap
import pytest
import torch
from torch.autograd import gradcheck

import posegrad as pg
from posegrad.cameras import (
    MODELS,
    FullOpenCV,
    OpenCV,
    OpenCVFisheye,
    Pinhole,
    from_colmap,
    from_opencv,
    from_opencv_fisheye,
    to_colmap,
)
from tests.cameras.samples import camera, points_in_field

_K = torch.tensor([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "SKEW_PINHOLE"])
def test_colmap_there_and_back(name: str) -> None:
    model = camera(name)
    label, params = to_colmap(model)
    assert label == name
    theirs = pycolmap.Camera(model=label, width=640, height=480, params=params.numpy())
    assert tuple(theirs.params_info.replace(" ", "").split(",")) == model.parameter_names
    assert theirs.focal_length_idxs() == list(range(model.num_focal))
    again = from_colmap(theirs.model_name, theirs.params)
    assert type(again) is type(model)
    torch.testing.assert_close(again.params, model.params, rtol=0, atol=0)
    points = points_in_field(model, 10, 0.5)
    torch.testing.assert_close(again.project(points).points2d, model.project(points).points2d, rtol=0, atol=0)


def test_colmap_batches_dtypes_and_gradients() -> None:
    params = torch.rand(2, 3, 4)
    model = from_colmap("SIMPLE_RADIAL", params)
    assert model.params.dtype == torch.float32
    assert model.params.shape == (2, 3, 4)
    torch.testing.assert_close(to_colmap(model)[1], params)
    values = torch.tensor([500.0, 320.5, 240.5, -0.1], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[0.1, 0.2, 1.0]], dtype=torch.float64)
    assert gradcheck(lambda p: from_colmap("SIMPLE_RADIAL", p).project(points).points2d, values)
    assert gradcheck(lambda p: to_colmap(from_colmap("SIMPLE_RADIAL", p))[1], values)


def test_opencv_coefficients_find_their_places() -> None:
    dist = torch.arange(1, 9, dtype=torch.float64) / 100
    four, five, eight = (from_opencv(_K, dist[:n]) for n in (4, 5, 8))
    assert isinstance(four, OpenCV)
    assert isinstance(five, FullOpenCV)
    torch.testing.assert_close(four.params[4:], dist[:4])
    torch.testing.assert_close(five.params[4:], torch.cat([dist[:5], torch.zeros(3)]))
    torch.testing.assert_close(eight.params[4:], dist)
    assert eight.params[:4].tolist() == [500, 520, 320, 240]
    fisheye = from_opencv_fisheye(_K, dist[:4])
    assert isinstance(fisheye, OpenCVFisheye)
    torch.testing.assert_close(fisheye.params[4:], dist[:4])


def test_opencv_arrays_batches_dtypes_and_gradients() -> None:
    rows = np.array([[-0.2, 0.05, 1e-3, 0.0, 0.01]])  # as cv2.calibrateCamera hands them out
    for dist in (rows, rows.T, rows[0]):
        assert from_opencv(_K.numpy(), dist).params.shape == (12,)
    assert from_opencv_fisheye(_K.numpy(), np.zeros((4, 1))).params.shape == (8,)
    batch = from_opencv(_K.float(), torch.zeros(3, 1, 4))
    assert batch.params.shape == (3, 1, 8)
    assert batch.params.dtype == torch.float32
    points = torch.tensor([[0.1, 0.2, 1.0]], dtype=torch.float64)
    K, D = _K.clone().requires_grad_(), torch.tensor([-0.2, 0.05, 1e-3, 0.0]).double().requires_grad_()
    upper = (_K != 0).double()
    for make in (from_opencv, from_opencv_fisheye):
        assert gradcheck(lambda K, D, make=make: make(K * upper, D).project(points).points2d, (K, D))
    assert pg.cameras.as_camera(batch) is batch


def test_a_skew_under_vmap_is_an_item_that_is_not_finite() -> None:
    """Values cannot be asked for there; matrices without one pass, under derivatives too."""
    K = _K.expand(3, 3, 3).clone()
    K[1, 0, 1] = 2.0
    points = torch.tensor([[0.1, 0.2, 1.0]], dtype=torch.float64)

    def pixels(K: torch.Tensor, make: Callable[..., pg.cameras.Camera] = from_opencv) -> torch.Tensor:
        return make(K, torch.tensor([-0.2, 0.05, 1e-3, 0.0]).double()).project(points).points2d

    for make in (from_opencv, from_opencv_fisheye):
        found = torch.func.vmap(lambda K, make=make: pixels(K, make))(K)
        assert bool(found[1].isnan().all())
        torch.testing.assert_close(found[[0, 2]], pixels(_K, make).expand(2, 1, 2))
    used = _K != 0
    jacobian = torch.func.jacrev(lambda K: pixels(used * K))
    torch.testing.assert_close(torch.func.vmap(jacobian)(K)[2], jacobian(_K))


def test_wrong_calls_say_what_to_do() -> None:
    skewed = _K.clone()
    skewed[0, 1] = 2.0
    for call, message in (
        (lambda: from_opencv(_K, torch.zeros(3)), r"dist: got 3 coefficients .* expected 4, 5 or 8; fill up"),
        (lambda: from_opencv(_K, torch.zeros(12)), r"dist: got 12 .* pass dist\[\.\.\., :8\]"),
        (lambda: from_opencv(_K, torch.zeros(14)), r"dist: got 14 .* tilt and thin-prism"),
        (lambda: from_opencv(_K, torch.zeros(5, 1)), r"dist: got 1 coefficients \(shape \(5, 1\)\)"),
        (lambda: from_opencv(_K, torch.tensor(0.0)), r"dist: got shape \(\)"),
        (lambda: from_opencv(skewed, torch.zeros(4)), r"K: got a skew .* from_opencv has no model"),
        (lambda: from_opencv(_K[:2], torch.zeros(4)), r"K: got shape \(2, 3\)"),
        (lambda: from_opencv_fisheye(skewed, torch.zeros(4)), "skew .* from_opencv_fisheye"),
        (lambda: from_opencv_fisheye(_K, torch.zeros(5)), "D: got 5 .* from_opencv"),
        (
            lambda: from_colmap("KANNALA", torch.zeros(8)),
            "model_name: got 'KANNALA', expected one of SIMPLE_PINHOLE",
        ),
        (lambda: from_colmap("SKEW_PINHOLE", torch.zeros(5)), "model_name: got 'SKEW_PINHOLE'"),
        (lambda: from_colmap("PINHOLE", torch.zeros(3)), r"Pinhole\.params: got shape \(3,\)"),
        (lambda: to_colmap(camera("SKEW_PINHOLE")), "no model like SkewPinhole"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"dist: got dtype torch\.int64"):
        from_opencv(_K, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"K: got dtype torch\.int64"):
        from_opencv(torch.eye(3, dtype=torch.int64), torch.zeros(4))
    with pytest.raises(TypeError, match="camera: got Tensor"):
        to_colmap(_K)  # type: ignore[arg-type]

    class Mine(Pinhole):
        name = "MINE"

    with pytest.raises(ValueError, match="no model like Mine"):
        to_colmap(Mine(torch.ones(4)))
