"""`posegrad calibrate` on rendered boards."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import posegrad as pg
from posegrad import cli
from posegrad.calibration import board_points, find_corners, judge_coverage

_SIZE = (480, 360)
_TRUTH = pg.cameras.Pinhole(torch.tensor([420.0, 420.0, 235.0, 183.0], dtype=torch.float64))


def _picture(pose: pg.Pose) -> np.ndarray:
    """A board of 7 x 6 squares, 6 x 5 inner corners, drawn at four samples a pixel and axis."""
    canvas = np.full((4 * _SIZE[1], 4 * _SIZE[0]), 255, np.uint8)
    for column in range(7):
        for row in range(column % 2, 6, 2):
            square = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]) + torch.tensor([column - 1, row - 1])
            corners = torch.cat([square, torch.zeros(4, 1)], 1).double()
            pixels = pg.project_points(corners, _TRUTH, pose).numpy()
            fine = np.round(((pixels + 0.5) * 4 - 0.5) * 16).astype(np.int32)
            cv2.fillConvexPoly(canvas, fine, 0, cv2.LINE_AA, 4)
    grey = canvas.reshape(_SIZE[1], 4, _SIZE[0], 4).mean((1, 3)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


@pytest.fixture(scope="module")
def poses() -> pg.Pose:
    turns = torch.tensor([[0.5, 0.1, 0], [-0.5, 0.2, 0.1], [0.1, 0.5, 0.2], [0, -0.5, 0], [0.4, -0.4, 0.1]])
    places = torch.tensor([[-3.0, -3, 10], [-2, -1.5, 9], [-4, -1, 10.5], [-1, -3, 9.5], [-2.5, -2, 8.5]])
    return pg.Pose.from_rotvec(turns.double(), places.double())


@pytest.fixture(scope="module")
def images(poses: pg.Pose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boards")
    for i in range(5):
        Image.fromarray(_picture(poses[i])).save(folder / f"{i + 8}.png")
    return folder


def test_corners_are_found_to_a_fraction_of_a_pixel(poses: pg.Pose) -> None:
    found = find_corners(_picture(poses[0]), 6, 5)
    assert found is not None
    expected = pg.project_points(torch.from_numpy(board_points(6, 5)), _TRUTH, poses[0]).numpy()
    # which corner is the first is not fixed
    distance = np.linalg.norm(found[:, None] - expected[None], axis=-1)
    assert distance.min(1).max() < 0.15
    assert sorted(distance.argmin(1)) == list(range(30))
    assert find_corners(np.zeros((100, 100, 3), np.uint8), 6, 5) is None


def test_files_and_table(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "calibrate",
        str(images),
        "--board",
        "6x5",
        "--square",
        "25mm",
        "--model",
        "RADIAL",
        "--fix",
        "k2",
    ]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for part in ("RMS", "std", "k2", "fixed", "8.png", "12.png", "cameras.txt"):
        assert part in printed
    assert printed.index("8.png") < printed.index("10.png")
    content = json.loads((tmp_path / "camera.json").read_text())
    parameters, std = content["parameters"], content["standard_deviations"]
    for name, value in (("f", 420.0), ("cx", 235.0), ("cy", 183.0), ("k1", 0.0)):
        assert abs(parameters[name] - value) < 5 * std[name] + 0.5
    assert content["unit"] == "mm"
    assert content["views"][0]["translation"][2] > 150
    line = (tmp_path / "cameras.txt").read_text().splitlines()[-1].split()
    model, params = line[1], [float(number) for number in line[4:]]
    back = pg.cameras.from_colmap(model, params)
    torch.testing.assert_close(back.params, torch.tensor(list(parameters.values()), dtype=torch.float64))
    storage = cv2.FileStorage(str(tmp_path / "camera.yaml"), cv2.FILE_STORAGE_READ)
    K, distortion = (storage.getNode(name).mat() for name in ("camera_matrix", "distortion_coefficients"))
    again = pg.cameras.from_opencv(torch.from_numpy(K), torch.from_numpy(distortion.ravel()))
    points = torch.tensor([[0.1, 0.2, 1.0], [-0.3, 0.1, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(again.project(points).points2d, back.project(points).points2d)
    for name in ("residuals.png", "coverage.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["{empty}"], ("no images",)),
        (["{images}/99.png"], ("99.png", "no such image")),
        (["{broken}"], ("broken.png", "cannot be read")),
        (["{images}", "--board", "9x6"], ("--board 9x6", "0 of 5", "inner corners")),
        (["{images}", "{large}"], ("differ in size", "480x360", "100x90")),
        (["{images}", "--board", "6"], ("--board: got 6",)),
        (["{images}", "--square", "2 ells"], ("--square: got 2 ells",)),
        (["{images}", "--model", "OPEN"], ("--model: got OPEN", "OPENCV_FISHEYE")),
        (["{images}", "--fix", "k7"], ("--fix: got k7", "k1")),
        (["{images}", "--robust", "-1"], ("--robust: got -1",)),
    ],
)
def test_errors_are_one_line(
    words: list[str], parts: tuple[str, ...], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes((images / "8.png").read_bytes()[:300])
    Image.new("RGB", (100, 90)).save(tmp_path / "large.png")
    places = {
        "empty": tmp_path / "empty",
        "images": images,
        "broken": tmp_path / "broken.png",
        "large": tmp_path / "large.png",
    }
    filled = [word.format(**places) for word in words]
    assert cli.main(["calibrate", *filled, "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    for part in parts:
        assert part in lines[0]


def test_coverage_rules() -> None:
    turned = pg.so3.exp(
        torch.tensor([[0.5, 0, 0], [0, 0.5, 0], [-0.5, 0, 0], [0, 0, 1], [0, -0.4, 0]])
    ).numpy()
    everywhere = np.stack(np.meshgrid(np.linspace(0, 639, 10), np.linspace(0, 479, 10)), -1).reshape(1, -1, 2)
    good = judge_coverage(everywhere.repeat(5, 0), turned, (640, 480), 0.002)
    assert good.warnings == ()
    assert good.cells.sum() == 500
    np.testing.assert_allclose(np.sort(good.tilts), np.degrees([0, 0.4, 0.5, 0.5, 0.5]), atol=1e-4)
    middle = 200 + everywhere[:, :, :] / 10
    bad = judge_coverage(middle.repeat(2, 0), np.eye(3)[None].repeat(2, 0), (640, 480), 0.2)
    for part in ("2 views", "cells", "half the diagonal", "0 views are tilted", "20.0%"):
        assert any(part in sentence for sentence in bad.warnings), part
    assert len(bad.warnings) == 5
