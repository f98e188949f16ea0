"""The optimiser of a run, and its state by the names of the weights."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from posegrad.nn.backbone import BackboneNet
from posegrad.train.config import OptimizerConfig
from posegrad.train.errors import RunError

__all__ = ["load_optimizer", "make_optimizer", "optimizer_tensors"]


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


def make_optimizer(net: BackboneNet, config: OptimizerConfig) -> torch.optim.AdamW:
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


def _parameters(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {names[p]: p for group in optimizer.param_groups for p in group["params"]}


def optimizer_tensors(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors named `<weight>.<entry>`; weights that had no step yet have none."""
    return {
        f"{name}.{entry}": value
        for name, parameter in _parameters(net, optimizer).items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(net: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`."""
    parameters = _parameters(net, optimizer)
    for key, value in tensors.items():
        name, _, entry = key.rpartition(".")
        parameter = parameters[name]
        if value.ndim:
            # Laid out like the weight (channels last, say): the fused step walks through both as they lie.
            value = torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][entry] = value.to(parameter.device)
