"""Damped steps against an independent loop, finite differences and the laws."""

import numpy as np
import pytest
import torch

import posegrad as pg
from posegrad.testing import random_scene


def _curve(x, y):  # two parameters, three residuals, not linear
    a, b = x.unbind(-1)
    return torch.stack([a * b.exp() - y[:, 0], a + b**2 - y[:, 1], a * b - y[:, 2]], -1)


_PROBLEM = pg.residual_problem(_curve)
_Y = torch.tensor([[1.0, 2.0, 0.5], [0.5, 1.0, -0.3]], dtype=torch.float64)
_START = torch.tensor([[0.8, 0.1], [1.2, -0.4]], dtype=torch.float64)


def _by_numpy(start, y, damping, steps):
    x = np.array(start)
    for k in range(steps):
        a, b = x
        r = np.array([a * np.exp(b) - y[0], a + b**2 - y[1], a * b - y[2]])
        J = np.array([[np.exp(b), a * np.exp(b)], [1, 2 * b], [b, a]])
        A = J.T @ J
        x = x - np.linalg.solve(A + np.diag(damping[k] * np.diag(A)), J.T @ r)
    return x


def test_as_an_independent_loop() -> None:
    damping = torch.tensor([[0.5, 2.0], [0.1, 0.0], [0.3, 0.7]], dtype=torch.float64)
    path = pg.damped_steps(_PROBLEM, _START, _Y, lambda step, model: damping[step][None], steps=3)
    for item in range(2):
        expected = _by_numpy(_START[item].numpy(), _Y[item].numpy(), damping.numpy(), 3)
        np.testing.assert_allclose(path.variable[item].numpy(), expected, rtol=1e-12)
    assert path.taken.all()
    assert path.ok.all()


def _central(function, x, h=1e-6):
    columns = []
    for i in range(x.numel()):
        step = torch.zeros_like(x).view(-1)
        step[i] = h
        step = step.view_as(x)
        columns.append((function(x + step) - function(x - step)) / (2 * h))
    return torch.stack(columns).view_as(x)


def test_gradients_of_everything_are_finite_differences() -> None:
    weight = torch.tensor([0.3, -0.2], dtype=torch.float64)

    def loss(start, y, theta):
        def hook(step, model):  # from the cost, as a network would
            return (theta * (1 + model.cost.log1p()[:, None]) * (step + 1)).exp()

        path = pg.damped_steps(_PROBLEM, start, y, hook, steps=3)
        return (path.variable * weight).sum() + path.cost.sum()

    given = [_START, _Y, torch.tensor([[-1.0, -0.5]], dtype=torch.float64)]
    leaves = [value.clone().requires_grad_() for value in given]
    found = torch.autograd.grad(loss(*leaves), leaves)
    for i, gradient in enumerate(found):

        def along(x, i=i):
            return loss(*(x if i == j else value for j, value in enumerate(given)))

        expected = _central(along, given[i])
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def test_poses_with_a_damping_for_each_axis() -> None:
    scene = random_scene(3, 10, noise=1.0)
    start = pg.Pose(scene.pose.R, 1.05 * scene.pose.t)
    args = (scene.points2d, scene.points3d, scene.K[None])

    def loss(theta):
        path = pg.damped_steps(pg.ReprojectionProblem(), start, args, theta.exp(), steps=2)
        return (path.variable.t - scene.pose.t).square().sum()

    theta = torch.linspace(-2, 0, 18, dtype=torch.float64).view(3, 6)
    (gradient,) = torch.autograd.grad(loss(leaf := theta.clone().requires_grad_()), leaf)
    expected = _central(loss, theta)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def test_the_limit_is_the_solvers() -> None:
    scene = random_scene(3, 10, noise=1.0)
    args = (scene.points2d, scene.points3d, scene.K[None])
    path = pg.damped_steps(pg.ReprojectionProblem(), scene.pose, args, 0.0, steps=30)
    solved = pg.solve_pnp(*args[:2], scene.K, init=scene.pose)
    torch.testing.assert_close(path.variable.t, solved.pose.t, rtol=1e-9, atol=0)
    assert (path.cost[-1] <= path.cost[0]).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e300])
def test_a_bad_item_stays_and_its_neighbours_do_not_notice(poison: float) -> None:
    y = _Y.clone()
    y[0, 1] = poison
    leaf, damping = y.requires_grad_(), torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
    path = pg.damped_steps(_PROBLEM, _START, leaf, damping, steps=2)
    alone = pg.damped_steps(_PROBLEM, _START[1:], _Y[1:], 0.1, steps=2)
    assert path.ok.tolist() == [False, True]
    assert torch.equal(path.variable[0], _START[0])
    torch.testing.assert_close(path.variable[1:], alone.variable, rtol=1e-12, atol=0)
    (path.variable.sum() + path.cost.sum()).backward()
    assert (leaf.grad[0] == 0).all()
    assert damping.grad[0] == 0
    assert leaf.grad.isfinite().all()
    assert damping.grad[1] != 0


def test_without_a_good_item_all_stay() -> None:
    path = pg.damped_steps(_PROBLEM, _START, torch.full_like(_Y, torch.nan), 0.1, steps=2)
    assert not path.ok.any()
    assert not path.taken.any()
    assert torch.equal(path.variable, _START)
    assert torch.equal(path.cost, torch.zeros_like(path.cost))


def test_steps_that_cannot_be_taken_are_not() -> None:
    flat = pg.residual_problem(lambda x, y: (x[:, :1] - y) * x.new_ones(1, 2))
    start = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    path = pg.damped_steps(flat, start, torch.zeros(1, 1, dtype=torch.float64), 0.0, steps=1)  # J has rank 1
    assert not path.taken.any()
    assert torch.equal(path.variable, start)
    path = pg.damped_steps(_PROBLEM, _START, _Y, torch.tensor([-1.0, 0.1]), steps=1)
    assert path.taken.tolist() == [[False, True]]


def test_arguments() -> None:
    with pytest.raises(ValueError, match=r"damping: got shape \(3,\), expected"):
        pg.damped_steps(_PROBLEM, _START, _Y, torch.ones(3), steps=1)
    with pytest.raises(ValueError, match="steps: got -1"):
        pg.damped_steps(_PROBLEM, _START, _Y, 1.0, steps=-1)
    with pytest.raises(TypeError, match="problem: got"):
        pg.damped_steps(_curve, _START, _Y, 1.0, steps=1)
    with pytest.raises(TypeError, match="args: got a float"):
        pg.damped_steps(_PROBLEM, _START, 3.0, 1.0, steps=1)
    with pytest.raises(TypeError, match="init: got None"):
        pg.damped_steps(_PROBLEM, None, _Y, 1.0, steps=1)
    with pytest.raises(TypeError, match=r"init: got dtype torch\.int64"):
        pg.damped_steps(_PROBLEM, _START.long(), _Y, 1.0, steps=1)
    with pytest.raises(ValueError, match="args: got a tensor without dimensions"):
        pg.damped_steps(_PROBLEM, _START, torch.tensor(1.0), 1.0, steps=1)
    with pytest.raises(ValueError, match=r"init, args: got tensors with \[2, 3\] items"):
        pg.damped_steps(_PROBLEM, _START, torch.ones(3, 3), 1.0, steps=1)
    for damping in (None, lambda step, model: None, "small", torch.tensor(1j)):
        with pytest.raises(TypeError, match="damping: got"):
            pg.damped_steps(_PROBLEM, _START, _Y, damping, steps=1)


def test_an_empty_batch() -> None:
    for start, y in ((_START[:0], _Y[:0]), (_START[:0], _Y[:1]), (_START[:1], _Y[:0])):
        path = pg.damped_steps(_PROBLEM, start, y, 0.1, steps=2)
        assert path.variable.shape == (0, 2)
        assert path.cost.shape == (3, 0)
        assert path.taken.shape == (2, 0)


def _thrice(y: torch.Tensor) -> torch.Tensor:
    path = pg.damped_steps(_PROBLEM, _START, y, lambda step, model: 0.1 + model.cost, steps=3)
    return path.variable.sum() + path.cost.sum()


def test_under_transforms() -> None:
    many = torch.stack([_Y, _Y + 0.1, torch.full_like(_Y, torch.nan)])
    found = torch.func.vmap(torch.func.grad(_thrice))(many)
    for y, gradient in zip(many, found, strict=True):
        torch.testing.assert_close(
            gradient, torch.autograd.grad(_thrice(leaf := y.clone().requires_grad_()), leaf)[0]
        )
    torch.testing.assert_close(torch.func.jacfwd(_thrice)(_Y), found[0])
    torch.testing.assert_close(
        torch.func.hessian(_thrice)(_Y),
        torch.func.jacrev(torch.func.grad(_thrice))(_Y),
        rtol=1e-9,
        atol=1e-12,
    )


def test_second_derivatives() -> None:
    damping = torch.tensor([0.1, 0.3], dtype=torch.float64)
    leaves = tuple(value.clone().requires_grad_() for value in (_START, _Y, damping))

    def path(start, y, damping):
        found = pg.damped_steps(_PROBLEM, start, y, damping, steps=2)
        return found.variable, found.cost

    assert torch.autograd.gradgradcheck(path, leaves)


def test_shared_arguments_without_a_good_item() -> None:
    y = torch.full((1, 3), torch.inf, dtype=torch.float64, requires_grad=True)
    damping = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    path = pg.damped_steps(_PROBLEM, _START, y, lambda step, model: damping * (1 + model.cost), steps=2)
    (path.variable.sum() + path.cost.sum()).backward()
    for leaf in (y, damping):
        assert leaf.grad is None or bool((leaf.grad == 0).all())


def test_a_step_to_infinity_is_not_taken_and_has_no_gradient() -> None:
    class Exponential(pg.Problem):
        dimension = 1

        def residual(self, variable, args):
            return variable - args

        def retract(self, variable, delta):
            return variable * delta.exp()

    start = torch.tensor([[1e-9], [1.0]], dtype=torch.float64)
    y = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)  # the first would step by 1e9
    path = pg.damped_steps(Exponential(), start, y, 1e-3, steps=2)
    assert path.taken.tolist() == [[False, True], [False, True]]
    (path.variable.sum() + path.cost.sum()).backward()
    assert bool(y.grad.isfinite().all())


def test_far_poses_have_no_infinite_gradient() -> None:
    scene = random_scene(2, 8)
    far = pg.Pose(
        scene.pose.R, scene.pose.t * torch.tensor([[1e150, 1, 1], [1.1, 1, 1]], dtype=torch.float64)
    )
    x, damping = scene.points2d.clone().requires_grad_(), torch.full((2,), 1e-3, requires_grad=True)
    K = scene.K[None].clone().requires_grad_()
    path = pg.damped_steps(pg.ReprojectionProblem(), far, (x, scene.points3d, K), damping, steps=2)
    assert path.ok.tolist() == [False, True]
    (path.variable.t.sum() + path.cost.sum()).backward()
    for leaf in (x, K, damping):
        assert bool(leaf.grad.isfinite().all())


def test_in_an_autocast_region_only_the_hook_is_rounded() -> None:
    scene = random_scene(2, 8)
    start = pg.Pose(scene.pose.R.float(), 1.1 * scene.pose.t.float())
    args = (scene.points2d.float(), scene.points3d.float(), scene.K[None].float())
    network = torch.nn.Linear(6, 1)
    torch.nn.init.zeros_(network.weight)

    def hook(step, model):
        seen.append(network(model.gradient.detach().clamp(-1, 1)))
        return seen[-1].exp()[:, 0]

    seen: list[torch.Tensor] = []
    paths = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            paths.append(pg.damped_steps(pg.ReprojectionProblem(), start, args, hook, steps=2))
    assert [value.dtype for value in seen] == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert paths[1].variable.t.dtype == torch.float32
    torch.testing.assert_close(paths[1].variable.t, paths[0].variable.t, rtol=1e-2, atol=1e-3)
    paths[1].variable.t.sum().backward()
    assert bool((network.bias.grad != 0).all())
