"""Images per second of one training step (forward, heatmap loss, backward), by dtype, memory layout and batch size.

    python benchmarks/training_step.py --threads 2 [--backbone hrnet_w18_small] [--size 128]

Run it on a quiet machine: two OpenMP threads that share their cores with anything else stall each other.
"""

import argparse
import statistics
import time

import torch

from posegrad.nn import KeypointPoseNet, heatmap_loss


def images_per_second(net: KeypointPoseNet, batch: int, size: int, dtype: torch.dtype, steps: int) -> float:
    image = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    target = torch.rand(batch, net.num_keypoints, 2) * size
    seconds = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            seen = net(image)
        heatmap_loss(seen.logits, target, stride=seen.stride, points2d=seen.points2d).backward()
        net.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return batch / statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="hrnet_w18_small")
    parser.add_argument("--size", type=int, default=128, help="side of the crops, pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each cell (the median counts)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32, 64])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
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
