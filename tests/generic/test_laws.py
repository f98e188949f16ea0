"""Items never depend on each other; a bad one gets a status, a finite answer and a zero gradient; bad calls raise."""

from typing import Any

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import Status, _pytree

from .samples import SAMPLES, loss_of

_NAN, _INF = float("nan"), float("inf")


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
@pytest.mark.parametrize("solver", [pg.LevenbergMarquardt(), pg.GaussNewton(), pg.Dogleg()])
@pytest.mark.parametrize("name", ["so3", "product", "positive"])
def test_a_bad_item_is_contained(name: str, solver: Any, adjoint: Any) -> None:
    sample = SAMPLES[name]
    init = _pytree.tree_map(lambda leaf: torch.cat([leaf, leaf]).clone(), sample.init)
    data = torch.cat([sample.data, sample.data])
    options = {"manifold": sample.manifold, "solver": solver, "adjoint": adjoint}

    def run(init: Any, data: Tensor) -> tuple[pg.Solution, Tensor]:
        leaf = data.clone().requires_grad_()
        solution = pg.least_squares(sample.residual, init, leaf, **options)
        return solution, torch.autograd.grad(loss_of(solution.variable).sum(), leaf)[0]

    clean, expected = run(init, data)
    data[1, 2] = _NAN
    data[2, 0] = _INF
    _pytree.flatten(init)[0][0][3].fill_(_NAN)
    solution, gradient = run(init, data)
    assert solution.status.tolist() == [0, Status.NOT_FINITE, Status.NOT_FINITE, Status.NOT_FINITE]
    for leaf, wanted in zip(_pytree.flatten(solution)[0], _pytree.flatten(clean)[0], strict=True):
        assert bool(leaf.isfinite().all())
        torch.testing.assert_close(leaf[:1], wanted[:1], rtol=1e-12, atol=1e-13)
    assert bool((gradient[1:] == 0).all())
    torch.testing.assert_close(gradient[:1], expected[:1], rtol=1e-12, atol=1e-14)


def test_inference_mode_and_its_tensors() -> None:
    sample = SAMPLES["so3"]
    expected = sample.solve(sample.data).variable
    with torch.inference_mode():
        torch.testing.assert_close(sample.solve(sample.data).variable, expected, rtol=0, atol=0)
        data, init = sample.data.clone(), sample.init.clone()
    solution = pg.least_squares(sample.residual, init, data, manifold=sample.manifold)
    torch.testing.assert_close(solution.variable, expected, rtol=0, atol=0)


def test_starts_off_the_manifold_are_a_status() -> None:
    for name, bad in (("so3", -1.0), ("sphere", 2.0), ("positive", -1.0)):
        sample = SAMPLES[name]
        init = torch.cat([sample.init, bad * sample.init])
        solution = pg.least_squares(
            sample.residual, init, torch.cat([sample.data, sample.data]), manifold=sample.manifold
        )
        assert solution.status.tolist() == [0, 0, Status.BAD_INIT, Status.BAD_INIT], name
        assert bool(solution.variable.isfinite().all())


def test_starts_near_the_manifold_are_put_on_it() -> None:
    for name, factor in (("so3", 1.01), ("sphere", 1.05)):
        sample = SAMPLES[name]
        expected = sample.solve(sample.data)
        actual = pg.least_squares(
            sample.residual, factor * sample.init, sample.data, manifold=sample.manifold
        )
        torch.testing.assert_close(actual.variable, expected.variable, rtol=0, atol=1e-11)


def test_other_statuses() -> None:
    sample = SAMPLES["euclidean"]
    assert sample.solve(sample.data, solver=pg.GaussNewton(max_steps=1)).status.tolist() == [1, 1]
    loss = pg.robust.Huber(torch.tensor([-1.0, 1.0]))
    assert sample.solve(sample.data, loss=loss).status.tolist() == [Status.BAD_LOSS, 0]
    flat = pg.least_squares(lambda x, y: x[:, :1] - y[:, :1], sample.init, sample.data)
    assert flat.status.tolist() == [Status.DEGENERATE] * 2
    nowhere = pg.least_squares(lambda x, y: (x - 2).log(), torch.ones(2, 2))
    assert nowhere.status.tolist() == [Status.INFEASIBLE] * 2


def test_steps_never_lead_where_the_residual_is_not_defined() -> None:
    """A Gauss-Newton step from here ends at a negative number, whose logarithm is NaN."""

    def residual(x: Tensor, y: Tensor) -> Tensor:
        return x.log() - y

    y = torch.tensor([[-5.0], [2.0]], dtype=torch.float64)
    for solver in (pg.LevenbergMarquardt(), pg.GaussNewton(), pg.Dogleg()):
        solution = pg.least_squares(residual, torch.full((1, 1), 20.0).double(), y, solver=solver)
        assert bool(solution.ok.all())
        torch.testing.assert_close(solution.variable, y.exp(), rtol=1e-12, atol=0)


def test_an_empty_batch() -> None:
    for name in ("euclidean", "product"):
        sample = SAMPLES[name]
        init = _pytree.tree_map(lambda leaf: leaf[:0], sample.init)
        data = sample.data[:0].clone().requires_grad_()
        solution = pg.least_squares(sample.residual, init, data, manifold=sample.manifold)
        assert solution.status.shape == (0,)
        assert torch.autograd.grad(loss_of(solution.variable).sum(), data)[0].shape == data.shape


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
@pytest.mark.parametrize("inequality", [None, lambda x, y: x - 5], ids=["free", "bounded"])
def test_a_batch_in_which_everything_fails_has_gradients_of_zero(adjoint: Any, inequality: Any) -> None:
    init, y = torch.zeros(1, 2), torch.full((2, 2), _NAN, requires_grad=True)
    given = torch.ones(2, 2, requires_grad=True)
    for data, size in ((y, 2), (given, 2), (given[:0], 0)):
        # the second is degenerate: the answer is on a line
        solutions = [
            pg.minimise(
                lambda x, y: (x[:, :1] - y).square().sum(-1),
                init,
                data,
                inequality=inequality,
                adjoint=adjoint,
            )
        ]
        if inequality is None:
            solutions.append(pg.least_squares(lambda x, y: x[:, :1] - y, init, data, adjoint=adjoint))
        for solution in solutions:
            assert not bool(solution.ok.any())
            assert solution.status.shape == (size,)
            gradient = torch.autograd.grad(solution.variable.sum(), data)[0]
            torch.testing.assert_close(gradient, torch.zeros(size, 2))


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
def test_a_cost_that_depends_on_nothing_has_gradients_of_zero(adjoint: Any) -> None:
    y = torch.ones(2, 2, requires_grad=True)
    for cost in (
        lambda x, y: y.sum(-1),
        lambda x, y: torch.zeros_like(x[:, 0]),
        lambda x, y: x.square().sum(-1),
    ):
        solution = pg.minimise(cost, torch.zeros(1, 2), y, adjoint=adjoint)
        gradient = torch.autograd.grad(solution.variable.sum(), y)[0]
        torch.testing.assert_close(gradient, torch.zeros(2, 2))


_X, _Y = torch.ones(2, 2), torch.ones(2, 6)
_R = SAMPLES["euclidean"].residual


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "residual: got Tensor", lambda: pg.least_squares(_X, _X, _Y)),
        (TypeError, "residual: returned tuple", lambda: pg.least_squares(lambda x, y: (x, y), _X, _Y)),
        (ValueError, r"residual: returned shape \(2,\)", lambda: pg.least_squares(lambda x, y: x.sum(-1), _X, _Y)),
        (ValueError, r"in a batch of 2", lambda: pg.least_squares(_R, _X, torch.ones(3, 6))),
        (ValueError, "without dimensions", lambda: pg.least_squares(_R, _X, (_Y, torch.tensor(1.0)))),
        (TypeError, "args: got a float", lambda: pg.least_squares(_R, _X, (_Y, 1.0))),
        (TypeError, "init: got dtype torch.int64", lambda: pg.least_squares(_R, _X.long(), _Y)),
        (TypeError, "args: got a tensor of torch.complex64", lambda: pg.least_squares(_R, _X, _Y + 1j)),
        (TypeError, "args: .* torch.sparse_coo .* use .to_dense", lambda: pg.least_squares(_R, _X, _Y.to_sparse())),
        (TypeError, "init: got str", lambda: pg.least_squares(_R, "x", _Y)),
        (TypeError, "residual: returned torch.int64", lambda: pg.least_squares(lambda x, y: x.long(), _X)),
        (TypeError, "objective: returned torch.bool", lambda: pg.minimise(lambda x, y: x[:, 0] > 0, _X)),
        (TypeError, "manifold: got <class", lambda: pg.least_squares(_R, _X, _Y, manifold=pg.manifolds.Sphere)),
        (TypeError, "solve: got int", lambda: pg.argmin_layer(3, pg.residual_problem(_R))),
        (TypeError, "polish: got None", lambda: pg.argmin_layer(len, pg.residual_problem(_R), polish=None)),
        (TypeError, "loss: got float", lambda: pg.least_squares(_R, _X, _Y, loss=1.0)),
        (ValueError, "loss: got a parameter of 3", lambda: pg.least_squares(
            _R, _X, _Y, loss=pg.robust.Huber(torch.ones(3)))),
        (TypeError, "solver: got 'lm'", lambda: pg.least_squares(_R, _X, _Y, solver="lm")),
        (TypeError, "adjoint: got str", lambda: pg.least_squares(_R, _X, _Y, adjoint="implicit")),
        (ValueError, "SO3: got shape", lambda: pg.least_squares(_R, _X, _Y, manifold=pg.manifolds.SO3())),
        (TypeError, "SE3: got Tensor", lambda: pg.least_squares(_R, _X, _Y, manifold=pg.manifolds.SE3())),
        (ValueError, "manifold: got", lambda: pg.least_squares(_R, {"a": _X}, _Y, manifold={"b": None})),
        (ValueError, "GaussNewton.max_steps: got 0", lambda: pg.GaussNewton(max_steps=0)),
        (ValueError, "Newton.max_steps: got True", lambda: pg.Newton(max_steps=True)),
        (ValueError, "LBFGS.memory: got 1.5", lambda: pg.LBFGS(memory=1.5)),
        (ValueError, "LBFGS.tolerance: got 'a', expected None or a", lambda: pg.LBFGS(tolerance="a")),
        (ValueError, "ConjugateGradients.tolerance: got 'a'", lambda: pg.ConjugateGradients(tolerance="a")),
        (ValueError, "InteriorPoint.tolerance: got 'a'", lambda: pg.InteriorPoint(tolerance="a")),
        (ValueError, "LevenbergMarquardt.tolerance: got nan", lambda: pg.LevenbergMarquardt(tolerance=_NAN)),
        (ValueError, "Implicit.max_gain: got 'a', expected None or a", lambda: pg.Implicit(max_gain="a")),
        (TypeError, r"expected pg.InteriorPoint\(...\) with constraints", lambda: pg.minimise(
            _R, _X, _Y, equality=_R, solver=pg.Newton())),
        (TypeError, "residual: returned torch.float32 for a variable of torch.float64", lambda: pg.least_squares(
            lambda x, y: x.float(), _X, _Y)),
        (TypeError, "inequality: returned torch.int64", lambda: pg.minimise(
            lambda x, y: x.sum(-1), _X, _Y, inequality=lambda x, y: (x > 1).long())),
        (ValueError, r"init: got shape \(2, 0\)", lambda: pg.least_squares(_R, _X[:, :0], _Y)),
        (ValueError, r"objective: returned shape \(2, 2\)", lambda: pg.minimise(lambda x, y: x, _X, _Y)),
        (ValueError, r"equality: returned shape \(2,\)", lambda: pg.minimise(
            lambda x, y: x.sum(-1), _X, _Y, equality=lambda x, y: x.sum(-1))),
        (ValueError, "no Gauss-Newton matrix", lambda: pg.minimise(
            _R, _X, _Y, adjoint=pg.Implicit(hessian="gauss_newton"))),
    ],
)  # fmt: skip
def test_wrong_calls_are_named(error: type[Exception], match: str, call: Any) -> None:
    with pytest.raises(error, match=match):
        call()


_FAR = [1.0, 1e2, 1e4]


@pytest.mark.parametrize(
    "solver", [pg.Newton(), pg.LBFGS(), pg.ConjugateGradients()], ids=["newton", "lbfgs", "cg"]
)
def test_the_distance_of_the_start_does_not_matter(solver: Any) -> None:
    """From afar the cost is huge; what is small beside it must not pass for a minimum."""

    def objective(x: Tensor, a: Tensor) -> Tensor:
        square = (x - a).square()
        return (square.square() + square + 0.2 * x).sum(-1)

    a = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    expected = pg.minimise(objective, a, a).variable
    start = torch.tensor(_FAR, dtype=torch.float64)[:, None].expand(-1, 2)
    solution = pg.minimise(objective, start, a, solver=solver)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close(solution.variable, expected.expand(3, 2), rtol=0, atol=1e-11)


@pytest.mark.parametrize("adjoint", [pg.Implicit(), pg.Unrolled()])
@pytest.mark.parametrize("solver", [pg.GaussNewton(), pg.Dogleg()], ids=["gn", "dogleg"])
def test_a_valley_from_afar(solver: Any, adjoint: Any) -> None:
    def rosenbrock(x: Tensor, a: Tensor) -> Tensor:
        return torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), a - x[:, 0]], -1)

    start = torch.tensor([[1000.0, -3.0], [-1.2, 1.0]], dtype=torch.float64)
    a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    solution = pg.least_squares(rosenbrock, start, a, solver=solver, adjoint=adjoint)
    assert bool(solution.ok.all()), solution.describe()
    torch.testing.assert_close(solution.variable, torch.stack([a, a * a], -1), rtol=0, atol=1e-11)
    (gradient,) = torch.autograd.grad(solution.variable[:, 1].sum(), a)
    torch.testing.assert_close(gradient, 2 * a.detach(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("solver", [pg.Newton(), pg.ConjugateGradients()], ids=["newton", "cg"])
def test_what_has_no_minimum_has_not_converged(solver: Any) -> None:
    solution = pg.minimise(lambda x, _: (-x).exp().sum(-1), torch.zeros(1, 1), solver=solver)
    assert solution.status.item() == Status.MAX_STEPS
