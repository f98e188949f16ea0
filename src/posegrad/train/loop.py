"""The training loop."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from posegrad.data import Augmentation, CropDataset, NovelViews, texture_mesh
from posegrad.nn import KeypointPoseNet, load_backbone_weights
from posegrad.train.config import OptimizerConfig, RunConfig, TrainConfig
from posegrad.train.errors import RunError
from posegrad.train.objective import Objective, pnp_layer
from posegrad.train.record import Recorder
from posegrad.train.sampler import Batches, EpochCrops
from posegrad.train.source import Source

__all__ = ["Trained", "build_network", "convolution_precision", "fit"]


# A step whose gradient is not finite is left out; after this many in a row the run has come apart.
_MOST_SKIPPED = 20


@dataclass(frozen=True)
class Trained:
    """Outcome of `fit`: steps done, share of them with the pose loss, share of items whose PnP failed in those, steps
    left out because their gradient was not finite, seconds of the loop."""

    steps: int
    pose_share: float
    failed_share: float
    skipped: int
    seconds: float
    images_per_second: float
    precision: str


def convolution_precision(config: RunConfig, device: torch.device) -> torch.dtype:
    """The dtype of the convolutions: "auto" is bfloat16 where the hardware multiplies it natively."""
    if config.precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
            native = device.type == "cpu" and probe is not None and bool(probe())
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32


def accelerator() -> Accelerator:
    """Where to run: CUDA if there is one, else the CPU (Apple's GPUs have no float64, which the poses need)."""
    return Accelerator(cpu=not torch.cuda.is_available())


def build_network(config: TrainConfig, *, load_weights: bool = True) -> KeypointPoseNet:
    """The network of a configuration: random weights by its seed, those of the backbone from its file.

    Raises:
        RunError: unknown backbone, unusable weights, impossible sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return _build_network(config, load_weights)


def _build_network(config: TrainConfig, load_weights: bool) -> KeypointPoseNet:
    try:
        net = KeypointPoseNet(
            config.data.keypoints,
            config.model.backbone,
            image_size=config.data.image_size,
            width=config.model.width,
            confidence=config.model.confidence,
            sharpness=config.model.sharpness,
            pnp=pnp_layer(config.loss),
        )
        if load_weights and config.model.weights is not None:
            load_backbone_weights(net, config.model.weights)
    except ValueError as error:
        raise RunError(str(error)) from error
    # 1.3 to 1.6 times as fast as the default layout, on CPU in float32 and bfloat16 alike.
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def learning_rate(progress: float, warm_up: float) -> float:
    """One-cycle factor in [0, 1]: linear rise over `warm_up`, then a cosine to zero at progress 1."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / max(1 - warm_up, 1e-9))))


def _freeze(backbone: nn.Module, pattern: str) -> None:
    try:
        chosen = [p for name, p in backbone.named_parameters() if re.search(pattern, name)]
    except re.error as error:
        raise RunError(f"--freeze: {pattern!r} is not a regular expression ({error})") from error
    if not chosen:
        some = [name for name, _ in backbone.named_parameters()][:3]
        raise RunError(
            f"--freeze: {pattern!r} matches no weight of the backbone; names are like {', '.join(some)}"
        )
    for parameter in chosen:
        parameter.requires_grad_(False)


def make_optimizer(net: KeypointPoseNet, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and kernels only, a learning rate of its own for the backbone."""
    if config.freeze is not None:
        _freeze(net.backbone, config.freeze)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        groups.setdefault((name.startswith("backbone."), parameter.ndim >= 2), []).append(parameter)
    options = []
    for (backbone, decays), parameters in groups.items():
        lr = config.lr * (config.backbone_lr if backbone else 1.0)
        decay = config.weight_decay if decays else 0.0
        options.append({"params": parameters, "lr": lr, "peak": lr, "weight_decay": decay})
    # Fused: one pass over the weights, a few times as fast on CPU as one loop per tensor.
    return torch.optim.AdamW(options, betas=(0.9, 0.99), fused=True)


def training_crops(config: TrainConfig, source: Source) -> CropDataset:
    """The training instances as augmented crops."""
    data, full = config.data, Augmentation()
    scaled = (
        "brightness",
        "contrast",
        "color",
        "blur_probability",
        "noise_probability",
        "cutout_probability",
    )
    augmentation = Augmentation(
        shift=data.shift,
        scale=data.scale,
        rotation_deg=data.rotation,
        **{name: data.augment * getattr(full, name) for name in scaled},
    )
    novel_views = None
    if data.novel_views > 0:
        novel_views = NovelViews(
            texture_mesh(source.mesh, source.train),
            share=data.novel_views,
            angle_deg=data.view_angle,
            swap=data.swap_background,
            repaint=data.repaint,
        )
    return CropDataset(
        source.train,
        size=config.data.image_size,
        padding=config.data.padding,
        augmentation=augmentation,
        novel_views=novel_views,
        seed=config.run.seed,
    )


def _loader(crops: CropDataset, batches: Batches, config: TrainConfig) -> DataLoader:
    return DataLoader(EpochCrops(crops), batch_sampler=batches, num_workers=config.data.workers)


class Schedule:
    """How far the run is, by steps or, where that is further, by the clock."""

    def __init__(self, config: OptimizerConfig, images: int, batch_size: int) -> None:
        steps = config.steps if config.steps is not None else round(config.epochs * images / batch_size)
        if steps < 1:
            raise RunError(f"--steps, --epochs: {steps} optimiser steps; need at least 1")
        self.steps = steps
        self.limit = None if config.max_minutes is None else 60 * config.max_minutes
        self.begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the start of the loop."""
        return time.perf_counter() - self.begin

    def progress(self, step: int) -> float:
        """In [0, 1]; 1 ends the run."""
        by_clock = 0.0 if self.limit is None else self.seconds / self.limit
        return min(1.0, max(step / self.steps, by_clock))


def fit(config: TrainConfig, net: KeypointPoseNet, source: Source, recorder: Recorder) -> Trained:
    """Train `net` in place; every line of the log goes to `recorder`.

    Raises:
        RunError: settings that cannot work.
        DatasetError: an image is missing or damaged.
    """
    parallel = accelerator()
    device, options = parallel.device, config.optimizer
    precision = convolution_precision(config.run, device)
    crops = training_crops(config, source)
    rank, world = parallel.process_index, parallel.num_processes
    order = Batches(len(crops), options.batch_size, seed=config.run.seed, rank=rank, world=world)
    loader = _loader(crops, order, config)
    model, optimizer = parallel.prepare(net, make_optimizer(net, options))
    objective = Objective(config.loss, net, torch.from_numpy(source.keypoints).to(device))
    model.train()

    schedule = Schedule(options, len(crops), order.batch_size)
    batches, step, pose_steps, failed, skipped, in_a_row = iter(loader), 0, 0, 0.0, 0, 0
    with tqdm(total=schedule.steps, desc="train", unit="step", dynamic_ncols=True) as bar:
        while (progress := schedule.progress(step)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate(progress, options.warm_up)
            batch = {name: value.to(device) for name, value in next(batches).items()}
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                seen = model(batch["image"])
            terms = objective(seen, batch, progress)
            logged = step % config.run.log_every == 0
            norms = terms.gradient_norms() if logged else {}
            optimizer.zero_grad()
            parallel.backward(terms.total)
            norm = torch.as_tensor(parallel.clip_grad_norm_(model.parameters(), options.clip))
            if bool(norm.isfinite()):
                optimizer.step()
                in_a_row = 0
            else:
                skipped, in_a_row = skipped + 1, in_a_row + 1
                if in_a_row >= _MOST_SKIPPED:
                    raise RunError(
                        f"the gradient has not been finite for {in_a_row} steps (now at step {step}): lower --lr"
                    )
            recorder.count(terms)
            if terms.failed is not None:
                pose_steps, failed = pose_steps + 1, failed + float(terms.failed)
            step += 1
            bar.update()
            if logged:
                lr = optimizer.param_groups[0]["lr"]
                bar.set_postfix_str(recorder.log(step, progress, lr, float(norm), terms, norms))
    seconds = schedule.seconds
    return Trained(
        steps=step,
        pose_share=pose_steps / step,
        failed_share=failed / max(pose_steps, 1),
        skipped=skipped,
        seconds=seconds,
        images_per_second=step * order.batch_size / seconds,
        precision=str(precision).removeprefix("torch."),
    )
