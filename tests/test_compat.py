"""The drop-in for BPnP: the original's calls, checked against OpenCV."""

import math

import cv2
import numpy as np
import pytest
import torch

from posegrad.compat import BPnP, BPnP_fast, BPnP_m3d, batch_project
from posegrad.testing import random_scene


def _case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    scene = random_scene(6, 8, seed=0)
    poses = torch.cat([scene.pose.rotvec(), scene.pose.t], -1)
    z = scene.points3d[0]
    return batch_project(poses, z, scene.K), z, scene.K, poses


def test_poses_are_recovered_with_and_without_a_start() -> None:
    x, z, K, poses = _case()
    for layer in (BPnP, BPnP_fast):
        torch.testing.assert_close(layer.apply(x, z, K), poses, rtol=0, atol=1e-8)
        torch.testing.assert_close(layer.apply(x, z, K, poses + 0.01), poses, rtol=0, atol=1e-8)
    torch.testing.assert_close(BPnP_m3d.apply(x, z.expand(6, 8, 3), K), poses, rtol=0, atol=1e-8)


def test_rotation_vectors_are_canonical() -> None:
    x, z, K, poses = _case()
    turned = poses.clone()
    norm = turned[:, :3].norm(dim=-1, keepdim=True)
    turned[:, :3] *= (norm - 2 * math.pi) / norm  # the same rotation, 2 pi away
    answer = BPnP.apply(x, z, K, turned)
    assert bool((answer[:, :3].norm(dim=-1) <= math.pi).all())
    torch.testing.assert_close(answer, poses, rtol=0, atol=1e-8)


def test_projection_equals_opencv_in_both_forms() -> None:
    _, z, K, poses = _case()
    K = K * torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 1]])
    actual = batch_project(poses, z, K)
    matrices = []
    for pose, pixels in zip(poses.numpy(), actual, strict=True):
        expected = cv2.projectPoints(z.numpy(), pose[:3], pose[3:], K.numpy(), None)[0][:, 0]  # type: ignore[attr-defined]
        torch.testing.assert_close(pixels, torch.from_numpy(expected))
        matrices.append(np.hstack([cv2.Rodrigues(pose[:3])[0], pose[3:, None]]))
    P = torch.from_numpy(np.stack(matrices))
    torch.testing.assert_close(batch_project(P, z, K, angle_axis=False), actual)


def test_gradients_and_dtype() -> None:
    x, z, K, poses = _case()
    two = (x[:2] + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: BPnP.apply(x, z, K, poses[:2]), two, eps=1e-3, rtol=1e-5, atol=1e-8
    )
    assert BPnP.apply(x.float(), z.float(), K.float()).dtype == torch.float32


def test_a_failed_item_warns_and_has_no_gradient() -> None:
    x, z, K, _ = _case()
    x[1] = float("nan")
    x.requires_grad_()
    with pytest.warns(RuntimeWarning, match="1 of 6 items failed \\(NOT_FINITE"):
        poses = BPnP.apply(x, z, K)
    (gradient,) = torch.autograd.grad(poses.sum(), x)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[1] == 0).all())


def test_wrong_shapes_are_named() -> None:
    x, z, K, _ = _case()
    with pytest.raises(ValueError, match=r"pts3d: got shape \(8, 3\), expected \(B, n, 3\) for BPnP_m3d"):
        BPnP_m3d.apply(x, z, K)
    with pytest.raises(ValueError, match=r"pts2d: got shape \(8, 2\)"):
        BPnP.apply(x[0], z, K)
    with pytest.raises(ValueError, match=r"ini_pose: got shape \(6, 7\)"):
        BPnP.apply(x, z, K, torch.zeros(6, 7))
    with pytest.raises(ValueError, match=r"P: got shape \(6, 3, 4\), expected \(B, 6\)"):
        batch_project(torch.zeros(6, 3, 4), z, K)
    with pytest.raises(TypeError, match=r"BPnP\.apply"):
        BPnP()
