"""What solve_pnp asks of the host where a question waits for the device: counted, on the CPU that plays one."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

import posegrad as pg
from posegrad.testing import random_scene
from tests.questions import Questions, play_device


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    play_device(monkeypatch)


def test_the_counter_counts() -> None:
    x = torch.tensor([1.0, 2.0])
    asking: list[Callable[[], Any]] = [
        lambda: bool((x > 1).any()),
        lambda: x[x > 1],
        lambda: (x > 1).nonzero(),
        lambda: x.repeat_interleave(torch.tensor([1, 2])),
        lambda: torch.linalg.eigh(torch.eye(2)),
        lambda: int(x.sum()),
    ]
    for ask in asking:
        with Questions() as questions:
            ask()
        assert questions.asked.total() >= 1
    with Questions() as questions:
        torch.linalg.inv_ex(torch.eye(2))
        x.index_select(0, torch.tensor([0]))
    assert not questions.asked


def _counted(size: int, **options: Any) -> tuple[pg.PnPSolution, Counter[str], Counter[str]]:
    """The solution, and the questions of forward and of backward."""
    scene = random_scene(size, 8, noise=5.0, seed=2)
    leaves = [v.clone().requires_grad_() for v in (scene.points2d, scene.points3d, scene.K, scene.weights)]
    x, z, K, w = leaves
    if options.pop("with_init", False):
        options["init"] = scene.pose.retract(0.1 * torch.ones(6, dtype=torch.float64))
    with Questions() as forward:
        solution = pg.solve_pnp(x, z, K, weights=w, mask=torch.ones(8, dtype=torch.bool), **options)
    with Questions() as backward:
        residual = pg.reprojection_residuals(x, z, K, solution.pose)
        pg.masked_mean(residual.square().sum((-1, -2)), solution.ok).backward()
    assert all(leaf.grad is not None for leaf in leaves)
    return solution, forward.asked, backward.asked


@pytest.mark.usefixtures("dear")
@pytest.mark.parametrize("with_init", [False, True])
def test_questions_are_few_and_none_is_in_the_backward(with_init: bool) -> None:
    counts = []
    for size in (2, 40):
        solution, forward, backward = _counted(size, with_init=with_init)
        assert bool(solution.ok.all())
        assert not backward
        # one for the verdict's eigenvalues; at the start of each phase and at every fourth step of it; without an init:
        # how many items need more starts, how many candidates are nearly as good, how many items have no minimum yet
        steps, phases = int(solution.num_steps.max()), 2 if with_init else 3 + 3
        if (
            not with_init
        ):  # some do need more: how many starts these are, and once more two phases of as many steps
            phases += 1 + 2 + (steps + 10) // 4
        assert set(forward) <= {"_local_scalar_dense", "_linalg_eigh"}
        assert forward["_linalg_eigh"] == 1
        assert forward["_local_scalar_dense"] <= phases + (steps + 10) // 4
        counts.append(forward.total())
    assert counts[1] <= counts[0] + 6, "questions must not grow with the batch, but by its slowest item"


@pytest.mark.usefixtures("dear")
def test_second_derivatives_ask_nothing() -> None:
    scene = random_scene(2, 6, noise=2.0, seed=3)
    x = scene.points2d.clone().requires_grad_()
    solution = pg.solve_pnp(x, scene.points3d, scene.K, backend="torch")
    with Questions() as questions:
        (first,) = torch.autograd.grad(solution.pose.t.square().sum(), x, create_graph=True)
        first.square().sum().backward()
    assert not questions.asked


def test_few_questions_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps beyond convergence, and items that leave the work later, change nothing."""
    cheap, _, _ = _counted(30)
    play_device(monkeypatch)
    dear, _, _ = _counted(30)
    assert torch.equal(cheap.status, dear.status)
    torch.testing.assert_close(dear.pose.R, cheap.pose.R, rtol=0, atol=1e-12)
    torch.testing.assert_close(dear.pose.t, cheap.pose.t, rtol=0, atol=1e-12)
    torch.testing.assert_close(dear.num_steps, cheap.num_steps)
