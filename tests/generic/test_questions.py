"""What the generic layer asks of the host where a question waits for the device: counted, on the CPU that plays one."""

from collections import Counter

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import random_scene
from tests.questions import Questions, play_device


def reprojection(pose: pg.Pose, args: tuple[Tensor, ...]) -> Tensor:
    return pg.reprojection_residuals(args[0], args[1], args[2], pose)


def counted(
    size: int, solver: pg.LevenbergMarquardt | pg.GaussNewton | pg.Dogleg
) -> tuple[pg.Solution, Counter[str]]:
    """The solution, and the questions of the forward pass; the backward asks none."""
    scene = random_scene(size, 8, noise=5.0, seed=2)
    x, z = (value.clone().requires_grad_() for value in (scene.points2d, scene.points3d))
    start = scene.pose.retract(0.1 * torch.ones(6, dtype=torch.float64))
    with Questions() as forward:
        solution = pg.least_squares(reprojection, start, (x, z, scene.K[None]), solver=solver)
    with Questions() as backward:
        solution.variable.t.square().sum().backward()
    assert not backward.asked
    assert x.grad is not None
    assert bool((x.grad != 0).all())
    return solution, forward.asked


@pytest.mark.parametrize("solver", [pg.LevenbergMarquardt(), pg.GaussNewton(), pg.Dogleg()])
def test_questions_are_few_and_none_is_in_the_backward(
    solver: pg.LevenbergMarquardt | pg.GaussNewton | pg.Dogleg, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_device(monkeypatch)
    counts = []
    for size in (2, 40):
        solution, asked = counted(size, solver)
        assert bool(solution.ok.all())
        # at the start of two phases and at every fourth step; whether an item is to be measured anew; eigenvalues
        steps = int(solution.num_steps.max())
        assert set(asked) <= {"_local_scalar_dense", "_linalg_eigh"}
        assert asked["_linalg_eigh"] == 1
        assert asked["_local_scalar_dense"] <= 3 + (steps + 10) // 4
        counts.append(asked.total())
    assert counts[1] <= counts[0] + 2, "questions must not grow with the batch, but by its slowest item"


def test_second_derivatives_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    play_device(monkeypatch)
    scene = random_scene(2, 6, noise=2.0, seed=3)
    x = scene.points2d.clone().requires_grad_()
    solution = pg.least_squares(reprojection, scene.pose, (x, scene.points3d, scene.K[None]))
    with Questions() as questions:
        (first,) = torch.autograd.grad(solution.variable.t.square().sum(), x, create_graph=True)
        first.square().sum().backward()
    assert not questions.asked
