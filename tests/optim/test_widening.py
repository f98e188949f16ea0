"""A cast to a wider dtype under every transform: its derivatives by value, saturated where float16 ends."""

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from posegrad.optim.widening import widened

_X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float16)


def _cubes(x: Tensor) -> Tensor:
    return (widened(x, torch.float64) ** 3).sum()


def test_derivatives_of_any_order_and_mode() -> None:
    assert torch.equal(grad(_cubes)(_X), 3 * _X**2)
    second = torch.diag(6 * _X)
    for outer in (jacrev, jacfwd):
        for inner in (jacrev, jacfwd):
            assert torch.equal(outer(inner(_cubes))(_X).to(second), second), (outer, inner)
    assert torch.equal(hessian(_cubes)(_X).to(second), second)
    assert torch.equal(vmap(grad(_cubes))(torch.stack([_X, 2 * _X])), 3 * torch.stack([_X, 2 * _X]) ** 2)
    value, tangent = jvp(_cubes, (_X,), (torch.ones_like(_X),))
    assert value.dtype == tangent.dtype == torch.float64
    assert tangent == (3 * _X**2).double().sum()


def test_double_backward_and_a_batch_of_cotangents() -> None:
    x = _X.clone().requires_grad_()
    (first,) = torch.autograd.grad(_cubes(x), x, create_graph=True)
    assert torch.equal(torch.autograd.grad(first.sum(), x)[0], 6 * _X)
    rows = torch.autograd.grad(widened(x, torch.float64), x, torch.eye(3).double(), is_grads_batched=True)[0]
    assert torch.equal(rows, torch.eye(3, dtype=torch.float16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_gradient_too_large_is_the_largest_number(dtype: torch.dtype) -> None:
    x = torch.zeros(3, dtype=dtype, requires_grad=True)
    wide = widened(x, torch.float64) * torch.tensor([1e300, -1e300, 3.0], dtype=torch.float64)
    largest = torch.finfo(dtype).max
    assert torch.autograd.grad(wide.sum(), x)[0].tolist() == [largest, -largest, 3.0]


def test_a_gradient_from_a_narrower_dtype() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad((2 * widened(x, torch.float32)).sum(), x)[0].tolist() == [2.0, 2.0]


def test_what_is_wide_is_left_as_it_is() -> None:
    assert widened(_X, torch.float16) is _X
