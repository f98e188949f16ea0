"""Where a model is one-to-one, and its inverse there: folds against polynomial roots, round trips up to the fold."""

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from posegrad.cameras import MODELS, Camera, FullOpenCV, OpenCV, OpenCVFisheye, Radial, SimpleRadial
from posegrad.cameras.distorted import Distorted
from posegrad.cameras.elementary import arctan_ratio, sine_and_cosine, tangent_ratio
from tests.cameras.samples import PARAMS, STRONG, camera, points_in_field

_CASES = [(name, params) for name, params in PARAMS.items()] + STRONG
_IDS = [f"{name}-{i}" for i, (name, _) in enumerate(_CASES)]


def _first_root(coefficients: np.ndarray) -> float:
    """Smallest positive root of a polynomial, lowest coefficient first."""
    roots = np.roots(coefficients[::-1])
    real = roots[(np.abs(roots.imag) < 1e-12 * (1 + np.abs(roots))) & (roots.real > 0)].real
    return float(real.min()) if len(real) else np.inf


def _limits(model: type[Camera], k: np.ndarray) -> np.ndarray:
    names = model.parameter_names
    params = np.zeros((len(k), len(names)))
    params[:, : model.num_focal] = 500
    params[:, [i for i, name in enumerate(names) if name.startswith("k")]] = k
    return model(torch.from_numpy(params)).limit[:, 0].numpy()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_the_field_ends_at_the_first_fold_or_pole(size: float) -> None:
    generator = np.random.default_rng(0)
    X = np.polynomial.Polynomial

    def same(actual: np.ndarray, expected: np.ndarray) -> None:
        # in r / (1 + r), in which the field is sampled
        actual, expected = (np.sqrt(s) / (1 + np.sqrt(s)) for s in (actual, expected))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
        assert (actual <= expected + 1e-12).all(), "never beyond the fold"

    for model, count, end in ((SimpleRadial, 1, 1e8), (Radial, 2, 1e8), (OpenCVFisheye, 4, np.pi**2)):
        k = size * generator.uniform(-1, 1, (600, count))
        growth = np.concatenate([np.ones((600, 1)), k * (2 * np.arange(1, count + 1) + 1)], 1)
        expected = np.array([min(_first_root(row), end) for row in growth])
        assert (expected < end).mean() > 0.2
        same(_limits(model, k), expected)
    k = size * generator.uniform(-1, 1, (600, 6))
    expected = []
    for row in k:
        N, D = X([1, *row[:3]]), X([1, *row[3:]])
        growth = N * D + 2 * X([0, 1]) * (N.deriv() * D - N * D.deriv())
        expected.append(min(*(_first_root(p.coef) for p in (growth, N, D)), 1e8))
    same(_limits(FullOpenCV, k), np.array(expected))


@pytest.mark.parametrize("model", [OpenCV, FullOpenCV])
def test_with_tangential_terms_the_field_is_the_largest_disc_that_does_not_fold(
    model: type[Distorted],
) -> None:
    generator = torch.Generator().manual_seed(0)
    names = model.parameter_names
    params = 2 * torch.rand(100, len(names), generator=generator, dtype=torch.float64) - 1
    params = params * torch.tensor([0.02 if name.startswith("p") else 0.5 for name in names])
    params[:, :4] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    cameras = model(params)
    angle = torch.linspace(0, 2 * torch.pi, 2001, dtype=torch.float64)

    def smallest_eigenvalue(radius: Tensor) -> Tensor:
        flat = radius * torch.stack([angle.cos(), angle.sin(), torch.ones_like(angle)], -1)[:, None, :]
        points = torch.cat([flat[..., :2], torch.ones(len(angle), len(params), 1)], -1).transpose(0, 1)
        beyond = model(params)
        object.__setattr__(beyond, "limit", torch.full_like(beyond.limit, 1e8))
        jacobian = beyond.project_with_jacobian(points).jacobian
        assert jacobian is not None
        return torch.linalg.eigvalsh(jacobian[..., :2]).amin((-1, -2))

    edge = cameras.limit.sqrt()
    folds = edge[:, 0] < 100
    assert folds.sum() > 30
    assert (smallest_eigenvalue(0.999 * edge)[folds] > 0).all()
    poles = smallest_eigenvalue(1.001 * edge)[folds]
    assert ((poles < 0).double().mean() > 0.9) or model is FullOpenCV, "beyond the edge it folds"


@pytest.mark.parametrize(("name", "params"), _CASES, ids=_IDS)
def test_round_trip_up_to_the_fold(name: str, params: list[float]) -> None:
    """Image -> ray -> image below 1e-9 px; ray -> image -> ray as far as the fold's condition, 1e3 at 0.999, allows."""
    model = camera(name, params)
    for within, bound in ((0.9, 1e-13), (0.999, 1e-11)):
        points = points_in_field(model, 400, within, seed=2)
        projected = model.project(points)
        assert bool(projected.valid.all())
        bearings, valid = model.unproject(projected.points2d)
        assert bool(valid.all())
        back = model.project(bearings).points2d
        torch.testing.assert_close(back, projected.points2d, rtol=1e-12, atol=1e-9)
        size = projected.points2d.norm(dim=-1)
        seen = size < 1e4  # beside a pole the image reaches farther than any sensor
        assert seen.double().mean() > 0.3
        assert (back - projected.points2d)[seen].norm(dim=-1).max() < 1e-9
        error = (bearings - points / points.norm(dim=-1, keepdim=True)).norm(dim=-1)
        assert error.max() < bound


def test_points_beyond_the_field_are_reported() -> None:
    folding = 0
    for name, params in _CASES:
        model = camera(name, params)
        if not isinstance(model, Distorted) or model.limit > 0.99 * model.largest**2:
            continue
        folding += 1
        angle = torch.linspace(0, 2 * torch.pi, 30, dtype=torch.float64)
        for part, valid in ((0.0, True), (0.5, True), (0.999, True), (1.001, False), (1.2, False)):
            radius = model.limit.sqrt() * part
            if radius > model.largest:
                continue
            points = 2 * torch.stack(model._direction(radius * angle.cos(), radius * angle.sin()), -1)
            assert (model.project(points).valid == valid).all(), f"{name} {params} {part}"
            assert model.project_with_jacobian(points).valid.equal(model.project(points).valid)
    assert folding >= 10


def test_pixels_without_a_ray_are_reported() -> None:
    """The image of a barrel distortion ends at the fold; beyond it there is nothing, just inside there is."""
    for name, k in (("SIMPLE_RADIAL", [-0.3]), ("SIMPLE_RADIAL_FISHEYE", [-0.1])):
        model = camera(name, [500.0, 320, 240, *k])
        assert isinstance(model, Distorted)
        edge = (-1 / (3 * k[0])) ** 0.5
        farthest = edge * (1 + k[0] * edge**2) * 500
        pixels = torch.tensor(
            [[320 + farthest * c, 240.0] for c in (0.5, 0.999, 0.999999, 1.000001, 1.001, 2.0, 1e6)]
        )
        bearings, valid = model.unproject(pixels.double())
        assert valid.tolist() == [True] * 3 + [False] * 4
        assert bool(bearings.isfinite().all())
    fov = camera("FOV", [500.0, 500, 320, 240, 1.0])
    last = 500 * torch.pi / 2
    pixels = torch.tensor([[320.0, 240 + last * c] for c in (0.99, 0.9999, 1.0001, 1.5)], dtype=torch.float64)
    assert fov.unproject(pixels).valid.tolist() == [True, True, False, False]
    pincushion = camera("DIVISION", [500.0, 500, 320, 240, 0.5])
    pixels = torch.tensor(
        [[320.0, 240 + 500 * c * 2**0.5] for c in (0.5, 0.9999, 1.0001, 3.0)], dtype=torch.float64
    )
    assert pincushion.unproject(pixels).valid.tolist() == [True, True, False, False]
    fisheye = camera("SIMPLE_FISHEYE")
    pixels = torch.tensor(
        [[320 + 300 * torch.pi * c, 240.0] for c in (0.5, 0.9999, 1.0001, 3.0)], dtype=torch.float64
    )
    assert fisheye.unproject(pixels).valid.tolist() == [True, True, False, False]
    nothing = torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [1e300, -1e300]], dtype=torch.float64)
    for name in MODELS:
        bearings, valid = camera(name).unproject(nothing)
        assert not valid.any()
        assert bool(bearings.isfinite().all())


def test_an_invalid_pixel_or_point_has_no_gradient() -> None:
    for name, values in STRONG[0], STRONG[4], STRONG[6], STRONG[-5]:
        model = camera(name, values)
        params = model.params.clone().requires_grad_()
        pixels = torch.tensor([[1e5, 0.0], [330.0, 250.0]], dtype=torch.float64, requires_grad=True)
        bearings, valid = type(model)(params).unproject(pixels)
        assert valid.tolist() == [False, True]
        by_params, by_pixels = torch.autograd.grad(bearings[0].sum(), (params, pixels), retain_graph=True)
        assert not by_params.any()
        assert not by_pixels.any()
        point = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
        assert not torch.autograd.grad(model.project(point).points2d.sum(), point)[0].any()


@pytest.mark.parametrize("z", [1.0, 3.0, 0.02, -0.5, -2.0])
def test_elementary_functions_against_arbitrary_precision(z: float) -> None:
    """Values and three derivatives, on both sides of where the series end."""
    squares = [t * z * z for t in (1e-12, 1e-5, 9e-4, 1.1e-3, 0.03, 1.0, 30.0) if z > 0 or t > 0.01]

    def exact(s: mpmath.mpf, n: int) -> float:
        return float(mpmath.diff(lambda q: mpmath.atan2(mpmath.sqrt(q), z) / mpmath.sqrt(q), s, n))

    with mpmath.workdps(60):
        for square in squares:
            expected = [exact(mpmath.mpf(square), n) for n in range(4)]
            s = torch.tensor(square, dtype=torch.float64, requires_grad=True)
            jets = arctan_ratio(s, torch.tensor(z, dtype=torch.float64))
            third = torch.autograd.grad(jets[2], s)[0]  # type: ignore[arg-type]
            for actual, wanted, digits in zip(
                (*jets, third), expected, (1e-15, 1e-12, 1e-9, 1e-6), strict=True
            ):
                assert actual.item() == pytest.approx(wanted, rel=digits)  # type: ignore[union-attr]
            for order in (0, 1):
                for part, full in zip(
                    arctan_ratio(s, torch.tensor(z, dtype=torch.float64), order), jets, strict=True
                ):
                    assert part is None or part.item() == pytest.approx(full.item(), rel=1e-12)  # type: ignore[union-attr]
        for square in (1e-12, 9e-4, 1.1e-3, 0.039, 0.041, 1.0):
            angle = mpmath.sqrt(mpmath.mpf(square))
            s = torch.tensor(square, dtype=torch.float64)
            sinc, cosine = sine_and_cosine(s)
            assert sinc.item() == pytest.approx(float(mpmath.sin(angle) / angle), rel=1e-15)
            assert cosine.item() == pytest.approx(float(mpmath.cos(angle)), rel=1e-15)
            assert tangent_ratio(s).item() == pytest.approx(float(mpmath.tan(angle) / angle), rel=1e-15)
