"""The loop that the experiments share: a loss through PnP, an optimiser, a limit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

import posegrad as pg
from posegrad.problems.pnp import PnPSolution
from posegrad.train.errors import RunError

__all__ = ["Descent", "TrackedPnP", "descend", "far_away"]


class TrackedPnP:
    """``solve_pnp`` from the answer of the call before, as the paper's loops do; from scratch where that fails.

    Args:
        start: poses to begin with; None: the first call starts from scratch.

    Attributes:
        solves: poses solved so far. restarts: calls that had to start from scratch once more.
    """

    def __init__(self, start: pg.Pose | None) -> None:
        self._pose = start
        self.solves = self.restarts = 0

    @property
    def latest(self) -> pg.Pose:
        """Each item's last good pose."""
        assert self._pose is not None, "call it first"
        return self._pose

    def forget(self) -> None:
        """Make the next call start from scratch."""
        self._pose = None

    def __call__(
        self,
        points2d: Tensor,
        points3d: Tensor,
        camera: pg.cameras.Camera | Tensor,
        mask: Tensor | None = None,
        *,
        items: Tensor | None = None,
    ) -> PnPSolution:
        """Poses of the items; check ``ok``. ``items`` tells which of all they are (after a first call with all).

        Raises:
            RunError: no item has a pose.
        """
        last = self._pose if self._pose is None or items is None else self._pose[items]
        solution = pg.solve_pnp(points2d, points3d, camera, mask=mask, init=last)
        self.solves += solution.ok.numel()
        if last is not None and not bool(solution.ok.all()):
            solution = pg.solve_pnp(points2d, points3d, camera, mask=mask)
            self.solves += solution.ok.numel()
            self.restarts += 1
        if not bool(solution.ok.any()):
            raise RunError(f"no pose can be found any more: {solution.describe()} Try another --seed.")
        self._remember(solution.pose.detach(), solution.ok, last, items)
        return solution

    def _remember(self, found: pg.Pose, ok: Tensor, last: pg.Pose | None, items: Tensor | None) -> None:
        """Where an item failed, its last good pose stays."""
        if last is not None:
            found = pg.Pose(
                torch.where(ok[:, None, None], found.R, last.R), torch.where(ok[:, None], found.t, last.t)
            )
        if items is not None and self._pose is not None:
            found = pg.Pose(
                self._pose.R.index_copy(0, items, found.R), self._pose.t.index_copy(0, items, found.t)
            )
        self._pose = found


@dataclass(frozen=True)
class Descent:
    """Losses of every step, the first before any change; whether the last is below the limit; seconds by the clock, and
    of all threads' work."""

    losses: list[float]
    reached: bool
    seconds: float
    cpu_seconds: float

    def __add__(self, later: Descent) -> Descent:
        """Both, one after the other."""
        losses = self.losses + later.losses
        seconds, cpu_seconds = self.seconds + later.seconds, self.cpu_seconds + later.cpu_seconds
        return Descent(losses, later.reached, seconds, cpu_seconds)


def descend(
    loss_of: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    loss_below: float,
    label: str,
    stalled: Callable[[list[float]], bool] = lambda losses: False,
) -> Descent:
    """At most ``steps`` steps, fewer when the loss falls below ``loss_below`` or ``stalled(losses)``.

    Raises:
        RunError: the loss is not finite any more.
    """
    begin, cpu_begin = time.perf_counter(), time.process_time()
    losses: list[float] = []
    with tqdm(total=steps, desc=label, unit="step", dynamic_ncols=True) as bar:
        for _ in range(steps):
            loss = loss_of()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise RunError(f"{label}: the loss is not finite at step {len(losses)}; lower --lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update()
            bar.set_postfix_str(f"loss {losses[-1]:.3g}", refresh=False)
            if losses[-1] < loss_below or stalled(losses):
                break
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    return Descent(losses, losses[-1] < loss_below, seconds, cpu_seconds)


def far_away(depth: float, views: int) -> pg.Pose:
    """The paper's start: no rotation, ``depth`` ahead; (views,) float64."""
    t = torch.tensor([0.0, 0.0, depth], dtype=torch.float64)
    return pg.Pose(torch.eye(3, dtype=torch.float64).expand(views, 3, 3), t.expand(views, 3))
