"""Largest relative error of solve_pnp's gradients against re-solving under central differences, float64.

    python benchmarks/gradients.py [--scenes 20] [--focal 600]

Fourth-order differences with steps of 1e-3 of each input's own scale (pixels in units of f / 600, object and
weights of size 1); error = |gradient - difference| / max(|difference|, 1e-3), the worst of the scenes.
"""

import argparse

import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import Scene, central_difference, random_scene, relative_error


def readout(solution: pg.PnPSolution) -> Tensor:
    """A fixed linear function of R and t."""
    generator = torch.Generator().manual_seed(7)
    G_R, G_t = torch.randn(3, 3, generator=generator).double(), torch.randn(3, generator=generator).double()
    return (solution.pose.R * G_R).sum((-1, -2)) + (solution.pose.t * G_t).sum(-1)


def errors(scene: Scene) -> dict[str, float]:
    pixel = scene.K[0, 0].item() / 600
    inputs = {
        "points2d": scene.points2d,
        "points3d": scene.points3d,
        "weights": scene.weights,
        "K": scene.K.expand(len(scene.weights), 3, 3),
    }

    def solve(values: dict[str, Tensor], init: pg.Pose) -> pg.PnPSolution:
        solution = pg.solve_pnp(
            values["points2d"], values["points3d"], values["K"], weights=values["weights"], init=init
        )
        assert bool(solution.ok.all()), solution.describe()
        return solution

    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    solution = solve(leaves, scene.pose)
    gradients = torch.autograd.grad(readout(solution).sum(), list(leaves.values()))
    base, worst = solution.pose.detach(), {}
    for name, gradient in zip(leaves, gradients, strict=True):
        scale = pixel if name in ("points2d", "K") else 1.0

        def resolve(value: Tensor, name: str = name) -> Tensor:
            copies = len(value) // len(scene.weights)
            repeated = {key: v.repeat_interleave(copies, 0) for key, v in inputs.items()} | {name: value}
            start = pg.Pose(base.R.repeat_interleave(copies, 0), base.t.repeat_interleave(copies, 0))
            return readout(solve(repeated, start)).detach()

        expected = central_difference(resolve, inputs[name], 1e-3 * scale)
        worst[name] = relative_error(gradient * scale, expected * scale, floor=1e-3).max().item()
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--focal", type=float, default=600.0)
    options = parser.parse_args()
    print("| points | noise px | set | points2d | points3d | weights | K |\n|---|---|---|---|---|---|---|")
    for points in (4, 8, 50):
        for noise in (0.0, 2.0, 10.0):
            for planar in (False, True):
                scene = random_scene(
                    options.scenes, points, noise=noise, planar=planar, focal=options.focal, seed=points
                )
                cells = " | ".join(f"{error:.1e}" for error in errors(scene).values())
                print(f"| {points} | {noise:g} | {'planar' if planar else 'general'} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
