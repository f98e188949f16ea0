"""Time and accuracy of solve_pnp beside OpenCV, on the same inputs in the same run.

    python benchmarks/pnp.py [--quick]

Times are medians of repeated calls in milliseconds, for the whole batch. "cost" is the largest ratio of a method's
reprojection cost to the best known of the row (1 is best); a peer that fails an item counts as infinite.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

import posegrad as pg
from posegrad.testing import Scene, random_scene


def median_ms(function: Callable[[], object], budget: float) -> float:
    """Median time of a call: at least 5 calls, then until the budget (seconds) is spent."""
    function()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < budget and len(times) < 200):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def opencv(scene: Scene, K: torch.Tensor, flag: int) -> pg.Pose:
    """A loop over the items: SQPNP or ITERATIVE, then OpenCV's own LM refinement to the cost we compare at."""
    z, x, k = scene.points3d.numpy(), scene.points2d.numpy(), K.numpy()
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-12)
    rotvecs, ts = [], []
    for points3d, points2d in zip(z, x, strict=True):
        _, rotvec, t = cv2.solvePnP(points3d, points2d, k, None, flags=flag)
        rotvec, t = cv2.solvePnPRefineLM(points3d, points2d, k, None, rotvec, t, criteria)
        rotvecs.append(rotvec[:, 0])
        ts.append(t[:, 0])
    return pg.Pose.from_rotvec(torch.from_numpy(np.stack(rotvecs)), torch.from_numpy(np.stack(ts)))


def forward_backward(scene: Scene, K: torch.Tensor, init: pg.Pose | None) -> None:
    x, z = scene.points2d.clone().requires_grad_(), scene.points3d.clone().requires_grad_()
    pose = pg.solve_pnp(x, z, K, init=init).pose
    (pose.R.sum() + pose.t.sum()).backward()


def row(batch: int, points: int, budget: float) -> str:
    scene = random_scene(batch, points, noise=1.0, seed=batch + points)
    K = scene.K * torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 1]])  # OpenCV knows no skew
    near = scene.pose.retract(torch.full((batch, 6), 0.02, dtype=torch.float64))
    x, z = scene.points2d, scene.points3d
    methods: dict[str, Callable[[], pg.Pose]] = {
        "forward": lambda: pg.solve_pnp(x, z, K).pose,
        "cv2 SQPNP": lambda: opencv(scene, K, cv2.SOLVEPNP_SQPNP),
        "cv2 ITERATIVE": lambda: opencv(scene, K, cv2.SOLVEPNP_ITERATIVE),
    }
    costs = {
        name: pg.reprojection_residuals(x, z, K, solve()).square().sum((-1, -2))
        for name, solve in methods.items()
    }
    best = torch.stack(list(costs.values())).nan_to_num(nan=torch.inf).amin(0)
    worst = {name: (cost / best).nan_to_num(nan=torch.inf).max().item() for name, cost in costs.items()}
    times = [
        median_ms(methods["forward"], budget),
        median_ms(lambda: forward_backward(scene, K, None), budget),
        median_ms(lambda: pg.solve_pnp(x, z, K, init=near), budget),
        median_ms(lambda: forward_backward(scene, K, near), budget),
        median_ms(methods["cv2 SQPNP"], budget),
        median_ms(methods["cv2 ITERATIVE"], budget),
    ]
    cells = [f"{batch} x {points}", *(f"{t:.2f}" for t in times), *(f"{w:.3g}" for w in worst.values())]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    quick = parser.parse_args().quick
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, OpenCV {cv2.__version__}, float64")
    heads = [
        "batch x points", "forward", "forward + backward", "with init", "with init + backward", "cv2 SQPNP + LM",
        "cv2 ITERATIVE + LM", "cost ours", "cost SQPNP", "cost ITERATIVE",
    ]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    sizes = (
        [(1, 8), (32, 100), (256, 100)]
        if quick
        else [(1, 8), (1, 1000), (32, 8), (32, 100), (256, 100), (1024, 100)]
    )
    for batch, points in sizes:
        print(row(batch, points, 0.3 if quick else 2.0), flush=True)


if __name__ == "__main__":
    main()
