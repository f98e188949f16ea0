"""Second moments of heatmaps as weights of PnP: values by definition, gradients by re-solving."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.nn import (
    KeypointPoseNet,
    KeypointPrediction,
    heatmap_moments,
    heatmap_spread,
    information_matrices,
    map_covariance,
    soft_argmax,
    spatial_softmax,
)

K = torch.tensor([[560.0, 0, 320], [0, 560, 240], [0, 0, 1]], dtype=torch.float64)


def test_moments_are_those_of_the_definition() -> None:
    p = spatial_softmax(3 * torch.randn(4, 7, 9, generator=torch.Generator().manual_seed(0)).double())
    v, u = np.mgrid[:7, :9]
    cells = np.stack([u, v], -1).reshape(-1, 2)
    for one, found in zip(p.numpy(), heatmap_moments(p, 4), strict=True):
        expected = 16 * (np.cov(cells.T, aweights=one.ravel(), bias=True) + np.eye(2) / 12)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(heatmap_spread(p, 4), heatmap_moments(p, 4).diagonal(dim1=-2, dim2=-1).sqrt())


def test_a_single_cell_has_the_variance_of_a_cell() -> None:
    p = torch.zeros(5, 5)
    p[3, 1] = 1
    torch.testing.assert_close(heatmap_moments(p, 4), torch.eye(2) * 16 / 12)


def test_information_is_the_inverse_in_the_full_image() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(2, 5, 2, 2, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT + 0.1 * torch.eye(2)
    affine = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    mapped = map_covariance(covariance, affine)
    A = affine[:, None, :, :2]
    torch.testing.assert_close(information_matrices(mapped), torch.linalg.inv(A @ covariance @ A.mT))
    torch.testing.assert_close(mapped[1, 3], affine[1, :, :2] @ covariance[1, 3] @ affine[1, :, :2].mT)


def elongated(batch: int = 2) -> tuple[KeypointPoseNet, Tensor, Tensor, Tensor]:
    """Heatmaps that are long in a direction of their own; a crop that is turned and scaled in the full image."""
    generator = torch.Generator().manual_seed(2)
    net = KeypointPoseNet(6, "test_efficientnet", image_size=64, width=8, weighting="moments")
    z = 40 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    turn = torch.tensor([[2.0, -0.7], [0.7, 2.0]], dtype=torch.float64)
    shift = torch.tensor([256.0, 160.0], dtype=torch.float64)
    affine = torch.cat([turn, (shift - turn @ torch.tensor([15.0, 0.0]).double())[:, None]], -1).expand(
        batch, 2, 3
    )
    centre = 4 + 8 * torch.rand(batch, 6, 2, generator=generator, dtype=torch.float64)
    angle = 3 * torch.rand(batch, 6, generator=generator, dtype=torch.float64)
    v, u = torch.meshgrid(torch.arange(16.0).double(), torch.arange(16.0).double(), indexing="ij")
    offset = torch.stack([u, v], -1) - centre[..., None, None, :]
    along = offset[..., 0] * angle.cos()[..., None, None] + offset[..., 1] * angle.sin()[..., None, None]
    across = offset[..., 1] * angle.cos()[..., None, None] - offset[..., 0] * angle.sin()[..., None, None]
    return net, -along.square() / 18 - across.square() / 2, z, affine


def prediction(net: KeypointPoseNet, logits: Tensor) -> KeypointPrediction:
    p = spatial_softmax(logits)
    covariance = heatmap_moments(p, net.stride)
    points2d = soft_argmax(spatial_softmax(net.sharpness * logits), net.stride)
    ones = torch.ones_like(points2d[..., 0])
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return KeypointPrediction(logits, points2d, spread, ones, net.stride, covariance)


def test_pnp_minimises_mahalanobis_distances() -> None:
    """The pose is that of solve_pnp with the inverse covariances, in the full image, as weights."""
    net, logits, z, affine = elongated()
    seen = prediction(net, logits)
    solution = net.solve(seen, z, K, affine)
    assert bool(solution.ok.all())
    assert seen.covariance is not None
    A = affine[:, None, :, :2]
    weights = torch.linalg.inv(A @ seen.covariance @ A.mT)
    expected = pg.solve_pnp(seen.in_full_image(affine), z, K, weights=weights)
    torch.testing.assert_close(solution.pose.R, expected.pose.R)
    torch.testing.assert_close(solution.pose.t, expected.pose.t, rtol=1e-8, atol=1e-7)
    plain = pg.solve_pnp(seen.in_full_image(affine), z, K)
    assert (plain.pose.t - expected.pose.t).norm() > 1


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_reach_the_heatmaps_through_their_moments(detach: bool) -> None:
    """Against central differences of the pose solved anew; with the moments detached, held in both."""
    net, logits, z, affine = elongated()
    held = prediction(net, logits).covariance

    def pose(at: Tensor) -> Tensor:
        seen = prediction(net, at)
        if detach:
            seen = replace(seen, covariance=held)
        found = net.solve(seen, z, K, affine).pose
        return torch.cat([100 * found.rotvec(), found.t], -1)

    generator = torch.Generator().manual_seed(3)
    leaf = logits.clone().requires_grad_()
    out = pose(leaf)
    v = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((out * v).sum(), leaf)
    for _ in range(4):
        direction = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
        h = 1e-4
        slope = ((pose(logits + h * direction) - pose(logits - h * direction)) * v).sum() / (2 * h)
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-6)


def test_the_network_gives_moments_and_a_number_for_each() -> None:
    net, *_ = elongated()
    image = torch.randint(
        0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(4), dtype=torch.uint8
    )
    seen = net.eval()(image)
    assert seen.covariance is not None
    torch.testing.assert_close(seen.covariance, heatmap_moments(spatial_softmax(seen.logits), 4))
    torch.testing.assert_close(seen.weights.mean(-1), torch.ones(2))
    order = seen.covariance.det().sort(-1).indices
    assert torch.equal(order, seen.weights.sort(-1, descending=True).indices)
