"""torch.func over solve_pnp, by value: against plain batches, re-solved differences, and one order of modes another."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.utils import _pytree

import posegrad as pg
from posegrad.testing import central_difference, random_scene, relative_error

_SCENE = random_scene(4, 6, noise=2.0, seed=1)
_X, _Z, _W, _K = _SCENE.points2d, _SCENE.points3d, _SCENE.weights, _SCENE.K
_KS = _K * torch.linspace(0.9, 1.2, 4).double()[:, None, None] + torch.eye(3).double()
_BAD = 2


def _vector(solution: pg.PnPSolution) -> Tensor:
    return torch.cat([solution.pose.R.flatten(-2), solution.pose.t], -1)


def _solved(x: Tensor, z: Tensor, w: Tensor, K: Tensor, **options: Any) -> Tensor:
    """Twelve numbers of a pose."""
    return _vector(pg.solve_pnp(x, z, K, weights=w, **options))


def _refined(x: Tensor, z: Tensor, w: Tensor, K: Tensor) -> Tensor:
    """The first item's, from its true pose: quicker."""
    return _solved(x, z, w, K, init=_SCENE.pose[0])


def _differences(function: Callable[[Tensor], Tensor], x: Tensor, step: float) -> Tensor:
    """Jacobian by re-solving: fourth-order central differences, all displaced copies at once."""
    shift = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)

    def at(multiple: int) -> Tensor:
        return vmap(function)(x + multiple * shift).movedim(0, -1)

    difference = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    return difference.unflatten(-1, x.shape)


def _assert_same(actual: pg.PnPSolution, expected: pg.PnPSolution) -> None:
    """But for what the backends count differently: steps, the rounding that is left, the cost of items that failed."""
    assert bool(((actual.decrement - expected.decrement)[expected.ok] < 1e-8).all())
    actual, expected = (
        replace(
            each,
            num_steps=torch.zeros_like(each.num_steps),
            decrement=torch.zeros_like(each.decrement),
            cost=torch.where(each.ok, each.cost, 0.0),
        )
        for each in (actual, expected)
    )
    for got, wanted in zip(_pytree.tree_leaves(actual), _pytree.tree_leaves(expected), strict=True):
        assert got.shape == wanted.shape
        # rounding of a Hessian's entries is relative to the largest one
        size = float(wanted.abs().max()) if wanted.is_floating_point() else 1.0
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-12 * max(size, 1.0))


_MASK = torch.ones(4, 6, dtype=torch.bool)
_MASK[1, 5] = _MASK[3, 0] = False
_PINHOLE = torch.tensor([600.0, 612.0, 320.0, 240.0], dtype=torch.float64).expand(4, 4)
_DISTORTED = torch.cat([_PINHOLE, torch.linspace(-0.1, 0.1, 16).double().view(4, 4)], -1)
_INFORMATION = torch.linspace(1, 30, 24).double().view(4, 6).diag_embed()
_UP = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
_TWO_FACED = random_scene(4, 6, noise=2.0, planar=True, seed=3)
_Call = Callable[..., pg.PnPSolution]
_MAPS: dict[str, tuple[_Call, tuple[Any, ...], tuple[Tensor, ...]]] = {
    "batch": (lambda x, z, w, K: pg.solve_pnp(x, z, K, weights=w), (0, 0, 0, 0), (_X, _Z, _W, _KS)),
    "shared model": (lambda x, z: pg.solve_pnp(x, z, _K), (0, None), (_X, _Z[0])),
    "cameras": (lambda x, z, K: pg.solve_pnp(x, z, K), (None, None, 0), (_X[0], _Z[0], _KS)),
    "weights": (lambda x, z, w: pg.solve_pnp(x, z, _K, weights=w), (None, None, 0), (_X[0], _Z[0], _W)),
    "masks": (lambda x, z, m: pg.solve_pnp(x, z, _K, mask=m), (None, None, 0), (_X[0], _Z[0], _MASK)),
    "distortion": (
        lambda x, z, p: pg.solve_pnp(x, z, pg.cameras.OpenCV(p)),
        (None, 0, 0),
        (_X[0], _Z[:1].expand(4, 6, 3), _DISTORTED),
    ),
    "starts": (
        lambda x, z, R, t: pg.solve_pnp(x, z, _K, init=pg.Pose(R, t)),
        (0, 0, 0, 0),
        (_X, _Z, _SCENE.pose.R, _SCENE.pose.t),
    ),
    "robust scales": (
        lambda x, z, c: pg.solve_pnp(x, z, _K, loss=pg.robust.Huber(c)),
        (0, 0, 0),
        (_X, _Z, torch.linspace(1, 3, 4).double()),
    ),
    "priors": (
        lambda x, z, t, L: pg.solve_pnp(x, z, _K, prior=pg.PosePrior(pg.Pose(_SCENE.pose.R[0], t), L)),
        (None, None, 0, 0),
        (_X[0], _Z[0], _SCENE.pose.t[0] + 0.1 * _SCENE.pose.t, _INFORMATION),
    ),
    "gravity": (
        lambda x, z, d: pg.solve_pnp(x, z, _K, constraint=pg.PoseConstraint(gravity=(_UP, d))),
        (0, 0, 0),
        (_X, _Z, _SCENE.pose.R @ _UP),
    ),
    "several solutions": (
        lambda x, z: pg.solve_pnp(x, z, _K, num_solutions=2),
        (0, 0),
        (_TWO_FACED.points2d, _TWO_FACED.points3d),
    ),
}


@pytest.mark.parametrize("name", _MAPS)
def test_vmap_equals_the_batch(name: str) -> None:
    function, in_dims, values = _MAPS[name]
    expected = function(*values)
    assert bool(expected.ok.all())
    _assert_same(vmap(function, in_dims)(*values), expected)
    # the mapped dimension last, and in chunks
    moved = [v if dim is None else v.movedim(0, -1) for v, dim in zip(values, in_dims, strict=True)]
    last = tuple(None if dim is None else -1 for dim in in_dims)
    _assert_same(vmap(function, last, chunk_size=3)(*moved), expected)


def test_vmap_over_a_function_of_a_batch_and_nested() -> None:
    expected = pg.solve_pnp(_X, _Z[0], _KS[:3, None], weights=_W)
    one = vmap(lambda K: pg.solve_pnp(_X, _Z[0], K, weights=_W))(_KS[:3])
    _assert_same(one, expected)
    inner = vmap(lambda x, K, w: pg.solve_pnp(x, _Z[0], K, weights=w), (0, None, 0))
    _assert_same(vmap(inner, (None, 0, None))(_X, _KS[:3], _W), expected)


def test_derivatives_equal_re_solving() -> None:
    """Of one item by every argument: forward and reverse mode, mapped and not."""
    inputs = [_X[0], _Z[0], _W[0], _K]
    direction = torch.linspace(-1, 2, 12).double()
    for position, step in enumerate((1e-2, 1e-3, 1e-3, 1e-2)):

        def function(value: Tensor, position: int = position) -> Tensor:
            return _refined(*(value if i == position else inputs[i] for i in range(4)))  # type: ignore[misc]

        value = inputs[position]
        expected = _differences(function, value, step)
        reverse, forward = jacrev(function)(value), jacfwd(function)(value)
        assert relative_error(reverse, expected, 1e-6).max() < 1e-6
        torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-14)
        tangent = torch.linspace(1, -1, value.numel()).double().view_as(value)
        flat = reverse.flatten(1)
        torch.testing.assert_close(jvp(function, (value,), (tangent,))[1], flat @ tangent.flatten())
        torch.testing.assert_close(vjp(function, value)[1](direction)[0].flatten(), direction @ flat)
        chunked = jacrev(function, chunk_size=5)(value)
        torch.testing.assert_close(chunked, reverse, rtol=1e-12, atol=1e-14)


_EXTRAS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "camera": (lambda p: _vector(pg.solve_pnp(_X[0], _Z[0], pg.cameras.OpenCV(p))), _DISTORTED[2]),
    "robust scale": (lambda c: _vector(pg.solve_pnp(_X[0], _Z[0], _K, loss=pg.robust.Huber(c))), _W[0, 0]),
    "weight matrices": (
        lambda W: _solved(_X[0], _Z[0], W @ W.mT, _K),
        torch.eye(2).double() + _X[0, :, None] / 1e3,
    ),
    "information": (
        lambda L: _vector(pg.solve_pnp(_X[0], _Z[0], _K, prior=pg.PosePrior(_SCENE.pose[0], L @ L.mT))),
        _INFORMATION[0] + 0.1,
    ),
    "mean": (
        lambda t: _vector(
            pg.solve_pnp(_X[0], _Z[0], _K, prior=pg.PosePrior(pg.Pose(_SCENE.pose.R[1], t), _INFORMATION[1]))
        ),
        _SCENE.pose.t[1],
    ),
    "pixels under gravity": (
        lambda x: _vector(
            pg.solve_pnp(x, _Z[0], _K, constraint=pg.PoseConstraint(gravity=(_UP, _SCENE.pose.R[0] @ _UP)))
        ),
        _X[0],
    ),
    "pixels of two solutions": (
        lambda x: torch.cat(
            [p.R.flatten(-2) for p in [pg.solve_pnp(x, _Z[0], _K, num_solutions=2).alternatives.pose]],
            -1,  # type: ignore[union-attr]
        ),
        _X[0],
    ),
}


@pytest.mark.parametrize("name", _EXTRAS)
def test_forward_and_reverse_mode_agree_for_whatever_a_pose_depends_on(name: str) -> None:
    """That reverse mode is right is shown where each is tested."""
    function, value = _EXTRAS[name]
    reverse = jacrev(function)(value)
    assert reverse.abs().max() > 1e-9
    for first in (jacfwd(function)(value), vmap(jacrev(function))(value[None])[0]):
        torch.testing.assert_close(first, reverse, rtol=1e-8, atol=1e-12)
    direction = torch.linspace(-1, 2, function(value).numel()).double()

    def number(value: Tensor) -> Tensor:
        return function(value).flatten() @ direction

    second = jacrev(jacrev(number))(value)
    torch.testing.assert_close(hessian(number)(value), second, rtol=1e-8, atol=1e-12)


def test_jacobians_mapped_over_a_batch() -> None:
    expected = torch.stack([jacrev(_solved)(*item, _K) for item in zip(_X, _Z, _W, strict=True)])
    for transform in (jacrev, jacfwd):
        actual = vmap(transform(_solved), (0, 0, 0, None))(_X, _Z, _W, _K)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-14)
    # and the other way round: the derivative of what is mapped, by what the items share
    shared = jacrev(lambda K: vmap(_solved, (0, 0, 0, None))(_X, _Z, _W, K))(_K)
    each = torch.stack([jacrev(_solved, 3)(*item, _K) for item in zip(_X, _Z, _W, strict=True)])
    torch.testing.assert_close(shared, each, rtol=1e-9, atol=1e-14)
    forward = jacfwd(lambda K: vmap(_solved, (0, 0, 0, None))(_X, _Z, _W, K))(_K)
    torch.testing.assert_close(forward, each, rtol=1e-9, atol=1e-14)


def test_second_derivatives_equal_differences_of_first_ones() -> None:
    """All four orders of forward and reverse mode, ``hessian`` among them; and the autograd engine's own."""
    direction = torch.linspace(-1, 2, 12).double()

    def function(x: Tensor) -> Tensor:
        return _refined(x, _Z[0], _W[0], _K) @ direction

    expected = _differences(grad(function), _X[0], 1e-1)
    second = hessian(function)(_X[0])
    assert relative_error(second[None], expected[None], 0.0).max() < 1e-6
    for outer, inner in itertools.product((jacrev, jacfwd), repeat=2):
        torch.testing.assert_close(outer(inner(function))(_X[0]), second, rtol=1e-9, atol=1e-16)
    own = torch.autograd.functional.hessian(function, _X[0])
    torch.testing.assert_close(own, second, rtol=1e-9, atol=1e-16)
    torch.testing.assert_close(vmap(hessian(function))(_X[:1])[0], second, rtol=1e-9, atol=1e-16)


def test_third_derivatives_in_every_order_of_modes() -> None:
    along = torch.linspace(-1, 1, 12).double().view(6, 2)

    def function(s: Tensor) -> Tensor:
        return _refined(_X[0] + s * along, _Z[0], _W[0], _K)[0]

    zero = torch.zeros((), dtype=torch.float64)
    second = vmap(grad(grad(function)))
    expected = central_difference(second, zero[None], 1e-1).item()
    for order in itertools.product((grad, jacfwd), repeat=3):
        derivative = function
        for transform in order:
            derivative = transform(derivative)
        assert derivative(zero).item() == pytest.approx(expected, rel=1e-6)


def test_per_sample_gradients() -> None:
    def loss(x: Tensor, z: Tensor, w: Tensor, K: Tensor) -> Tensor:
        solution = pg.solve_pnp(x, z, K, weights=w)
        return pg.reprojection_residuals(x + 1, z, K, solution.pose).square().sum()

    actual = vmap(grad(loss, (0, 1, 2, 3)), (0, 0, 0, None))(_X, _Z, _W, _K)
    for i in range(4):
        leaves = [v.clone().requires_grad_() for v in (_X[i], _Z[i], _W[i], _K)]
        expected = torch.autograd.grad(loss(*leaves), leaves)
        for got, wanted in zip(actual, expected, strict=True):
            torch.testing.assert_close(got[i], wanted, rtol=1e-9, atol=1e-12)


def test_an_ensemble_of_networks() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(12, 12).double() for _ in range(3)]
    parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]

    def loss(state: Any, x: Tensor, z: Tensor) -> Tensor:
        moved = x + functional_call(models[0], state, (x.flatten(-2) / 1000,)).unflatten(-1, (6, 2))
        return pg.solve_pnp(moved, z, _K).pose.t.square().sum()

    losses = vmap(loss, (0, None, None))((parameters, buffers), _X, _Z)
    gradients = vmap(grad(loss), (0, None, None))((parameters, buffers), _X, _Z)[0]
    for i, model in enumerate(models):
        single = loss((dict(model.named_parameters()), {}), _X, _Z)
        torch.testing.assert_close(losses[i], single, rtol=1e-12, atol=0)
        expected = torch.autograd.grad(single, list(model.parameters()))
        for (name, _), wanted in zip(model.named_parameters(), expected, strict=True):
            torch.testing.assert_close(gradients[name][i], wanted, rtol=1e-9, atol=1e-13)


def _derivatives(x: Tensor, z: Tensor) -> list[Tensor]:
    """First and second ones of every item, by reverse and forward mode."""
    direction = torch.linspace(-1, 2, 12).double()

    def function(x: Tensor, z: Tensor) -> Tensor:
        return _vector(pg.solve_pnp(x, z, _K)) @ direction

    transforms = [grad(function, (0, 1)), jacfwd(function, (0, 1)), hessian(function, (0, 1))]
    return [leaf for t in transforms for leaf in _pytree.tree_leaves(vmap(t)(x, z))]


_clean_derivatives = functools.cache(lambda: _derivatives(_X, _Z))


@pytest.mark.parametrize(
    ("name", "where", "value", "status"),
    [
        ("points2d", (3, 0), torch.nan, pg.Status.NOT_FINITE),
        ("points2d", (slice(None),), 1e300, None),
        ("points3d", (slice(None),), 0.3, pg.Status.DEGENERATE),
        ("points3d", (slice(None), 0), 1.7e308, None),
    ],
    ids=["NaN", "overflow", "one point", "overflow of the centre"],
)
def test_a_failed_item_has_no_derivative_under_any_transform(
    name: str, where: Any, value: float, status: pg.Status | None
) -> None:
    x, z = _X.clone(), _Z.clone()
    {"points2d": x, "points3d": z}[name][(_BAD, *where)] = value
    others = [i for i in range(4) if i != _BAD]
    solution = vmap(lambda x, z: pg.solve_pnp(x, z, _K))(x, z)
    assert solution.ok.tolist() == [i != _BAD for i in range(4)]
    assert status is None or solution.status[_BAD] == status
    assert all(bool(leaf.isfinite().all()) for leaf in _pytree.tree_leaves(solution))
    _assert_same(pg.solve_pnp(x, z, _K), solution)
    for got, wanted in zip(_derivatives(x, z), _clean_derivatives(), strict=True):
        assert bool((got[_BAD] == 0).all())
        assert bool((wanted[others].flatten(1).abs().amax(-1) > 0).all())
        torch.testing.assert_close(got[others], wanted[others], rtol=1e-9, atol=1e-13)
    nans = torch.full_like(z, torch.nan)
    tangent = jvp(lambda x, z: pg.solve_pnp(x, z, _K).pose.t, (x, z), (torch.ones_like(x), nans))[1]
    assert bool((tangent[_BAD] == 0).all())


def test_dual_numbers() -> None:
    tangent = torch.linspace(-1, 1, _X.numel()).double().view_as(_X)
    expected = jvp(lambda x: _solved(x, _Z, _W, _K), (_X,), (tangent,))[1]
    with forward_ad.dual_level():
        actual = forward_ad.unpack_dual(_solved(forward_ad.make_dual(_X, tangent), _Z, _W, _K)).tangent
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_float32_forward_derivatives_are_close_to_those_of_float64_on_the_same_inputs() -> None:
    x, z, w, K = (v.float() for v in (_X, _Z, _W, _K))
    low = jacfwd(_solved)(x[0], z[0], w[0], K)
    high = jacfwd(_solved)(x[0].double(), z[0].double(), w[0].double(), K.double())
    assert low.dtype == torch.float32
    assert relative_error(low.double()[None], high[None], 0.0).max() < 1e-6


def test_gauss_newton_is_the_transpose_in_forward_mode() -> None:
    def function(x: Tensor) -> Tensor:
        return _solved(x, _Z[0], _W[0], _K, adjoint=pg.Implicit(hessian="gauss_newton"))

    torch.testing.assert_close(jacfwd(function)(_X[0]), jacrev(function)(_X[0]), rtol=1e-9, atol=1e-14)
    assert (jacfwd(function)(_X[0]) - jacrev(_solved)(_X[0], _Z[0], _W[0], _K)).abs().max() > 1e-8


def test_a_bounded_gain_has_no_forward_mode_and_says_so() -> None:
    def function(x: Tensor) -> Tensor:
        return _solved(x, _Z[0], _W[0], _K, adjoint=pg.Implicit(max_gain=2.0))

    with pytest.raises(NotImplementedError, match="max_gain=None"):
        jvp(function, (_X[0],), (_X[0],))
    # what is not differentiated does not matter
    value = jvp(lambda s: s * function(_X[0]), (torch.ones(()).double(),), (torch.ones(()).double(),))[1]
    torch.testing.assert_close(value, function(_X[0]))
    bounded = vmap(jacrev(function))(_X[:1])[0]
    torch.testing.assert_close(bounded, jacrev(function)(_X[0]))


def test_unrolled_takes_derivatives_but_no_map() -> None:
    def function(x: Tensor) -> Tensor:
        return _solved(x, _Z[0], _W[0], _K, adjoint=pg.Unrolled())

    expected = jacrev(_solved)(_X[0], _Z[0], _W[0], _K)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(function)(_X[0]), expected, rtol=1e-7, atol=1e-12)
    with pytest.raises(NotImplementedError, match=r"pg\.Unrolled\(\).*vmap cannot pass"):
        vmap(function)(_X)


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
def test_autocast_changes_nothing(inside: bool) -> None:
    def gradients() -> tuple[Tensor, ...]:
        leaves = [v.float().requires_grad_() for v in (_X, _Z, _W, _K)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = _solved(*leaves)
            if inside:
                return value, *torch.autograd.grad(value.sum(), leaves)
        return value, *torch.autograd.grad(value.sum(), leaves)

    autocast = False
    expected = gradients()
    autocast = True
    for got, wanted in zip(gradients(), expected, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
