"""The paper's network: a VGG-11 with random weights that always sees the same picture."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

__all__ = ["ConstantVGG"]

_SIDE, _CELLS = 32, 49  # of the picture, and of the 7 x 7 map that VGG pools its features to


class ConstantVGG(nn.Module):
    """Numbers (outputs,) from an untrained VGG-11 whose input is a 32 x 32 picture of ones.

    The network of the paper's demos: ``torchvision.models.vgg11()`` with ``Linear(25088, outputs)`` as its classifier.
    VGG-11 makes one feature vector of 32 x 32 pixels and copies it to its 7 x 7 map, so the 49 columns of the
    classifier that belong to a feature get the same gradient, step after step, and only their sum matters. That sum is
    what is stored, a 49th of the numbers: with 49 times its learning rate (:meth:`groups`), Adam takes the same path.

    Args:
        outputs: how many numbers.
        seed: of the weights; the global generator is left as it is.
    """

    def __init__(self, outputs: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = torchvision.models.vgg11(weights=None).features
            classifier = nn.Linear(512 * _CELLS, outputs)
        self.weight = nn.Parameter(classifier.weight.detach().view(outputs, -1, _CELLS).sum(-1))
        self.bias = nn.Parameter(classifier.bias.detach().clone())
        self.register_buffer("picture", torch.ones(1, 3, _SIDE, _SIDE))

    def forward(self) -> Tensor:
        return self.weight @ self.features(self.picture).flatten() + self.bias

    def groups(self, lr: float) -> list[dict[str, object]]:
        """Parameter groups for Adam at learning rate ``lr`` of the whole classifier."""
        others = [*self.features.parameters(), self.bias]
        return [{"params": others, "lr": lr}, {"params": [self.weight], "lr": _CELLS * lr}]

    def negate(self, outputs: slice, optimizer: torch.optim.Adam) -> None:
        """Give the chosen outputs the other sign, and Adam the memory of having always done so."""
        with torch.no_grad():
            for parameter in (self.weight, self.bias):
                for values in (parameter, optimizer.state[parameter]["exp_avg"]):
                    values[outputs].neg_()
