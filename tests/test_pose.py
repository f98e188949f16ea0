"""Poses against SciPy and their own algebra."""

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.utils import _pytree

import posegrad as pg


def _pose(seed: int = 0, batch: int = 7) -> pg.Pose:
    generator = torch.Generator().manual_seed(seed)
    return pg.Pose.from_rotvec(
        torch.randn(batch, 3, generator=generator).double(),
        torch.randn(batch, 3, generator=generator).double(),
    )


def test_act_compose_inverse() -> None:
    a, b = _pose(0), _pose(1)
    points = torch.randn(7, 5, 3).double()
    torch.testing.assert_close((a @ b).act(points), a.act(b.act(points)))
    torch.testing.assert_close(a.inverse().act(a.act(points)), points)
    torch.testing.assert_close((a @ a.inverse()).matrix(), torch.eye(4).double().expand(7, 4, 4))
    torch.testing.assert_close(a.act(points[0]), a.act(points[0].expand(7, 5, 3)))


def test_converters_equal_scipy() -> None:
    pose = _pose()
    rotation = Rotation.from_matrix(pose.R.numpy())
    torch.testing.assert_close(pose.rotvec(), torch.from_numpy(rotation.as_rotvec()))
    torch.testing.assert_close(pose.quat_xyzw(), torch.from_numpy(rotation.as_quat(canonical=True)))
    for rebuilt in (
        pg.Pose.from_quat_xyzw(pose.quat_xyzw(), pose.t),
        pg.Pose.from_quat_wxyz(pose.quat_wxyz(), pose.t),
        pg.Pose.from_matrix(pose.matrix()),
        pg.Pose.from_rotvec(pose.rotvec(), pose.t),
    ):
        torch.testing.assert_close(rebuilt.R, pose.R)
        torch.testing.assert_close(rebuilt.t, pose.t)


def test_retract_is_on_the_left() -> None:
    pose, delta = _pose(), torch.full((7, 6), 0.1).double()
    moved = pose.retract(delta)
    torch.testing.assert_close(moved.R, pg.so3.exp(delta[:, :3]) @ pose.R)
    torch.testing.assert_close(moved.t, pose.t + 0.1)


def test_is_a_pytree_and_maps_under_vmap() -> None:
    pose = _pose()
    leaves, spec = _pytree.tree_flatten(pose)
    assert len(leaves) == 2
    assert isinstance(_pytree.tree_unflatten(leaves, spec), pg.Pose)
    points = torch.randn(7, 5, 3).double()
    torch.testing.assert_close(torch.func.vmap(pg.Pose.act)(pose, points), pose.act(points))


def test_indexing_and_shape() -> None:
    pose = _pose()
    assert pose.shape == (7,)
    assert pose[2].shape == ()
    assert pose[2:4].R.shape == (2, 3, 3)
    nested = pg.Pose(pose.R[None].expand(2, 7, 3, 3), pose.t)
    torch.testing.assert_close(nested[..., 3].R[1], pose.R[3])
    torch.testing.assert_close(nested[:, 3].t[0], pose.t[3])
    with pytest.raises(IndexError):
        pose[:, 0]
    with pytest.raises(TypeError):
        R, t = pose  # noqa: RUF059


def test_autocast_does_not_round_the_geometry() -> None:
    pose, points = _pose().to(torch.float32), torch.randn(7, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = pose.act(points), (pose @ pose).R, pose.inverse().t
    for got, wanted in zip(results, (pose.act(points), (pose @ pose).R, pose.inverse().t), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_wrong_arguments_name_the_member() -> None:
    with pytest.raises(ValueError, match=r"Pose\.R: got shape \(4, 4\), expected \(\.\.\., 3, 3\)"):
        pg.Pose(torch.eye(4), torch.zeros(3))
    with pytest.raises(TypeError, match=r"Pose\.t: got list"):
        pg.Pose(torch.eye(3), [0.0, 0.0, 0.0])  # type: ignore[arg-type]
