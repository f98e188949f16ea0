"""Generic least squares: gradients against re-solving, on every manifold, with every loss, solver and adjoint."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradgradcheck

import posegrad as pg
from posegrad.testing import central_difference, random_scene, relative_error

from .samples import SAMPLES, Sample, loss_of

_ADJOINTS = {"implicit": pg.Implicit(), "unrolled": pg.Unrolled()}
_SOLVERS = {"lm": pg.LevenbergMarquardt(), "gn": pg.GaussNewton(), "dogleg": pg.Dogleg()}
_LOSSES: dict[str, pg.robust.RobustLoss | None] = {
    "none": None,
    "huber": pg.robust.Huber(0.35),
    "soft_l1": pg.robust.SoftL1(0.3),
    "cauchy": pg.robust.Cauchy(0.5),
    "geman_mcclure": pg.robust.GemanMcClure(1.5),
    "tukey": pg.robust.Tukey(2.5),
    "truncated": pg.robust.Truncated(2.0),
    "barron": pg.robust.Barron(0.5, alpha=0.7),
}


def _check(sample: Sample, tolerance: float = 1e-7, **options: Any) -> None:
    data = sample.data.clone().requires_grad_()
    solution = sample.solve(data, **options)
    assert bool(solution.ok.all()), solution.describe()
    (gradient,) = torch.autograd.grad(loss_of(solution.variable).sum(), data)
    expected = central_difference(
        lambda x: loss_of(sample.solve(x, **{**options, "adjoint": pg.Implicit()}).variable),
        sample.data,
        1e-3,
    )
    assert relative_error(gradient, expected, 1e-3).max() < tolerance


@pytest.mark.parametrize("adjoint", _ADJOINTS)
@pytest.mark.parametrize("loss", ["none", "cauchy"])
@pytest.mark.parametrize("name", SAMPLES)
def test_gradient_equals_re_solving(name: str, loss: str, adjoint: str) -> None:
    _check(SAMPLES[name], loss=_LOSSES[loss], adjoint=_ADJOINTS[adjoint])


@pytest.mark.parametrize("adjoint", _ADJOINTS)
@pytest.mark.parametrize("loss", [loss for loss in _LOSSES if loss not in ("none", "cauchy")])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name != "so3" else ()) for name in SAMPLES]
)
def test_gradient_with_every_loss(name: str, loss: str, adjoint: str) -> None:
    _check(SAMPLES[name], loss=_LOSSES[loss], adjoint=_ADJOINTS[adjoint])


@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("name", SAMPLES)
def test_solvers_agree(name: str, solver: str) -> None:
    sample = SAMPLES[name]
    for loss in (None, pg.robust.Cauchy(0.5)):
        expected, actual = (
            sample.solve(sample.data, loss=loss, solver=s)
            for s in (pg.LevenbergMarquardt(), _SOLVERS[solver])
        )
        assert bool(actual.ok.all())
        torch.testing.assert_close(
            loss_of(actual.variable), loss_of(expected.variable), rtol=1e-11, atol=1e-11
        )


def test_solvers_come_down_a_bent_valley() -> None:
    def rosenbrock(x: Tensor, a: Tensor) -> Tensor:
        return torch.stack([a[:, 0] * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], -1)

    start = torch.tensor([[-1.2, 1.0], [0.0, 50.0]], dtype=torch.float64)
    for solver in _SOLVERS.values():
        solution = pg.least_squares(
            rosenbrock, start, torch.tensor([[10.0]], dtype=torch.float64), solver=solver
        )
        assert bool(solution.ok.all()), (solver, solution.describe())
        torch.testing.assert_close(solution.variable, torch.ones_like(start), rtol=0, atol=1e-10)


def test_dogleg_starts_where_the_jacobian_is_singular() -> None:
    """Where Gauss-Newton has no step, and steepest descent has."""

    def residual(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x[:, 0] ** 3 - y[:, 0], x.sum(-1) - y[:, 1]], -1)

    start, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[8.0, 1.0]], dtype=torch.float64)
    model = pg.residual_problem(residual).quadratic(start, y, exact=False)
    assert not bool(pg.GaussNewton().propose(model, torch.ones(1).double()).usable)
    solution = pg.least_squares(residual, start, y, solver=pg.Dogleg())
    assert bool(solution.ok), solution.describe()
    torch.testing.assert_close(solution.variable, torch.tensor([[2.0, -1.0]]).double(), rtol=0, atol=1e-12)


def test_equals_solve_pnp_with_gradients_for_every_argument() -> None:
    scene = random_scene(3, 8, noise=2.0)
    start = scene.pose.retract(torch.full((3, 6), 0.02, dtype=torch.float64))
    leaves = [
        v.clone().requires_grad_() for v in (scene.points2d, scene.points3d[:1], scene.K[None], scene.weights)
    ]
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = pg.project_points(leaves[1], leaves[2], scene.pose).detach() + (scene.points2d - leaves[0].detach())
    points2d = (x + 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = pg.robust.Huber(scale)
    inputs = [points2d, *leaves[1:], scale]

    def weighted(pose: pg.Pose, args: tuple[Tensor, ...]) -> Tensor:
        return args[3].sqrt()[..., None] * pg.reprojection_residuals(*args[:3], pose)

    def gradients(pose: pg.Pose) -> tuple[Tensor, ...]:
        return torch.autograd.grad(pose.R.square().sum() + pose.R[:, 0, 1].sum() + pose.t.sum(), inputs)

    generic = pg.least_squares(weighted, start, tuple(inputs[:4]), loss=loss)
    tuned = pg.solve_pnp(points2d, leaves[1], leaves[2], weights=leaves[3], init=start, loss=loss)
    assert bool(generic.ok.all() & tuned.ok.all())
    torch.testing.assert_close(generic.variable.t, tuned.pose.t, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(generic.hessian, tuned.hessian, rtol=1e-9, atol=1e-5)
    torch.testing.assert_close(generic.cost, tuned.cost, rtol=1e-12, atol=0)
    for actual, expected in zip(gradients(generic.variable), gradients(tuned.pose), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-11)


def test_gauss_newton_hessian_in_the_adjoint_follows_its_definition() -> None:
    sample = SAMPLES["euclidean"]
    data = sample.data.clone().requires_grad_()
    solution = sample.solve(data, adjoint=pg.Implicit(hessian="gauss_newton"))
    (gradient,) = torch.autograd.grad(solution.variable[:, 0].sum(), data)
    J = torch.func.vmap(torch.func.jacrev(lambda x, y: sample.residual(x[None], y[None]).flatten()))(
        solution.variable.detach(), sample.data
    )
    expected = (J @ torch.linalg.inv(J.mT @ J))[..., 0]
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_a_given_jacobian_is_used() -> None:
    sample = SAMPLES["euclidean"]
    calls = []

    def jacobian(x: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        s = torch.linspace(0, 1, 6, dtype=x.dtype)
        e = (x[:, 1:] * s).exp()
        return torch.stack([e, x[:, :1] * s * e], -1)

    plain, given = sample.solve(sample.data), sample.solve(sample.data, jacobian=jacobian)
    assert calls
    torch.testing.assert_close(given.variable, plain.variable, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"jacobian: returned \(2, 3\)"):
        sample.solve(sample.data, jacobian=lambda x, y: torch.zeros(2, 3))


def test_second_derivatives_and_transforms() -> None:
    sample = SAMPLES["so3"]

    def first(data: Tensor) -> Tensor:
        return pg.least_squares(
            sample.residual, sample.init[:1], data, manifold=sample.manifold, loss=pg.robust.Cauchy(0.5)
        ).variable

    one = sample.data[:1]
    assert gradgradcheck(first, one.clone().requires_grad_(), rtol=1e-5, atol=1e-6, fast_mode=True)
    rows = torch.func.jacrev(first)(one)
    torch.testing.assert_close(torch.func.jacfwd(first)(one), rows, rtol=1e-9, atol=1e-12)
    mapped = torch.func.vmap(lambda y: first(y[None]))(one.expand(3, -1))
    torch.testing.assert_close(mapped, first(one).expand(3, 1, 3, 3), rtol=1e-12, atol=1e-13)


def test_a_mapped_scale_of_the_loss() -> None:
    sample = SAMPLES["euclidean"]
    scales = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)

    def solved(scale: Tensor) -> Tensor:
        init = sample.init[:1]  # shared, as the data are
        return pg.least_squares(
            sample.residual, init, sample.data[:1], loss=pg.robust.Cauchy(scale)
        ).variable[0]

    expected = torch.stack([solved(scale) for scale in scales])
    torch.testing.assert_close(torch.func.vmap(solved)(scales), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_units_do_not_matter(factor: float) -> None:
    sample = SAMPLES["se3"]
    expected = sample.solve(sample.data, loss=pg.robust.Cauchy(0.5))
    actual = pg.least_squares(
        lambda pose, y: factor * sample.residual(pose, y),
        sample.init,
        sample.data,
        loss=pg.robust.Cauchy(0.5 * factor),
    )
    assert actual.num_steps.tolist() == expected.num_steps.tolist()
    assert bool(actual.ok.all())
    torch.testing.assert_close(actual.variable.t, expected.variable.t, rtol=1e-10, atol=0)
    torch.testing.assert_close(actual.hessian, factor**2 * expected.hessian, rtol=1e-9, atol=0)


def test_a_start_that_fits_exactly_is_converged() -> None:
    sample = SAMPLES["se3"]
    exact = sample.residual(sample.init, torch.zeros(2, 15, dtype=torch.float64)).flatten(1)
    solution = sample.solve(exact)
    assert bool(solution.ok.all())


def test_float32_in_float32_out() -> None:
    sample = SAMPLES["so3"]
    data = sample.data.float().requires_grad_()
    solution = pg.least_squares(sample.residual, sample.init.float(), data, manifold=sample.manifold)
    reference = sample.data.clone().requires_grad_()
    expected = sample.solve(reference)
    assert solution.variable.dtype == solution.cost.dtype == torch.float32
    torch.testing.assert_close(solution.variable, expected.variable.float(), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss_of(solution.variable).sum(), data)
    (wanted,) = torch.autograd.grad(loss_of(expected.variable).sum(), reference)
    torch.testing.assert_close(gradient, wanted.float(), rtol=1e-4, atol=1e-5)


def _chain(x: Tensor, y: Tensor) -> Tensor:
    """Neighbours that are tied to each other, and each to its datum by a curve."""
    return torch.cat([x + 0.1 * x**3 - y, 0.7 * (x[:, 1:] - x[:, :-1])], -1)


@pytest.mark.parametrize("loss", [None, pg.robust.SoftL1(0.5)])
def test_conjugate_gradients_equal_the_dense_solver(loss: Any) -> None:
    y = 2 * torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start, results = torch.zeros(1, 40, dtype=torch.float64), []
    for solver in (pg.LevenbergMarquardt(), pg.ConjugateGradients()):
        leaf = y.clone().requires_grad_()
        solution = pg.least_squares(_chain, start, leaf, solver=solver, loss=loss)
        assert bool(solution.ok.all()), solution.describe()
        results.append((solution, torch.autograd.grad(loss_of(solution.variable).sum(), leaf)[0]))
    (dense, wanted), (free, gradient) = results
    assert free.hessian.shape == (3, 0, 0)
    torch.testing.assert_close(free.variable, dense.variable, rtol=0, atol=1e-11)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


def test_conjugate_gradients_in_many_dimensions_and_their_limits() -> None:
    """A matrix of 20 000 x 20 000 would take 3.2 GB."""
    y = torch.randn(
        1, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    start = torch.zeros(1, 20_000, dtype=torch.float64)
    solution = pg.least_squares(_chain, start, y, solver=pg.ConjugateGradients())
    assert bool(solution.ok.all()), solution.describe()
    (gradient,) = torch.autograd.grad(solution.variable[0, 500], y, create_graph=True)
    with torch.no_grad():
        shift = torch.zeros_like(y)
        shift[0, 501] = 1e-3
        ahead, back = (
            pg.least_squares(_chain, start, y + s * shift, solver=pg.ConjugateGradients()).variable[0, 500]
            for s in (1, -1)
        )
    torch.testing.assert_close(gradient[0, 501], (ahead - back) / 2e-3, rtol=1e-6, atol=0)
    with pytest.raises(NotImplementedError, match="first derivatives"):
        gradient.square().sum().backward()
    with pytest.raises(ValueError, match="without max_gain"):
        pg.least_squares(_chain, start, y, solver=pg.ConjugateGradients(), adjoint=pg.Unrolled())


def test_a_bad_item_does_not_stop_conjugate_gradients() -> None:
    y = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = torch.zeros(1, 10, dtype=torch.float64)
    expected = pg.least_squares(_chain, start, y, solver=pg.ConjugateGradients()).variable
    y[1, 3] = torch.nan
    leaf = y.clone().requires_grad_()
    solution = pg.least_squares(_chain, start, leaf, solver=pg.ConjugateGradients())
    assert solution.status.tolist() == [0, pg.Status.NOT_FINITE, 0]
    torch.testing.assert_close(solution.variable[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-13)
    (gradient,) = torch.autograd.grad(solution.variable.sum(), leaf)
    assert bool((gradient[1] == 0).all() & gradient.isfinite().all())


def test_the_gradient_of_a_residual_that_ignores_its_arguments_is_zero() -> None:
    y = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    for residual in (lambda x, y: x - 1, lambda x, y: (x - 1) * (y * 0 + 1).detach()):
        solution = pg.least_squares(residual, torch.zeros(2, 3, dtype=torch.float64), y)
        assert bool(solution.ok.all())
        (gradient,) = torch.autograd.grad(solution.variable.sum(), y)
        assert torch.equal(gradient, torch.zeros_like(y))


def test_conjugate_gradients_give_no_gradient_along_what_the_data_leave_open() -> None:
    """Three equations, two items of six unknowns each, the second with what is missing: divided by nothing, 1e15."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    more = torch.tensor([[0.0], [1.0]], dtype=torch.float64)

    def residual(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([(A @ x[..., None]).squeeze(-1) - y, more * x], -1)

    init = torch.zeros(2, 6, dtype=torch.float64)
    solution = pg.least_squares(residual, init, y, solver=pg.ConjugateGradients())
    gradient = torch.autograd.grad(solution.variable.sum(), y)[0]
    dense = pg.least_squares(residual, init, y)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(dense.variable.sum(), y)[0], rtol=1e-9, atol=1e-12
    )


def test_conjugate_gradients_go_on_where_a_system_is_ill_conditioned() -> None:
    """Condition 4e5 and ten directions left open: many times the dimension. The loss does not change along those."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 100, 110, generator=generator, dtype=torch.float64)
    A = A * torch.logspace(0, 2, 110, dtype=torch.float64)
    y = torch.randn(2, 100, generator=generator, dtype=torch.float64, requires_grad=True)

    def product(x: Tensor) -> Tensor:
        return (A @ x[..., None]).squeeze(-1)

    solution = pg.least_squares(
        lambda x, y: product(x) - y, torch.zeros(1, 110).double(), y, solver=pg.ConjugateGradients()
    )
    (gradient,) = torch.autograd.grad(product(solution.variable).square().sum(), y)
    torch.testing.assert_close(gradient, 2 * y.detach(), rtol=1e-9, atol=1e-9)


def test_conjugate_gradients_stop_where_only_rounding_is_left_of_a_gauge() -> None:
    """Bundle adjustment without a fixed frame: Gauss-Newton's and the exact Hessian are singular in 7 directions."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def projected(variable: tuple[Tensor, Tensor]) -> Tensor:
        motion, points = variable
        moved = points[:, None] @ pg.so3.exp(motion[..., :3]).mT + motion[..., None, 3:]
        return moved[..., :2] / moved[..., 2:]

    def residual(variable: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        return (projected(variable) - seen).flatten(1)

    points = noise(2, 8, 3)
    motion = torch.cat([0.3 * noise(2, 3, 3), 0.5 * noise(2, 3, 3) + torch.tensor([0.0, 0.0, 6.0])], -1)
    seen = (projected((motion, points)) + 0.002 * noise(2, 3, 8, 2)).requires_grad_()
    start = (motion + 0.01 * noise(2, 3, 6), points)
    solution = pg.least_squares(residual, start, seen, solver=pg.ConjugateGradients())
    assert bool(solution.ok.all())
    # of what the data do determine: the response is J H^+ J^T
    (gradient,) = torch.autograd.grad(projected(solution.variable)[..., 0].sum(), seen)
    for item in range(2):
        own = seen[item : item + 1].detach()
        at = torch.cat([leaf[item].detach().flatten() for leaf in solution.variable])

        def fit(x: Tensor, own: Tensor = own) -> Tensor:
            return residual((x[:18].view(1, 3, 6), x[18:].view(1, 8, 3)), own).flatten()

        J = torch.func.jacrev(fit)(at)
        H = torch.func.hessian(lambda x, fit=fit: 0.5 * fit(x).square().sum())(at)
        u = torch.linalg.pinv(H, rtol=1e-9, hermitian=True) @ J[::2].sum(0)
        torch.testing.assert_close(gradient[item].flatten(), J @ u, rtol=1e-9, atol=1e-11)
