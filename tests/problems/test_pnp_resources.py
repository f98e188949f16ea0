"""What the torch operations of solve_pnp cost: memory by batch and points, launches of a device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import posegrad as pg
from posegrad.optim import levenberg_marquardt
from posegrad.problems import reprojection
from posegrad.testing import random_scene

# Of the largest tensor, by point of an item; without an init four candidates are refined at once.
_NUMBERS_A_POINT, _CANDIDATES = 14, 4


class _Operations(TorchDispatchMode):
    """The size of the largest tensor made, in bytes, and the operations that are not views: a device launches those."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.launches = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(value.alias_info for value in func._schema.returns):
            self.launches += 1
            for value in result if isinstance(result, list | tuple) else [result]:
                if isinstance(value, Tensor):
                    self.largest = max(self.largest, value.untyped_storage().nbytes())
        return result


def _largest(batch: int, points: int, *, init: bool) -> float:
    scene = random_scene(batch, points, noise=1.0)
    leaves = [v.clone().requires_grad_() for v in (scene.points2d, scene.points3d, scene.K, scene.weights)]
    x, z, K, w = leaves
    start = scene.pose.retract(torch.full((batch, 6), 0.02, dtype=torch.float64)) if init else None
    with _Operations() as operations:
        solution = pg.solve_pnp(x, z, K, weights=w, init=start, backend="torch")
        (solution.pose.R.sum() + solution.pose.t.sum()).backward()
    assert solution.ok.all()
    return operations.largest / 8


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(("batch", "points"), [(1, 3000), (2, 1500), (50, 60)])
def test_memory_is_linear_in_batch_and_points(batch: int, points: int, init: bool) -> None:
    """Nothing is of size N x N (3000 would be a hundred times what is allowed), in the backward neither."""
    allowed = _NUMBERS_A_POINT * (1 if init else _CANDIDATES) * batch * points
    assert _largest(batch, points, init=init) <= allowed


def test_launches_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number does not depend on the batch; docs/performance.md states it."""
    scene = random_scene(3, 12, noise=1.0)
    init = scene.pose.retract(torch.full((3, 6), 0.02, dtype=torch.float64))
    counts: dict[bool, set[int]] = {False: set(), True: set()}
    step: Callable[..., Any] = levenberg_marquardt._step

    def counted(*args: Any, exact: bool) -> Any:
        with _Operations() as operations:
            result = step(*args, exact=exact)
        counts[exact].add(operations.launches)
        return result

    monkeypatch.setattr(levenberg_marquardt, "_step", counted)
    for size in (1, 3):
        part = scene[:size]
        pg.solve_pnp(part.points2d, part.points3d, part.K, init=init[:size], backend="torch")
    assert counts == {False: {136}, True: {151}}


@pytest.mark.parametrize("init", [True, False])
def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch, init: bool) -> None:
    """What is worked on at once is a matter of caches; shared tensors stay shared."""
    scene = random_scene(7, 10, noise=1.0)
    start = scene.pose.retract(torch.full((7, 6), 0.02, dtype=torch.float64)) if init else None

    def solved() -> tuple[pg.PnPSolution, Tensor]:
        x = scene.points2d.clone().requires_grad_()
        solution = pg.solve_pnp(
            x, scene.points3d, scene.K, weights=scene.weights[:1], init=start, backend="torch"
        )
        (solution.pose.R.sum() + solution.pose.t.sum()).backward()
        assert x.grad is not None
        return solution, x.grad

    whole, gradient = solved()
    monkeypatch.setattr(reprojection, "_BLOCK", 20)  # two items
    parts, again = solved()
    assert torch.equal(parts.status, whole.status)
    torch.testing.assert_close(parts.pose.R, whole.pose.R, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.pose.t, whole.pose.t, rtol=0, atol=1e-12)
    torch.testing.assert_close(again, gradient, rtol=1e-9, atol=1e-12)


def test_memory_of_the_solve_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what holds the input (three numbers a point at most in one tensor)."""
    monkeypatch.setattr(reprojection, "_BLOCK", 1000)
    scene = random_scene(40, 100, noise=1.0)
    init = scene.pose.retract(torch.full((40, 6), 0.02, dtype=torch.float64))
    with _Operations() as operations:
        pg.solve_pnp(scene.points2d, scene.points3d, scene.K, init=init, backend="torch")
    assert operations.largest / 8 <= max(3 * 40 * 100, _NUMBERS_A_POINT * 1000)
