"""The linear map from coordinates to viewing rays: what homography and projection matrix have in common."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.minimal.candidates import finite


def linear_map(
    bearings: Float[Tensor, "B N 3"], coordinates: Float[Tensor, "B N K"], weights: Float[Tensor, "B N"]
) -> tuple[Float[Tensor, "B 3 K"], Bool[Tensor, " B"]]:
    """The matrix P of least ``sum_i w_i |v_i x P p_i|^2`` with |P| = 1, and whether the data determine it.

    The rays are turned about the optical axis and the image scaled to unit spread, as the coordinates should be
    (Hartley, "In Defense of the Eight-Point Algorithm", PAMI 1997); P's sign puts the points in front.
    """
    tiny, eps = torch.finfo(bearings.dtype).tiny, torch.finfo(bearings.dtype).eps
    w = weights[..., None]
    turn = so3.between(finite((w * bearings).sum(-2)), bearings.new_tensor([0.0, 0.0, 1.0]))
    turned = bearings @ turn.mT
    spread = (w * turned[..., :2].square()).sum((-1, -2)).clamp(min=tiny).sqrt()
    scale = torch.stack([spread, spread, torch.ones_like(spread)], -1)
    v = turned / scale[:, None]
    v = v / v.norm(dim=-1, keepdim=True).clamp(min=tiny)
    rows = so3.hat(w.sqrt() * v)[..., None] * coordinates[..., None, None, :]  # (B, N, 3, 3, K)
    rows = rows.flatten(1, 2).flatten(2)
    missing = max(0, rows.shape[2] - rows.shape[1])
    rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
    _, sizes, vectors = torch.linalg.svd(finite(rows), full_matrices=False)
    P = scale[..., None] * vectors[:, -1].unflatten(-1, (3, -1))
    ahead = (w * turned * (coordinates @ P.mT)).sum((-1, -2))
    P = torch.where(ahead < 0, -1.0, 1.0)[:, None, None] * P
    return turn.mT @ P, sizes[:, -2] > 64 * eps * sizes[:, 0]
