"""Homographies of planar targets, and what they say of a camera: Zhang's start of a calibration."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad.pose import Pose


class Plane(NamedTuple):
    """The plane of a point set: an orthonormal frame (rows: two axes in it, the normal) and how thick the set is.

    ``thickness`` is the RMS distance from the plane over the set's RMS radius, ``width`` likewise that from the line
    through the plane's first axis, in the plane.

    >>> points = torch.tensor([[[2.0, 1, 0], [-2, 1, 0], [-2, -1, 0], [2, -1, 0]]])
    >>> plane_of(points, torch.ones(1, 4)).width
    tensor([0.4472])
    """

    frame: Float[Tensor, "B 3 3"]
    thickness: Float[Tensor, " B"]
    width: Float[Tensor, " B"]


def plane_of(points3d: Float[Tensor, "B N 3"], weights: Float[Tensor, "B N"]) -> Plane:
    """The plane through the origin that fits centred points best; those of weight zero do not count.

    >>> points = torch.tensor([[[2.0, 1, 0], [-2, 1, 0], [-2, -1, 0], [2, -1, 0]]])
    >>> plane_of(points, torch.ones(1, 4)).thickness
    tensor([0.])
    """
    used = (weights > 0).to(points3d.dtype)
    scatter = (points3d * used[..., None]).mT @ points3d
    values, vectors = torch.linalg.eigh(scatter)
    first, second = vectors[..., 2], vectors[..., 1]
    frame = torch.stack([first, second, torch.linalg.cross(first, second, dim=-1)], -2)
    values = values.clamp(min=0)
    total = values.sum(-1, keepdim=True)
    thickness, width, _ = (values / torch.where(total > 0, total, 1.0)).sqrt().unbind(-1)
    return Plane(frame, thickness, width)


def homography(
    points2d: Float[Tensor, "B N 2"], plane_points: Float[Tensor, "B N 2"], weights: Float[Tensor, "B N"]
) -> Float[Tensor, "B 3 3"]:
    """H with ``points2d ~ H (x, y, 1)``, of unit norm: the direct linear transform, image points centred and scaled.

    Args:
        points2d: image points, at least 4 of positive weight of which no 3 lie on a line.
        plane_points: points of the plane, centred and of a size about 1.
        weights: >= 0; scale does not matter.

    Degeneracies: with fewer points, or three of four on a line, H is one of many; an item that is not finite gets a
    matrix that says nothing.

    Reference: Hartley & Zisserman, "Multiple View Geometry", algorithm 4.2.

    >>> square = torch.tensor([[[1.0, 1], [-1, 1], [-1, -1], [1, -1]]], dtype=torch.float64)
    >>> H = homography(50 * square + torch.tensor([320.0, 240.0]), square, torch.ones(1, 4).double())
    >>> (H / H[:, 2:, 2:]).round(decimals=3).tolist()
    [[[50.0, 0.0, 320.0], [0.0, 50.0, 240.0], [0.0, 0.0, 1.0]]]
    """
    total = weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    centre = (weights[..., None] * points2d).sum(-2) / total
    offset = (points2d - centre[:, None]).mT  # (B, 2, N)
    size = ((weights * offset.square().sum(1)).sum(-1) / total.squeeze(-1)).sqrt()
    size = torch.where(size > 0, size, 1.0)
    uv = offset / size[:, None, None]
    p = torch.cat([plane_points.mT, torch.ones_like(uv[:, :1])], 1)
    # rows [p, 0, -u p] and [0, p, -v p]: the normal matrix in blocks of sums of p p^T
    weighted = p * weights[:, None]
    u, v = uv[:, :1], uv[:, 1:]
    plain, by_u, by_v = weighted @ p.mT, (weighted * u) @ p.mT, (weighted * v) @ p.mT
    by_square = (weighted * (u * u + v * v)) @ p.mT
    zero = torch.zeros_like(plain)
    normal = torch.cat(
        [
            torch.cat([plain, zero, -by_u], -1),
            torch.cat([zero, plain, -by_v], -1),
            torch.cat([-by_u, -by_v, by_square], -1),
        ],
        -2,
    )
    finite = normal.isfinite().all(-1).all(-1)
    normal = torch.where(finite[:, None, None], normal, 0.0)
    H = torch.linalg.eigh(normal)[1][..., 0].unflatten(-1, (3, 3))
    last = H[:, 2:]
    H = torch.cat([size[:, None, None] * H[:, :2] + centre[..., None] * last, last], 1)
    return H / H.square().sum((-1, -2), keepdim=True).sqrt()


def focal_from_homographies(
    H: Float[Tensor, "B V 3 3"], weights: Float[Tensor, "B V"]
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """The focal length that makes the planes' axes orthogonal and of equal length, and whether there is one.

    With ``H = K [r1 r2 t]``, ``K = diag(f, f, 1)``: ``h1^T w h2 = 0`` and ``h1^T w h1 = h2^T w h2`` for
    ``w = diag(1, 1, f^2)``; both are linear in ``1 / f^2``, solved by least squares over the views. Planes parallel to
    the image say nothing of f.

    Args:
        H: homographies to image coordinates with the principal point as their origin and square pixels.
        weights: of the views, >= 0.

    Reference: Zhang, "A flexible new technique for camera calibration", PAMI 22 (2000), section 3.1.

    >>> import posegrad as pg
    >>> R = pg.so3.exp(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.6, 0.1]], dtype=torch.float64))
    >>> t = torch.tensor([0.0, 0, 4], dtype=torch.float64).expand(2, 3)
    >>> H = torch.tensor([600.0, 600, 1]).double()[:, None] * torch.cat([R[..., :2], t[..., None]], -1)
    >>> focal, found = focal_from_homographies(H[None], torch.ones(1, 2).double())
    >>> round(focal.item(), 6), found.item()
    (600.0, True)
    """
    axes = H[..., :2]
    axes = axes / axes.square().sum((-1, -2), keepdim=True).sqrt().clamp(min=torch.finfo(H.dtype).tiny)
    h1, h2 = axes.unbind(-1)
    a = torch.stack([(h1 * h2)[..., :2].sum(-1), (h1 * h1 - h2 * h2)[..., :2].sum(-1)], -1)
    b = torch.stack([h1[..., 2] * h2[..., 2], h1[..., 2].square() - h2[..., 2].square()], -1)
    w = weights[..., None]
    above, below = -(w * a * b).sum((-1, -2)), (w * a * a).sum((-1, -2))
    found = (above > 0) & (below > 0)
    return torch.where(found, below, 1.0).sqrt() / torch.where(found, above, 1.0).sqrt(), found


def pose_from_homography(
    H: Float[Tensor, "*#batch 3 3"], focal: Float[Tensor, "*#batch 2"], frame: Float[Tensor, "*#batch 3 3"]
) -> Pose:
    """The pose of a plane in front of a camera of known focal lengths; H as in :func:`focal_from_homographies`.

    Args:
        H: the plane's homography, of any size and sign.
        focal: in the unit of the image coordinates, for x and y.
        frame: of the plane, as :func:`plane_of` gives it.

    >>> import posegrad as pg
    >>> R, t = pg.so3.exp(torch.tensor([0.5, 0.2, 0.0])), torch.tensor([0.1, 0.2, 4.0])
    >>> H = torch.tensor([600.0, 600, 1])[:, None] * torch.cat([R[:, :2], t[:, None]], -1)
    >>> pose = pose_from_homography(-2 * H, torch.tensor([600.0, 600.0]), torch.eye(3))
    >>> torch.allclose(pose.R, R, atol=1e-6), torch.allclose(pose.t, t, atol=1e-5)
    (True, True)
    """
    tiny = torch.finfo(H.dtype).tiny
    M = H / torch.cat([focal, torch.ones_like(focal[..., :1])], -1)[..., None]
    r1, r2, t = M.unbind(-1)
    n1, n2 = (r.square().sum(-1, keepdim=True).sqrt().clamp(min=tiny) for r in (r1, r2))
    scale = torch.where(t[..., 2:] < 0, -1.0, 1.0) * (n1 * n2).rsqrt()
    r1, r2 = r1 / n1 * scale.sign(), r2 / n2 * scale.sign()
    # the orthonormal pair next to two unit vectors: their bisectors are orthogonal
    along, across = r1 + r2, r1 - r2
    along = along / along.square().sum(-1, keepdim=True).sqrt().clamp(min=tiny)
    across = across / across.square().sum(-1, keepdim=True).sqrt().clamp(min=tiny)
    r1, r2 = (along + across) * 0.5**0.5, (along - across) * 0.5**0.5
    R = torch.stack([r1, r2, torch.linalg.cross(r1, r2, dim=-1)], -1)
    return Pose(R @ frame, scale * t)
