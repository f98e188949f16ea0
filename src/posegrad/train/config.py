"""What a training run is made of; every field is an option of `posegrad train`.

Pixels are crop pixels unless said otherwise; fractions of the run lie in [0, 1].
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from posegrad.train.errors import RunError
from posegrad.train.ranges import at_least, distinct, not_negative, positive, require, share

KEYPOINT_RULES = ("farthest", "box")
"""What `keypoints_from` says where it is not a file."""

__all__ = [
    "KEYPOINT_RULES",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "TrainConfig",
]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from and how they are cropped."""

    root: Annotated[Path | None, tyro.conf.arg(name="data")] = None
    """Dataset folder in BOP layout; None: the embedded dataset, rendered on first use."""
    objects: Annotated[tuple[int, ...] | None, tyro.conf.arg(name="object")] = None
    """Object ids, such as 1 5 9, all learned by one network; None: all that are annotated in the training scenes."""
    split: Path | None = None
    """JSON file {"train": [image ids], "test": [...]}: only those frames are read, both from --train-folder;
    None: train on all of --train-folder, test on all of --test-folder."""
    train_folder: str | None = None
    """Folder of the training scenes; None: "train", or the only folder with scenes."""
    test_folder: str | None = None
    """Folder of the held-out scenes; None: "test", or the only folder with scenes."""
    extra_data: tuple[Path, ...] = ()
    """Further dataset folders in BOP layout, such as renders, whose training images of the same objects are learned
    from, too. They need the same meshes in the same frames; nothing is tested on them, and no novel views are made."""
    extra_share: float = 0.5
    """Share of each batch that comes from --extra-data, in (0, 1)."""
    min_visibility: float = 0.1
    """Smallest visible share of the object, in [0, 1]."""
    image_size: int = 128
    """Side of the crops, pixels, a multiple of 32."""
    padding: float = 1.3
    """Side of a crop over the longer side of the object's visible box, > 1."""
    keypoints: int = 16
    """Keypoints of each object, >= 4, with --keypoints-from farthest."""
    keypoints_from: str = "farthest"
    """Which points of the object: "farthest" (farthest-point sampling of the mesh), "box" (the 8 corners of its box
    and the centre), or a JSON file: [[x, y, z], ..] or {"<object id>": [[x, y, z], ..], ..}, millimetres."""
    augment: float = 0.3
    """Strength of the random colour, blur, noise and cutout of the training crops, in [0, 1]: share of the crops
    that are changed, and by how much. Few images need more of it."""
    shift: float = 0.1
    """Largest random shift of the training crops, share of their side."""
    scale: float = 0.2
    """Training crops are up to (1 + scale) times larger or smaller."""
    rotation: float = 20.0
    """Largest in-plane rotation of the training crops, degrees, in [0, 180]."""
    novel_views: float = 0.0
    """Share of the training crops that are drawn from other viewpoints than the photographs', in [0, 1]: by the
    mesh, with the photographs' colours. Few images need it."""
    view_angle: float = 20.0
    """Largest rotation of the object from photograph to novel view, degrees, in [0, 90]."""
    swap_background: float = 0.5
    """Share of the novel views on the background of another photograph, in [0, 1]."""
    repaint: float = 0.5
    """Share of the novel views with the object's mean colours under a random light, in [0, 1], not those of its
    photograph."""
    in_plane: float = 45.0
    """Embedded dataset: the camera rolls within plus or minus this angle, degrees, in [0, 180]."""
    all_views: bool = False
    """Embedded dataset: views from all of SO(3), 4 to 10 diameters away, not the upper hemisphere, 4 to 7."""
    cache: Path | None = None
    """Where the embedded dataset is kept; None: $POSEGRAD_CACHE, else the user's cache folder."""
    skip_bad: bool = False
    """Leave out images that are missing or damaged, and name each once; else the first one ends the run."""
    workers: int | None = None
    """Processes that prepare crops; 0: the main process does. None: 0 on CPUs, where plain crops cost a twentieth of a
    step; a third of the --threads with --novel-views, which cost as much as a step; up to 8 beside a GPU."""

    def __post_init__(self) -> None:
        require("extra-share", self.extra_share, 0 < self.extra_share < 1, "a number in (0, 1)")
        share("min-visibility", self.min_visibility)
        valid = self.image_size >= 32 and self.image_size % 32 == 0
        require("image-size", self.image_size, valid, "a positive multiple of 32")
        require("padding", self.padding, 1 < self.padding < math.inf, "a finite number > 1")
        at_least("keypoints", self.keypoints, 4)
        distinct("object", self.objects)
        share("augment", self.augment)
        share("shift", self.shift)
        not_negative("scale", self.scale)
        require("rotation", self.rotation, 0 <= self.rotation <= 180, "degrees in [0, 180]")
        share("novel-views", self.novel_views)
        share("swap-background", self.swap_background)
        share("repaint", self.repaint)
        require("view-angle", self.view_angle, 0 <= self.view_angle <= 90, "degrees in [0, 90]")
        require("in-plane", self.in_plane, 0 <= self.in_plane <= 180, "degrees in [0, 180]")
        if self.workers is not None:
            at_least("workers", self.workers, 0)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    backbone: str = "hrnet_w18_small"
    """Any timm model with feature maps."""
    weights: Path | None = None
    """State dict of the backbone, matched by name (.safetensors) or by name or the order of shapes (.pth, .pt);
    None: random weights. Nothing is ever downloaded."""
    norm: Literal["batch", "group", "frozen"] = "batch"
    """Normalisation: over the batch; over groups of channels of each item, so that processes and --accumulate change
    nothing; or with the statistics of loaded --weights."""
    width: int = 64
    """Channels of the feature pyramid."""
    weighting: Literal["learned", "uniform", "moments"] = "learned"
    """Weights of the keypoints in PnP: learned from the pose loss; all equal; or 2 x 2 matrices, the inverses of the
    heatmaps' second moments, which the pose loss shapes as well."""
    sharpness: float = 2.0
    """Keypoints are decoded from softmax(sharpness logits); 1: plain DSNT, whose keypoints shrink to the centre."""

    def __post_init__(self) -> None:
        at_least("width", self.width, 1)
        positive("sharpness", self.sharpness)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """l_h (heatmap), l_p (pose, through PnP) or l_m = l_h + beta l_p (mixed); or regression without keypoints."""

    loss: Literal["heatmap", "pose", "mixed", "regression"] = "mixed"
    """Which of the three; or "regression": another network, which gives rotation and translation directly, the
    baseline for what geometry buys."""
    regression: Literal["weighted", "reprojection"] = "weighted"
    """Loss of the regression: errors of rotation and translation with learned weights (Kendall & Cipolla, 2017), or l_p
    of the regressed pose."""
    symmetries: bool = True
    """Symmetric objects: of all true poses that look the same, the nearest to the prediction is the goal."""
    beta: float = 100.0
    """Weight of l_p in l_m. Distances are in crop sides, so that one value serves all image sizes."""
    reprojection: float = 1.0
    """Weight (lambda) of the reprojection term in l_p."""
    distance: float = 0.0
    """Weight of the points' distance in space, over their extent, in l_p: pixels hardly tell the depth."""
    robust: float = 0.1
    """Distance from which l_p grows linearly, crop sides; 0: squares throughout, as in the paper."""
    beta_start: float = 0.2
    """l_m: fraction of the run after which l_p joins."""
    beta_full: float = 0.4
    """l_m: fraction of the run from which beta has its full value."""
    sigma: float = 3.0
    """Standard deviation of the Gaussian in l_h, pixels."""
    coordinate: float = 10.0
    """Weight of the coordinate term in l_h (distance in crop sides)."""
    start_from_truth: bool = True
    """Training: start PnP at the true pose, as the paper does; else from scratch. Evaluation never does."""
    max_gain: float = 2.0
    """Bound on the gain of the PnP layer's gradient for near-degenerate items; 0: none."""

    def __post_init__(self) -> None:
        not_negative("beta", self.beta)
        not_negative("reprojection", self.reprojection)
        not_negative("distance", self.distance)
        not_negative("robust", self.robust)
        share("beta-start", self.beta_start)
        ordered = self.beta_start <= self.beta_full <= 1
        require("beta-full", self.beta_full, ordered, f"a number from --beta-start ({self.beta_start}) to 1")
        positive("sigma", self.sigma)
        not_negative("coordinate", self.coordinate)
        not_negative("max-gain", self.max_gain)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW under a one-cycle schedule: linear warm-up, then a cosine to zero."""

    epochs: float = 9.0
    """Passes over the training crops."""
    steps: int | None = None
    """Optimiser steps; overrides --epochs."""
    max_minutes: float | None = None
    """Wall-clock limit of the training loop, minutes: the schedule is shortened to end within it."""
    batch_size: int = 32
    """Crops per step, over all processes and parts."""
    accumulate: int = 1
    """Parts of each process's share of a batch that go through the network one after the other, to save memory."""
    lr: float = 2e-3
    """Peak learning rate."""
    backbone_lr: float = 1.0
    """Factor on --lr for the backbone (below 1 for loaded weights, say)."""
    freeze: str | None = None
    """Weights of the backbone that stay as loaded: those whose name this regular expression matches somewhere, such
    as "conv_dw" for the depthwise kernels of an EfficientNet, whose gradient takes most of a step on CPUs."""
    weight_decay: float = 1e-2
    """AdamW weight decay (convolutions only)."""
    warm_up: float = 0.08
    """Fraction of the run in which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient of all weights."""

    def __post_init__(self) -> None:
        positive("epochs", self.epochs)
        if self.steps is not None:
            at_least("steps", self.steps, 1)
        if self.max_minutes is not None:
            positive("max-minutes", self.max_minutes)
        at_least("batch-size", self.batch_size, 1)
        at_least("accumulate", self.accumulate, 1)
        positive("lr", self.lr)
        not_negative("backbone-lr", self.backbone_lr)
        not_negative("weight-decay", self.weight_decay)
        share("warm-up", self.warm_up)
        positive("clip", self.clip)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Bookkeeping."""

    out: Path = Path("runs/latest")
    """Run folder. Files of a finished run in it are overwritten, those of an unfinished one only with --overwrite."""
    seed: int = 0
    """Of weights, order and augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the convolutions; auto: bfloat16 where the hardware multiplies it natively. PnP is float64."""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice."""
    checkpoint_minutes: float = 2.0
    """Minutes between two checkpoints, from which --resume goes on; 0: after every step."""
    log_every: int = 10
    """Steps between two lines of log.jsonl."""
    pictures: int = 16
    """Held-out crops drawn with predicted and true pose; 0: none."""

    def __post_init__(self) -> None:
        require("seed", self.seed, 0 <= self.seed < 2**63, "an integer in [0, 2^63)")
        not_negative("checkpoint-minutes", self.checkpoint_minutes)
        at_least("log-every", self.log_every, 1)
        at_least("pictures", self.pictures, 0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.data.extra_data:
            at_least("batch-size", self.optimizer.batch_size, 2)

    def to_json(self) -> str:
        """As indented JSON; paths as strings."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Inverse of `to_json`; unknown entries raise RunError."""
        sections = {
            "data": DataConfig,
            "model": ModelConfig,
            "loss": LossConfig,
            "optimizer": OptimizerConfig,
            "run": RunConfig,
        }
        paths = {"root", "split", "cache", "weights", "out", "extra_data"}
        values: dict[str, Any] = {}
        for name, content in json.loads(text).items():
            if name not in sections:
                raise RunError(f"config.json: unknown section {name!r}")
            unknown = set(content) - {f.name for f in dataclasses.fields(sections[name])}
            if unknown:
                raise RunError(f"config.json: unknown entries {sorted(unknown)} in {name!r}")
            content = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            content |= {k: _paths(content[k]) for k in paths & set(content)}
            values[name] = sections[name](**content)
        return cls(**values)


def _paths(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(Path, value))
    return None if value is None else Path(value)
