"""Images per second of one training step (forward, heatmap loss, backward), by dtype, memory layout and batch size.

    python benchmarks/training_step.py --threads 2 [--backbone hrnet_w18_small] [--size 128]
    python benchmarks/training_step.py --threads 1 --pnp [--clock cpu] [--backend torch]

With ``--pnp`` it is the share of the PnP layer in a step of ``posegrad train`` with its defaults, which are the demo's:
32 crops, mixed loss, clipping and optimiser included, loading of images not. Keypoints are moved to within a pixel or
two of where they belong, as a trained network sees them. The layer is timed inside of the step, forward and backward.

Run it on a quiet machine: two OpenMP threads that share their cores with anything else stall each other.
"""

import argparse
import statistics
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from posegrad import Pose, project_points
from posegrad.nn import KeypointPoseNet, heatmap_loss
from posegrad.testing import random_scene
from posegrad.train.build import build_network, convolution_precision
from posegrad.train.config import TrainConfig
from posegrad.train.lookup import KeypointTable
from posegrad.train.objective import Objective, pnp_layer
from posegrad.train.optimizer import make_optimizer
from speed_timing import CLOCKS, Run


def images_per_second(net: KeypointPoseNet, batch: int, size: int, dtype: torch.dtype, steps: int) -> float:
    image = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    target = torch.rand(batch, net.num_keypoints, 2) * size
    seconds = []
    for _ in range(steps + 1):
        begin = perf_counter()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            seen = net(image)
        heatmap_loss(seen.logits, target, stride=seen.stride, points2d=seen.points2d).backward()
        net.zero_grad()
        seconds.append(perf_counter() - begin)
    return batch / statistics.median(seconds[1:])


class Timed(nn.Module):
    """A PnP layer that notes the seconds of its call and of its part of the backward pass."""

    def __init__(self, pnp: nn.Module, clock: Run) -> None:
        super().__init__()
        self.pnp, self.clock = pnp, clock
        self.seconds = [0.0, 0.0]
        self._begin = 0.0

    def forward(self, points2d: Tensor, *args: Any, weights: Tensor, **options: Any) -> Any:
        # views, so that the hooks of these are called as soon as the layer has handed its gradients on
        x, w = points2d.view_as(points2d), weights.view_as(weights)
        begin = self.clock()
        solution = self.pnp(x, *args, weights=w, **options)
        self.seconds[0] = self.clock() - begin
        for pose in (solution.pose.R, solution.pose.t):
            pose.register_hook(self._start)
        for given in (x, w):
            given.register_hook(self._stop)
        return solution

    def _start(self, gradient: Tensor) -> None:
        self._begin = self.clock()

    def _stop(self, gradient: Tensor) -> None:
        self.seconds[1] = self.clock() - self._begin


def pnp_share(
    backend: Literal["auto", "torch", "kernels"], clock: Run, steps: int
) -> tuple[float, float, float]:
    """Median seconds of a whole step, and of the PnP layer forward and backward."""
    config = TrainConfig()
    net = build_network(config).train()
    solver = pnp_layer(config.loss)
    solver.backend = backend
    layer = net.pnp = Timed(solver, clock)
    optimizer = make_optimizer(net, config.optimizer)
    batch, size = config.optimizer.batch_size, config.data.image_size
    scene = random_scene(batch, config.data.keypoints)
    keypoints = scene.points3d[0]
    pose = Pose(scene.pose.R, scene.pose.t)
    target = project_points(keypoints, scene.K, pose)
    low, high = target.amin((1, 2)), target.amax((1, 2))
    scale = (high - low) / (0.8 * size)  # the object fills most of its crop
    affine = torch.zeros(batch, 2, 3, dtype=torch.float64)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = target.mean(1) - scale[:, None] * size / 2
    in_crop = (target - affine[:, None, :, 2]) / scale[:, None, None]
    image = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    given = {"image": image, "R": pose.R, "t": pose.t, "K": scene.K, "full_from_crop": affine}
    given["object_id"] = torch.ones(batch, dtype=torch.int64)
    objective = Objective(config.loss, net, KeypointTable({1: keypoints.numpy()}))
    precision = convolution_precision(config.run, torch.device("cpu"))
    seconds = []
    for _ in range(steps + 2):
        begin = clock()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            seen = net(image)
        near = (in_crop + torch.randn_like(in_crop)).to(seen.points2d)
        seen = replace(seen, points2d=seen.points2d - seen.points2d.detach() + near)
        optimizer.zero_grad()
        objective(seen, given, 1.0).total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.optimizer.clip)
        optimizer.step()
        seconds.append((clock() - begin, *layer.seconds))
    whole, forward, backward = (statistics.median(part) for part in zip(*seconds[2:], strict=True))
    return whole, forward, backward


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="hrnet_w18_small")
    parser.add_argument("--size", type=int, default=128, help="side of the crops, pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each cell (the median counts)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--pnp", action="store_true", help="the share of the PnP layer in a step of the demo")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="of --pnp")
    parser.add_argument("--backend", choices=["auto", "torch", "kernels"], default="auto", help="of --pnp")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.pnp:
        whole, forward, backward = pnp_share(options.backend, CLOCKS[options.clock], options.steps)
        print(
            f"step {1e3 * whole:.0f} ms, PnP forward {1e6 * forward:.0f} us, backward {1e6 * backward:.0f} us: "
            f"{100 * (forward + backward) / whole:.3f} %"
        )
        return
    net = KeypointPoseNet(16, options.backbone, image_size=options.size)
    sizes = "".join(f"{f'batch {b}':>12}" for b in options.batch_sizes)
    print(f"{options.backbone}, {options.size} px, {options.threads} threads: images/s\n{'':28}{sizes}")
    for layout in (torch.contiguous_format, torch.channels_last):
        net.to(memory_format=layout)
        for dtype in (torch.float32, torch.bfloat16):
            rates = [
                images_per_second(net, b, options.size, dtype, options.steps) for b in options.batch_sizes
            ]
            name = f"{str(layout).split('.')[1]}, {str(dtype).split('.')[1]}"
            print(f"{name:28}" + "".join(f"{rate:12.0f}" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
