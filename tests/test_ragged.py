"""Padding lists of items, and what solve_pnp makes of it."""

import pytest
import torch

import posegrad as pg
from posegrad.testing import random_scene


def test_a_padded_batch_gives_the_poses_of_the_single_items_and_their_gradients() -> None:
    counts = (4, 9, 6)
    scenes = [random_scene(1, n, noise=2.0, seed=n) for n in counts]
    x = [scene.points2d[0].clone().requires_grad_() for scene in scenes]
    points2d, mask = pg.pad(x)
    points3d, _ = pg.pad([scene.points3d[0] for scene in scenes])
    weights, _ = pg.pad([scene.weights[0] for scene in scenes])
    solution = pg.solve_pnp(points2d, points3d, scenes[0].K, weights=weights, mask=mask)
    together = torch.autograd.grad(solution.pose.t.sum(), x)
    for i, scene in enumerate(scenes):
        single = scene.points2d.clone().requires_grad_()
        alone = pg.solve_pnp(single, scene.points3d, scene.K, weights=scene.weights)
        torch.testing.assert_close(solution.pose.t[i], alone.pose.t[0], rtol=0, atol=1e-10)
        (gradient,) = torch.autograd.grad(alone.pose.t.sum(), single)
        torch.testing.assert_close(together[i], gradient[0], rtol=1e-8, atol=1e-11)


def test_an_empty_item_is_too_few_points() -> None:
    scene = random_scene(1, 5, seed=0)
    points2d, mask = pg.pad([scene.points2d[0], torch.zeros(0, 2).double()])
    points3d, _ = pg.pad([scene.points3d[0], torch.zeros(0, 3).double()])
    solution = pg.solve_pnp(points2d, points3d, scene.K, mask=mask)
    assert solution.status.tolist() == [pg.Status.CONVERGED, pg.Status.TOO_FEW_POINTS]


@pytest.mark.parametrize(
    ("items", "error", "words"),
    [
        ([], ValueError, "empty list"),
        (torch.zeros(2, 3), TypeError, "list of tensors"),
        ([torch.zeros(2, 3), [1.0]], TypeError, "item 1 is a list"),
        ([torch.zeros(2, 3), torch.zeros(2, 2)], ValueError, "item 1 has trailing shape"),
        ([torch.zeros(2, 3), torch.zeros(2, 3).double()], ValueError, "item 1 has dtype"),
        ([torch.zeros(())], ValueError, "no dimensions"),
    ],
)
def test_bad_calls_name_what_came(items: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pg.pad(items)  # pyright: ignore[reportArgumentType]
