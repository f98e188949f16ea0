"""Feature extractors from timm, and the loading of their weights from a file."""

from __future__ import annotations

import difflib
import pickle
from pathlib import Path
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

__all__ = ["Backbone", "BackboneNet", "create_backbone", "load_backbone_weights", "normalise_image"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FINEST_STRIDE = 4
STANDARD_LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def normalise_image(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Crops as timm's backbones want them: checked, minus the mean and over the deviation of ImageNet's colours.

    Args:
        image: (B, 3, S, S) RGB, uint8 in [0, 255] or floating point in [0, 1]; S a multiple of 32.
        dtype: of the result.

    Raises:
        ValueError: wrong shape or dtype.

    >>> normalise_image(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))[0, :, 0, 0]
    tensor([2.2489, 2.4286, 2.6400])
    """
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] % 32 or image.shape[3] % 32:
        raise ValueError(f"image: got {tuple(image.shape)}, expected (B, 3, S, S) with S a multiple of 32")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"image: got {image.dtype}, expected uint8 in [0, 255] or floats in [0, 1]")
    pixels = image.to(dtype) / 255 if image.dtype == torch.uint8 else image.to(dtype)
    mean, std = (torch.tensor(v, dtype=dtype, device=image.device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


class Backbone(nn.Module):
    """A timm feature extractor reduced to the maps of stride 4 and coarser, all in (B, C, h, w) layout.

    Attributes:
        name: the timm name.
        channels: channels of each map, finest first.
        strides: crop pixels per cell of each map, finest first.

    >>> backbone = create_backbone("test_efficientnet")
    >>> [tuple(m.shape) for m in backbone(torch.zeros(1, 3, 64, 64))]
    [(1, 24, 16, 16), (1, 32, 8, 8), (1, 48, 4, 4), (1, 64, 2, 2)]
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name
        info: Any = model.feature_info
        kept = [i for i, stride in enumerate(info.reduction()) if stride >= FINEST_STRIDE]
        self._kept = kept
        # Some families (Swin) answer in (B, h, w, C) and say so; timm's HRNet says nothing and answers in (B, C, h, w).
        self._channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self.channels: list[int] = [info.channels()[i] for i in kept]
        self.strides: list[int] = [info.reduction()[i] for i in kept]

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.model(image)
        kept = [maps[i] for i in self._kept]
        return [m.permute(0, 3, 1, 2) for m in kept] if self._channels_last else kept


class BackboneNet(nn.Module):
    """A network on a backbone, whose batch normalisations may keep the statistics they were loaded with."""

    backbone: Backbone
    fixed_statistics: bool = False

    def train(self, mode: bool = True) -> Self:
        """As every module's; batch normalisations with fixed statistics (`set_normalisation`) keep them."""
        super().train(mode)
        if self.fixed_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def create_backbone(name: str, image_size: int = 128) -> Backbone:
    """Build the timm feature extractor `name` with random weights.

    Args:
        name: any name of `timm.list_models()`.
        image_size: side of the square input, pixels; used by families that fix it (ViT).

    Raises:
        ValueError: the name is unknown (the nearest names are listed), or has no feature maps.

    >>> create_backbone("test_efficientnet").strides
    [4, 8, 16, 32]
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else "timm.list_models() lists all names"
        raise ValueError(f"backbone: timm has no model named {name!r}; {hint}")
    options: dict[str, Any] = {}
    if "hrnet" in name:
        # The plain branches (16 to 128 channels), not their widened copies for classification.
        options["feature_location"] = ""
    default_cfg = timm.get_pretrained_cfg(name)
    if default_cfg is not None and default_cfg.fixed_input_size:
        options["img_size"] = image_size
    try:
        model = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, TypeError, AttributeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"backbone: {name!r} cannot give feature maps at {image_size} px: {error}"
        ) from error
    backbone = Backbone(model, name)
    if not backbone.channels:
        raise ValueError(f"backbone: {name!r} has no feature map of stride {FINEST_STRIDE} or coarser")
    return backbone


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"weights: no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # PyTorch's message advises to run what is in the file
        raise ValueError(
            f"weights: cannot read {path}: not a file of tensors alone; give a state dict, best as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"weights: cannot read {path}: {first}") from error
    except Exception as error:
        # safetensors raises an exception type of its own, derived from Exception only.
        raise ValueError(f"weights: cannot read {path}: {error}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise ValueError(f"weights: {path} holds no state dict of tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _by_name(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    if all(name in state and state[name].shape == value.shape for name, value in own.items()):
        return {name: state[name] for name in own}
    return None


def _leaves_agree(a: str, b: str) -> bool:
    # A batch norm's four vectors have one shape: only their names tell a permutation of them.
    leaves = {a.rpartition(".")[2], b.rpartition(".")[2]}
    return len(leaves) == 1 or not leaves <= STANDARD_LEAVES


def _by_order(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    # A feature extractor lacks the classifier at the end, so the file may hold more tensors than it does.
    if len(state) < len(own):
        return None
    pairs = list(zip(own, state, strict=False))
    if any(own[a].shape != state[b].shape or not _leaves_agree(a, b) for a, b in pairs):
        return None
    return {a: state[b] for a, b in pairs}


def load_backbone_weights(net: nn.Module, path: str | Path) -> str:
    """Load a backbone state dict from a file, by name or, where every shape agrees in order, by order.

    By order, `weight`, `bias`, `running_mean` and `running_var` only match their like. A `.safetensors` file does
    not keep the order of its tensors: it is matched by name only.

    Args:
        net: a `KeypointPoseNet`, a `Backbone` or a timm feature extractor.
        path: `.safetensors`, or a PyTorch file (read with `weights_only=True`) holding a state dict; a
            classifier after the backbone's tensors is left out.

    Returns:
        "name" or "order": how the tensors were matched.

    Raises:
        ValueError: the file cannot be read, or its tensors match neither way.

    >>> import tempfile
    >>> trained, fresh = (create_backbone("test_efficientnet") for _ in range(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(trained.model.state_dict(), Path(folder) / "weights.pth")
    ...     load_backbone_weights(fresh, Path(folder) / "weights.pth")
    'name'
    """
    holder = getattr(net, "backbone", net)
    model = holder.model if isinstance(holder, Backbone) else holder
    state = _read_state(Path(path))
    own = model.state_dict()
    # Counters are left out on both sides: old files lack `num_batches_tracked`.
    own = {k: v for k, v in own.items() if not k.endswith("num_batches_tracked")}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    ordered = Path(path).suffix != ".safetensors"
    for how, match in (("name", _by_name), ("order", _by_order))[: 2 if ordered else 1]:
        found = match(own, state)
        if found is not None:
            model.load_state_dict(found, strict=False)
            return how
    name = next((k for k, v in own.items() if k not in state or state[k].shape != v.shape), "")
    otherwise = "nor by the order of shapes" if ordered else "nor by order, which .safetensors does not keep"
    raise ValueError(
        f"weights: {path} ({len(state)} tensors) fits the backbone ({len(own)} tensors) neither by name "
        f"(first mismatch: {name} {tuple(own[name].shape)}) {otherwise}; is it the same architecture?"
    )
