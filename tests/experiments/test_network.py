"""The folded classifier takes the path of torchvision's own."""

import torch
import torchvision
from torch import Tensor, nn

from posegrad.experiments.network import ConstantVGG


class Plain(nn.Module):
    """What the paper's demos build."""

    def __init__(self, outputs: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = torchvision.models.vgg11(weights=None)
            self.net.classifier = nn.Linear(25088, outputs)
        self.net.double()

    def forward(self) -> Tensor:
        return self.net(torch.ones(1, 3, 32, 32, dtype=torch.float64)).flatten()


def _path(model: nn.Module, optimizer: torch.optim.Optimizer, target: Tensor) -> Tensor:
    outputs = []
    for _ in range(3):
        output = model()
        outputs.append(output.detach())
        optimizer.zero_grad()
        (output - target).square().sum().backward()
        optimizer.step()
    return torch.stack(outputs)


def test_same_path_as_the_plain_network() -> None:
    plain, folded = Plain(6, seed=3), ConstantVGG(6).double()
    weight = plain.net.classifier.weight.detach()
    folded.features.load_state_dict(plain.net.features.state_dict())
    with torch.no_grad():
        folded.weight.copy_(weight.view(6, 512, 49).sum(-1))
        folded.bias.copy_(plain.net.classifier.bias)
    target = torch.arange(6.0).double()
    expected = _path(plain, torch.optim.Adam(plain.parameters(), lr=1e-3), target)
    found = _path(folded, torch.optim.Adam(folded.groups(1e-3)), target)
    assert (expected[-1] - expected[0]).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_seed_is_a_network_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (ConstantVGG(4, seed=seed)() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_negated_outputs_take_the_mirrored_path() -> None:
    """Training on from the mirror image against the mirrored target mirrors every later output."""
    target, sign = torch.arange(1.0, 7.0), torch.tensor([1.0, 1, -1]).repeat(2)
    paths = []
    for mirrored in (False, True):
        model = ConstantVGG(6, seed=1)
        optimizer = torch.optim.Adam(model.groups(1e-3))
        _path(model, optimizer, target)
        if mirrored:
            model.negate(slice(2, None, 3), optimizer)
        paths.append(_path(model, optimizer, target * sign if mirrored else target))
    torch.testing.assert_close(paths[1], paths[0] * sign, rtol=1e-5, atol=1e-6)
