"""Every model: the shared checks, batches, units, transforms, bad values."""

from dataclasses import replace

import numba
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from posegrad.cameras import (
    FOV,
    MODELS,
    Camera,
    Division,
    OpenCV,
    OpenCVFisheye,
    Perspective,
    SimpleRadial,
    plane,
    profiles,
)
from posegrad.testing import check_camera
from tests.cameras.samples import PARAMS, STRONG, camera, points_in_field

_STRONG_IDS = [f"{name}-{i}" for i, (name, _) in enumerate(STRONG)]


def test_the_table_is_complete() -> None:
    assert set(MODELS) == set(PARAMS)
    for name, model in MODELS.items():
        assert model.name == name
        assert len(model.parameter_names) == len(PARAMS[name])
        assert model.parameter_names[: model.num_focal] in (("f",), ("fx", "fy"))
        assert model.wide == ("FISHEYE" in name or "DIVISION" in name)


@pytest.mark.parametrize("name", MODELS)
def test_shared_checks(name: str) -> None:
    model = camera(name)
    check_camera(model, points_in_field(model, 4, within=0.8))


@pytest.mark.parametrize(("name", "params"), STRONG, ids=_STRONG_IDS)
def test_shared_checks_with_strong_distortion(name: str, params: list[float]) -> None:
    model = camera(name, params)
    check_camera(model, points_in_field(model, 4, within=0.7))


def test_the_shared_checks_find_a_wrong_derivative_and_a_lying_inverse() -> None:
    class Wrong(SimpleRadial):
        profile = staticmethod(lambda s, k: (1 + k * s, 1.001 * k, 0.0))

    class Lying(SimpleRadial):
        def unproject(self, points2d: Tensor):
            found = super().unproject(points2d)
            return found._replace(valid=torch.ones_like(found.valid))

    points = points_in_field(camera("SIMPLE_RADIAL"), 4, within=0.8)
    for model, message in ((Wrong, "jacobian"), (Lying, "outside of the field|not close")):
        with pytest.raises(AssertionError, match=message):
            check_camera(model(camera("SIMPLE_RADIAL").params), points)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_items_and_broadcasts(name: str) -> None:
    first = camera(name)
    change = torch.linspace(0.9, 1.1, len(first.params), dtype=torch.float64)
    second = replace(first, params=first.params * change)
    both = type(first)(torch.stack([first.params, second.params]))
    points = torch.stack([points_in_field(first, 20, 0.7), points_in_field(second, 20, 0.7)])
    projected, cotangent = both.project_with_jacobian(points), torch.ones(2, 20, 2).double()
    assert bool(projected.valid.all())
    rays = both.unproject(projected.points2d)
    hessian = both.contracted_hessian(points, cotangent)
    for i, model in enumerate((first, second)):
        single = model.project_with_jacobian(points[i])
        for actual, expected in (
            (projected.points2d[i], single.points2d),
            (projected.jacobian[i], single.jacobian),  # type: ignore[index]
            (rays.bearings[i], model.unproject(single.points2d).bearings),
            (hessian[i], model.contracted_hessian(points[i], cotangent[i])),
        ):
            torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
    # one camera for many, many cameras for one
    torch.testing.assert_close(first.project(points).points2d[0], projected.points2d[0], rtol=1e-14, atol=0)
    shared = both.unproject(projected.points2d[0])
    assert shared.bearings.shape == (2, 20, 3)
    torch.testing.assert_close(shared.bearings[0], rays.bearings[0], rtol=0, atol=1e-14)
    assert both.unproject(projected.points2d[:, :0]).bearings.shape == (2, 0, 3)
    assert both.project(points[:, :0]).points2d.shape == (2, 0, 2)


@pytest.mark.parametrize("name", MODELS)
def test_float32(name: str) -> None:
    model = camera(name)
    points = points_in_field(model, 100, 0.9)
    narrow = model.to(torch.float32)
    projected = narrow.project_with_jacobian(points.float())
    assert projected.points2d.dtype == torch.float32
    assert bool(projected.valid.all())
    expected = model.project_with_jacobian(points)
    scale = expected.points2d.abs().max().item()
    torch.testing.assert_close(projected.points2d.double(), expected.points2d, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(projected.jacobian.double(), expected.jacobian, rtol=1e-3, atol=1e-2)  # type: ignore[union-attr]
    rays = narrow.unproject(projected.points2d)
    assert rays.bearings.dtype == torch.float32
    assert bool(rays.valid.all())
    expected_rays = points / points.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(rays.bearings.double(), expected_rays, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_units_crop_and_resize_keep_the_rays(name: str) -> None:
    model = camera(name)
    points = points_in_field(model, 50, 0.9)
    pixels = model.project(points).points2d
    scaled = model.in_units_of(torch.tensor(250.0).double())
    torch.testing.assert_close(scaled.project(points).points2d * 250, pixels)
    shift = torch.tensor([100.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(model.crop(100, 50).project(points).points2d, pixels - shift)
    torch.testing.assert_close(model.resize(0.5).project(points).points2d, (pixels + 0.5) * 0.5 - 0.5)
    if model.num_focal == 2:
        factors = torch.tensor([2.0, 3.0], dtype=torch.float64)
        torch.testing.assert_close(
            model.resize(2.0, 3.0).project(points).points2d, (pixels + 0.5) * factors - 0.5
        )
    for other in (scaled, model.crop(3, 4), model.resize(2.0)):
        assert type(other) is type(model)
        torch.testing.assert_close(other.project(points).valid, model.project(points).valid)
        torch.testing.assert_close(
            other.unproject(other.project(points).points2d).bearings, model.unproject(pixels).bearings
        )


@pytest.mark.parametrize("name", ["OPENCV", "FULL_OPENCV", "FOV", "OPENCV_FISHEYE", "DIVISION"])
def test_transforms_see_through_a_camera(name: str) -> None:
    """Values under vmap, jvp and jacrev, with cameras made inside and cameras passed in."""
    model = camera(name)
    many = type(model)(model.params * torch.linspace(1, 1.01, 3, dtype=torch.float64)[:, None])
    pixels = many.project(points_in_field(model, 6, 0.7)).points2d
    expected = many.unproject(pixels).bearings

    def inverse(params: Tensor, pixels: Tensor) -> Tensor:
        return type(model)(params).unproject(pixels).bearings

    def through(camera: Camera, pixels: Tensor) -> Tensor:
        return camera.unproject(pixels).bearings

    torch.testing.assert_close(torch.func.vmap(inverse)(many.params, pixels), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.func.vmap(through)(many, pixels), expected, rtol=0, atol=1e-14)
    by_mode = [
        transform(inverse, argnums=(0, 1))(many.params[0], pixels[0])
        for transform in (torch.func.jacrev, torch.func.jacfwd)
    ]
    by_loop = torch.autograd.functional.jacobian(inverse, (many.params[0], pixels[0]))
    for i in range(2):
        for jacobian in by_mode:
            torch.testing.assert_close(jacobian[i], by_loop[i], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_no_value_is_asked_for(name: str) -> None:
    """On a GPU each question to a tensor would wait for all work before it."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert not any(word in str(function) for word in ("local_scalar", "nonzero", "masked_select"))
            return function(*args, **(kwargs or {}))

    params = camera(name).params
    points = points_in_field(camera(name), 5, 0.5)
    with Watch():
        model = MODELS[name](params)
        pixels = model.project_with_jacobian(points).points2d
        model.contracted_hessian(points, pixels)
        model.unproject(pixels)


def test_parameters_that_are_not_numbers_stay_in_their_item() -> None:
    for name in ("OPENCV", "FULL_OPENCV", "FOV", "OPENCV_FISHEYE", "DIVISION"):
        good = camera(name)
        for value in (torch.nan, torch.inf, -torch.inf, 1e30, -1e30):
            bad = torch.cat(
                [good.params[: good.num_pixel_params], good.params[good.num_pixel_params :] * value]
            )
            both = type(good)(torch.stack([bad, good.params]))
            points = points_in_field(good, 10, 0.7)
            projected = both.project(points)
            torch.testing.assert_close(
                projected.points2d[1], good.project(points).points2d, rtol=1e-14, atol=0
            )
            rays = both.unproject(projected.points2d)
            assert bool(rays.bearings[1].isfinite().all())
            assert bool(rays.valid[1].all())
            if not abs(value) < torch.inf:
                assert not bool(rays.valid[0].any())


def test_formulas_serve_compiled_code_too() -> None:
    """The same text on floats: what a fused kernel builds on."""
    a, b, wu, wv = 0.3, -0.2, 1.5, -0.7
    k, p = (0.3, 0.05, 0.01, 0.5, 0.1, 0.02), (1e-2, -2e-2)
    profile, plane_first, plane_second = (
        numba.njit(f) for f in (profiles.rational, plane.distortion, plane.curvature)
    )
    s = a * a + b * b
    g, g1, g2 = profile(s, *k)
    compiled = [g, g1, g2, *plane_first(a, b, s, g, g1, p), *plane_second(a, b, g1, g2, p, wu, wv)]
    compiled += [*plane_first(a, b, s, g, g1, None), *plane_second(a, b, g1, g2, None, wu, wv)]
    a, b, wu, wv = (torch.tensor(x, dtype=torch.float64) for x in (a, b, wu, wv))
    s = a * a + b * b
    g, g1, g2 = profiles.rational(s, *k)
    expected = [g, g1, g2]
    for tangential in (p, None):
        expected += [*plane.distortion(a, b, s, g, g1, tangential)]
        expected += [*plane.curvature(a, b, g1, g2, tangential, wu, wv)]
    assert compiled == pytest.approx([x.item() for x in expected], rel=1e-14, abs=1e-16)


def test_field_of_view_is_even_and_a_pinhole_at_zero() -> None:
    points = points_in_field(camera("PINHOLE"), 20, 0.9)
    params = torch.tensor([500.0, 520.0, 320.0, 240.0, 0.0], dtype=torch.float64)
    step = torch.tensor([0, 0, 0, 0, 1.0], dtype=torch.float64)
    pinhole = camera("PINHOLE").project(points).points2d
    torch.testing.assert_close(FOV(params).project(points).points2d, pinhole, rtol=1e-15, atol=0)
    plus, minus = (FOV(params + sign * 0.7 * step).project(points).points2d for sign in (1, -1))
    torch.testing.assert_close(plus, minus, rtol=0, atol=0)
    assert not FOV(params + 3.3 * step).project(points).valid.any(), "tan(omega / 2) < 0 mirrors the image"


def test_tangential_terms_alone() -> None:
    class Decentred(Perspective):
        name = "DECENTRED"
        parameter_names = ("f", "cx", "cy", "p1", "p2")

    model = Decentred(torch.tensor([500.0, 320, 240, 3e-2, 4e-2], dtype=torch.float64))
    torch.testing.assert_close(model.limit.sqrt(), torch.tensor([1 / 0.3]).double(), rtol=1e-5, atol=0)
    check_camera(model, points_in_field(model, 4, within=0.7))


def test_replace_moves_the_field_with_the_parameters() -> None:
    weak = SimpleRadial(torch.tensor([500.0, 0, 0, -0.1], dtype=torch.float64))
    strong = replace(weak, params=torch.tensor([500.0, 0, 0, -0.4], dtype=torch.float64))
    torch.testing.assert_close(weak.limit / strong.limit, torch.tensor([4.0]).double(), rtol=1e-5, atol=0)
    assert weak.limit.grad_fn is None
    assert not SimpleRadial(weak.params.clone().requires_grad_()).limit.requires_grad


def test_wide_fields_end_where_they_should() -> None:
    degrees = torch.tensor([89.0, 91.0, 105.0, 107.0, 130.0, 179.0], dtype=torch.float64)
    angle = torch.deg2rad(degrees)
    points = torch.stack([angle.sin(), 0 * angle, angle.cos()], -1)
    expected = {
        "OPENCV_FISHEYE": [True, True, True, False, False, False],  # folds at 106.2 degrees
        "SIMPLE_FISHEYE": [True] * 6,
        "DIVISION": [True] * 6,
        "OPENCV": [False] * 6,
    }
    for name, valid in expected.items():
        model = (
            camera(name)
            if name != "OPENCV"
            else OpenCV(torch.tensor([500.0, 500, 0, 0, -0.1, 0, 0, 0]).double())
        )
        assert model.project(points).valid.tolist() == valid, name
    pincushion = Division(torch.tensor([500.0, 500, 0, 0, 0.5], dtype=torch.float64))
    assert not pincushion.project(points).valid.any()
    assert isinstance(camera("OPENCV_FISHEYE"), OpenCVFisheye)
