"""Keypoints and symmetries of several objects as one table of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from posegrad.nn import stack_symmetries
from posegrad.pose import Pose

__all__ = ["KeypointTable"]


class KeypointTable:
    """Keypoints by object id, looked up for all items of a batch at once.

    Args:
        keypoints: (N, 3) float64 mm by object id, the same N for all.
        device: of the table.
        symmetries: rotations (S, 3, 3) and translations (S, 3) mm by object id, identity first; None: not looked at.

    Attributes:
        points3d: (O, N, 3), by object id in ascending order.

    >>> table = KeypointTable({5: np.zeros((4, 3)), 2: np.ones((4, 3))})
    >>> table.positions(torch.tensor([5, 2, 5]))
    tensor([1, 0, 1])
    """

    def __init__(
        self,
        keypoints: Mapping[int, np.ndarray],
        device: torch.device | str | None = None,
        symmetries: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        ids = sorted(keypoints)
        self._ids = torch.tensor(ids, dtype=torch.int64, device=device)
        self.points3d = torch.from_numpy(np.stack([keypoints[i] for i in ids])).to(device)
        self._symmetries: Pose | None = None
        if symmetries is not None and any(len(symmetries[i][0]) > 1 for i in ids):
            own = [Pose(*(torch.from_numpy(part).to(device) for part in symmetries[i])) for i in ids]
            self._symmetries = stack_symmetries(own)

    def symmetries(self, object_ids: Tensor) -> Pose | None:
        """(B, S) of each item, shorter sets filled up with the identity; None where no object has any."""
        return None if self._symmetries is None else self._symmetries[self.positions(object_ids)]

    def positions(self, object_ids: Tensor) -> Tensor:
        """(B,) int64: where the ids, which must be in the table, stand among all ids in ascending order."""
        return torch.searchsorted(self._ids, object_ids)

    def of(self, object_ids: Tensor) -> Tensor:
        """(B, N, 3) keypoints of each item."""
        return self.points3d[self.positions(object_ids)]
