"""The Gaussian pose prior: its closed forms, conventions, gradients, and what it makes of bad input."""

import math
from typing import Any, NamedTuple

import mpmath
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import posegrad as pg
from posegrad import so3
from posegrad.optim.compose import Sum
from posegrad.optim.covariance import inverse_hessian_covariance
from posegrad.optim.levenberg_marquardt import minimise
from posegrad.optim.problem import Quadratic
from posegrad.pose import Pose
from posegrad.problems.prior import PosePrior
from posegrad.problems.prior_problem import Prior, PriorTerm, _gamma, _gamma_slope
from posegrad.testing import central_difference, check_problem, relative_error


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Numbers(NamedTuple):
    """A prior term with its mean rotation as a rotation vector: derivatives off the rotations mean nothing."""

    rotvec: Tensor
    t: Tensor
    information: Tensor
    centre: Tensor
    size: Tensor
    unit: Tensor

    def term(self) -> PriorTerm:
        pose = Pose(so3.exp(self.rotvec), self.t)
        return PriorTerm(pose, self.information, self.centre, self.size, self.unit)


class OfNumbers(Prior):
    """The prior with :class:`Numbers` as its arguments."""

    def residual(self, variable: Pose, args: Any) -> Tensor:
        return super().residual(variable, args.term())

    def cost(self, variable: Pose, args: Any) -> Tensor:
        return super().cost(variable, args.term())

    def quadratic(self, variable: Pose, args: Any, *, exact: bool) -> Quadratic:
        return super().quadratic(variable, args.term(), exact=exact)

    def slope(self, variable: Pose, args: Any, direction: Tensor) -> Tensor:
        return super().slope(variable, args.term(), direction)


def _information(batch: int, rank: int = 6, seed: int = 1) -> Tensor:
    A = _random(batch, 6, rank, seed=seed)
    return A @ A.mT


def _numbers(batch: int = 4, rank: int = 6) -> Numbers:
    return Numbers(
        rotvec=0.8 * _random(batch, 3, seed=2),
        t=_random(batch, 3, seed=3),
        information=_information(batch, rank),
        centre=_random(batch, 3, seed=4),
        size=0.5 + torch.rand(batch, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
        unit=1.0 + torch.rand(batch, generator=torch.Generator().manual_seed(6), dtype=torch.float64),
    )


def _at_angle(args: Numbers, angle: float) -> Pose:
    """Conditioned poses with the rotation at this angle from the mean's."""
    batch = len(args.t)
    axis = torch.nn.functional.normalize(_random(batch, 3, seed=7), dim=-1)
    return Pose(so3.exp(angle * axis) @ so3.exp(args.rotvec), _random(batch, 3, seed=8))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.1, 1.0, 2.0, 3.0, math.pi - 1e-3])
@pytest.mark.parametrize("rank", [6, 3])
def test_closed_forms(angle: float, rank: int) -> None:
    """Gradient, both Hessians, the slope's derivative by every argument, pullback; also with singular information."""
    args = _numbers(rank=rank)
    if rank < 6:  # equal eigenvalues, whose vectors have no derivative, are the residual's own affair
        assert torch.linalg.eigvalsh(args.information)[:, 0].abs().max() < 1e-12
    check_problem(OfNumbers(), _at_angle(args, angle), args)


def test_at_the_mean_itself() -> None:
    """Where xi = 0: no cost, no gradient, and the information as Hessian, in conditioned units."""
    args = _numbers()._replace(centre=torch.zeros(4, 3).double(), size=torch.ones(4).double())
    model = Prior().quadratic(args.term().pose, args.term(), exact=True)
    assert model.cost.abs().max() < 1e-28
    assert model.gradient.abs().max() < 1e-13
    torch.testing.assert_close(
        model.hessian, args.information / args.unit[:, None, None], rtol=1e-13, atol=1e-13
    )


def test_coefficients_of_the_left_jacobian() -> None:
    """Against sixty digits, on the whole range of squared angles."""
    angles = [1e-8, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, math.pi]
    square = torch.tensor(angles, dtype=torch.float64).square()

    def gamma(s: Any) -> Any:
        half = mpmath.sqrt(s) / 2
        return (1 - half * mpmath.cot(half)) / s

    with mpmath.workdps(60):
        exact = [float(gamma(mpmath.mpf(s))) for s in square.tolist()]
        slopes = [float(mpmath.diff(gamma, mpmath.mpf(s), h=mpmath.mpf(10) ** -20)) for s in square.tolist()]
    torch.testing.assert_close(_gamma(square), torch.tensor(exact, dtype=torch.float64), rtol=1e-15, atol=0)
    torch.testing.assert_close(
        _gamma_slope(square), torch.tensor(slopes, dtype=torch.float64), rtol=1e-15, atol=0
    )
    assert _gamma(torch.zeros(1).double()).item() == pytest.approx(1 / 12, rel=1e-15)


def test_cost_in_the_tangent_of_the_pose() -> None:
    """mean.retract(delta) costs delta^T L delta / 2, however the problem is conditioned."""
    args = _numbers()
    mean, delta = args.term().pose, 0.5 * _random(4, 6, seed=9)
    pose = mean.retract(delta)
    prior = PosePrior(mean, args.information)
    conditioned = Pose(
        pose.R, ((pose.R @ args.centre[..., None])[..., 0] + pose.t) / args.size[:, None]
    )  # R (size z' + centre) + t = size (R z' + t')
    cost = Prior().cost(conditioned, prior.term(args.centre, args.size, args.unit)) * args.unit
    expected = 0.5 * (delta * (args.information @ delta[..., None])[..., 0]).sum(-1)
    torch.testing.assert_close(cost, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("angle", [math.pi, math.pi - 1e-7])
def test_finite_at_half_a_turn(angle: float) -> None:
    args = _numbers()
    args = Numbers(*(leaf.requires_grad_() for leaf in args))
    problem = OfNumbers()
    pose = _at_angle(Numbers(*(leaf.detach() for leaf in args)), angle)
    for value in problem.quadratic(pose, args, exact=True)[:3]:
        assert bool(value.isfinite().all())
        for gradient in torch.autograd.grad(value.sum(), args, retain_graph=True):
            assert bool(gradient.isfinite().all())


def test_slope_by_every_argument() -> None:
    args, direction = _numbers(2), _random(2, 6, seed=10)
    pose = _at_angle(args, 0.7)
    leaves = [leaf.requires_grad_() for leaf in args]

    def slope(*values: Tensor) -> Tensor:
        return OfNumbers().slope(pose, Numbers(*values), direction)

    assert gradcheck(slope, leaves)
    assert gradgradcheck(slope, leaves)


def test_the_prior_alone_gives_its_mean() -> None:
    """From far off, in conditioned units; and the answer moves with the mean, one to one."""
    args = _numbers()
    rotvec, t = args.rotvec.requires_grad_(), args.t.requires_grad_()
    term = args._replace(rotvec=rotvec, t=t)
    constant = Numbers(*(leaf.detach() for leaf in term))
    solution = minimise(OfNumbers(), _at_angle(constant, 2.5), constant, pg.LevenbergMarquardt())
    assert bool(solution.ok.all())
    assert solution.cost.max() < 1e-20
    pose = pg.argmin_layer(lambda _: solution.variable, OfNumbers())(term).variable
    back = args.size[:, None] * pose.t - (pose.R @ args.centre[..., None])[..., 0]
    torch.testing.assert_close(pose.R, so3.exp(rotvec), rtol=0, atol=1e-12)
    torch.testing.assert_close(back, t, rtol=0, atol=1e-12)
    v, w = _random(4, 3, 3, seed=11), _random(4, 3, seed=12)
    got = torch.autograd.grad((pose.R * v).sum() + (back * w).sum(), (rotvec, t))
    wanted = torch.autograd.grad((so3.exp(rotvec) * v).sum() + (t * w).sum(), (rotvec, t))
    for actual, exact in zip(got, wanted, strict=True):
        torch.testing.assert_close(actual, exact, rtol=1e-10, atol=1e-10)


def _fused(first: Numbers, second: Numbers) -> pg.Solution:
    start = first.term().pose
    return minimise(Sum(OfNumbers(), OfNumbers()), start, (first, second), pg.LevenbergMarquardt())


@pytest.mark.parametrize("name", ["rotvec", "t", "information"])
def test_the_gradient_of_two_fused_priors_equals_re_solving(name: str) -> None:
    """Two priors that disagree, rotations by about a radian: not quadratic."""
    first = _numbers(3)
    second = _numbers(3)._replace(
        rotvec=first.rotvec + 0.5 * _random(3, 3, seed=13),
        t=_random(3, 3, seed=14),
        information=_information(3, seed=15),
    )
    v, w = _random(3, 3, seed=16), _random(3, 3, seed=17)

    def objective(pose: Pose) -> Tensor:
        return ((pose.R @ v[0]) * w[0]).sum(-1) + pose.t @ w[1]

    def resolved(values: Tensor) -> Tensor:
        copies = len(values) // 3
        many = Numbers(*(leaf.repeat_interleave(copies, 0) for leaf in first))._replace(**{name: values})
        others = Numbers(*(leaf.repeat_interleave(copies, 0) for leaf in second))
        return objective(_fused(many, others).variable)

    solution = _fused(first, second)
    assert bool(solution.ok.all())
    moved = first._replace(**{name: getattr(first, name).clone().requires_grad_()})
    problem = Sum(OfNumbers(), OfNumbers())
    pose = pg.argmin_layer(lambda _: solution.variable, problem)((moved, second)).variable
    (gradient,) = torch.autograd.grad(objective(pose).sum(), getattr(moved, name))
    with torch.no_grad():
        expected = central_difference(resolved, getattr(first, name), 1e-3)
    assert relative_error(gradient, expected, 1e-3).max() < 1e-8


def test_the_covariance_of_a_prior_is_its_own() -> None:
    covariance = torch.linalg.inv(_information(4) + torch.eye(6))
    prior = PosePrior.from_covariance(_numbers().term().pose, covariance)
    term = prior.term(torch.zeros(1, 3).double(), torch.ones(1).double(), torch.ones(1).double())
    solution = minimise(Prior(), term.pose, term, pg.LevenbergMarquardt())
    assert bool(solution.ok.all())
    torch.testing.assert_close(
        inverse_hessian_covariance(solution.hessian).matrix, covariance, rtol=1e-9, atol=1e-9
    )


def test_no_information_about_a_direction_is_degenerate_alone() -> None:
    pose = _numbers().term().pose
    sigma = torch.tensor([1.0, torch.inf, 1.0], dtype=torch.float64)
    prior = PosePrior.from_sigmas(pose, 0.1, sigma)
    assert not prior.invalid().any()
    one = torch.ones(1).double()
    solution = minimise(
        Prior(), pose, prior.term(torch.zeros(1, 3).double(), one, one), pg.LevenbergMarquardt()
    )
    assert set(solution.status.tolist()) == {pg.Status.DEGENERATE}


def test_from_sigmas() -> None:
    pose = Pose.identity(2, dtype=torch.float64)
    rotation = torch.tensor([[0.1], [0.2]], dtype=torch.float64, requires_grad=True)
    translation = torch.tensor([1.0, 2.0, torch.inf], dtype=torch.float64, requires_grad=True)
    prior = PosePrior.from_sigmas(pose, rotation, translation)
    expected = torch.tensor([[100.0, 100, 100, 1, 0.25, 0], [25, 25, 25, 1, 0.25, 0]]).double()
    torch.testing.assert_close(prior.information.detach(), torch.diag_embed(expected))
    gradients = torch.autograd.grad(prior.information.sum(), (rotation, translation))
    torch.testing.assert_close(gradients[0], -6 / rotation.detach() ** 3)
    torch.testing.assert_close(gradients[1], torch.tensor([-4.0, -0.5, 0.0]).double())
    bad = torch.tensor([0.1, -0.1], dtype=torch.float64)[:, None].requires_grad_()
    prior = PosePrior.from_sigmas(pose, bad, 1.0)
    assert prior.invalid().tolist() == [False, True]
    (gradient,) = torch.autograd.grad(prior.keep(~prior.invalid()).information.sum(), bad)
    assert gradient.flatten().tolist() == pytest.approx([-6000, 0])


def test_bad_items_are_told_and_contained() -> None:
    """Each kind of bad item beside a good one; once left out, no NaN reaches anything."""
    good = _numbers(1).term().pose
    pose = Pose(good.R.repeat(9, 1, 1), good.t.repeat(9, 1))
    information = _information(1).repeat(9, 1, 1)
    information[1] = -information[1]
    information[2, 0, 0] = math.nan
    information[3, 5, 5] = math.inf
    information[4] = information[4].triu()  # half of a symmetric matrix
    information[5, 0, 0] = 0  # its row is not zero: indefinite
    pose.R[6] = 3 * pose.R[6]
    pose.R[7] = -pose.R[7]
    pose.t[8, 0] = math.nan
    pose, information = Pose(pose.R.requires_grad_(), pose.t.requires_grad_()), information.requires_grad_()
    prior = PosePrior(pose, information)
    assert prior.invalid().tolist() == [False] + [True] * 8
    one = torch.ones(1).double()
    term = prior.keep(~prior.invalid()).term(torch.ones(1, 3).double(), one, one)
    at = _at_angle(_numbers(9), 0.4)
    model = Prior().quadratic(at, term, exact=True)
    slope = Prior().slope(at, term, _random(9, 6))
    total = model.cost.sum() + model.hessian.sum() + slope.sum()
    for gradient in torch.autograd.grad(total, (pose.R, pose.t, information)):
        assert bool(gradient.isfinite().all())
        assert bool((gradient[1:] == 0).all())
        assert bool((gradient[0] != 0).any())


def test_information_may_be_singular_and_ill_scaled() -> None:
    """Zero, rank one, and units 1e12 apart are fine, in float32 too; what is rounded to it still counts as PSD."""
    scale = torch.tensor([1e-6, 1e-6, 1e-6, 1e6, 1e6, 1e6], dtype=torch.float64)
    cases = torch.stack([torch.zeros(6, 6).double(), _information(1, 1)[0], _information(1, 3)[0]])
    for information in (cases, scale[:, None] * cases * scale, cases.float()):
        prior = PosePrior(Pose.identity(3, dtype=information.dtype), information)
        assert not prior.invalid().any()


def test_a_covariance_that_is_none_is_an_invalid_item() -> None:
    covariance = torch.eye(6).repeat(3, 1, 1)
    covariance[1, 0, 0] = -1
    covariance[2, 3, 3] = math.nan
    covariance.requires_grad_()
    prior = PosePrior.from_covariance(Pose.identity(3), covariance)
    assert prior.information.dtype == torch.float64
    assert prior.invalid().tolist() == [False, True, True]
    (gradient,) = torch.autograd.grad(prior.keep(~prior.invalid()).information.sum(), covariance)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[1:] == 0).all())


def test_one_prior_serves_a_batch() -> None:
    args = _numbers(4)
    shared = Numbers(*(leaf[:1] for leaf in args))
    repeated = Numbers(*(leaf[:1].expand(4, *leaf.shape[1:]) for leaf in args))
    pose = _at_angle(args, 0.4)
    for exact in (True, False):
        for got, wanted in zip(
            Prior().quadratic(pose, shared.term(), exact=exact),
            Prior().quadratic(pose, repeated.term(), exact=exact),
            strict=True,
        ):
            torch.testing.assert_close(got, wanted)
    check_problem(OfNumbers(), pose, shared)


def test_a_rough_mean_is_normalised() -> None:
    args = _numbers()
    mean = args.term().pose
    rough = mean.R + 1e-3 * _random(4, 3, 3, seed=20)
    R = PosePrior(Pose(rough, mean.t), args.information).term(args.centre, args.size, args.unit).pose.R
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand(4, 3, 3), rtol=0, atol=1e-14)
    assert (R - mean.R).abs().max() < 5e-3


def test_wrong_calls_are_named() -> None:
    pose, L = Pose.identity(2), torch.eye(6)
    with pytest.raises(TypeError, match=r"PosePrior\.pose: got Tensor, expected a pg\.Pose"):
        PosePrior(torch.eye(4), L)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"PosePrior\.information: got shape \(3, 3\), expected \(\.\.\., 6, 6\)"
    ):
        PosePrior(pose, torch.eye(3))
    with pytest.raises(TypeError, match=r"PosePrior\.information: got dtype torch\.int64"):
        PosePrior(pose, L.long())
    with pytest.raises(ValueError, match="do not broadcast"):
        PosePrior(pose, L.expand(3, 6, 6))
    with pytest.raises(ValueError, match=r"rotation_rad: got -0\.1, expected a standard deviation > 0"):
        PosePrior.from_sigmas(pose, -0.1, 1.0)
    with pytest.raises(ValueError, match=r"translation: got shape \(2,\)"):
        PosePrior.from_sigmas(pose, 0.1, torch.ones(2))
    with pytest.raises(TypeError, match="translation: got NoneType"):
        PosePrior.from_sigmas(pose, 0.1, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="covariance: got list"):
        PosePrior.from_covariance(pose, [1.0])  # type: ignore[arg-type]
