import cv2
import numpy as np
import pytest
import torch

from posegrad.nn import (
    crop_from_cell,
    gaussian_heatmap,
    heatmap_spread,
    map_points,
    soft_argmax,
    spatial_softmax,
)


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_a_delta_decodes_to_the_centre_of_its_cell(stride: int) -> None:
    heatmap = torch.zeros(5, 7, 5, 7, dtype=torch.float64)
    for v in range(5):
        for u in range(7):
            heatmap[v, u, v, u] = 1
    decoded = soft_argmax(heatmap, stride)
    for v in range(5):
        for u in range(7):
            # A cell covers the pixels s u .. s u + s - 1; its centre is their mean.
            covered = (
                np.arange(stride * u, stride * (u + 1)).mean(),
                np.arange(stride * v, stride * (v + 1)).mean(),
            )
            assert decoded[v, u].tolist() == list(covered)


def test_the_convention_is_that_of_image_resizing() -> None:
    # A picture of its own x coordinate, shrunk by areas: each small pixel then shows where its centre lies.
    stride, size = 4, 32
    ramp = np.tile(np.arange(size, dtype=np.float64), (size, 1))
    small = cv2.resize(ramp, (size // stride, size // stride), interpolation=cv2.INTER_AREA)
    cells = torch.arange(size // stride, dtype=torch.float64)[:, None].expand(-1, 2)
    np.testing.assert_allclose(crop_from_cell(cells, stride)[:, 0].numpy(), small[0])


def test_soft_argmax_gradient_and_softmax_sum() -> None:
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(spatial_softmax(logits).sum((-2, -1)).detach().numpy(), 1.0)
    assert torch.autograd.gradcheck(lambda x: soft_argmax(spatial_softmax(x), 4), (logits,))


def test_huge_logits_stay_finite() -> None:
    logits = torch.full((1, 1, 8, 8), -1e4)
    logits[0, 0, 2, 5] = 1e4
    decoded = soft_argmax(spatial_softmax(logits), 4)
    assert decoded.tolist() == [[[21.5, 9.5]]]


def test_gaussian_against_the_closed_form_and_its_mean() -> None:
    point = torch.tensor([13.2, 17.9], dtype=torch.float64)
    heatmap = gaussian_heatmap(point, (16, 12), 4, 3.0)
    v, u = np.mgrid[:16, :12]
    x, y = (u + 0.5) * 4 - 0.5, (v + 0.5) * 4 - 0.5
    dense = np.exp(-((x - 13.2) ** 2 + (y - 17.9) ** 2) / (2 * 3.0**2))
    np.testing.assert_allclose(heatmap.numpy(), dense / dense.sum(), atol=1e-14)
    # Sampling a Gaussian of 0.75 cells loses little: the decoded mean is the point.
    np.testing.assert_allclose(soft_argmax(heatmap, 4).numpy(), point.numpy(), atol=2e-3)


def test_gaussian_far_outside_is_finite() -> None:
    heatmap = gaussian_heatmap(torch.tensor([[-4e4, 1e5]]), (8, 8), 4, 1.0)
    assert heatmap.isfinite().all()
    torch.testing.assert_close(heatmap.sum(), torch.tensor(1.0))


def test_spread_against_a_dense_integral() -> None:
    probabilities = spatial_softmax(torch.randn(6, 9, dtype=torch.float64))
    spread = heatmap_spread(probabilities, 4)
    # Every cell's mass laid out evenly over its 4 x 4 pixels, finely sampled.
    fine = np.kron(probabilities.numpy(), np.full((50, 50), 1 / 2500))
    y, x = (np.mgrid[: 6 * 50, : 9 * 50] + 0.5) / 50 * 4
    for value, axis in zip(spread.tolist(), (x, y), strict=True):
        mean = (fine * axis).sum()
        assert value == pytest.approx(np.sqrt((fine * (axis - mean) ** 2).sum()), rel=1e-3)


def test_map_points_against_cv2() -> None:
    rng = np.random.default_rng(0)
    affine, points = rng.standard_normal((2, 3)), rng.standard_normal((11, 2))
    expected = cv2.transform(points[None], affine)[0]
    mapped = map_points(torch.from_numpy(points).float(), torch.from_numpy(affine))
    assert mapped.dtype == torch.float64
    np.testing.assert_allclose(mapped.numpy(), expected, atol=1e-6)
