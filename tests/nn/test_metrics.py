import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

import posegrad as pg
from posegrad.nn import (
    MSPD_THRESHOLDS,
    MSSD_THRESHOLDS,
    add,
    adds,
    average_recall,
    mspd,
    mssd,
    projection_2d,
    recall,
    recall_5cm_5deg,
    rotation_error_deg,
    translation_error,
)

K = torch.tensor([[572.4, 0, 325.3], [0, 573.6, 242.0], [0, 0, 1]], dtype=torch.float64)


def poses(count: int, seed: int, degrees: float = 4.0, mm: float = 20.0) -> tuple[pg.Pose, pg.Pose]:
    rng = np.random.default_rng(seed)
    true = Rotation.random(count, rng=rng)
    off = Rotation.from_rotvec(np.radians(degrees) * rng.standard_normal((count, 3)))
    t = np.array([0, 0, 700.0]) + 60 * rng.standard_normal((count, 3))
    moved = t + mm * rng.standard_normal((count, 3))

    def pose(R: Rotation, t: np.ndarray) -> pg.Pose:
        return pg.Pose(torch.from_numpy(R.as_matrix()), torch.from_numpy(t))

    return pose(off * true, moved), pose(true, t)


def cloud(count: int = 57) -> torch.Tensor:
    return torch.from_numpy(50 * np.random.default_rng(1).standard_normal((count, 3)))


def test_ground_truth_scores_everything() -> None:
    _, true = poses(20, 0)
    points = cloud()
    assert recall(add(true, true, points), 0.1) == 1
    assert recall(adds(true, true, points), 1e-9) == 1
    assert recall(projection_2d(true, true, points, K), 5.0) == 1
    assert recall_5cm_5deg(true, true, cm=10) == 1
    assert rotation_error_deg(true, true).abs().max() < 1e-12
    assert translation_error(true, true).max() == 0


def test_against_naive_loops() -> None:
    pose, true = poses(9, 2)
    points = cloud().numpy()
    k = K.numpy()
    got = {
        "add": add(pose, true, cloud()),
        "adds": adds(pose, true, cloud(), chunk=10),
        "px": projection_2d(pose, true, cloud(), K),
    }
    for i in range(9):
        a = [pose.R[i].numpy() @ p + pose.t[i].numpy() for p in points]
        b = [true.R[i].numpy() @ p + true.t[i].numpy() for p in points]
        assert got["add"][i] == pytest.approx(
            np.mean([np.linalg.norm(x - y) for x, y in zip(a, b, strict=True)])
        )
        nearest = cKDTree(np.array(a)).query(np.array(b))[0]
        assert got["adds"][i] == pytest.approx(nearest.mean())
        assert got["adds"][i] <= got["add"][i]
        pixels = [((k @ p)[:2] / p[2], (k @ q)[:2] / q[2]) for p, q in zip(a, b, strict=True)]
        assert got["px"][i] == pytest.approx(np.mean([np.linalg.norm(p - q) for p, q in pixels]))


@pytest.mark.parametrize("degrees", [1e-9, 1e-4, 0.3, 89.0, 179.0, 180.0 - 1e-6, 180.0])
def test_rotation_error_is_accurate_at_every_angle(degrees: float) -> None:
    rng = np.random.default_rng(3)
    axis = rng.standard_normal((50, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    base = Rotation.random(50, rng=rng)
    zero = torch.zeros(50, 3, dtype=torch.float64)
    a = pg.Pose(torch.from_numpy((Rotation.from_rotvec(np.radians(degrees) * axis) * base).as_matrix()), zero)
    b = pg.Pose(torch.from_numpy(base.as_matrix()), zero)
    # Matrices carry rounding errors of 1e-16 rad per entry; nothing may be lost on top of them.
    np.testing.assert_allclose(rotation_error_deg(a, b).numpy(), degrees, rtol=1e-9, atol=3e-14 * 180)


def test_a_symmetric_flip_is_free_in_adds_only() -> None:
    ring = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = torch.from_numpy(np.column_stack([np.cos(ring), np.sin(ring), 0 * ring]))
    _, true = poses(1, 4)
    turn = torch.from_numpy(Rotation.from_euler("z", 15, degrees=True).as_matrix())
    turned = pg.Pose(true.R @ turn, true.t)
    assert adds(turned, true, points).item() < 1e-12
    assert add(turned, true, points).item() == pytest.approx(2 * np.sin(np.radians(7.5)))


def test_failed_items_and_nan_count_as_wrong() -> None:
    error = torch.tensor([0.0, 0.0, float("nan"), 9.0])
    ok = torch.tensor([True, False, True, True])
    assert recall(error, 1.0) == 0.5
    assert recall(error, 1.0, ok) == 0.25
    _, true = poses(4, 5)
    assert recall_5cm_5deg(true, true, cm=10, ok=ok) == 0.75


def test_5cm_5deg_needs_both_and_knows_the_unit() -> None:
    _, true = poses(1, 6)
    turned = pg.Pose.from_rotvec(
        torch.tensor([[0.0, 0, np.radians(5.1)]], dtype=torch.float64), torch.zeros(1, 3).double()
    )
    shifted = pg.Pose(true.R, true.t + torch.tensor([49.0, 0, 0]))
    assert recall_5cm_5deg(shifted, true, cm=10) == 1
    assert recall_5cm_5deg(pg.Pose(turned.R @ true.R, true.t), true, cm=10) == 0
    metres = [pg.Pose(p.R, p.t / 1000) for p in (shifted, true)]
    assert recall_5cm_5deg(*metres, cm=0.01) == 1
    assert recall_5cm_5deg(pg.Pose(true.R, true.t + 30), true, cm=10) == 0


def test_points_behind_the_camera_do_not_vanish() -> None:
    _, true = poses(2, 7)
    behind = pg.Pose(true.R, true.t * torch.tensor([1.0, 1, -1]))
    assert projection_2d(behind, true, cloud(), K).tolist() == [float("inf")] * 2


def _symmetries() -> pg.Pose:
    """Identity, a half turn about a shifted axis, and one more."""
    w = torch.tensor([[0.0, 0, 0], [0, 0, np.pi], [0, np.pi, 0]], dtype=torch.float64)
    return pg.Pose.from_rotvec(w, torch.tensor([[0.0, 0, 0], [3, -4, 0], [0, 0, 9]]).double())


def test_symmetry_aware_distances_against_naive_loops() -> None:
    """As BOP defines them: for each symmetry the largest distance, of these the least."""
    pose, true = poses(9, 12, degrees=50)
    symmetries, points, k = _symmetries(), cloud(31).numpy(), K.numpy()
    got = (
        mssd(pose, true, cloud(31), symmetries, chunk=7),
        mspd(pose, true, cloud(31), K, symmetries, chunk=7),
    )
    for i in range(9):
        space, image = [], []
        for S in range(3):
            R = true.R[i].numpy() @ symmetries.R[S].numpy()
            t = true.R[i].numpy() @ symmetries.t[S].numpy() + true.t[i].numpy()
            a = points @ pose.R[i].numpy().T + pose.t[i].numpy()
            b = points @ R.T + t
            space.append(np.linalg.norm(a - b, axis=1).max())
            p, q = a @ k.T, b @ k.T
            image.append(np.linalg.norm(p[:, :2] / p[:, 2:] - q[:, :2] / q[:, 2:], axis=1).max())
        assert got[0][i] == pytest.approx(min(space))
        assert got[1][i] == pytest.approx(min(image))


def test_symmetry_aware_distances_of_symmetric_poses_vanish() -> None:
    _, true = poses(6, 13)
    each = _symmetries()[torch.tensor([0, 1, 2, 0, 1, 2])]
    equal = true @ each
    assert mssd(equal, true, cloud(), _symmetries()).max() < 1e-5
    assert mspd(equal, true, cloud(), K, _symmetries()).max() < 1e-5
    assert mssd(equal, true, cloud())[1:3].min() > 10
    # of every item its own set
    own = pg.Pose(each.R[:, None], each.t[:, None])
    assert mssd(equal, true, cloud(), own).max() < 1e-5


def test_points_behind_the_camera_are_infinitely_far_in_the_image() -> None:
    _, true = poses(2, 7)
    behind = pg.Pose(true.R, true.t * torch.tensor([1.0, 1, -1]))
    assert mspd(behind, true, cloud(), K, _symmetries()).tolist() == [float("inf")] * 2
    assert mssd(behind, true, cloud(), _symmetries()).isfinite().all()


def test_average_recall_counts_thresholds() -> None:
    error = torch.tensor([0.049, 0.051, 0.499, 0.51, float("nan"), float("inf")])
    assert average_recall(error, MSSD_THRESHOLDS).item() == pytest.approx((1.0 + 0.9 + 0.1) / 6)
    ok = torch.tensor([False, True, True, True, True, True])
    assert average_recall(100 * error, MSPD_THRESHOLDS, ok).item() == pytest.approx((0.9 + 0.1) / 6)
