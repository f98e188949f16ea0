"""Rotations against SciPy, and their derivatives where they are delicate."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.autograd import gradcheck, gradgradcheck

from posegrad import so3

_AXIS = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
_ANGLES = [0.0, 1e-7, 1e-4, 0.1999, 0.2001, 1.0, 3.0, math.pi - 1e-6]


@pytest.mark.parametrize("angle", [*_ANGLES, 4.0, 7.0])
def test_exp_equals_scipy(angle: float) -> None:
    w = angle * _AXIS
    expected = torch.from_numpy(Rotation.from_rotvec(w.numpy()).as_matrix())
    torch.testing.assert_close(so3.exp(w), expected, rtol=0, atol=4e-16)


@pytest.mark.parametrize("angle", _ANGLES)
def test_log_inverts_exp(angle: float) -> None:
    w = angle * _AXIS
    torch.testing.assert_close(so3.log(so3.exp(w)), w, rtol=1e-9, atol=1e-15)


def test_log_equals_scipy_on_random_rotations_and_half_turns() -> None:
    rotations = Rotation.random(500, random_state=0)
    R = torch.from_numpy(rotations.as_matrix())
    torch.testing.assert_close(so3.log(R), torch.from_numpy(rotations.as_rotvec()), rtol=0, atol=1e-13)
    half = so3.exp(math.pi * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(
        so3.log(half).abs(), math.pi * torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("angle", _ANGLES)
def test_first_and_second_derivatives(angle: float) -> None:
    w = (angle * _AXIS).requires_grad_()
    assert gradcheck(so3.exp, w, rtol=1e-6, atol=1e-8)
    assert gradgradcheck(so3.exp, w, rtol=1e-5, atol=1e-7)
    assert gradgradcheck(so3.cayley, w, rtol=1e-5, atol=1e-7)
    if angle < math.pi - 1e-3:  # log jumps at pi
        assert gradcheck(lambda w: so3.log(so3.exp(w)), w, rtol=1e-6, atol=1e-7)
        assert gradgradcheck(lambda w: so3.log(so3.exp(w)), w, rtol=1e-5, atol=1e-6)


def test_second_derivative_at_zero_is_that_of_the_exponential_series() -> None:
    """d2 exp / dw_i dw_j = (E_i E_j + E_j E_i) / 2: zero or NaN in implementations with a branch on the angle."""
    generators = so3.hat(torch.eye(3, dtype=torch.float64))
    products = generators[:, None] @ generators[None]
    expected = (0.5 * (products + products.transpose(0, 1))).permute(2, 3, 0, 1)
    zero = torch.zeros(3, dtype=torch.float64)
    for function in (so3.exp, so3.cayley):
        actual = torch.func.jacfwd(torch.func.jacrev(function))(zero)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-15)


def test_gradient_near_pi_is_finite_and_right() -> None:
    w = ((math.pi - 1e-6) * _AXIS).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda w: so3.log(so3.exp(w)), w)
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)


def test_quaternions_equal_scipy() -> None:
    rotations = Rotation.random(200, random_state=1)
    R = torch.from_numpy(rotations.as_matrix())
    wxyz = torch.from_numpy(rotations.as_quat(canonical=True)).roll(1, -1)
    torch.testing.assert_close(so3.quat_wxyz_from_matrix(R), wxyz, rtol=0, atol=1e-14)
    torch.testing.assert_close(so3.matrix_from_quat_wxyz(3 * wxyz), R, rtol=0, atol=1e-14)


def test_float32_is_kept() -> None:
    w = torch.tensor([1e-4, 0.0, 0.0])
    assert so3.exp(w).dtype == torch.float32
    torch.testing.assert_close(so3.log(so3.exp(w)), w, rtol=1e-5, atol=0)


def test_normalise_keeps_rotations_and_removes_drift() -> None:
    R = so3.exp(torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    torch.testing.assert_close(so3.normalise(R), R, rtol=0, atol=1e-15)
    drifted = so3.normalise(R + 1e-4)
    torch.testing.assert_close(
        drifted @ drifted.mT, torch.eye(3).double().expand(50, 3, 3), rtol=0, atol=1e-14
    )
