import pytest
import torch

import posegrad as pg
from posegrad.experiments.alignment import align, aligned_error


def _cloud() -> torch.Tensor:
    return torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()


def test_known_similarity() -> None:
    x = _cloud()
    R = pg.so3.exp(torch.tensor([0.5, -2.0, 1.0]).double())
    t = torch.tensor([3.0, -1, 2]).double()
    found = align(x, 0.3 * x @ R.mT + t)
    torch.testing.assert_close(found.R, R)
    torch.testing.assert_close(found.t, t)
    assert found.scale.item() == pytest.approx(0.3)


def test_no_similarity_nearby_is_better() -> None:
    x, y = _cloud(), _cloud().flip(0)
    best = align(x, y)

    def cost(scale: torch.Tensor, R: torch.Tensor, t: torch.Tensor) -> float:
        return float((scale * x @ R.mT + t - y).square().sum())

    least = cost(*best)
    for axis in 1e-3 * torch.cat([torch.eye(7), -torch.eye(7)]).double():
        assert cost(best.scale + axis[0], pg.so3.exp(axis[1:4]) @ best.R, best.t + axis[4:]) > least


def test_a_mirror_image_is_another_structure() -> None:
    x = _cloud()
    mirrored = x * torch.tensor([1.0, 1, -1]).double()
    assert aligned_error(mirrored, x) > 0.3
    assert aligned_error(mirrored, x, reflect=True) < 1e-12
    assert torch.linalg.det(align(mirrored, x).R) == pytest.approx(1.0)
