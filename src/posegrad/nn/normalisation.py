"""Normalisation that does not depend on the other items of a batch, in place of batch normalisation."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from posegrad.nn.backbone import BackboneNet

__all__ = ["set_normalisation"]

_LARGEST = 32  # groups, as in the paper
_FEWEST = 4  # channels of a group


class _GroupNorm(nn.GroupNorm):
    """Group normalisation in place of a batch normalisation, what timm's carry after it (dropout, activation) included.

    Weights keep their names and values.
    """

    def __init__(self, batch_norm: Any) -> None:
        channels = batch_norm.num_features
        largest = max(1, min(_LARGEST, channels // _FEWEST))
        groups = max(g for g in range(1, largest + 1) if channels % g == 0)
        super().__init__(groups, channels, eps=batch_norm.eps, affine=batch_norm.affine)
        if batch_norm.affine:
            self.weight, self.bias = batch_norm.weight, batch_norm.bias
        self.drop = getattr(batch_norm, "drop", None) or nn.Identity()
        self.act = getattr(batch_norm, "act", None) or nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def _to_group_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _GroupNorm(child))
        else:
            _to_group_norm(child)


def set_normalisation(net: BackboneNet, kind: Literal["batch", "group", "frozen"]) -> None:
    """Replace the batch normalisations of a network, after its weights are loaded.

    - "batch": leaves them.
    - "group": group normalisation with their weights and biases; an item's result depends on that item alone.
    - "frozen": the backbone's keep the statistics that were loaded (weights and biases still learn), those of the
      pyramid, which has no loaded ones, become group normalisation.

    Reference:
        Wu and He, "Group Normalization", ECCV 2018.

    >>> from posegrad.nn import KeypointPoseNet
    >>> net = KeypointPoseNet(8, "test_efficientnet", image_size=64, width=16)
    >>> set_normalisation(net, "group")
    >>> images = torch.rand(4, 3, 64, 64)
    >>> torch.allclose(net(images).logits[:1], net(images[:1]).logits, atol=1e-5)
    True
    """
    if kind == "batch":
        return
    for name, part in net.named_children():
        if name != "backbone":
            _to_group_norm(part)
    if kind == "group":
        _to_group_norm(net.backbone)
    else:
        net.fixed_statistics = True
    net.train(net.training)
