"""Black-box PnP solvers as layers: the gradients of solve_pnp, whatever found the pose."""

from typing import Any

import cv2
import numpy as np
import poselib
import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad import Status
from posegrad.testing import check_problem, random_scene

_K = torch.tensor([[[600.0, 0, 320], [0, 612, 240], [0, 0, 1]]], dtype=torch.float64)


def _opencv(args: tuple[Any, ...]) -> pg.Pose:
    points2d, points3d, K = (value.numpy() for value in args[:3])
    found = [cv2.solvePnP(points3d[0], x, K[0], None, flags=cv2.SOLVEPNP_ITERATIVE) for x in points2d]
    rotvec, t = (torch.from_numpy(np.stack([f[i][:, 0] for f in found])) for i in (1, 2))
    return pg.Pose.from_rotvec(rotvec, t)


def _poselib(args: tuple[Any, ...]) -> pg.Pose:
    points2d, points3d, K = (value.numpy() for value in args[:3])
    camera = {"model": "PINHOLE", "width": 640, "height": 480, "params": K[0][[0, 1, 0, 1], [0, 1, 2, 2]]}
    found = [
        poselib.estimate_absolute_pose(x, points3d[0], camera, {"max_reproj_error": 50.0}, {})[0]
        for x in points2d
    ]
    return pg.Pose.from_quat_wxyz(*(torch.from_numpy(np.stack([getattr(f, k) for f in found])) for k in "qt"))


def _rough(args: tuple[Any, ...]) -> pg.Pose:
    """A direct method, which minimises something else: far from stationary."""
    points2d, points3d, K = (value.numpy() for value in args[:3])
    found = [cv2.solvePnP(points3d[0], x, K[0], None, flags=cv2.SOLVEPNP_EPNP) for x in points2d]
    rotvec, t = (torch.from_numpy(np.stack([f[i][:, 0] for f in found])) for i in (1, 2))
    return pg.Pose.from_rotvec(rotvec, t)


def _data(noise: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    scene = random_scene(4, 12)
    points3d = scene.points3d[:1]
    jitter = torch.randn(4, 12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points2d = pg.project_points(points3d, _K, scene.pose) + noise * jitter
    return points2d.requires_grad_(), points3d.clone().requires_grad_(), _K.clone().requires_grad_()


def _gradients(pose: pg.Pose, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((pose.R[:, :2] * pose.t[:, None]).sum() + pose.R[:, 2, 1].sum(), inputs)


@pytest.mark.parametrize("solve", [_opencv, _poselib, _rough])
def test_gradients_of_black_boxes_are_those_of_solve_pnp(solve: Any) -> None:
    data = _data()
    found = pg.argmin_layer(solve, pg.ReprojectionProblem())(data)
    expected = pg.solve_pnp(*data)
    assert bool(found.ok.all() & expected.ok.all())
    torch.testing.assert_close(found.variable.t, expected.pose.t, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.cost, expected.cost, rtol=1e-11, atol=0)
    for actual, wanted in zip(_gradients(found.variable, data), _gradients(expected.pose, data), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-11)


def test_weights_loss_and_camera_models() -> None:
    points2d, points3d, K = _data(noise=3.0)
    weights = torch.linspace(0.5, 2, 12).double().expand(4, 12).clone().requires_grad_()
    camera = pg.cameras.from_opencv(K[0].detach(), torch.tensor([-0.05, 0.01, 0, 0]).double())
    camera = camera.in_same_field(camera.params[None])
    loss = pg.robust.Cauchy(torch.tensor([3.0], dtype=torch.float64))
    found = pg.argmin_layer(_opencv_undistorted, pg.ReprojectionProblem())(
        (points2d, points3d, camera, weights, loss)
    )
    expected = pg.solve_pnp(points2d, points3d, camera, weights=weights, loss=loss)
    assert bool(found.ok.all())
    inputs = (points2d, points3d, weights)
    for actual, wanted in zip(
        _gradients(found.variable, inputs), _gradients(expected.pose, inputs), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-11)


def _opencv_undistorted(args: tuple[Any, ...]) -> pg.Pose:
    return _opencv((args[0], args[1], _K))


def test_an_answer_that_cannot_be_polished_is_flagged() -> None:
    data = _data()

    def wrong(args: tuple[Any, ...]) -> pg.Pose:
        pose = _opencv(args)
        t = pose.t.clone()
        t[1, 2] = -5.0
        t[2] = torch.nan
        return pg.Pose(pose.R, t)

    found = pg.argmin_layer(wrong, pg.ReprojectionProblem())(data)
    assert found.status.tolist() == [0, Status.INFEASIBLE, Status.NOT_FINITE, 0]
    gradient = _gradients(found.variable, data)[0]
    assert bool((gradient[1:3] == 0).all() & (gradient[0] != 0).any())


def test_its_closed_forms() -> None:
    points2d, points3d, K = (value.detach() for value in _data(3.0))
    check_problem(pg.ReprojectionProblem(), _opencv((points2d, points3d, K)), (points2d, points3d, K))


def test_wrong_args_are_named() -> None:
    with pytest.raises(TypeError, match=r"expected a tuple \(points2d, points3d, camera"):
        pg.argmin_layer(lambda args: pg.Pose.identity(1), pg.ReprojectionProblem())(torch.zeros(1, 3, 2))
