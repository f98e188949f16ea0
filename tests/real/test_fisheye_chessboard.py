"""A published fisheye set whose lens sees beyond 90 degrees: every view solved from scratch."""

import json
from pathlib import Path

import pytest
import torch

import posegrad as pg
from posegrad import so3
from posegrad.cameras import OpenCVFisheye

pytestmark = pytest.mark.real


def test_every_view_from_scratch_is_as_good_as_from_twenty_starts(real_data: Path) -> None:
    folder = real_data / "calib" / "boofcv_fisheye_chessboard"
    found = json.loads((folder / "corners_and_golden.json").read_text())
    golden = found["kannala_brandt4_scipy"]
    views = list(found["corners"])
    points2d = torch.tensor([found["corners"][view] for view in views], dtype=torch.float64)
    poses = torch.tensor([golden["extrinsics_rvec_tvec"][view] for view in views], dtype=torch.float64)
    camera = OpenCVFisheye(torch.tensor(golden["fx_fy_cx_cy_k1..k4"], dtype=torch.float64))
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="ij")
    board = torch.stack([columns, rows, torch.zeros_like(rows)], -1).view(24, 3).double()
    truth = pg.Pose.from_rotvec(poses[:, :3], poses[:, 3:])
    reference = pg.reprojection_residuals(points2d, board, camera, truth).square().sum(-1)
    assert reference.mean().sqrt().item() == pytest.approx(golden["rms_2d"], abs=1e-5)

    solution = pg.solve_pnp(points2d, board, camera)
    assert bool(solution.ok.all()), solution.describe()
    assert int((solution.pose.act(board)[..., 2] < 0).any(-1).sum()) > 0, "no view beyond 90 degrees"
    residual = pg.reprojection_residuals(points2d, board, camera, solution.pose).square().sum(-1)
    assert residual.mean().sqrt().item() == pytest.approx(0.31712, abs=2e-5)
    assert bool((residual.sum(-1) <= reference.sum(-1) * (1 + 1e-9)).all())
    for view, rms in zip(views, residual.mean(-1).sqrt().tolist(), strict=True):
        assert rms <= golden["per_view_rms"][view] + 1e-6

    # from twenty random poses around the true one
    generator = torch.Generator().manual_seed(0)
    turn = 0.7 * torch.randn(20, len(views), 3, generator=generator, dtype=torch.float64)
    move = 0.3 * torch.randn(20, len(views), 3, generator=generator, dtype=torch.float64)
    distance = truth.t.norm(dim=-1, keepdim=True)
    starts = pg.Pose(so3.exp(turn) @ truth.R, truth.t + distance * move)
    many = pg.solve_pnp(points2d, board, camera, init=starts)
    assert many.ok.double().mean() > 0.3
    best = torch.where(many.ok, many.cost, torch.inf).amin(0)
    assert bool((solution.cost <= best * (1 + 1e-9)).all())
