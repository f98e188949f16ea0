"""Solvers of constrained problems wrapped into layers: quadratic programs by quadprog, as in OptNet."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import quadprog
import torch
from torch import Tensor

import posegrad as pg
from posegrad import Status
from posegrad.optim.compose import Scaled, Sum
from posegrad.testing import central_difference, random_scene, relative_error

from .test_minimise import _program, _program_data


def _quadprog(args: tuple[Tensor, ...]) -> Tensor:
    answers = []
    for Q, p, A, b, G, h in zip(*(value.numpy() for value in args), strict=True):
        C, d = np.concatenate([A, -G]), np.concatenate([b, -h])
        answers.append(quadprog.solve_qp(Q, -p, C.T, d, len(A))[0])
    return torch.from_numpy(np.stack(answers))


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None]).squeeze(-1)


_PROGRAM = pg.objective_problem(
    lambda x, a: 0.5 * (x * _times(a[0], x)).sum(-1) + (a[1] * x).sum(-1),
    equality=lambda x, a: _times(a[2], x) - a[3],
    inequality=lambda x, a: _times(a[4], x) - a[5],
)
_V = torch.tensor([0.7, -0.4, 1.1, 0.3], dtype=torch.float64)


def test_gradients_of_quadprog_by_all_of_its_data() -> None:
    data = _program_data(3)
    leaves = [value.clone().requires_grad_() for value in data]
    layer = pg.argmin_layer(_quadprog, _PROGRAM)
    solution = layer(tuple(leaves))
    assert isinstance(solution, pg.ConstrainedSolution)
    assert bool(solution.ok.all()), solution.describe()
    own = _program(data)
    torch.testing.assert_close(solution.variable, own.variable, rtol=0, atol=1e-12)
    assert torch.equal(solution.active, own.active)  # type: ignore[attr-defined]
    torch.testing.assert_close(
        solution.inequality_multipliers,
        own.inequality_multipliers,  # type: ignore[attr-defined]
        rtol=0,
        atol=1e-11,
    )
    gradients = torch.autograd.grad((solution.variable @ _V).sum(), leaves)
    for number, gradient in enumerate(gradients):

        def resolved(value: Tensor, number: int = number) -> Tensor:
            args = [other.repeat_interleave(len(value) // 3, 0) for other in data]
            args[number] = value
            return _quadprog(tuple(args)) @ _V

        if number == 0:  # quadprog reads one triangle of Q, the layer both
            gradient = gradient + gradient.mT
            expected = central_difference(lambda Q: resolved(0.5 * (Q + Q.mT)), data[0], 1e-3)
            expected = expected + expected.mT
        else:
            expected = central_difference(resolved, data[number], 1e-3)
        assert relative_error(gradient, expected, 1e-2).max() < 1e-7, number


def test_a_solver_that_stops_early_is_polished() -> None:
    data = _program_data(3)
    exact = _quadprog(data)
    layer = pg.argmin_layer(lambda args: exact + 1e-6 * torch.linspace(-1, 1, 4).double(), _PROGRAM)
    solution = layer(data)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close(solution.variable, exact, rtol=0, atol=1e-12)


def test_an_answer_that_is_none_is_flagged() -> None:
    data = tuple(value.clone().requires_grad_() for value in _program_data(3))

    def wrong(args: tuple[Tensor, ...]) -> Tensor:
        x = _quadprog(args)
        x[0, 0] = torch.nan
        x[1] += 3.0
        return x

    solution = pg.argmin_layer(wrong, _PROGRAM)(data)
    assert solution.status[0] == Status.NOT_FINITE
    assert solution.status[1] not in (Status.NOT_FINITE, Status.CONVERGED)
    assert solution.status[2] == Status.CONVERGED
    (gradient,) = torch.autograd.grad(solution.variable.sum(), data[1])
    assert bool((gradient[:2] == 0).all() & gradient.isfinite().all() & (gradient[2] != 0).any())


def test_the_sudoku_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[2] / "examples" / "sudoku.py"
    spec = importlib.util.spec_from_file_location("sudoku", path)
    assert spec is not None
    assert spec.loader is not None
    sudoku = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sudoku)
    monkeypatch.setattr(sys, "argv", ["sudoku.py", "--steps", "0", "--batch", "2"])
    sudoku.main()
    printed = capsys.readouterr().out
    assert "864 puzzles to learn from, 288 of other boards" in printed
    assert "differentiable 1.00" in printed


def test_an_answer_off_its_manifold_is_flagged_and_one_close_to_it_put_there() -> None:
    w = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    problem = pg.residual_problem(lambda R, w: (R - pg.so3.exp(w)).flatten(1), manifold=pg.manifolds.SO3())
    factors = torch.tensor([1.0, 1 + 1e-6, 2.0], dtype=torch.float64)[:, None, None]
    solution = pg.argmin_layer(lambda w: factors * pg.so3.exp(w), problem)(w)
    assert solution.status.tolist() == [0, 0, pg.Status.BAD_INIT]
    eye = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    torch.testing.assert_close(solution.variable @ solution.variable.mT, eye, rtol=0, atol=1e-14)
    actual, expected = (
        torch.autograd.grad(R[..., 0].sum(), w, retain_graph=True)[0]
        for R in (solution.variable, pg.so3.exp(w))
    )
    torch.testing.assert_close(actual[:2], expected[:2], rtol=1e-12, atol=1e-12)
    assert not bool(actual[2].any())


def test_a_pose_that_is_none_is_flagged() -> None:
    scene = random_scene(2, 8, noise=1.0)
    R = torch.stack([scene.pose.R[0], -scene.pose.R[1]])
    args = (scene.points2d, scene.points3d, scene.K[None])
    problem = pg.ReprojectionProblem()
    for whole, its_args in (
        (problem, args),
        (Sum(problem), (args,)),
        (Scaled(problem), (args, torch.full((2,), 1e-3, dtype=torch.float64))),
    ):
        layer = pg.argmin_layer(lambda _: pg.Pose(R, scene.pose.t), whole)
        assert layer(its_args).status.tolist() == [0, pg.Status.BAD_INIT]


@pytest.mark.parametrize("far", [1.0, 1e6])
def test_an_answer_far_outside_of_the_constraints_is_not_taken_for_one(far: float) -> None:
    """From afar all constraints are small, in units of there; Newton's method leads to where they are not."""
    ball = pg.objective_problem(
        lambda x, y: 0.5 * (x - y).square().sum(-1),
        inequality=lambda x, _: x.square().sum(-1, keepdim=True) - 0.01,
    )
    y = torch.tensor([[1.0, 2.0], [0.3, -2.0]], dtype=torch.float64, requires_grad=True)
    nearest = 0.1 * y.detach() / y.detach().norm(dim=-1, keepdim=True)

    def solve(y: Tensor) -> Tensor:  # of lower precision than what it was asked, too
        return torch.stack([nearest[0], torch.full((2,), far, dtype=torch.float64)]).float()

    solution = pg.argmin_layer(solve, ball)(y)
    assert solution.status.tolist() == [pg.Status.CONVERGED, pg.Status.NO_FEASIBLE_POINT]
    torch.testing.assert_close(solution.variable[0].detach(), nearest[0], rtol=1e-12, atol=1e-14)
    (gradient,) = torch.autograd.grad(solution.variable.sum(), y)
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[0] != 0).all())


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float16, torch.float16)])
def test_answers_of_several_dtypes_or_of_half_precision(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    problem = pg.residual_problem(lambda v, y: torch.cat([v[0] - y, v[1] - y], -1))
    y = torch.tensor([[1.0, 2.0]], dtype=dtypes[0], requires_grad=True)
    solution = pg.argmin_layer(lambda y: (y.clone(), y.to(dtypes[1])), problem)(y)
    assert bool(solution.ok.all())
    (gradient,) = torch.autograd.grad(solution.variable[0].sum(), y)
    assert torch.equal(gradient, torch.ones_like(y))
