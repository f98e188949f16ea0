"""The differentiable minimisation under transforms, on problems that are no poses, with solvers that leave torch."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import posegrad as pg
from posegrad import _pytree
from posegrad.optim.minimiser import minimiser
from posegrad.optim.solution import Solution
from posegrad.testing import central_difference

from .test_levenberg_marquardt import Exponential, _data

_Y = _data()[:4, ::4].clone()


def _ones(args: Tensor) -> Tensor:
    """A black box: through NumPy, from what must be a plain tensor of items."""
    return torch.from_numpy(np.ones((len(args.numpy()), 2)))


_LAYER = pg.argmin_layer(_ones, Exponential())


def _one(y: Tensor) -> Tensor:
    return _LAYER(y[None]).variable[0]


class Scaled(pg.Problem):
    """``scale * (x^3 + x) = y``, with a second residual so that the fit is not perfect."""

    dimension = 1

    def residual(self, variable: Tensor, args: Any) -> Tensor:
        return torch.cat([args["scale"] * (variable**3 + variable) - args["y"], 0.3 * variable], -1)


def test_a_black_box_is_mapped() -> None:
    expected = _LAYER(_Y)
    assert bool(expected.ok.all())
    actual = vmap(lambda y: _LAYER(y[None]))(_Y)
    torch.testing.assert_close(actual.variable[:, 0], expected.variable, rtol=1e-12, atol=0)
    assert torch.equal(actual.status[:, 0], expected.status)
    nested = vmap(vmap(_one), 1)(_Y.view(2, 2, 5))
    torch.testing.assert_close(nested, expected.variable.view(2, 2, 2).transpose(0, 1), rtol=1e-12, atol=0)


def test_derivatives_of_problems_without_closed_forms() -> None:
    """Their defaults differentiate inside the rules of the transforms: levels within levels."""
    leaf = _Y.clone().requires_grad_()
    rows = [torch.autograd.grad(_LAYER(leaf).variable[:, k].sum(), leaf)[0] for k in range(2)]
    expected = torch.stack(rows, 1)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(vmap(transform(_one))(_Y), expected, rtol=1e-10, atol=1e-14)
    second = jacrev(jacrev(_one))(_Y[0])
    for outer, inner in itertools.product((jacrev, jacfwd), repeat=2):
        torch.testing.assert_close(outer(inner(_one))(_Y[0]), second, rtol=1e-10, atol=1e-14)
    difference = central_difference(lambda y: vmap(jacrev(_one))(y)[:, 0, 3], _Y[:1], 1e-3)
    torch.testing.assert_close(second[0, 3], difference[0], rtol=1e-7, atol=1e-9)


def test_third_derivatives_in_every_order_of_modes() -> None:
    layer = pg.argmin_layer(lambda args: torch.ones_like(args["y"]), Scaled())
    scale = torch.tensor([[1.3]], dtype=torch.float64)

    def function(y: Tensor) -> Tensor:
        return layer({"y": y[None, None], "scale": scale}).variable[0, 0]

    point = torch.tensor(1.1, dtype=torch.float64)
    expected = central_difference(vmap(grad(grad(function))), point[None], 1e-2).item()
    for order in itertools.product((grad, jacfwd), repeat=3):
        derivative = function
        for transform in order:
            derivative = transform(derivative)
        assert derivative(point).item() == pytest.approx(expected, rel=1e-6)


def test_what_is_shared_stays_shared() -> None:
    seen: list[dict[str, tuple[int, ...]]] = []

    def solve(args: dict[str, Tensor]) -> Tensor:
        seen.append({name: tuple(value.shape) for name, value in args.items()})
        return torch.ones_like(args["y"])

    layer = pg.argmin_layer(solve, Scaled())
    y, scale = torch.linspace(0.5, 2, 12).double().view(4, 3, 1), torch.tensor([[1.3], [0.7]]).double()

    def function(y: Tensor, scale: Tensor) -> Tensor:
        return layer({"y": y, "scale": scale}).variable

    one = vmap(function, (0, None))(y, scale[:1])
    assert seen.pop() == {"y": (12, 1), "scale": (1, 1)}
    torch.testing.assert_close(one.flatten(0, 1), function(y.flatten(0, 1), scale[:1]), rtol=1e-12, atol=0)
    del seen[:]
    both = vmap(function, (None, 0))(y[0], scale[:, None])
    assert seen.pop() == {"y": (6, 1), "scale": (6, 1)}
    for i in range(2):
        torch.testing.assert_close(both[i], function(y[0], scale[i : i + 1]), rtol=1e-12, atol=0)
    by_scale = jacrev(lambda s: vmap(function, (0, None))(y, s).sum())(scale[:1])
    forward = jacfwd(lambda s: vmap(function, (0, None))(y, s).sum())(scale[:1])
    difference = central_difference(
        lambda s: torch.stack([function(y.flatten(0, 1), v[None]).sum() for v in s]), scale[:1], 1e-3
    )
    torch.testing.assert_close(by_scale, difference, rtol=1e-9, atol=0)
    torch.testing.assert_close(forward, difference, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bad", [[1], [0, 3], [0, 1, 2, 3]], ids=["one", "two", "all"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e200])
def test_failed_items_have_zero_derivatives_of_any_order(value: float, bad: list[int]) -> None:
    """Also where their own data are infinite, for a problem that knows nothing harmless to put in their place."""
    y = _Y.clone()
    y[bad] = value
    good = [i for i in range(4) if i not in bad]
    leaf = y.clone().requires_grad_()
    solution = _LAYER(leaf)
    assert solution.ok.tolist() == [i in good for i in range(4)]
    assert bool(solution.variable.isfinite().all())
    (first,) = torch.autograd.grad(solution.variable.square().sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), leaf)
    tangent = jvp(lambda y: _LAYER(y).variable, (y,), (torch.ones_like(y),))[1]
    mixed = torch.stack([vmap(hessian(lambda y: _one(y).square().sum()))(y).sum(-1)])[0]
    for derivative in (first, second, third, tangent, mixed):
        assert bool((derivative[bad] == 0).all())
        assert bool(derivative.isfinite().all())
        assert not good or bool((derivative[good] != 0).any())
    clean = _Y[good].clone().requires_grad_()
    (expected,) = torch.autograd.grad(_LAYER(clean).variable.square().sum(), clean)
    torch.testing.assert_close(first[good], expected, rtol=1e-12, atol=0)


class Warped(pg.Problem):
    """Data that enter non-linearly, and multiplied with the variable: where they are infinite so is all that is made of
    them, derivatives of every order included."""

    dimension = 2

    def residual(self, variable: Tensor, args: Any) -> Tensor:
        y = args["y"]
        return variable[:, :1] * (0.3 * y).exp() + variable[:, 1:] * y**3 - y.sin() * args["scale"]


@pytest.mark.parametrize("bad", [[1], [0, 1, 2, 3]], ids=["one", "all"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e200])
def test_failed_items_whose_data_enter_non_linearly_have_zero_derivatives(
    value: float, bad: list[int]
) -> None:
    layer = pg.argmin_layer(lambda args: torch.zeros(len(args["y"]), 2, dtype=args["y"].dtype), Warped())
    y, scale = _Y.clone(), torch.tensor([[1.3]], dtype=torch.float64, requires_grad=True)
    good = [i for i in range(4) if i not in bad]
    y[bad, 1] = value  # one of its data; the others are fine, and get no derivative either
    leaf = y.clone().requires_grad_()
    solution = layer({"y": leaf, "scale": scale})
    assert solution.ok.tolist() == [i in good for i in range(4)]
    assert bool(solution.variable.isfinite().all())
    first = torch.autograd.grad(solution.variable.square().sum(), (leaf, scale), create_graph=True)
    total = first[0].square().sum() + first[1].square().sum()
    second = torch.autograd.grad(total, (leaf, scale), create_graph=True)
    third = torch.autograd.grad(second[0].sum() + second[1].sum(), (leaf, scale))
    tangent = jvp(lambda y: layer({"y": y, "scale": scale}).variable, (y,), (torch.ones_like(y),))[1]
    twice = hessian(lambda y: layer({"y": y, "scale": scale}).variable.square().sum())(y)
    for derivative in (first[0], second[0], third[0], tangent, twice.flatten(1)):
        assert bool(derivative.isfinite().all())
        assert bool((derivative[bad] == 0).all())
        assert not good or bool((derivative[good] != 0).any())
    for derivative in (first[1], second[1], third[1]):
        assert bool(derivative.isfinite().all())
        assert bool((derivative != 0).any()) == bool(good)
    if good:  # as without them
        clean = _Y[good].clone().requires_grad_()
        variable = layer({"y": clean, "scale": scale}).variable
        wanted = torch.autograd.grad(variable.square().sum(), (clean, scale), create_graph=True)
        torch.testing.assert_close(first[0][good], wanted[0], rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(first[1], wanted[1], rtol=1e-11, atol=1e-14)


def test_a_failed_item_does_not_reach_what_the_batch_shares() -> None:
    layer = pg.argmin_layer(lambda args: torch.ones_like(args["y"]), Scaled())
    y, scale = torch.tensor([[0.5], [torch.inf], [2.0]]).double(), torch.tensor([[1.3]]).double()

    def function(y: Tensor, scale: Tensor) -> Tensor:
        return layer({"y": y, "scale": scale}).variable.square().sum()

    keep = [0, 2]
    for transform in (grad, jacfwd, hessian):
        torch.testing.assert_close(transform(function, 1)(y, scale), transform(function, 1)(y[keep], scale))


def test_the_solvers_own_tensors_get_no_history() -> None:
    variable, status = torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    hessian = torch.eye(2, dtype=torch.float64).expand(4, 2, 2)
    kept = Solution(variable, status, torch.zeros(4).double(), status, torch.zeros(4).double(), hessian)
    solution = minimiser(lambda *_: kept, Exponential(), pg.Implicit(), _Y.clone().requires_grad_())
    assert solution.variable.requires_grad
    assert not solution.cost.requires_grad
    assert not variable.requires_grad


def test_hints_reach_the_solver_and_get_no_gradient() -> None:
    def solve(args: Tensor, hints: dict[str, Any]) -> Solution:
        assert hints["nothing"] is None
        assert not hints["offset"].requires_grad
        size = len(args)
        zero, status = args.new_zeros(size), torch.zeros(size, dtype=torch.int64)
        return Solution(hints["offset"] + 1, status, zero, status, zero, args.new_zeros(size, 2, 2))

    def function(y: Tensor, offset: Tensor) -> Tensor:
        hints = {"nothing": None, "offset": offset}
        return minimiser(solve, Exponential(), pg.Implicit(), y, hints).variable

    offset = torch.linspace(0, 1, 8).double().view(4, 2)
    mapped = vmap(function)(_Y[:, None], offset[:, None])
    torch.testing.assert_close(mapped[:, 0], offset + 1)
    assert bool((grad(lambda o: function(_Y, o).sum())(offset) == 0).all())
    assert bool((jvp(lambda o: function(_Y, o), (offset,), (offset,))[1] == 0).all())


def test_autocast_changes_nothing_in_float32() -> None:
    def results(autocast: bool) -> tuple[Tensor, Tensor]:
        y = _Y.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            variable = pg.argmin_layer(lambda y: torch.ones(len(y), 2), Exponential())(y).variable
            return variable, torch.autograd.grad(variable.sum(), y)[0]

    for got, wanted in zip(results(True), results(False), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_an_empty_batch() -> None:
    y = _Y[:0].clone().requires_grad_()
    solution = _LAYER(y)
    assert solution.variable.shape == (0, 2)
    assert torch.autograd.grad(solution.variable.sum(), y)[0].shape == (0, 5)
    assert vmap(lambda y: _LAYER(y).variable)(_Y.new_zeros(3, 0, 5)).shape == (3, 0, 2)


def test_wrong_args_are_named() -> None:
    with pytest.raises(ValueError, match="args: got a tensor without dimensions"):
        _LAYER({"y": _Y, "scale": torch.tensor(1.0)})
    with pytest.raises(ValueError, match=r"args: got \{\}"):
        _LAYER({})


def test_trees_without_their_tensors() -> None:
    tree = {"pose": pg.Pose.identity(2), "rest": (torch.ones(1), [torch.zeros(3)])}
    leaves, structure = _pytree.flatten(tree)
    assert [tuple(leaf.shape) for leaf in leaves] == [(2, 3, 3), (2, 3), (1,), (3,)]
    again = _pytree.unflatten(structure, leaves)
    assert again["pose"].R is tree["pose"].R  # type: ignore[union-attr]
    assert again["rest"][1][0] is leaves[3]
    assert _pytree.flatten(None) == ([], None)
