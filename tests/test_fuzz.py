"""Random calls of solve_pnp: a documented exception, or a finite answer with a status; nothing else, ever."""

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import posegrad as pg

_SHAPES = [(), (1,), (2,), (3, 1), (0,), (2, 3)]
_POISONS = [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-300, 1e38, 0.0, -1.0]
_DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _poisoned(draw: st.DrawFn, value: torch.Tensor) -> torch.Tensor:
    """Some entries replaced, some layouts made odd."""
    value = value.clone(memory_format=torch.contiguous_format)
    if value.numel() and draw(st.integers(0, 2)) == 0:
        for _ in range(draw(st.integers(1, 3))):
            position = draw(st.integers(0, value.numel() - 1))
            value.view(-1)[position] = draw(st.sampled_from(_POISONS))
    if value.ndim >= 2 and draw(st.booleans()):
        value = value.mT.contiguous().mT
    return value


def _tensor(
    draw: st.DrawFn, generator: torch.Generator, *shape: int, scale: float, dtype: torch.dtype
) -> torch.Tensor:
    value = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
    return _poisoned(draw, value).to(dtype)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    shape, count = draw(st.sampled_from(_SHAPES)), draw(st.sampled_from([0, 1, 2, 3, 3, 4, 5, 6, 9]))
    dtype = draw(st.sampled_from(_DTYPES))
    size = draw(st.sampled_from([1.0, 1.0, 1.0, 1e-6, 1e6, 1e-150, 1e150]))
    z = torch.randn(*shape, count, 3, generator=generator, dtype=torch.float64)
    if draw(st.integers(0, 3)) == 0:
        z = z * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)  # a plane
    if draw(st.integers(0, 5)) == 0:
        z = z * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)  # a line
    if draw(st.integers(0, 7)) == 0:
        z = z[..., :1, :].expand(*shape, count, 3)  # a point
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    pose = pg.Pose.from_rotvec(
        torch.randn(*shape, 3, generator=generator, dtype=torch.float64),
        torch.tensor([0.1, -0.2, 5.0], dtype=torch.float64).expand(*shape, 3),
    )
    x = pg.project_points(z, K, pose) if count else z[..., :2]
    x = x + draw(st.sampled_from([0.0, 2.0, 300.0])) * torch.randn(
        x.shape, generator=generator, dtype=x.dtype
    )
    call: dict[str, Any] = {
        "points2d": _poisoned(draw, x).to(dtype),
        "points3d": _poisoned(draw, z * size).to(draw(st.sampled_from([dtype, dtype, torch.float32]))),
        "camera": _poisoned(draw, K).to(dtype) if draw(st.integers(0, 3)) else _camera(draw),
    }
    if draw(st.booleans()):
        kind = draw(st.sampled_from([(), (2,), (2, 2)]))
        w = torch.rand(*shape, count, *kind, generator=generator, dtype=torch.float64)
        call["weights"] = _poisoned(draw, w @ w.mT if kind == (2, 2) else w).to(dtype)
    if draw(st.booleans()):
        call["mask"] = torch.rand(*shape, count, generator=generator) < 0.8
    if draw(st.integers(0, 2)) == 0:
        call["loss"] = _loss(draw)
    if draw(st.integers(0, 2)) == 0:
        R, t = _poisoned(draw, pose.R), _poisoned(draw, pose.t * size)
        call["init"] = pg.Pose(R.to(dtype), t.to(dtype))
    if draw(st.integers(0, 4)) == 0:
        L = _poisoned(draw, torch.eye(6, dtype=torch.float64) * draw(st.sampled_from([1.0, 1e-9, 1e9, 0.0])))
        mean = pg.Pose(_poisoned(draw, pose.R), _poisoned(draw, pose.t * size))
        call["prior"] = pg.PosePrior(mean.to(draw(st.sampled_from([torch.float64, dtype]))), L)
    if draw(st.integers(0, 4)) == 0:
        R, t = _poisoned(draw, pose.R), _poisoned(draw, pose.t * size)
        call["constraint"] = draw(
            st.sampled_from(
                [
                    pg.PoseConstraint(rotation=R),
                    pg.PoseConstraint(gravity=(R[..., 0], R[..., 1])),
                    pg.PoseConstraint(translation=t, axes="xz"),
                    pg.PoseConstraint(gravity=(R[..., 0], R[..., 1]), translation=t),
                ]
            )
        )
    if draw(st.integers(0, 5)) == 0:
        call["num_solutions"] = draw(st.sampled_from([1, 2, 3, 0]))
    if draw(st.integers(0, 5)) == 0:
        call["adjoint"] = draw(
            st.sampled_from([pg.Unrolled(), pg.Implicit(max_gain=2.0), pg.Implicit(hessian="gauss_newton")])
        )
    if draw(st.integers(0, 5)) == 0:
        call["solver"] = pg.LevenbergMarquardt(max_steps=draw(st.sampled_from([1, 3, 30])))
    if draw(st.integers(0, 9)) == 0:  # a call that is wrong
        name = draw(st.sampled_from(sorted(call)))
        call[name] = draw(
            st.sampled_from([None, 3, "K", [1.0], torch.zeros(2), torch.zeros(2, 7), torch.ones(3, 3).int()])
        )
    for name in ("points2d", "points3d", "weights", "camera"):
        value = call.get(name)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and draw(st.booleans()):
            call[name] = value.detach().requires_grad_()
    return call


def _camera(draw: st.DrawFn) -> pg.cameras.Camera:
    name = draw(st.sampled_from(sorted(pg.cameras.MODELS)))
    model = pg.cameras.MODELS[name]
    generic = {"f": 500.0, "fx": 500.0, "fy": 505.0, "cx": 320.0, "cy": 240.0}
    values = [generic.get(p, draw(st.sampled_from([0.0, 0.05, -0.2, 3.0]))) for p in model.parameter_names]
    return model(_poisoned(draw, torch.tensor(values, dtype=torch.float64)))


def _loss(draw: st.DrawFn) -> pg.robust.RobustLoss:
    name = draw(st.sampled_from(sorted(pg.robust.LOSSES)))
    scale = torch.tensor(
        draw(st.sampled_from([1.0, 5.0, 1e-12, 1e12, 0.0, -1.0, math.nan, 1e-200])), dtype=torch.float64
    )
    if name == "squared":
        return pg.robust.Squared()
    if name == "barron":
        return pg.robust.Barron(scale, draw(st.sampled_from([-2.0, 0.0, 1.0, 2.0])))
    return pg.robust.LOSSES[name](scale)  # pyright: ignore[reportCallIssue]


def _check(call: dict[str, Any]) -> None:
    try:
        solution = pg.solve_pnp(**call)
    except (TypeError, ValueError) as error:
        if len(str(error)) < 20:
            raise AssertionError(f"{error!r} does not help") from error
        return
    for found in (solution, solution.alternatives):
        if found is not None:
            for name in ("cost", "decrement", "hessian"):
                assert bool(getattr(found, name).isfinite().all()), name
            assert bool(found.pose.R.isfinite().all())
            assert bool(found.pose.t.isfinite().all())
            assert set(found.status.flatten().tolist()) <= {int(s) for s in pg.Status}
    _check_covariance(call, solution)
    leaves = [v for v in call.values() if isinstance(v, torch.Tensor) and v.requires_grad]
    if leaves and solution.pose.R.requires_grad:
        loss = solution.pose.R.sum() + pg.masked_mean(solution.pose.t.sum(-1), solution.ok)
        for gradient in torch.autograd.grad(loss, leaves, materialize_grads=True):
            assert bool(gradient.isfinite().all())


def _check_covariance(call: dict[str, Any], solution: pg.PnPSolution) -> None:
    """Of the same call: a positive semi-definite matrix, or infinite variances; never NaN."""
    data = {name: call[name] for name in _DATA if name in call}
    form = "sandwich" if call.get("mask") is not None else "hessian"
    covariance = pg.pose_covariance(solution, **data, noise=1.0, form=form).detach()  # pyright: ignore
    assert not bool(covariance.isnan().any())
    assert bool((covariance.diagonal(dim1=-2, dim2=-1) >= 0).all())
    assert bool(covariance[~solution.ok].diagonal(dim1=-2, dim2=-1).isinf().all())


_DATA = ("points2d", "points3d", "camera", "weights", "mask", "loss", "prior", "constraint")
_COMMON = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


# Parts, so that several processes share the work.


@pytest.mark.parametrize("part", range(5))
def test_500_calls(part: int) -> None:
    _fuzz(part, 100)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(5, 25))
def test_10000_calls(part: int) -> None:
    _fuzz(part, 500)


def _fuzz(part: int, count: int) -> None:
    """Other calls for every part, the same every time."""
    seed(part)(settings(max_examples=count, **_COMMON)(given(calls())(_check)))()
