"""Closed forms of the reprojection cost against automatic differentiation, for every loss and kind of weight."""

import pytest
import torch

from posegrad import robust
from posegrad.cameras import SkewPinhole
from posegrad.problems.reprojection import Correspondences, Reprojection
from posegrad.testing import check_problem, random_scene

LOSSES = {
    "squared": robust.Squared(),
    "huber": robust.Huber(4.0),
    "soft_l1": robust.SoftL1(4.0),
    "cauchy": robust.Cauchy(4.0),
    "geman_mcclure": robust.GemanMcClure(10.0),
    "tukey": robust.Tukey(20.0),
    "truncated": robust.Truncated(8.0),
    "barron": robust.Barron(4.0, 0.5),
}


@pytest.mark.parametrize("kind", ["numbers", "axes", "matrices"])
@pytest.mark.parametrize("name", LOSSES)
def test_closed_forms(name: str, kind: str) -> None:
    scene = random_scene(3, 6, noise=4.0, seed=0)
    generator = torch.Generator().manual_seed(1)
    L = torch.randn(3, 6, 2, 2, generator=generator, dtype=torch.float64)
    W = 0.5 * L @ L.mT + 0.3 * torch.eye(2, dtype=torch.float64)
    weights = {"numbers": scene.weights, "axes": W.diagonal(dim1=-2, dim2=-1), "matrices": W}[kind]
    loss = LOSSES[name]
    parameters = {key: value.expand(3) for key, value in vars(loss).items()}
    camera = SkewPinhole.from_matrix(scene.K.expand(3, 3, 3))
    args = Correspondences(scene.points2d, scene.points3d, weights, camera, type(loss)(**parameters))
    check_problem(Reprojection(), scene.pose, args, tolerance=1e-8)


def test_every_loss_is_checked() -> None:
    assert set(LOSSES) == set(robust.LOSSES)
