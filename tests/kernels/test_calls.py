"""Kernels among threads, processes and transforms; and calls they do not serve."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import posegrad as pg
from posegrad.kernels import pool
from posegrad.testing import central_difference, random_scene, relative_error

_SCENE = random_scene(300, 12, noise=1.0, seed=3)


def _solved(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pose, and gradients by something of each item and something that they share."""
    x, K = _SCENE.points2d.clone().requires_grad_(), _SCENE.K.clone().requires_grad_()
    pose = pg.solve_pnp(x + 0.1 * seed, _SCENE.points3d, K, init=_SCENE.pose, backend="kernels").pose
    return pose.R, pose.t, *torch.autograd.grad(pose.t.sum() + pose.R[:, 0, 1].sum(), (x, K))


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two threads and parts so small that every call is cut."""
    monkeypatch.setattr(pool, "_WORTH_WAKING", 0)
    monkeypatch.setattr(pool, "_SMALLEST_PART", 1000)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def _assert_close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for i, (got, wanted) in enumerate(zip(actual, expected, strict=True)):
        # what items share is summed in parts: to rounding
        tolerance = 1e-12 if i == 3 else 0
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def test_parts_of_a_batch_are_the_batch(threads: None) -> None:
    assert pool.parts_of(300, 1_000_000) == 8
    shared = _solved()
    torch.set_num_threads(1)
    _assert_close(shared, _solved())


def test_eight_threads_at_once(threads: None) -> None:
    expected = [_solved(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as executor:
        for _ in range(3):
            for got, wanted in zip(executor.map(_solved, range(8)), expected, strict=True):
                _assert_close(got, wanted)


def _child(connection: Any) -> None:
    connection.send([part.tolist() for part in _solved()])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(threads: None) -> None:
    expected = _solved()  # the parent's threads exist
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(theirs,))
    child.start()
    assert ours.poll(60), "the child hangs"
    got = tuple(torch.tensor(part, dtype=torch.float64) for part in ours.recv())
    child.join()
    _assert_close(got, expected)


class _Poses(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        one = _SCENE[index : index + 1]
        return pg.solve_pnp(one.points2d, one.points3d, one.K, backend="kernels").pose.t[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_of_a_data_loader(threads: None) -> None:
    expected = pg.solve_pnp(_SCENE.points2d[:4], _SCENE.points3d[:4], _SCENE.K, backend="kernels").pose.t
    loaded = torch.cat(list(DataLoader(_Poses(), batch_size=2, num_workers=2)))
    torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-12)


def test_an_interrupt_leaves_nobody_at_work() -> None:
    def kernel(block: int, first: int, last: int, slot: int) -> None:
        if slot == 1:
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.run(kernel, 0, 100, 8)
    finally:
        torch.set_num_threads(1)


def test_gradients_against_resolving() -> None:
    scene = random_scene(3, 7, noise=2.0, seed=5)
    weights = scene.weights.clone().requires_grad_()
    x, z = scene.points2d.clone().requires_grad_(), scene.points3d.clone().requires_grad_()

    def loss(x: Tensor, z: Tensor, w: Tensor) -> Tensor:
        pose = pg.solve_pnp(x, z, scene.K, weights=w, backend="kernels", loss=pg.robust.Cauchy(3.0)).pose
        return pose.R[..., 0, 1] + pose.t.square().sum(-1)

    gradients = torch.autograd.grad(loss(x, z, weights).sum(), (x, z, weights))
    values = (scene.points2d, scene.points3d, scene.weights)
    for i, (gradient, value) in enumerate(zip(gradients, values, strict=True)):

        def varied(copies: Tensor, i: int = i) -> Tensor:
            count = len(copies) // len(values[0])
            rest = [v.repeat_interleave(count, 0) for v in values]
            rest[i] = copies
            return loss(rest[0], rest[1], rest[2])

        difference = central_difference(varied, value, 1e-2 if i == 0 else 1e-4)
        assert bool((relative_error(gradient, difference, 1e-9) < 1e-6).all()), i


def test_second_derivatives_are_those_of_torch() -> None:
    scene = random_scene(3, 7, noise=2.0, seed=5)
    second = []
    for backend in ("torch", "kernels"):
        x, K = scene.points2d.clone().requires_grad_(), scene.K.clone().requires_grad_()
        scene.points3d[1, 0, 0] = torch.nan
        pose = pg.solve_pnp(x * 1.0, scene.points3d, K, init=scene.pose, backend=backend).pose  # type: ignore[arg-type]
        first = torch.autograd.grad(pose.t.square().sum(), (x, K), create_graph=True)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in first), (x, K)))
    for got, wanted in zip(second[1], second[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8 * wanted.abs().max().item())
        assert bool(got.isfinite().all())


def test_many_gradients_at_once() -> None:
    """``is_grads_batched`` maps the backward pass."""
    x = _SCENE.points2d[:4].clone().requires_grad_()
    t = pg.solve_pnp(x, _SCENE.points3d[:4], _SCENE.K, init=_SCENE.pose[:4], backend="kernels").pose.t
    directions = torch.eye(12, dtype=torch.float64).view(12, 4, 3)
    (batched,) = torch.autograd.grad(t, x, directions, is_grads_batched=True, retain_graph=True)
    for direction, got in zip(directions, batched, strict=True):
        (wanted,) = torch.autograd.grad(t, x, direction, retain_graph=True)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_saved_tensors_that_were_moved_meanwhile() -> None:
    x = _SCENE.points2d[:4].clone().requires_grad_()
    z, init = _SCENE.points3d[:4], _SCENE.pose[:4]
    (wanted,) = torch.autograd.grad(pg.solve_pnp(x, z, _SCENE.K, init=init).pose.t.sum(), x)
    with torch.autograd.graph.saved_tensors_hooks(lambda v: v.numpy().copy(), torch.from_numpy):
        t = pg.solve_pnp(x, z, _SCENE.K, init=init, backend="kernels").pose.t
    (got,) = torch.autograd.grad(t.sum(), x)
    assert torch.equal(got, wanted)


def test_data_changed_before_the_backward_pass_raise() -> None:
    x, z = _SCENE.points2d[:4].clone().requires_grad_(), _SCENE.points3d[:4].clone()
    t = pg.solve_pnp(x, z, _SCENE.K, init=_SCENE.pose[:4], backend="kernels").pose.t
    z += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        t.sum().backward()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_solutions": 2}, "more than one solution"),
        ({"adjoint": pg.Unrolled()}, "the adjoint is not pg.Implicit"),
        ({"prior": pg.PosePrior(_SCENE.pose[:2], torch.eye(6).double())}, "there is a prior"),
        ({"loss": pg.robust.Huber(torch.tensor(1.0, requires_grad=True))}, "requires a gradient"),
        ({"camera": pg.cameras.FOV(torch.tensor([500.0, 500, 320, 240, 0.5]).double())}, "is a FOV"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_calls_that_kernels_do_not_serve_say_why(options: dict[str, Any], reason: str) -> None:
    camera = options.pop("camera", _SCENE.K)
    with pytest.raises(ValueError, match=f"backend: 'kernels' does not serve this call: .*{reason}"):
        pg.solve_pnp(_SCENE.points2d[:2], _SCENE.points3d[:2], camera, backend="kernels", **options)
    assert bool(pg.solve_pnp(_SCENE.points2d[:2], _SCENE.points3d[:2], camera, **options).status.ge(0).all())


def test_a_wrong_call_is_told_what_is_wrong_first() -> None:
    with pytest.raises(ValueError, match="the arguments are swapped"):
        pg.solve_pnp(_SCENE.points3d, _SCENE.points2d, _SCENE.K, backend="kernels")


def test_without_numba_torch_serves_with_one_warning() -> None:
    code = """
import sys, warnings
sys.modules["numba"] = None
import posegrad as pg
from posegrad.testing import random_scene
scene = random_scene(2, 6)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert pg.solve_pnp(scene.points2d, scene.points3d, scene.K).ok.all()
assert [str(w.message).split(" (")[0] for w in caught] == ["posegrad: numba cannot be imported"], caught
try:
    pg.solve_pnp(scene.points2d, scene.points3d, scene.K, backend="kernels")
except ValueError as error:
    assert "numba cannot be imported" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compiled_kernels_are_found_on_the_disk() -> None:
    """In a new process nothing is compiled again."""
    code = """
import sys
import posegrad as pg
from posegrad.kernels import families
from posegrad.testing import random_scene
scene = random_scene(2, 6)
pg.solve_pnp(scene.points2d, scene.points3d, scene.K, init=scene.pose, backend="kernels")
kernel = families._compiled[sys.modules["posegrad.kernels.forward"]]
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""
    pg.solve_pnp(_SCENE.points2d, _SCENE.points3d, _SCENE.K, init=_SCENE.pose, backend="kernels")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "0"], done.stderr
