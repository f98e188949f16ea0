"""The keypoint network: image crop -> heatmaps -> keypoints and confidences -> PnP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrad.cameras import Camera
from posegrad.nn.backbone import FINEST_STRIDE, BackboneNet, create_backbone, normalise_image
from posegrad.nn.heatmaps import (
    heatmap_moments,
    information_matrices,
    map_covariance,
    map_points,
    soft_argmax,
    spatial_softmax,
)
from posegrad.pose import Pose
from posegrad.problems.pnp import PnP, PnPSolution

__all__ = ["KeypointPoseNet", "KeypointPrediction", "Weighting"]

Weighting = Literal["learned", "uniform", "moments"]


@dataclass(frozen=True)
class KeypointPrediction:
    """What `KeypointPoseNet` sees in a batch of crops.

    Attributes:
        logits: (B, N, h, w) heatmap logits, float32.
        points2d: (B, N, 2) keypoints, crop pixels (integer = pixel centre).
        spread: (B, N, 2) standard deviation of the heatmaps along x and y, crop pixels.
        weights: (B, N) PnP weights >= 0 with mean 1 over the keypoints; with "moments" the roots of the determinants of
            the information matrices that PnP takes instead.
        stride: crop pixels per heatmap cell.
        covariance: (B, N, 2, 2) second central moments of the heatmaps, crop pixels squared.

    >>> logits, points2d = torch.zeros(1, 2, 16, 16), torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
    >>> prediction = KeypointPrediction(logits, points2d, torch.ones(1, 2, 2), torch.ones(1, 2), stride=4)
    >>> prediction.in_full_image(torch.tensor([[[2.0, 0, 100], [0, 2, 50]]]))
    tensor([[[120.,  90.],
             [160., 130.]]])
    """

    logits: Tensor
    points2d: Tensor
    spread: Tensor
    weights: Tensor
    stride: int
    covariance: Tensor | None = None

    def in_full_image(self, full_from_crop: Tensor) -> Tensor:
        """The keypoints in full-image pixels, (B, N, 2), in the precision of `full_from_crop` (B, 2, 3)."""
        return map_points(self.points2d, full_from_crop)


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class FeatureFusion(nn.Module):
    """Top-down pyramid: every map is reduced to `width` channels and added to the enlarged coarser one.

    Reference:
        Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(_conv_norm(width, width, 3) for _ in channels)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        fused: Tensor | None = None
        for level in reversed(range(len(maps))):
            here = self.lateral[level](maps[level])
            if fused is not None:
                here = here + F.interpolate(fused, size=here.shape[-2:], mode="bilinear")
            if level == 0 and here.shape[-2:] != size:
                here = F.interpolate(here, size=size, mode="bilinear")
            fused = self.smooth[level](here)
        assert fused is not None
        return fused


class KeypointPoseNet(BackboneNet):
    """Keypoint heatmaps from a timm backbone, decoded by DSNT, with a PnP layer on full-image pixels.

    Args:
        num_keypoints: N >= 4, the number of 3D points on each object.
        backbone: any timm name; `hrnet_w18_small` is of the family used by the BPnP paper.
        num_objects: O >= 1 objects that share backbone and pyramid; each has a head of its own.
        image_size: side of the square crops, pixels, a multiple of 32.
        width: channels of the feature pyramid.
        weighting: of the keypoints in PnP. "learned": `N softmax(c)` (a pose loss cannot see a common scale), with c
            learned; at the start, and without a pose loss for good, the weights follow from the spread of the
            heatmaps. "moments": information matrices, the inverses of the heatmaps' second moments in full-image
            pixels; a pose loss reaches the heatmaps through them, too (unless `covariance` of the prediction is
            detached). "uniform": all weights are 1.
        sharpness: keypoints are decoded from `softmax(sharpness logits)`, > 0; 1 is plain DSNT. The mean of a
            heatmap that tells a keypoint's posterior lies too near to the centre, the more so the less certain
            it is, and all keypoints together make the object look small and far; a sharper one does not.
        pnp: the layer that solves for the pose; default `pg.PnP()`.

    Raises:
        ValueError: unknown backbone, too few keypoints or objects, image size that is not a positive multiple of 32.

    Reference:
        Chen et al., "End-to-End Learnable Geometric Vision by Backpropagating PnP Optimization", CVPR 2020.

    >>> net = KeypointPoseNet(8, "test_efficientnet", image_size=64, width=16).eval()
    >>> prediction = net(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    >>> K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
    >>> solution = net.solve(prediction, torch.rand(8, 3).double(), K)
    >>> solution.pose.R.shape, solution.ok.shape
    (torch.Size([2, 3, 3]), torch.Size([2]))
    """

    def __init__(
        self,
        num_keypoints: int,
        backbone: str = "hrnet_w18_small",
        *,
        num_objects: int = 1,
        image_size: int = 128,
        width: int = 64,
        weighting: Weighting = "learned",
        sharpness: float = 2.0,
        pnp: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if num_keypoints < 4:
            raise ValueError(f"num_keypoints: got {num_keypoints}, PnP with a unique answer needs at least 4")
        if num_objects < 1:
            raise ValueError(f"num_objects: got {num_objects}, expected at least 1")
        if image_size < 32 or image_size % 32:
            raise ValueError(f"image_size: got {image_size}, expected a positive multiple of 32 (pixels)")
        if not sharpness > 0:
            raise ValueError(f"sharpness: got {sharpness}, expected > 0")
        if weighting not in get_args(Weighting):
            raise ValueError(
                f"weighting: got {weighting!r}, expected one of {', '.join(get_args(Weighting))}"
            )
        self.num_keypoints, self.num_objects = num_keypoints, num_objects
        self.sharpness = sharpness
        self.weighting: Weighting = weighting
        self.image_size = image_size
        self.stride = FINEST_STRIDE
        self.backbone = create_backbone(backbone, image_size)
        self.fusion = FeatureFusion(self.backbone.channels, width)
        self.to_logits = HeatmapHead(num_objects, num_keypoints, width)
        self.to_confidence = (
            ConfidenceHead(num_objects, num_keypoints, width) if weighting == "learned" else None
        )
        self.pnp = PnP() if pnp is None else pnp

    def forward(self, image: Tensor, objects: Tensor | None = None) -> KeypointPrediction:
        """Find the keypoints in crops.

        Args:
            image: (B, 3, S, S) RGB, uint8 in [0, 255] or floating point in [0, 1].
            objects: (B,) int64 in [0, num_objects), which object is in each crop; None: there is only one.

        Raises:
            ValueError: wrong shape, dtype or range.
        """
        objects = self._objects(objects, image)
        maps = self.backbone(normalise_image(image, self.to_logits.weight.dtype))
        size = (image.shape[2] // self.stride, image.shape[3] // self.stride)
        features = self.fusion(maps, size)
        # From here on in full precision: bfloat16 logits would cost a tenth of a pixel.
        with torch.autocast(image.device.type, enabled=False):
            features = features.to(self.to_logits.weight.dtype)
            logits = self.to_logits(features, objects)
            probabilities = spatial_softmax(logits)
            points2d = soft_argmax(spatial_softmax(self.sharpness * logits), self.stride)
            covariance = heatmap_moments(probabilities, self.stride)
            spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
            if self.to_confidence is None:
                weights = torch.ones_like(points2d[..., 0])
                if self.weighting == "moments":  # in one number, to be shown
                    precision = information_matrices(covariance.detach()).det().sqrt()
                    weights = precision / precision.mean(-1, keepdim=True)
            else:
                weights = self.to_confidence(features, probabilities, spread / image.shape[-1], objects)
        return KeypointPrediction(logits, points2d, spread, weights, self.stride, covariance)

    def _objects(self, objects: Tensor | None, image: Tensor) -> Tensor | None:
        """Checked; None where there is no choice."""
        if objects is None:
            if self.num_objects > 1:
                raise ValueError(
                    f"objects: got None, expected (B,) int64 in [0, {self.num_objects}): say what is in each crop"
                )
            return None
        if objects.shape != image.shape[:1] or objects.dtype != torch.int64:
            raise ValueError(
                f"objects: got {tuple(objects.shape)} {objects.dtype}, expected ({len(image)},) int64"
            )
        # Elsewhere than on a CPU looking would hold up the device; indexing stops there, too.
        if objects.device.type == "cpu" and not bool(((objects >= 0) & (objects < self.num_objects)).all()):
            raise ValueError(
                f"objects: got {objects.tolist()}, expected positions in [0, {self.num_objects}), not ids"
            )
        return objects if self.num_objects > 1 else None

    def pnp_weights(self, prediction: KeypointPrediction, full_from_crop: Tensor | None = None) -> Tensor:
        """Of `solve`: (B, N) numbers, or with "moments" (B, N, 2, 2) information matrices in the full image."""
        if self.weighting != "moments" or prediction.covariance is None:
            return prediction.weights
        covariance = prediction.covariance.double()
        return information_matrices(
            covariance if full_from_crop is None else map_covariance(covariance, full_from_crop.double())
        )

    def solve(
        self,
        prediction: KeypointPrediction,
        points3d: Tensor,
        camera: Camera | Tensor,
        full_from_crop: Tensor | None = None,
        *,
        init: Pose | None = None,
    ) -> PnPSolution:
        """Solve PnP on the full-image pixels of the predicted keypoints, in the precision of `points3d`.

        Args:
            prediction: of `forward`.
            points3d: (N, 3) or (B, N, 3) keypoints on the object.
            camera: K (3, 3) or (B, 3, 3), or a pg camera, of the full image.
            full_from_crop: (B, 2, 3) affine map from crop to full-image pixels; None: the crop is the image.
            init: start of a local refinement; None: a global start.
        """
        points2d = prediction.points2d.to(points3d.dtype)
        if full_from_crop is not None:
            points2d = map_points(points2d, full_from_crop.to(points3d.dtype))
        weights = self.pnp_weights(prediction, full_from_crop).to(points3d.dtype)
        return self.pnp(points2d, points3d, camera, weights=weights, init=init)


class HeatmapHead(nn.Module):
    """Logits linear in the features, by weights (O, N, C) of each object; those of the other objects are not computed.

    Without a bias: the softmax does not see it, so that its gradient is rounding noise, which Adam would blow up.
    """

    def __init__(self, num_objects: int, num_keypoints: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_objects, num_keypoints, width))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)  # as of a convolution

    def forward(self, features: Tensor, objects: Tensor | None) -> Tensor:
        if objects is None:
            return F.conv2d(features, self.weight[0, :, :, None, None])
        return torch.einsum("bnc,bchw->bnhw", self.weight[objects], features)


class ConfidenceHead(nn.Module):
    """PnP weights `N softmax(c)`: c is linear in the features under the heatmap and in its log spread.

    It starts at c = -2 log(spread_x spread_y). The inverse variance would have a factor of 1, but the spread
    includes the width of the Gaussians that the heatmaps learn from; 2 measured better than 1 and 0.5. The factor is
    common to all objects, features and bias are of each.
    """

    def __init__(self, num_objects: int, num_keypoints: int, width: int) -> None:
        super().__init__()
        self.from_features = nn.Parameter(torch.zeros(num_objects, num_keypoints, width))
        self.from_spread = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(
            torch.zeros(num_objects * num_keypoints)
        )  # a vector: weight decay leaves those out

    def forward(
        self, features: Tensor, probabilities: Tensor, spread: Tensor, objects: Tensor | None
    ) -> Tensor:
        which = 0 if objects is None else objects
        # The heatmaps are held constant: a weight must not move its own keypoint.
        under = torch.einsum("bnhw,bchw->bnc", probabilities.detach(), features)
        bias = self.bias.view(self.from_features.shape[:2])[which]
        confidence = (under * self.from_features[which]).sum(-1) + bias
        confidence = confidence - self.from_spread * spread.detach().log().sum(-1)
        return confidence.softmax(-1) * confidence.shape[-1]
