"""Closed forms of the derivatives by a camera's parameters, against automatic differentiation."""

import pytest
import torch

from posegrad.cameras import MODELS
from posegrad.cameras.base import Camera
from tests.cameras.samples import STRONG, camera, points_in_field

_CASES = [(name, None) for name in MODELS] + [(name, params) for name, params in STRONG if "DIV" not in name]


@pytest.mark.parametrize(("name", "params"), _CASES)
def test_closed_forms(name: str, params: list[float] | None) -> None:
    model = camera(name, params)
    model = model.in_units_of(model.focal_scale())
    points = points_in_field(model, 12, 0.8)
    many = type(model)(torch.stack([model.params, model.params]))
    both = torch.stack([points, points.flip(0)])
    cotangent = torch.randn(2, 12, 2, generator=torch.Generator().manual_seed(0)).double()
    projected, J = many.project_with_jacobians(both)
    plain = many.project_with_jacobian(both)
    torch.testing.assert_close(projected.points2d, plain.points2d, rtol=0, atol=0)
    torch.testing.assert_close(projected.jacobian, plain.jacobian, rtol=0, atol=0)
    second = many.contracted_hessians(both, cotangent)
    expected = torch.func.jacrev(lambda p: type(model)(p).in_same_field(p).project(points).points2d)(
        model.params
    )
    torch.testing.assert_close(J[0], expected, rtol=1e-10, atol=1e-10)
    default = Camera.contracted_hessians(many, both, cotangent)
    for got, wanted in zip(second, default, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
