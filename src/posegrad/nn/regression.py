"""Direct regression: a pose from a crop without correspondences, the baseline for what geometry buys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrad.cameras import Camera, as_camera
from posegrad.nn.backbone import BackboneNet, create_backbone, normalise_image
from posegrad.nn.heatmaps import map_points
from posegrad.pose import Pose

__all__ = [
    "PoseRegressionNet",
    "RegressedPose",
    "Regression",
    "kendall_loss",
    "pose_from_crop",
    "rotation_from_6d",
]

GRID = 4  # cells per side to which the coarsest map is pooled


def rotation_from_6d(columns: Tensor) -> Tensor:
    """Rotations from two columns by Gram-Schmidt, (..., 6) -> (..., 3, 3): continuous, unlike quaternions and angles.

    Vectors that are zero or parallel give a rotation, too, and gradients that are finite.

    Reference:
        Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019.

    >>> rotation_from_6d(torch.tensor([2.0, 0, 0, 1, 3, 0]))
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    first, second = columns[..., :3], columns[..., 3:]
    x = _unit(first, torch.eye(3, dtype=columns.dtype, device=columns.device)[0])
    across = second - (x * second).sum(-1, keepdim=True) * x
    # Any direction across x where the second column has none: that of the axis which x is least along.
    axis = F.one_hot(x.detach().abs().argmin(-1), 3).to(x.dtype)
    y = _unit(across, axis - (x * axis).sum(-1, keepdim=True) * x)
    y = F.normalize(y - (x * y).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def _unit(vector: Tensor, otherwise: Tensor) -> Tensor:
    fine = vector.square().sum(-1, keepdim=True) > torch.finfo(vector.dtype).eps ** 2
    return F.normalize(torch.where(fine, vector, otherwise), dim=-1)


def pose_from_crop(
    numbers: Tensor, points3d: Tensor, camera: Camera | Tensor, full_from_crop: Tensor, size: int
) -> Pose:
    """Poses from what a network sees in a crop, whatever the crop's place, scale and roll.

    The nine numbers are relative to a camera that looks at the centre of the crop and is rolled with it. A rotation in
    its frame (two columns, see `rotation_from_6d`) is turned back to the camera's; `(u, v)` is where the object's
    origin is seen, in crop sides from the centre; `s` is the log of its distance, in units of the distance from
    which the extent of the points fills the crop:

        R = V R_6d,  t = (D / theta) exp(s) b(A (c + S (u, v))),  theta = |b(right edge) - b(left edge)|,

    with b the unit bearing of a pixel, D the diagonal of the points' box. So a crop that is moved, scaled or rolled
    with the object in it has the same numbers up to perspective.

    Args:
        numbers: (B, 9): two columns of the rotation, u, v, s; s is kept within [-5, 5].
        points3d: (N, 3) or (B, N, 3); only their extent counts.
        camera: K (3, 3) or (B, 3, 3), or a pg camera, of the full image.
        full_from_crop: (B, 2, 3).
        size: side of the crop, pixels.

    Reference:
        Li et al., "CDPN: Coordinates-Based Disentangled Pose Network", ICCV 2019, section 3.3 (the translation);
        Wang et al., "GDR-Net", CVPR 2021 (the same with a rotation).

    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    >>> full_from_crop = torch.tensor([[[1.0, 0, 288.5], [0, 1, 208.5]]])  # 64 x 64 pixels about (320, 240)
    >>> pose_from_crop(torch.tensor([[1.0, 0, 0, 0, 1, 0, 0, 0, 0]]), torch.eye(3), K, full_from_crop, 64).t.round()
    tensor([[ 0.,  0., 14.]])
    """
    dtype = full_from_crop.dtype
    numbers, points = numbers.to(dtype), points3d.to(dtype)
    half = size / 2
    places = torch.tensor([[0.0, 0], [half, 0], [-half, 0]], dtype=dtype, device=numbers.device)
    places = places.expand(*numbers.shape[:-1], 3, 2)
    offset = (size * numbers[..., None, 6:8]).clamp(-4 * size, 4 * size)
    middle = (size - 1) / 2
    pixels = map_points(torch.cat([places, offset], -2) + middle, full_from_crop)
    forward, right, left, origin = as_camera(camera).unproject(pixels).bearings.unbind(-2)
    angle = (right - left).norm(dim=-1, keepdim=True)
    across = right - left - (forward * (right - left)).sum(-1, keepdim=True) * forward
    x = F.normalize(across, dim=-1)
    looking = torch.stack([x, torch.linalg.cross(forward, x), forward], -1)
    extent = (points.amax(-2) - points.amin(-2)).norm(dim=-1, keepdim=True)
    t = extent / angle * numbers[..., 8:].clamp(-5, 5).exp() * origin
    return Pose(looking @ rotation_from_6d(numbers[..., :6]), t)


@dataclass(frozen=True)
class RegressedPose:
    """What `PoseRegressionNet` says of a batch of crops.

    Attributes:
        pose: (B,) object to camera.
        ok: (B,) False where the pose is not finite.

    >>> RegressedPose(Pose.identity(2), torch.ones(2, dtype=torch.bool)).ok.all()
    tensor(True)
    """

    pose: Pose
    ok: Tensor


@dataclass(frozen=True)
class Regression:
    """Nine numbers of each crop (see `pose_from_crop`), (B, 9), and the side of the crops in pixels.

    >>> Regression(torch.zeros(2, 9), size=64).size
    64
    """

    numbers: Tensor
    size: int


class PoseRegressionNet(BackboneNet):
    """A pose by regression: timm backbone, its coarsest map pooled to 4 x 4 cells, two linear layers, nine numbers.

    The cells are kept apart (as CDPN and GDR-Net do, unlike PoseNet's mean over all of them): where in the crop the
    object is decides on the pose.

    Args:
        backbone: any timm name.
        num_objects: O >= 1; each has a last layer of its own.
        image_size: side of the square crops, pixels, a multiple of 32.
        width: a quarter of the hidden layer's size.

    Attributes:
        log_variances: (2,) the learned weights s_t, s_R of `kendall_loss`.

    Reference:
        Kendall et al., "PoseNet: A Convolutional Network for Real-Time 6-DOF Camera Relocalization", ICCV 2015.

    >>> net = PoseRegressionNet("test_efficientnet", image_size=64, width=16)
    >>> seen = net(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    >>> full_from_crop = torch.tensor([[1.0, 0, 288.5], [0, 1, 208.5]], dtype=torch.float64).expand(2, 2, 3)
    >>> net.solve(seen, torch.rand(8, 3).double(), K, full_from_crop).pose.shape
    torch.Size([2])
    """

    def __init__(
        self,
        backbone: str = "hrnet_w18_small",
        *,
        num_objects: int = 1,
        image_size: int = 128,
        width: int = 64,
    ) -> None:
        super().__init__()
        if image_size < 32 or image_size % 32:
            raise ValueError(f"image_size: got {image_size}, expected a positive multiple of 32 (pixels)")
        if num_objects < 1:
            raise ValueError(f"num_objects: got {num_objects}, expected at least 1")
        self.image_size, self.num_objects = image_size, num_objects
        self.backbone = create_backbone(backbone, image_size)
        self.hidden = nn.Linear(self.backbone.channels[-1] * GRID**2, 4 * width)
        self.last = nn.Linear(4 * width, 9 * num_objects)
        with torch.no_grad():  # the start: object axes along the crop's, in its centre, filling it
            self.last.weight.mul_(0.1)
            self.last.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0, 0]).repeat(num_objects))
        self.log_variances = nn.Parameter(torch.tensor([0.0, -3.0]))

    def forward(self, image: Tensor, objects: Tensor | None = None) -> Regression:
        """Nine numbers from crops (B, 3, S, S), uint8 or floats in [0, 1], and the objects in them, (B,) int64."""
        maps = self.backbone(normalise_image(image, self.hidden.weight.dtype))
        with torch.autocast(image.device.type, enabled=False):
            cells = F.adaptive_avg_pool2d(maps[-1].to(self.hidden.weight.dtype), GRID)
            numbers = self.last(F.relu(self.hidden(cells.flatten(1)))).unflatten(-1, (-1, 9))
        which = (
            torch.zeros(len(image), dtype=torch.int64, device=image.device) if objects is None else objects
        )
        return Regression(numbers.take_along_dim(which[:, None, None], 1)[:, 0], image.shape[-1])

    def solve(
        self, prediction: Regression, points3d: Tensor, camera: Camera | Tensor, full_from_crop: Tensor
    ) -> RegressedPose:
        """The poses, in the precision of `points3d`; arguments as of `KeypointPoseNet.solve`."""
        affine = full_from_crop.to(points3d.dtype)
        pose = pose_from_crop(prediction.numbers, points3d, camera, affine, prediction.size)
        finite = pose.R.isfinite().all(-1).all(-1) & pose.t.isfinite().all(-1)
        eye = torch.eye(3, dtype=pose.R.dtype, device=pose.R.device)
        R = torch.where(finite[..., None, None], pose.R, eye)
        return RegressedPose(Pose(R, torch.where(finite[..., None], pose.t, eye[2])), finite)


def kendall_loss(
    found: RegressedPose, pose: Pose, points3d: Tensor, log_variances: Tensor, *, count: float | None = None
) -> Tensor:
    """Pose regression loss with learned weights: `exp(-s_t) l_t + s_t + exp(-s_R) l_R + s_R`.

        l_t = mean |t - t*| / D,    l_R = mean |R - R*|_F / sqrt(2)  = mean 2 sin(angle / 2)

    The weights s_t, s_R are logs of the variances of errors that are the same for all images, and are learned with the
    network. D is the diagonal of the box of the points; PoseNet compares quaternions, which have two signs, where
    matrices have one. Failed items add nothing but are counted.

    Args:
        found: of `PoseRegressionNet.solve`.
        pose: the true poses, (B,).
        points3d: (N, 3) or (B, N, 3).
        log_variances: (2,) s_t, s_R.
        count: of a batch in parts, the number of items in all of them (see `pose_loss`). Default: B.

    Reference:
        Kendall & Cipolla, "Geometric Loss Functions for Camera Pose Regression with Deep Learning", CVPR 2017, (6).

    >>> found = RegressedPose(Pose.identity(2), torch.ones(2, dtype=torch.bool))
    >>> kendall_loss(found, Pose.identity(2), torch.eye(3), torch.tensor([0.0, -3.0])).round(decimals=2)
    tensor(-3.)
    """
    R, t = found.pose.R, found.pose.t
    points = points3d.to(t.dtype)
    extent = (points.amax(-2) - points.amin(-2)).norm(dim=-1)
    moved = _smooth_norm((t - pose.t.to(t.dtype)).square().sum(-1) / extent.square())
    turned = _smooth_norm((R - pose.R.to(R.dtype)).square().sum((-2, -1)) / 2)
    weights = log_variances.to(t.dtype)
    per_item = (-weights[0]).exp() * moved + (-weights[1]).exp() * turned + weights.sum()
    counted = torch.where(found.ok, per_item, torch.zeros_like(per_item))
    return counted.mean() if count is None else counted.sum() / count


def _smooth_norm(squared: Tensor, scale: float = 1e-3) -> Tensor:
    """The root of a square, with a gradient of zero at zero."""
    return (squared + scale**2).sqrt() - scale
