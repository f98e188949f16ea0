"""Which of an item's candidates is best, and which are other minima.

The best has the least cost. Fits that are exact, of which three points have up to four, are ranked by their distance
instead: the pose whose centroid is farthest from the camera comes first. Where a symmetry makes these equal, the
distance of the first point decides, then that of the second.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.pose import Pose
from posegrad.problems import weighting
from posegrad.problems.reprojection import Correspondences
from posegrad.problems.starts import first_used

#: a fit is exact when its cost, in squared focal lengths, is rounding
EXACT = 1e-20
# What the distances of centroid, first and second point count among exact fits.
_BY_DISTANCE = (1.0, 1e-3, 1e-6)
# Two minima are one when their rotations differ by less than this, radians, and their translations by this part.
_SAME = 1e-4
# Two candidates that are not yet at their minimum lead to the same when their rotations differ by less.
_NEAR = 0.02


class Ranking(NamedTuple):
    """The points that decide between exact fits: the first two that are used."""

    points3d: Float[Tensor, "B P 3"]

    @classmethod
    def of(cls, data: Correspondences) -> "Ranking":
        index = first_used(weighting.strength(data.weights) > 0, 2)
        return cls(data.points3d.gather(1, index[..., None].expand(-1, -1, 3)))

    def best(self, pose: Pose, cost: Float[Tensor, " K"], item: Int[Tensor, " K"]) -> Int[Tensor, " B"]:
        """The index of each item's best candidate; the first where no cost is finite."""
        return _least(self._key(pose, cost, item), item, len(self.points3d))[0]

    def rivals(
        self,
        pose: Pose,
        cost: Float[Tensor, " K"],
        item: Int[Tensor, " K"],
        best: Int[Tensor, " B"],
        factor: Float[Tensor, " B"],
    ) -> Bool[Tensor, " K"]:
        """Candidates that are elsewhere, and whose cost is within the factor of the best one's, which is no exact
        fit."""
        lowest = cost[best][item]
        close = (cost <= factor[item] * lowest) & cost.isfinite() & (lowest > EXACT)
        return close & ~_same(pose, best[item], _NEAR)

    def best_distinct(
        self, pose: Pose, cost: Float[Tensor, " K"], item: Int[Tensor, " K"], count: int
    ) -> tuple[Int[Tensor, " M"], Bool[Tensor, " M"]]:
        """Of every item's candidates the ``count`` best that differ, as indices (B count), and which are none."""
        left = self._key(pose, cost, item)
        index, missing = [], []
        for _ in range(count):
            best, lowest = _least(left, item, len(self.points3d))
            index.append(best)
            missing.append(lowest.isinf())
            left = torch.where(_same(pose, best[item], _SAME), torch.inf, left)
        return torch.stack(index, 1).flatten(), torch.stack(missing, 1).flatten()

    def _key(self, pose: Pose, cost: Tensor, item: Tensor) -> Float[Tensor, " K"]:
        """What is least for the best."""
        places = torch.cat([torch.zeros_like(self.points3d[:, :1]), self.points3d], 1)[
            item
        ]  # the centroid is 0
        distance = pose.act(places).square().sum(-1).sqrt() @ pose.t.new_tensor(
            _BY_DISTANCE[: places.shape[1]]
        )
        return torch.where(cost <= EXACT, -distance, cost)


def _same(pose: Pose, other: Int[Tensor, " K"], limit: float) -> Bool[Tensor, " K"]:
    """Where a pose and the one at another index differ by less, in radians and parts of the distance."""
    R, t = pose.R[other], pose.t[other]
    turn = (pose.R - R).square().sum((-1, -2))  # 8 sin^2(angle / 2)
    shift = (pose.t - t).square().sum(-1)
    return (turn < 2 * limit**2) & (shift < limit**2 * t.square().sum(-1))


def _least(
    key: Float[Tensor, " K"], item: Int[Tensor, " K"], size: int
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Of every item the first candidate with the least key, and that key; every item has one."""
    lowest = key.new_full((size,), torch.inf).scatter_reduce(0, item, key, "amin")
    count = len(key)
    place = torch.arange(count, device=key.device)
    place = torch.where(key == lowest[item], place, count)
    first = torch.full_like(lowest, count, dtype=place.dtype).scatter_reduce(0, item, place, "amin")
    return first, lowest
