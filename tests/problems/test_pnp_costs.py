"""Gradients of solve_pnp for cameras x losses x kinds of weights, against re-solving under central differences.

Every pair of two of the three is tested always, the full product under the marker `exhaustive`.
"""

import dataclasses

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import central_difference, random_scene, relative_error

LOSSES: dict[str, pg.robust.RobustLoss] = {
    "squared": pg.robust.Squared(),
    "huber": pg.robust.Huber(3.0),
    "soft_l1": pg.robust.SoftL1(3.0),
    "cauchy": pg.robust.Cauchy(4.0),
    "geman_mcclure": pg.robust.GemanMcClure(10.0),
    "tukey": pg.robust.Tukey(12.0),
    "truncated": pg.robust.Truncated(9.0),
    "barron": pg.robust.Barron(4.0, 0.5),
}
# The losses bend within pixels: steps of 3D points and distortion move the image by about 1e-3 pixels too.
_STEPS = {"points3d": 2e-5, "distortion": 1e-5}
_KINKS = {"huber": 3.0, "tukey": 12.0, "truncated": 9.0}
CAMERAS: dict[str, list[float]] = {
    "SIMPLE_PINHOLE": [600, 320, 240],
    "PINHOLE": [600, 620, 320, 240],
    "SKEW_PINHOLE": [600, 620, 320, 240, 3],
    "SIMPLE_RADIAL": [600, 320, 240, -0.2],
    "RADIAL": [600, 320, 240, -0.2, 0.1],
    "OPENCV": [600, 620, 320, 240, -0.2, 0.1, 1e-3, -2e-3],
    "FULL_OPENCV": [600, 620, 320, 240, 0.3, 0.1, 1e-3, -2e-3, 0.05, 0.4, 0.1, 0.02],
    "SIMPLE_RADIAL_FISHEYE": [600, 320, 240, -0.05],
    "RADIAL_FISHEYE": [600, 320, 240, -0.05, 0.01],
    "SIMPLE_FISHEYE": [600, 320, 240],
    "FISHEYE": [600, 620, 320, 240],
    "OPENCV_FISHEYE": [600, 620, 320, 240, -0.02, 0.02, -0.01, 0.001],
    "FOV": [600, 620, 320, 240, 0.9],
    "SIMPLE_DIVISION": [600, 320, 240, -0.2],
    "DIVISION": [600, 620, 320, 240, -0.2],
}
KINDS = ("numbers", "axes", "matrices")
_ALL = [(c, loss, kind) for c in CAMERAS for loss in LOSSES for kind in KINDS]
_PAIRWISE = [(c, loss, KINDS[(i + j) % 3]) for i, c in enumerate(CAMERAS) for j, loss in enumerate(LOSSES)]


def _weights(kind: str, batch: int, points: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    L = torch.randn(batch, points, 2, 2, generator=generator, dtype=torch.float64)
    W = 0.4 * L @ L.mT + 0.4 * torch.eye(2, dtype=torch.float64)
    axes = W.diagonal(dim1=-2, dim2=-1)
    return {"numbers": axes[..., 0], "axes": axes, "matrices": W}[kind].clone()


def _check(
    camera_name: str,
    loss_name: str,
    kind: str,
    *,
    batch: int,
    points: int,
    seed: int,
    adjoint: pg.Implicit | pg.Unrolled = pg.Implicit(),  # noqa: B008 (frozen)
) -> None:
    model, loss = pg.cameras.MODELS[camera_name], LOSSES[loss_name]
    scene = random_scene(batch, points, seed=seed)
    params = torch.tensor(CAMERAS[camera_name], dtype=torch.float64).expand(batch, -1)
    generator = torch.Generator().manual_seed(seed)
    noise = 2.0 * torch.randn(batch, points, 2, generator=generator, dtype=torch.float64)
    inputs: dict[str, Tensor] = {
        "points2d": pg.project_points(scene.points3d, model(params), scene.pose) + noise,
        "points3d": scene.points3d,
        "weights": _weights(kind, batch, points),
        "pixels": params[:, : model.num_pixel_params],
        "distortion": params[:, model.num_pixel_params :],
    } | {f.name: getattr(loss, f.name).expand(batch) for f in dataclasses.fields(loss)}

    def solve(
        values: dict[str, Tensor],
        init: pg.Pose,
        adjoint: pg.Implicit | pg.Unrolled = pg.Implicit(),  # noqa: B008 (frozen)
    ) -> pg.PnPSolution:
        parameters = {f.name: values[f.name] for f in dataclasses.fields(loss)}
        solution = pg.solve_pnp(
            values["points2d"], values["points3d"], model(torch.cat([values["pixels"], values["distortion"]], -1)),
            weights=values["weights"], loss=type(loss)(**parameters), init=init, adjoint=adjoint,
        )  # fmt: skip
        assert bool(solution.ok.all()), solution.describe()
        return solution

    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    solution = solve(leaves, scene.pose, adjoint)
    base = solution.pose.detach()
    gradients = torch.autograd.grad(_readout(solution).sum(), list(leaves.values()), materialize_grads=True)
    smooth = torch.ones(batch, dtype=torch.bool)
    if loss_name in _KINKS:  # a difference across a kink is none
        r = pg.reprojection_residuals(inputs["points2d"], scene.points3d, model(params), base)
        W = _as_matrices(inputs["weights"])
        distance = ((r[..., None, :] @ W @ r[..., None])[..., 0, 0].sqrt() - _KINKS[loss_name]).abs()
        smooth = (distance > 0.05).all(-1)
        assert smooth.double().mean() >= 0.5
    # all inputs side by side, in units of their steps: one difference for all of them
    units = {name: _STEPS.get(name, 1e-3) for name in inputs}
    flat = torch.cat([(value / units[name]).reshape(batch, -1) for name, value in inputs.items()], 1)
    sizes = [value[0].numel() for value in inputs.values()]

    def function(moved: Tensor) -> Tensor:
        copies = len(moved) // batch
        parts = zip(inputs.items(), moved.split(sizes, 1), strict=True)
        values = {
            name: (part * units[name]).view(len(moved), *value.shape[1:]) for (name, value), part in parts
        }
        start = pg.Pose(base.R.repeat_interleave(copies, 0), base.t.repeat_interleave(copies, 0))
        return _readout(solve(values, start)).detach()

    expected = central_difference(function, flat, 1.0).split(sizes, 1)
    for (name, value), actual, difference in zip(inputs.items(), gradients, expected, strict=True):
        wanted = difference.view_as(value) / units[name]
        error = relative_error(actual, wanted, floor=1e-3)[smooth]
        assert value.numel() == 0 or error.max() < 1e-6, f"{name}: {error.max():.1e}"


def _readout(solution: pg.PnPSolution) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    G_R, G_t = torch.randn(3, 3, generator=generator).double(), torch.randn(3, generator=generator).double()
    return (solution.pose.R * G_R).sum((-1, -2)) + (solution.pose.t * G_t).sum(-1)


def _as_matrices(weights: Tensor) -> Tensor:
    if weights.ndim == 2:
        weights = weights[..., None].expand(*weights.shape, 2)
    return torch.diag_embed(weights) if weights.ndim == 3 else weights


@pytest.mark.parametrize(("camera", "loss", "kind"), _PAIRWISE)
def test_gradient_equals_re_solving(camera: str, loss: str, kind: str) -> None:
    _check(camera, loss, kind, batch=3, points=7, seed=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_unrolled_gradient_equals_re_solving(loss: str) -> None:
    _check("SIMPLE_RADIAL", loss, "matrices", batch=3, points=7, seed=1, adjoint=pg.Unrolled())


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize(("camera", "loss", "kind"), _ALL)
def test_gradient_equals_re_solving_in_every_combination(
    camera: str, loss: str, kind: str, seed: int
) -> None:
    _check(camera, loss, kind, batch=8, points=9, seed=seed)


def test_every_loss_is_covered() -> None:
    assert set(LOSSES) == set(pg.robust.LOSSES)


def test_every_camera_is_covered() -> None:
    assert set(CAMERAS) == set(pg.cameras.MODELS)
