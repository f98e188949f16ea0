"""How often solve_pnp finds the best known minimum of a robust cost without an initial pose, with outliers.

    python benchmarks/outliers.py [--scenes 200] [--time]

Random scenes (points in a cube of side 2 at 4 to 8 units, f = 600, general and planar in equal parts), noise of 1 px;
outliers lie anywhere in the 640 x 480 image. Best known: of this answer and of what a start at the true pose leads to.
"""

import argparse
import time

import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import Scene, random_scene

LOSSES: dict[str, pg.robust.RobustLoss] = {
    "Huber(2)": pg.robust.Huber(2.0),
    "Cauchy(2)": pg.robust.Cauchy(2.0),
    "GemanMcClure(3)": pg.robust.GemanMcClure(3.0),
    "Tukey(5)": pg.robust.Tukey(5.0),
    "Truncated(4)": pg.robust.Truncated(4.0),
}


def with_outliers(count: int, points: int, share: float, *, planar: bool) -> tuple[Scene, Tensor]:
    """Scenes, and their pixels with that share of them anywhere."""
    scene = random_scene(count, points, noise=1.0, planar=planar, seed=points)
    generator = torch.Generator().manual_seed(round(100 * share))
    outlier = torch.rand(count, points, generator=generator).argsort(1) < round(share * points)
    anywhere = torch.rand(count, points, 2, generator=generator, dtype=torch.float64)
    anywhere = anywhere * torch.tensor([640.0, 480.0], dtype=torch.float64)
    return scene, torch.where(outlier[..., None], anywhere, scene.points2d)


def hits(scene: Scene, points2d: Tensor, loss: pg.robust.RobustLoss) -> Tensor:
    """Where the answer costs no more than the best known."""
    found = pg.solve_pnp(points2d, scene.points3d, scene.K, loss=loss)
    local = pg.solve_pnp(points2d, scene.points3d, scene.K, loss=loss, init=scene.pose)
    best = torch.where(local.ok, local.cost, torch.inf)
    return found.ok & (found.cost <= best * (1 + 1e-6) + 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=200, help="of each kind, general and planar")
    parser.add_argument("--time", action="store_true", help="time of a robust search over a plain one, too")
    options = parser.parse_args()
    print(f"| points | outliers | {' | '.join(LOSSES)} |\n|---|---|{'---|' * len(LOSSES)}")
    for points in (8, 12, 20, 40):
        for share in (0.0, 0.1, 0.2, 0.3, 0.4):
            cells = []
            for loss in LOSSES.values():
                parts = [with_outliers(options.scenes, points, share, planar=p) for p in (False, True)]
                found = torch.cat([hits(scene, x, loss) for scene, x in parts])
                cells.append(f"{100 * found.double().mean():.1f}")
            print(f"| {points} | {100 * share:.0f} % | {' | '.join(cells)} |", flush=True)
    if options.time:
        for points, share in ((8, 0.0), (20, 0.0), (20, 0.3)):
            scene, x = with_outliers(options.scenes, points, share, planar=False)
            spent: dict[str, list[float]] = {}
            for _ in range(7):  # turn by turn: what else runs slows all alike
                for name, loss in {"none": None, **LOSSES}.items():
                    start = time.perf_counter()
                    pg.solve_pnp(x, scene.points3d, scene.K, loss=loss)
                    spent.setdefault(name, []).append(time.perf_counter() - start)
            least = {name: min(values) for name, values in spent.items()}
            ratios = ", ".join(f"{name} {value / least['none']:.1f}" for name, value in least.items())
            print(f"{points} points, {100 * share:.0f} % outliers, time over that without a loss: {ratios}")


if __name__ == "__main__":
    main()
