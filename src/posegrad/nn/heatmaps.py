"""Heatmaps and pixels: the spatial softmax (DSNT) and the one place where its pixel convention is written.

Pixels follow OpenCV: an integer coordinate is the centre of a pixel. A heatmap cell `u` of a network with
stride `s` covers the crop pixels `s u .. s u + s - 1`, so that its centre lies at

    x = (u + 0.5) s - 0.5.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "crop_from_cell",
    "gaussian_heatmap",
    "heatmap_moments",
    "heatmap_spread",
    "information_matrices",
    "map_covariance",
    "map_points",
    "soft_argmax",
    "spatial_softmax",
]


def crop_from_cell(cells: Tensor, stride: float) -> Tensor:
    """Map heatmap coordinates to crop pixels: `x = (u + 0.5) stride - 0.5`.

    Args:
        cells: (..., 2) heatmap coordinates (column, row); an integer is the centre of a cell.
        stride: crop pixels per heatmap cell.

    Returns:
        (..., 2) crop pixels (x, y); an integer is the centre of a pixel.

    >>> crop_from_cell(torch.tensor([0.0, 10.0]), stride=4)
    tensor([ 1.5000, 41.5000])
    """
    return (cells + 0.5) * stride - 0.5


def map_points(points: Tensor, affine: Tensor) -> Tensor:
    """Apply affine maps to points: `A [x, y, 1]`, in the precision of `affine`.

    Args:
        points: (..., N, 2) pixels.
        affine: (..., 2, 3), for instance `full_from_crop`.

    Returns:
        (..., N, 2) mapped pixels.

    >>> half = torch.tensor([[0.5, 0.0, 10.0], [0.0, 0.5, 20.0]])
    >>> map_points(torch.tensor([[4.0, 6.0]]), half)
    tensor([[12., 23.]])
    """
    points = points.to(affine.dtype)
    return points @ affine[..., :2].transpose(-1, -2) + affine[..., None, :, 2]


def spatial_softmax(logits: Tensor) -> Tensor:
    """Turn heatmap logits (..., h, w) into probabilities over the h x w cells.

    >>> spatial_softmax(torch.zeros(1, 2, 2))
    tensor([[[0.2500, 0.2500],
             [0.2500, 0.2500]]])
    """
    return logits.flatten(-2).softmax(-1).view_as(logits)


def _axes(heatmap: Tensor) -> tuple[Tensor, Tensor]:
    height, width = heatmap.shape[-2:]
    columns = torch.arange(width, dtype=heatmap.dtype, device=heatmap.device)
    rows = torch.arange(height, dtype=heatmap.dtype, device=heatmap.device)
    return columns, rows


def soft_argmax(probabilities: Tensor, stride: float) -> Tensor:
    """Decode heatmaps to crop pixels by their mean (DSNT): `x = sum_uv p_uv crop_from_cell(u, v)`.

    A heatmap with all of its mass in one cell decodes to exactly the centre of that cell.

    Args:
        probabilities: (..., h, w), each map >= 0 with sum 1 (see `spatial_softmax`).
        stride: crop pixels per heatmap cell.

    Returns:
        (..., 2) crop pixels (x, y).

    Reference:
        Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks", 2018, section 3.

    >>> probabilities = torch.zeros(4, 4)
    >>> probabilities[1, 2] = 1.0  # row 1, column 2
    >>> soft_argmax(probabilities, stride=4)
    tensor([9.5000, 5.5000])
    """
    columns, rows = _axes(probabilities)
    u = (probabilities.sum(-2) * columns).sum(-1)
    v = (probabilities.sum(-1) * rows).sum(-1)
    return crop_from_cell(torch.stack([u, v], -1), stride)


def heatmap_moments(probabilities: Tensor, stride: float) -> Tensor:
    """Second central moments of each heatmap, crop pixels squared, (..., h, w) -> (..., 2, 2).

    The variance of a single cell, `stride^2 / 12` in each direction, is included: the result is positive definite, and
    its inverse is bounded.

    >>> diagonal = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    >>> heatmap_moments(diagonal, stride=4)
    tensor([[5.3333, 4.0000],
            [4.0000, 5.3333]])
    """
    columns, rows = _axes(probabilities)
    along_x, along_y = probabilities.sum(-2), probabilities.sum(-1)
    u = columns - (along_x * columns).sum(-1, keepdim=True)
    v = rows - (along_y * rows).sum(-1, keepdim=True)
    xx, yy = (along_x * u.square()).sum(-1) + 1 / 12, (along_y * v.square()).sum(-1) + 1 / 12
    xy = ((probabilities * v[..., None]).sum(-2) * u).sum(-1)
    return torch.stack([xx, xy, xy, yy], -1).unflatten(-1, (2, 2)) * stride**2


def heatmap_spread(probabilities: Tensor, stride: float) -> Tensor:
    """Standard deviation of each heatmap along x and y, crop pixels, (..., h, w) -> (..., 2).

    The variance of a single cell, `stride^2 / 12`, is included, so that the result is never zero.

    >>> heatmap_spread(torch.tensor([[0.5, 0.0, 0.5]]), stride=4)
    tensor([4.1633, 1.1547])
    """
    return heatmap_moments(probabilities, stride).diagonal(dim1=-2, dim2=-1).sqrt()


def map_covariance(covariance: Tensor, affine: Tensor) -> Tensor:
    """Covariances of points after affine maps: `A C A^T`, in the precision of `affine`.

    Args:
        covariance: (..., N, 2, 2) pixels squared.
        affine: (..., 2, 3), for instance `full_from_crop`.

    >>> twice = torch.tensor([[2.0, 0.0, 10.0], [0.0, 2.0, 20.0]])
    >>> map_covariance(torch.eye(2)[None], twice)
    tensor([[[4., 0.],
             [0., 4.]]])
    """
    A = affine[..., None, :, :2]
    return A @ covariance.to(affine.dtype) @ A.mT


def information_matrices(covariance: Tensor) -> Tensor:
    """Weights of PnP from the keypoints' covariances: their inverses, (..., 2, 2).

    With these `pg.solve_pnp` minimises Mahalanobis distances, as the uncertainty-driven PnP of PVNet does, and the
    gradient of the pose by the weights goes on into the second moments of the heatmaps. `pg.pose_covariance(...,
    noise=1.0)` then is the covariance of the pose that the heatmaps claim.

    Reference:
        Peng et al., "PVNet: Pixel-wise Voting Network for 6DoF Pose Estimation", CVPR 2019, section 3.2.

    >>> information_matrices(torch.tensor([[4.0, 0.0], [0.0, 0.25]]))
    tensor([[0.2500, -0.0000],
            [-0.0000, 4.0000]])
    """
    a, b, d = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    adjugate = torch.stack([d, -b, -b, a], -1).unflatten(-1, (2, 2))
    return adjugate / (a * d - b * b)[..., None, None]


def gaussian_heatmap(points: Tensor, size: tuple[int, int], stride: float, sigma: float) -> Tensor:
    """Discrete Gaussians around crop pixels, each normalised to sum 1 over the grid.

    Args:
        points: (..., 2) crop pixels (x, y).
        size: (h, w) cells.
        stride: crop pixels per cell.
        sigma: standard deviation in crop pixels, > 0.

    Returns:
        (..., h, w) probabilities; finite for points anywhere, also far outside the grid.

    >>> goal = gaussian_heatmap(torch.tensor([9.5, 5.5]), (4, 4), stride=4, sigma=1.0)
    >>> soft_argmax(goal, stride=4)
    tensor([9.5000, 5.5000])
    """
    height, width = size
    columns = crop_from_cell(torch.arange(width, dtype=points.dtype, device=points.device), stride)
    rows = crop_from_cell(torch.arange(height, dtype=points.dtype, device=points.device), stride)
    # A softmax per axis, not exp(): far outside the grid every exp() would underflow to 0 / 0.
    along_x = (-0.5 * ((columns - points[..., 0, None]) / sigma).square()).softmax(-1)
    along_y = (-0.5 * ((rows - points[..., 1, None]) / sigma).square()).softmax(-1)
    return along_y[..., :, None] * along_x[..., None, :]
