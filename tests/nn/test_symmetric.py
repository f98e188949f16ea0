"""Losses of symmetric objects do not depend on which of the equal true poses the annotator wrote down."""

import numpy as np
import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.data import symmetry_transforms
from posegrad.nn import (
    heatmap_loss,
    nearest_symmetric_pose,
    pose_loss,
    soft_argmax,
    spatial_softmax,
    stack_symmetries,
)

K = torch.tensor([[560.0, 0, 64], [0, 560, 60], [0, 0, 1]], dtype=torch.float64)
HALF_TURN = {"symmetries_discrete": [[-1.0, 0, 0, 2, 0, -1, 0, -4, 0, 0, 1, 0, 0, 0, 0, 1]]}
ROUND = {"symmetries_continuous": [{"axis": [0.3, 0, 1], "offset": [1.0, -2, 0]}]}
BOTTLE = {**ROUND, "symmetries_discrete": []}


def symmetries(info: dict, step: float = 0.1) -> pg.Pose:
    return pg.Pose(*(torch.from_numpy(part) for part in symmetry_transforms(info, max_step=step)))


def scene(batch: int = 5) -> tuple[Tensor, Tensor, pg.Pose]:
    generator = torch.Generator().manual_seed(0)
    z = 20 * torch.randn(8, 3, generator=generator, dtype=torch.float64)
    w = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
    pose = pg.Pose.from_rotvec(w, torch.tensor([0.0, 0, 600], dtype=torch.float64).expand(batch, 3))
    x = pg.project_points(z, K, pose)
    return x + 2 * torch.randn(x.shape, generator=generator, dtype=torch.float64), z, pose


@pytest.mark.parametrize("info", [{}, HALF_TURN, ROUND, BOTTLE])
def test_the_nearest_is_that_of_a_loop(info: dict) -> None:
    x, z, true = scene()
    own = symmetries(info)
    chosen = nearest_symmetric_pose(x, z, K, true, own)
    for b in range(len(x)):
        distances = [
            (pg.project_points(z, K, true[b] @ own[k]) - x[b]).norm(dim=-1).mean() for k in range(len(own.t))
        ]
        best = true[b] @ own[int(torch.stack(distances).argmin())]
        torch.testing.assert_close(chosen.R[b], best.R, rtol=0, atol=1e-12)
        torch.testing.assert_close(chosen.t[b], best.t, rtol=0, atol=1e-10)


@pytest.mark.parametrize("info", [HALF_TURN, ROUND])
def test_losses_do_not_depend_on_the_annotated_one(info: dict) -> None:
    """l_h and l_p, values and gradients, with the true pose replaced by each of its equals."""
    x, z, true = scene()
    own, generator = symmetries(info, step=0.5), torch.Generator().manual_seed(1)
    logits = torch.randn(5, 8, 32, 32, generator=generator, dtype=torch.float64)

    def losses(annotated: pg.Pose) -> tuple[Tensor, ...]:
        leaf, points = logits.clone().requires_grad_(), x.clone().requires_grad_()
        chosen = nearest_symmetric_pose(points, z, K, annotated, own)
        l_h = heatmap_loss(leaf, pg.project_points(z, K, chosen), stride=4)
        l_p = pose_loss(pg.solve_pnp(points, z, K), chosen, points, z, K, extent=128.0, distance=0.3)
        return l_h, l_p, *torch.autograd.grad(l_h + l_p, [leaf, points])

    expected = losses(true)
    assert all(torch.isfinite(value).all() for value in expected)
    for k in range(len(own.t)):
        for one, other in zip(losses(true @ own[k]), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_a_prediction_of_an_equal_pose_costs_nothing() -> None:
    _, z, true = scene()
    own = symmetries(HALF_TURN)
    x = pg.project_points(z, K, true @ own[1])
    solution = pg.solve_pnp(x, z, K)
    blind = pose_loss(solution, true, x, z, K, extent=128.0)
    chosen = nearest_symmetric_pose(x, z, K, true, own)
    assert blind > 0.01
    assert pose_loss(solution, chosen, x, z, K, extent=128.0) < 1e-12


def test_items_of_several_objects() -> None:
    """A batch of items with sets of different sizes is that of the items one by one."""
    x, z, true = scene(6)
    sets = [symmetries(info) for info in ({}, HALF_TURN, ROUND)]
    objects = torch.tensor([2, 0, 1, 1, 2, 0])
    stacked = stack_symmetries(sets)
    assert stacked.shape == (3, len(sets[2].t))
    own = z + torch.arange(6).double()[:, None, None]  # keypoints of their own, too
    chosen = nearest_symmetric_pose(x, own, K.expand(6, 3, 3), true, stacked[objects])
    for b in range(6):
        alone = nearest_symmetric_pose(x[b], own[b], K, true[b], sets[int(objects[b])])
        torch.testing.assert_close(chosen.R[b], alone.R, rtol=0, atol=1e-12)
        torch.testing.assert_close(chosen.t[b], alone.t, rtol=0, atol=1e-10)


def test_rotations_of_files_become_orthogonal() -> None:
    rounded = pg.Pose(torch.from_numpy(np.round(symmetries(ROUND).R.numpy(), 4)), symmetries(ROUND).t)
    R = stack_symmetries([rounded]).R
    assert (R @ R.mT - torch.eye(3)).abs().max() < 1e-14


def test_the_gradient_is_that_of_the_least_member() -> None:
    """Finite differences of the re-solved loss, choice of the true pose included."""
    x, z, true = scene(3)
    own = symmetries(HALF_TURN)

    def loss(points: Tensor) -> Tensor:
        chosen = nearest_symmetric_pose(points, z, K, true, own)
        solution = pg.solve_pnp(points, z, K)
        return pose_loss(solution, chosen, points, z, K, extent=128.0)

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        step = 1e-4
        slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-6)


def test_one_half_turn_decides_by_the_decoded_keypoints() -> None:
    """From heatmaps to the target: an eggbox seen turned round is not pulled back."""
    _, z, true = scene(1)
    own = symmetries(HALF_TURN)
    seen = pg.project_points(z, K, true @ own[1])
    cells = (seen + 0.5) / 4 - 0.5
    v, u = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centres = torch.stack([u, v], -1).double()
    logits = -(centres - cells[..., None, None, :]).square().sum(-1)
    decoded = soft_argmax(spatial_softmax(logits), 4)
    chosen = nearest_symmetric_pose(decoded, z, K, true, own)
    torch.testing.assert_close(chosen.R, (true @ own[1]).R)
