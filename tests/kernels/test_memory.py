"""Kernels read addresses: what they point to stays what it was, whatever happens around a call."""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

import posegrad as pg
from posegrad import Status
from posegrad.kernels import jit, pool
from posegrad.testing import random_scene

_SCENE = random_scene(6, 9, noise=1.0, seed=1)
_BACKENDS: list[Literal["torch", "kernels"]] = ["torch", "kernels"]


def _strided() -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, matrix and weights that are views with strides of their own, of memory that is NaN elsewhere."""
    whole = torch.full((6, 45, 7), torch.nan, dtype=torch.float64)
    x = whole[:, ::5, 2:4]
    x.copy_(_SCENE.points2d)
    K, w = _SCENE.K.mT.contiguous().mT, torch.linspace(0.5, 2.0, 54).double().view(9, 6).mT
    return x.requires_grad_(), K.requires_grad_(), w.requires_grad_()


def _translation(leaves: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, K, w = leaves
    return pg.solve_pnp(x, _SCENE.points3d, K, weights=w, init=_SCENE.pose, backend="kernels").pose.t


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda v: v.clone(memory_format=torch.contiguous_format), lambda v: v),
        (lambda v: v.float(), lambda v: v),
        (lambda v: v.numpy().copy(), torch.from_numpy),
    ],
    ids=["contiguous", "single", "numpy"],
)
def test_saved_tensors_may_come_back_in_another_layout(
    pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]
) -> None:
    leaves = _strided()
    wanted = torch.autograd.grad(_translation(leaves).sum(), leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda v: pack(v.detach()), unpack):
        t = _translation(leaves)
    for got, exact in zip(torch.autograd.grad(t.sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize(
    ("unpack", "message"), [(lambda v: v[:1], "the shape"), (lambda v: v.half(), "something else")]
)
def test_saved_tensors_that_come_back_as_others_raise(
    unpack: Callable[[Tensor], Tensor], message: str
) -> None:
    leaves = _strided()
    with torch.autograd.graph.saved_tensors_hooks(lambda v: v.detach(), unpack):
        t = _translation(leaves)
    with pytest.raises(RuntimeError, match=f"a hook on saved tensors handed back {message}"):
        t.sum().backward()


def test_a_call_inside_of_a_call() -> None:
    """Three points are searched by torch operations, between two uses of the call's block."""

    class Solving(TorchFunctionMode):
        depth = 0

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if Solving.depth == 0:
                Solving.depth = 1
                pg.solve_pnp(_SCENE.points2d, _SCENE.points3d, _SCENE.K, init=_SCENE.pose, backend="kernels")
                Solving.depth = 0
            return func(*args, **(kwargs or {}))

    few = random_scene(2, 3, seed=2)
    x = few.points2d.clone().requires_grad_()

    def solved() -> tuple[Tensor, Tensor]:
        t = pg.solve_pnp(x, few.points3d, few.K, backend="kernels").pose.t
        return t, torch.autograd.grad(t.sum(), x)[0]

    wanted = solved()
    with Solving():
        got = solved()
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])


class _Owner:
    pass


def test_an_interrupt_frees_no_memory_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    caller, started, go_on, done = (
        threading.get_ident(),
        threading.Event(),
        threading.Event(),
        threading.Event(),
    )

    def kernel(block: int, first: int, last: int, slot: int) -> None:
        if threading.get_ident() == caller:
            assert started.wait(30)
            raise KeyboardInterrupt
        started.set()
        assert go_on.wait(30)
        done.set()

    owner = _Owner()
    alive = weakref.ref(owner)
    with pytest.raises(KeyboardInterrupt):
        pool.run(kernel, 0, 100, 8, owner)
    del owner
    gc.collect()
    assert alive() is not None
    go_on.set()
    assert done.wait(30)


def test_without_new_threads_the_caller_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", start)
    seen: list[int] = []
    pool.run(lambda block, first, last, slot: seen.append(slot), 0, 100, 8)
    assert seen == list(range(8))


def test_kernels_do_without_a_cache_that_fails() -> None:
    def decorator(signature: str, cache: bool = False, **options: Any) -> Callable[[Any], Any]:
        if cache:
            raise EOFError("Ran out of input")  # of a damaged index
        return lambda function: function

    assert jit._cached(decorator, "void()")(test_kernels_do_without_a_cache_that_fails) is not None


def test_a_translation_that_overflows_is_not_finite() -> None:
    scene = random_scene(3, 9, seed=3)
    z = (2e37 * scene.points3d).float()
    far = pg.Pose(scene.pose.R, 2e37 * scene.pose.t * torch.tensor([[1.0], [8.0], [1.0]]))
    x = pg.project_points(z.double(), scene.K, far).float().requires_grad_()
    for number in range(4):
        backend, init = _BACKENDS[number % 2], far if number < 2 else None
        solution = pg.solve_pnp(x, z, scene.K, init=init, backend=backend)
        assert solution.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED]
        assert torch.equal(solution.pose.R[1], torch.eye(3))
        assert solution.pose.t[1].tolist() == [0.0, 0.0, 1.0]
        assert not bool(solution.hessian[1].any())
        (gradient,) = torch.autograd.grad(solution.pose.R.sum() + 1e-38 * solution.pose.t.sum(), x)
        assert not bool(gradient[1].any())
        assert bool(gradient[0].any())


@pytest.mark.parametrize("loss", [None, pg.robust.Huber(2.0)])
@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Implicit(hessian="gauss_newton")])
def test_points_of_weight_zero_may_lie_anywhere(
    adjoint: pg.Implicit, loss: pg.robust.RobustLoss | None
) -> None:
    z, w = _SCENE.points3d.clone(), torch.ones(6, 9).double()
    z[0, 0], w[0, 0] = 1.7e308, 0.0
    z[1, 3], w[1, 3] = _SCENE.pose.inverse().t[1], 0.0  # at the camera
    leaves = [_SCENE.points2d.clone().requires_grad_(), z.requires_grad_(), w.requires_grad_()]
    solution = pg.solve_pnp(
        leaves[0],
        leaves[1],
        _SCENE.K,
        weights=leaves[2],
        init=_SCENE.pose,
        adjoint=adjoint,
        loss=loss,
        backend="kernels",
    )
    assert bool(solution.ok.all())
    for gradient in torch.autograd.grad(solution.pose.t.sum(), leaves):
        assert bool(gradient.isfinite().all())
        assert bool(gradient.flatten(1).any(1).all())


def test_forward_mode_of_the_backward_pass() -> None:
    """Linear in the cotangent: its tangent goes through, too."""
    x = _SCENE.points2d.clone().requires_grad_()
    t = pg.solve_pnp(x, _SCENE.points3d, _SCENE.K, init=_SCENE.pose, backend="kernels").pose.t
    (wanted,) = torch.autograd.grad(t.sum(), x, retain_graph=True)
    with forward_ad.dual_level():
        along = forward_ad.make_dual(torch.ones_like(t), torch.full_like(t, 2.0))
        tangent = forward_ad.unpack_dual(torch.autograd.grad(t, x, along)[0]).tangent
    assert tangent is not None
    torch.testing.assert_close(tangent, 2.0 * wanted, rtol=1e-8, atol=1e-12)


def test_another_default_device_does_not_matter() -> None:
    few = random_scene(3, 3, seed=2)
    wanted = pg.solve_pnp(few.points2d, few.points3d, few.K, backend="kernels")
    with torch.device("meta"):
        got = pg.solve_pnp(few.points2d, few.points3d, few.K, backend="kernels")
    assert got.status.tolist() == [Status.CONVERGED] * 3
    assert torch.equal(got.pose.t, wanted.pose.t)


@pytest.mark.parametrize("name", ["mask", "init", "loss", "weights"])
def test_a_wrong_type_beside_several_batch_dimensions_is_named(name: str) -> None:
    x, z = _SCENE.points2d.view(2, 3, 9, 2), _SCENE.points3d.view(2, 3, 9, 3)
    options: dict[str, Any] = {name: [1.0]}
    with pytest.raises(TypeError, match=f"{name}: got list"):
        pg.solve_pnp(x, z, _SCENE.K, **options)


def test_any_number_of_steps() -> None:
    solver = pg.LevenbergMarquardt(max_steps=2**70)
    assert bool(
        pg.solve_pnp(_SCENE.points2d, _SCENE.points3d, _SCENE.K, init=_SCENE.pose, solver=solver).ok.all()
    )
