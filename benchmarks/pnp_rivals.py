"""What other solvers, and many random starts, reach on the problems of ``accuracy.py``.

Each rival gives one or several starts, found as its own documentation has it used, from the points alone (none takes
weights); all starts then go through the same refinement of the true, weighted cost, so that what is compared is where
they lead and not how finely each polishes.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import poselib
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import posegrad as pg
from pnp_cells import CENTRE, FOCAL, Array, Cell, K, Problems, stream

#: of the random starts, how many our own refinement runs from directly; of what PoseLib makes of all of them, how many
_DIRECT, _KEPT = 10, 4
_K = K.numpy()
_CAMERA = {"model": "SIMPLE_PINHOLE", "width": 640, "height": 480, "params": [FOCAL, *CENTRE]}
Start = tuple[Array, Array]


def _opencv(flag: int) -> Callable[[Array, Array], list[Start]]:
    def solve(x: Array, z: Array) -> list[Start]:
        if len(z) == 3 and flag in (cv2.SOLVEPNP_P3P, cv2.SOLVEPNP_AP3P):
            _, rotvecs, ts = cv2.solveP3P(z, x, _K, None, flag)
        else:
            _, rotvecs, ts, _ = cv2.solvePnPGeneric(z, x, _K, None, flags=flag)
        return [(cv2.Rodrigues(r)[0], t[:, 0]) for r, t in zip(rotvecs, ts, strict=True)]

    return solve


def _poselib(x: Array, z: Array) -> list[Start]:
    if len(z) == 3:
        rays = np.concatenate([(x - CENTRE) / FOCAL, np.ones((3, 1))], 1)
        poses = poselib.p3p(rays / np.linalg.norm(rays, axis=1, keepdims=True), z)
    else:
        # no outliers: RANSAC is to keep every point
        poses = [poselib.estimate_absolute_pose(x, z, _CAMERA, {"max_reproj_error": 50.0})[0]]
    return [(pose.R, pose.t) for pose in poses]


#: name: solver and the numbers of points it takes
RIVALS: dict[str, tuple[Callable[[Array, Array], list[Start]], range]] = {
    "SQPNP": (_opencv(cv2.SOLVEPNP_SQPNP), range(3, 10**9)),
    "EPNP": (_opencv(cv2.SOLVEPNP_EPNP), range(4, 10**9)),
    "ITERATIVE": (_opencv(cv2.SOLVEPNP_ITERATIVE), range(4, 10**9)),
    "IPPE": (_opencv(cv2.SOLVEPNP_IPPE), range(4, 10**9)),  # planes only
    "P3P": (_opencv(cv2.SOLVEPNP_P3P), range(3, 5)),
    "AP3P": (_opencv(cv2.SOLVEPNP_AP3P), range(3, 5)),
    "PoseLib": (_poselib, range(3, 10**9)),
}
STARTS = "starts"


def takes(name: str, cell: Cell) -> bool:
    """Whether a rival is made for a cell's problems."""
    return cell.points in RIVALS[name][1] and (name != "IPPE" or cell.shape in ("frontal", "tilted"))


def rival_costs(cell: Cell, problems: Problems, indices: range, num_starts: int) -> dict[str, list[float]]:
    """Least refined cost of every rival and of the random starts, per problem; infinite where one has no answer."""
    points = [
        (x[m].numpy().copy(), z[m].numpy().copy())
        for x, z, m in zip(problems.points2d, problems.points3d, problems.mask, strict=True)
    ]
    costs = {}
    for name, (solve, _) in RIVALS.items():
        if takes(name, cell):
            found = [_attempt(solve, x, z) for x, z in points]
            costs[name] = _refined(problems, found).tolist()
    found = [
        _random_minima(x, z, stream(cell, index, "starts"), num_starts)
        for index, (x, z) in zip(indices, points, strict=True)
    ]
    costs[STARTS] = _refined(problems, found).tolist()
    return costs


def _attempt(solve: Callable[[Array, Array], list[Start]], x: Array, z: Array) -> list[Start]:
    try:
        return [(R, t) for R, t in solve(x, z) if np.isfinite(R).all() and np.isfinite(t).all()]
    except cv2.error:  # too few points for it, or it thinks the scene degenerate
        return []


def _random_minima(x: Array, z: Array, rng: np.random.Generator, count: int) -> list[Start]:
    """Random starts of about the right size in the image, and the best distinct poses PoseLib descends to from them."""
    centre = z.mean(0)
    radius = np.sqrt(np.square(z - centre).sum(1).mean())
    z = (z - centre) / radius
    image = (x - CENTRE) / FOCAL
    spread = np.sqrt(np.square(image - image.mean(0)).sum(1).mean())
    depths = np.exp(rng.uniform(-0.5, 0.7, count)) / spread
    rotations = Rotation.random(count, rng)
    starts = [
        (R, _pushed_forward(R, depth * np.append(image.mean(0), 1.0), z))
        for R, depth in zip(rotations.as_matrix(), depths, strict=True)
    ]
    descended = []
    for R, t in starts:
        pose = poselib.CameraPose()
        pose.R, pose.t = R, t
        pose, _ = poselib.refine_absolute_pose(x, z, pose, _CAMERA, {"loss_type": "TRIVIAL"})
        in_camera = z @ pose.R.T + pose.t
        if np.isfinite(in_camera).all() and in_camera[:, 2].min() > 0:
            error = np.square(in_camera[:, :2] / in_camera[:, 2:] - image).sum()
            descended.append((float(error), pose.R, pose.t))
    chosen = starts[:_DIRECT] + _distinct(descended)
    return [(R, radius * t - R @ centre) for R, t in chosen]


def _distinct(found: list[tuple[float, Array, Array]]) -> list[Start]:
    """The best few that are more than 2 degrees apart."""
    chosen: list[Start] = []
    for _, R, t in sorted(found, key=lambda entry: entry[0]):
        if all(np.sum(R * other) < 1 + 2 * np.cos(np.radians(2)) for other, _ in chosen):
            chosen.append((R, t))
        if len(chosen) == _KEPT:
            break
    return chosen


def _pushed_forward(R: Array, t: Array, z: Array) -> Array:
    """Moved along z until every point is ahead: refinement has to start there, and some rivals end a little short."""
    depth = (z @ R.T + t)[:, 2].min()
    size = np.sqrt(np.square(z - z.mean(0)).sum(1).mean())
    return t + np.array([0, 0, max(0.0, 0.1 * size - depth) if depth <= 1e-3 * size else 0.0])


def _refined(problems: Problems, found: Sequence[list[Start]]) -> Array:
    """Least cost of the minima that each problem's starts lead to."""
    most = max(map(len, found))
    best = np.full(len(found), np.inf)
    if most == 0:
        return best
    chunk = max(1, 200_000 // (most * problems.mask.shape[1]))
    for begin in range(0, len(found), chunk):
        part = slice(begin, begin + chunk)
        best[part] = _refine(problems[part], found[part], most).numpy()
    return best


def _refine(problems: Problems, found: Sequence[list[Start]], most: int) -> Tensor:
    R, t = np.tile(np.eye(3), (len(found), most, 1, 1)), np.zeros((len(found), most, 3))
    R[..., 2, 2] = -1.0  # no rotation: what is left empty is refused
    for i, starts in enumerate(found):
        z = problems.points3d[i][problems.mask[i]].numpy()
        for j, (Rj, tj) in enumerate(starts):
            R[i, j], t[i, j] = Rj, _pushed_forward(Rj, tj, z)
    init = pg.Pose(torch.from_numpy(R), torch.from_numpy(t))
    wide = [value[:, None] for value in (problems.points2d, problems.points3d)]
    weights, mask = problems.weights[:, None], problems.mask[:, None]
    solution = pg.solve_pnp(*wide, K, weights=weights, mask=mask, init=init)
    # a start from which no minimum is reached is no answer, however low its cost: that may fall on towards a point in
    # the camera's centre
    return torch.where(solution.ok, cost_of(problems, solution.pose), torch.inf).amin(1)


def cost_of(problems: Problems, pose: pg.Pose) -> Tensor:
    """``1/2 sum w |r|^2`` in pixels squared of poses (B, C); infinite where a point is not in front of the camera."""
    mask = problems.mask[:, None]
    in_camera = pose.act(torch.where(problems.mask[..., None], problems.points3d, 0.0)[:, None])
    depth = torch.where(mask, in_camera[..., 2], 1.0)
    x = torch.where(problems.mask[..., None], problems.points2d, 0.0)[:, None]
    residual = FOCAL * in_camera[..., :2] / depth[..., None] + torch.from_numpy(CENTRE) - x
    cost = 0.5 * torch.where(mask, problems.weights[:, None] * residual.square().sum(-1), 0.0).sum(-1)
    return torch.where((depth > 0).all(-1) & cost.isfinite(), cost, torch.inf)
