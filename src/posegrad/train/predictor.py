"""Poses of objects in images by a trained network: what evaluation, the command line and a robot's loop call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from posegrad.cameras import Camera
from posegrad.data import CropDataset, Instance, crop_affine, extract_crop
from posegrad.nn import KeypointPoseNet, PoseRegressionNet, map_points, spatial_softmax
from posegrad.pose import Pose
from posegrad.train.answers import regressed, solved
from posegrad.train.build import build_network, convolution_precision
from posegrad.train.errors import RunError
from posegrad.train.lookup import KeypointTable
from posegrad.train.parallel import accelerator
from posegrad.train.record import read_run

__all__ = ["UNDETECTED", "PosePredictor", "Predictions"]

UNDETECTED = -1
"""In place of a `Status`: there was no box to look into."""


@dataclass(frozen=True)
class Predictions:
    """Poses for a list of boxes or instances, in its order.

    Attributes:
        pose: (M,) object to camera, mm; of failed items any finite one.
        ok: (M,) False where PnP failed or there was no box.
        status: (M,) int64, `posegrad.Status` of PnP, or `UNDETECTED`.
        points2d: (M, N, 2) predicted keypoints, full-image pixels.
        weights: (M, N) PnP weights.
        covariance: (M, 6, 6) of [rotation (rad), translation (mm)], see `posegrad.pose_covariance`: to first order,
            from the residuals of PnP; zeros for failed items. An error common to all keypoints does not show in it.
        moments: (M, N, 2, 2) covariance of the heatmaps, full-image pixels squared.
        score: (M,) in [0, 1]: the box's score times a confidence from the covariance, 0 for failed items.
            With s the RMS distance that the keypoints move under it and D the diagonal of the keypoints' box, the
            confidence is 1 / (1 + (s / 0.1 D)^2): one half where ADD is expected at its usual limit.
    """

    pose: Pose
    ok: Tensor
    status: Tensor
    points2d: Tensor
    weights: Tensor
    covariance: Tensor
    moments: Tensor
    score: Tensor

    def __len__(self) -> int:
        return len(self.ok)

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """All items, part after part."""
        pose = Pose(torch.cat([part.pose.R for part in parts]), torch.cat([part.pose.t for part in parts]))
        tensors = [f.name for f in fields(cls) if f.name != "pose"]
        return cls(pose, **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors})

    def placed(self, rows: Sequence[int], count: int) -> Predictions:
        """Item k as item `rows[k]` of `count`; the others have no box: not ok, at the identity, score 0."""

        def spread(values: Tensor, fill: float = 0.0) -> Tensor:
            spread = values.new_full((count, *values.shape[1:]), fill)
            spread[list(rows)] = values
            return spread

        eye = torch.eye(3, dtype=self.pose.R.dtype).repeat(count, 1, 1)
        eye[list(rows)] = self.pose.R
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("pose", "status")}
        return Predictions(
            Pose(eye, spread(self.pose.t)),
            status=spread(self.status, UNDETECTED),
            **{name: spread(values) for name, values in others.items()},
        )


class PosePredictor:
    """Finds the poses of objects in boxes of images.

    Args:
        net: a trained network.
        keypoints: (N, 3) mm by object id, of all objects that the network knows.
        padding: side of a crop over the longer side of the box, as in training.
        precision: of the convolutions; PnP is float64.

    In a robot's loop, with boxes from any detector:

        predictor = PosePredictor.load("runs/latest")
        while True:
            found = predictor(camera.read(), K, boxes, object_ids)     # image (H, W, 3) uint8 RGB
            for R, t, ok in zip(found.pose.R, found.pose.t, found.ok): ...

    >>> net = KeypointPoseNet(4, "test_efficientnet", num_objects=2, image_size=32, width=8)
    >>> keypoints = {1: 40 * np.eye(4, 3), 5: 30 * np.eye(4, 3)}
    >>> predictor = PosePredictor(net, keypoints)
    >>> K = np.array([[300.0, 0, 79.5], [0, 300, 59.5], [0, 0, 1]])
    >>> found = predictor(np.zeros((120, 160, 3), np.uint8), K, [[60, 40, 40, 40]], [5])
    >>> found.pose.R.shape, found.covariance.shape
    (torch.Size([1, 3, 3]), torch.Size([1, 6, 6]))
    """

    def __init__(
        self,
        net: KeypointPoseNet | PoseRegressionNet,
        keypoints: Mapping[int, np.ndarray],
        *,
        padding: float = 1.3,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.net, self.padding, self.precision = net, padding, precision
        self.device = next(net.parameters()).device
        self.keypoints = {int(object_id): keypoints[object_id] for object_id in sorted(keypoints)}
        self._table = KeypointTable(self.keypoints, self.device)

    @classmethod
    def load(cls, run: str | Path) -> PosePredictor:
        """The network of a finished `posegrad train`, on the GPU if there is one.

        Raises:
            RunError: the folder is not one, or it is damaged.
        """
        run = Path(run)
        config, state, keypoints = read_run(run)
        count = len(next(iter(keypoints.values())))
        net = build_network(config, len(keypoints), count, load_weights=False)
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            raise RunError(f"{run}/model.safetensors does not fit its config.json: {first}") from error
        net.to(accelerator().device).eval()
        precision = convolution_precision(config.run, next(net.parameters()).device)
        return cls(net, keypoints, padding=config.data.padding, precision=precision)

    def renamed(self, object_id: int) -> PosePredictor:
        """The same, of a single object that other data know by another id."""
        (points,) = self.keypoints.values()
        return PosePredictor(self.net, {object_id: points}, padding=self.padding, precision=self.precision)

    @property
    def object_ids(self) -> list[int]:
        """The objects that the network knows, ascending."""
        return list(self.keypoints)

    def __call__(
        self,
        image: np.ndarray,
        camera: Camera | Tensor | np.ndarray,
        boxes: np.ndarray | Sequence[Sequence[float] | np.ndarray],
        object_ids: Sequence[int] | None = None,
        scores: Sequence[float] | None = None,
    ) -> Predictions:
        """Poses of the objects in boxes of one image; a box without an answer is not ok, never an error.

        Args:
            image: (H, W, 3) uint8 RGB.
            camera: K (3, 3), pixels, or a `posegrad.cameras` camera of the full image.
            boxes: (M, 4) of (x, y, w, h), pixels, w and h > 0; they may reach over the edge of the image.
            object_ids: (M,) what is in each box; None: the only object that the network knows.
            scores: (M,) of the boxes, in [0, 1]; None: all 1.

        Raises:
            ValueError: a wrong call, naming the argument.
        """
        boxes, ids, given = self._checked(image, boxes, object_ids, scores)
        if not len(boxes):
            return self._nothing()
        size = self.net.image_size
        sides = self.padding * boxes[:, 2:].max(1)
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        affines = [crop_affine(centre, side, size) for centre, side in zip(centres, sides, strict=True)]
        crops = np.stack([extract_crop(image, affine, size) for affine in affines])
        if not isinstance(camera, Camera):
            camera = torch.as_tensor(camera, dtype=torch.float64, device=self.device)
            if camera.shape != (3, 3):
                raise ValueError(f"camera: got {tuple(camera.shape)}, expected K (3, 3) or a camera")
        found = self._solve(
            torch.from_numpy(crops.transpose(0, 3, 1, 2)).contiguous().to(self.device),
            torch.tensor(ids, device=self.device),
            camera,
            torch.from_numpy(np.stack(affines)).to(self.device),
        )
        return _scored(found, torch.tensor(given, dtype=torch.float64))

    def on(
        self,
        instances: Sequence[Instance],
        scores: Sequence[float] | None = None,
        batch_size: int = 64,
    ) -> Predictions:
        """Poses of instances, each in its box, read from their pictures; their own poses are not looked at."""
        crops = CropDataset(instances, size=self.net.image_size, padding=self.padding)
        parts = []
        for batch in DataLoader(crops, batch_size):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            parts.append(self._solve(batch["image"], batch["object_id"], batch["K"], batch["full_from_crop"]))
        found = Predictions.concatenate(parts)
        return found if scores is None else _scored(found, torch.tensor(scores, dtype=torch.float64))

    @torch.no_grad()
    def heatmaps(self, instances: Sequence[Instance]) -> tuple[Tensor, Tensor] | None:
        """Heatmaps (M, N, h, w) of instances in their boxes, each of sum 1, and the maps (M, 2, 3) from their cells
        (column, row) to full-image pixels, on the CPU; None where the network has none. `on` keeps their moments."""
        if isinstance(self.net, PoseRegressionNet):
            return None
        crops = CropDataset(instances, size=self.net.image_size, padding=self.padding)
        batch = default_collate([crops[k] for k in range(len(crops))])
        device, precision = self.device.type, self.precision
        with _evaluating(self.net), torch.autocast(device, precision, enabled=precision != torch.float32):
            objects = self._table.positions(batch["object_id"].to(self.device))
            seen = self.net(batch["image"].to(self.device), objects)
        # crop pixels of the cell (0, 0)
        origin = torch.full((1, 2), 0.5 * seen.stride - 0.5, dtype=torch.float64)
        affine = batch["full_from_crop"]
        full_from_cell = torch.cat([affine[..., :2] * seen.stride, map_points(origin, affine).mT], -1)
        return spatial_softmax(seen.logits.double()).cpu(), full_from_cell

    def _checked(
        self,
        image: np.ndarray,
        boxes: np.ndarray | Sequence[Sequence[float] | np.ndarray],
        object_ids: Sequence[int] | None,
        scores: Sequence[float] | None,
    ) -> tuple[np.ndarray, list[int], list[float]]:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image: got {image.shape} {image.dtype}, expected (H, W, 3) uint8 RGB")
        found = (
            np.array(boxes, dtype=np.float64).reshape(-1, 4) if not len(boxes) else np.asarray(boxes, float)
        )
        if found.ndim != 2 or found.shape[1] != 4:
            raise ValueError(f"boxes: got shape {found.shape}, expected (M, 4) of (x, y, w, h)")
        if not (np.isfinite(found).all() and (found[:, 2:] > 0).all()):
            raise ValueError(f"boxes: expected finite (x, y, w, h) with w, h > 0, got {found.tolist()}")
        if object_ids is None:
            if len(self.keypoints) > 1 and len(found):
                raise ValueError(f"object_ids: got None, expected one of {self.object_ids} for each box")
            object_ids = self.object_ids[:1] * len(found)
        scores = [1.0] * len(found) if scores is None else list(scores)
        ids = [int(object_id) for object_id in object_ids]
        for name, values in (("object_ids", ids), ("scores", scores)):
            if len(values) != len(found):
                raise ValueError(f"{name}: got {len(values)}, expected {len(found)} like boxes")
        if unknown := sorted(set(ids) - set(self.keypoints)):
            raise ValueError(f"object_ids: got {unknown[0]}, the network knows {self.object_ids}")
        return found, ids, scores

    def _nothing(self) -> Predictions:
        count = self._table.points3d.shape[1]
        empty = torch.zeros(0, dtype=torch.float64)
        return Predictions(
            pose=Pose(empty.new_zeros(0, 3, 3), empty.new_zeros(0, 3)),
            ok=empty.bool(),
            status=empty.long(),
            points2d=empty.new_zeros(0, count, 2),
            weights=empty.new_zeros(0, count),
            covariance=empty.new_zeros(0, 6, 6),
            moments=empty.new_zeros(0, count, 2, 2),
            score=empty,
        )

    @torch.no_grad()
    def _solve(
        self, images: Tensor, object_ids: Tensor, camera: Camera | Tensor, full_from_crop: Tensor
    ) -> Predictions:
        """Poses of crops (B, 3, S, S), on the CPU; PnP starts from scratch."""
        device, precision = self.device.type, self.precision
        with _evaluating(self.net), torch.autocast(device, precision, enabled=precision != torch.float32):
            seen = self.net(images, self._table.positions(object_ids))
        points3d = self._table.of(object_ids)
        parts = (
            regressed(self.net, seen, points3d, camera, full_from_crop)
            if isinstance(self.net, PoseRegressionNet)
            else solved(self.net, seen, points3d, camera, full_from_crop)
        )
        pose = parts.pop("pose")
        assert isinstance(pose, Pose)
        pose = Pose(pose.R.cpu(), pose.t.cpu())
        return Predictions(pose, **{name: value.cpu() for name, value in parts.items()})  # pyright: ignore


def _scored(found: Predictions, scores: Tensor) -> Predictions:
    return replace(found, score=found.score * scores)


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)
