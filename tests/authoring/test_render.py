from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from posegrad import cli
from posegrad.data import BopDataset, Mesh, encode_image, load_image
from posegrad.data.check import check_dataset
from posegrad.data.mesh import encode_ply
from posegrad.data.placing import Target, in_order, place, random_pose
from posegrad.data.render import render_frame
from posegrad.data.render_config import FrameConfig
from posegrad.data.symmetry import symmetry_transforms
from posegrad.viz import silhouette
from tests.data.bop_samples import box_mesh

from .conftest import colored

K = np.array([[240.0, 0, 90.5], [0, 250, 70.5], [0, 0, 1]])  # the principal point is not the centre


def frames(**changes: object) -> FrameConfig:
    return FrameConfig(K, 192, 160, **{"occluded_share": 0.0, "samples": 2} | changes)  # type: ignore[arg-type]


def target(number: int, size: tuple[float, float, float], shift: float = 0.0) -> Target:
    mesh = colored(box_mesh(size))
    return Target.of_mesh(number, Mesh(mesh.vertices + shift, mesh.faces, mesh.colors), (2.5, 6.0))


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """A coloured block, 40 x 60 x 80 mm."""
    path = tmp_path / "block.ply"
    path.write_bytes(encode_ply(colored(box_mesh())))
    return path


def render(out: Path, *words: str) -> int:
    small = (
        "--width",
        "192",
        "--height",
        "160",
        "--train-frames",
        "3",
        "--test-frames",
        "2",
        "--occluded",
        "0",
    )
    return cli.main(["data", "render", *words, "--out", str(out), *small])


def test_masks_are_the_projected_mesh(tmp_path: Path, block: Path) -> None:
    """Against another rasteriser, for an object whose origin is far from its middle."""
    mesh = box_mesh()
    block.write_bytes(encode_ply(Mesh(mesh.vertices + np.array([300, -40, 7]), mesh.faces)))
    assert render(tmp_path / "set", str(block), "--masks", "--viewpoints", "sphere") == 0
    dataset = BopDataset(tmp_path / "set", "train")
    for item in dataset.instances(1):
        mask = (
            load_image(tmp_path / f"set/train/000001/mask_visib/{item.image_id:06d}_000000.png")[..., 0] > 0
        )
        other = silhouette(dataset.load_mesh(1, "models"), item.K, item.R, item.t, 192, 160, samples=1)
        assert (mask != other).sum() < 0.08 * mask.sum()  # pixels along the edge
        assert (mask & other).sum() > 0.95 * mask.sum()


def test_objects_hide_each_other_as_their_depths_say() -> None:
    """The order of the balls is that of the surfaces: against the depth of every sample."""
    targets = [target(1, (40, 60, 80)), target(2, (100, 20, 30), shift=50.0), target(3, (70, 70, 70))]
    config, hidden = frames(per_frame=3, min_visibility=0.2), 0
    for seed in range(25):
        placed = place(targets, config, np.random.default_rng(seed))
        depth = np.full((160 * 2, 192 * 2), np.inf)
        owner = np.zeros(depth.shape, dtype=int)
        for item in placed:
            whole = item.target.caster.cast(K, item.R, item.t, (0, 0, 192, 160), 2)
            layer = np.full(depth.shape, np.inf)
            layer[whole.mask] = whole.depth
            owner[layer < depth] = item.target.id
            depth = np.minimum(depth, layer)
        frame = render_frame(targets, [], config, np.random.default_rng(seed))
        assert [a.object_id for a in frame.annotations] == sorted(p.target.id for p in placed)
        for label in frame.annotations:
            share = (owner == label.object_id).reshape(160, 2, 192, 2).mean((1, 3))
            assert label.mask_visib is not None
            np.testing.assert_array_equal(label.mask_visib, share >= 0.5)
            assert label.px_count_visib >= config.min_visibility * label.px_count_all
            hidden += label.px_count_visib < 0.97 * label.px_count_all
        assert placed == in_order(placed)
    assert hidden >= 5


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)])
def test_cameras_are_above_the_object(up: tuple[float, float, float]) -> None:
    thing = target(1, (40, 60, 80), shift=200.0)
    rng, config = np.random.default_rng(0), frames(up=up, in_plane_deg=0.0)
    for _ in range(50):
        R, center = random_pose(thing, config, rng)
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        assert -R[2] @ up >= 0  # the camera looks down on it
        assert (R @ up)[1] <= 1e-12  # and sees its up direction pointing up
        assert 2.5 * thing.diameter <= center[2] <= 6 * thing.diameter


def test_several_meshes_with_photographs_behind(tmp_path: Path, block: Path) -> None:
    photos = tmp_path / "photos" / "more"
    photos.mkdir(parents=True)
    (photos / "red.png").write_bytes(encode_image(np.full((40, 500, 3), (250, 10, 10), np.uint8), "png"))
    other = tmp_path / "other.stl"
    _trimesh(box_mesh((30, 30, 90))).export(other)
    words = ("--backgrounds", str(tmp_path / "photos"), "--image-format", "png", "--seed", "4")
    assert render(tmp_path / "set", str(block), str(other), *words) == 0
    assert not check_dataset(tmp_path / "set").problems
    dataset = BopDataset(tmp_path / "set", "train")
    assert dataset.object_ids == [1, 2]
    item = dataset.instances(1)[0]
    corner = load_image(item.image_path)[:4, :4].reshape(-1, 3).mean(0)
    assert corner[0] > 160
    assert corner[1:].max() < 40
    assert json.loads((tmp_path / "set/config.json").read_text())["seed"] == 4
    assert render(tmp_path / "again", str(block), str(other), *words, "--workers", "1") == 0
    for name in ("train/000001/rgb/000001.png", "test/000001/scene_gt.json", "models_eval/obj_000002.ply"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def _trimesh(mesh: Mesh):
    import trimesh

    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--symmetric-axis", "q"], "--symmetric-axis: got q, expected an axis such as z"),
        (["--symmetric-axis", "2=z"], "--symmetric-axis: got object 2, expected one of [1]"),
        (["--symmetric-axis", "z:1"], "--symmetric-axis: got z:1"),
        (["--distance", "10", "500"], "does not fit into 640 x 480 px at 10 mm: start the distance at"),
        (["--backgrounds", "nowhere"], "--backgrounds: no folder nowhere"),
        (["--camera", "camera.json"], "the camera has focal lengths 200 and 0"),
        (["--camera", "broken.json"], 'expected {"fx"'),
        (["--symmetry-file", "camera.json"], 'expected {"<object id>"'),
        (["--camera", "nowhere.json"], "No file nowhere.json"),
        (["--object", "5", "6"], "--object: got 5 6, expected an id >= 0 for each of 1 meshes"),
        (["--object", "-1"], "--object: got -1, expected an id >= 0"),
        (["--train-frames", "0"], "--train-frames: got 0, expected at least 1"),
        (["--in-plane", "200"], "--in-plane: got 200.0, expected degrees"),
    ],
)
def test_settings_that_cannot_be_used(
    words: list[str],
    expected: str,
    tmp_path: Path,
    block: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("camera.json").write_text('{"fx": 200, "fy": 0, "cx": 10, "cy": 10, "width": 192, "height": 160}')
    Path("broken.json").write_text("{}")
    assert cli.main(["data", "render", str(block), "--out", "set", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["block.ply", "broken.json", "camera.json"]


def test_objects_have_the_ids_of_another_dataset(
    tmp_path: Path, block: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.ply"
    other.write_bytes(encode_ply(colored(box_mesh())))
    words = ("--object", "9", "4", "--symmetric-axis", "4=z:2")
    assert render(tmp_path / "set", str(block), str(other), *words) == 0
    assert [line[:9] for line in capsys.readouterr().out.splitlines()[1:3]] == ["object 9:", "object 4:"]
    dataset = BopDataset(tmp_path / "set", "train")
    assert set(dataset.object_ids) <= {4, 9}
    assert sorted(dataset.models_info) == [4, 9]
    assert dataset.is_symmetric(4)
    assert not dataset.is_symmetric(9)


def test_what_is_there_stays(tmp_path: Path, block: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("x")
    assert render(tmp_path / "set", str(block)) == 2
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "set" / "mine").read_text() == "x"


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(root: Path, *_: object, **__: object) -> None:
        (root / "half").write_text("x")
        raise KeyboardInterrupt

    monkeypatch.setattr("posegrad.authoring.render.render_objects", interrupted)
    assert render(tmp_path / "set", str(block)) == 130
    assert [p.name for p in tmp_path.iterdir()] == ["block.ply"]


def test_cameras_of_a_dataset_and_of_the_calibration(tmp_path: Path, block: Path, capsys) -> None:
    calibrated = tmp_path / "camera.json"
    parameters = {
        "fx": 200.5,
        "fy": 201.5,
        "cx": 90.25,
        "cy": 80.75,
        "k1": -0.1,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
    }
    calibrated.write_text(json.dumps({"model": "OPENCV", "image_size": [192, 160], "parameters": parameters}))
    assert render(tmp_path / "one", str(block), "--camera", str(calibrated)) == 0
    assert "without its distortion (k1): undistort" in capsys.readouterr().out
    assert render(tmp_path / "two", str(block), "--camera", str(tmp_path / "one/camera.json")) == 0
    for name in ("one", "two"):
        item = BopDataset(tmp_path / name, "train").instances(1)[0]
        np.testing.assert_array_equal(item.K, [[200.5, 0, 90.25], [0, 201.5, 80.75], [0, 0, 1]])


def test_stated_symmetries_map_the_mesh_onto_itself(tmp_path: Path, block: Path, capsys) -> None:
    mesh = box_mesh((40, 40, 80))
    vertices = mesh.vertices + np.array([5, 6, 7])
    block.write_bytes(encode_ply(Mesh(vertices, mesh.faces)))
    assert render(tmp_path / "set", str(block), "--symmetric-axis", "z:4") == 0
    assert "symmetry" not in capsys.readouterr().out
    info = BopDataset(tmp_path / "set", "train").models_info[1]
    R, t = symmetry_transforms(info)
    assert len(R) == 4
    corners = {tuple(np.round(v, 6)) for v in vertices}
    for r, s in zip(R, t, strict=True):
        assert {tuple(np.round(v, 6)) for v in vertices @ r.T + s} == corners
    assert render(tmp_path / "bad", str(block), "--symmetric-axis", "x") == 0  # stated, but not so
    assert "% of the diameter off it: is it symmetric there?" in capsys.readouterr().out
    assert render(tmp_path / "none", str(block)) == 0
    assert "turned about x, y, z, yet no symmetry is stated: --symmetric-axis x:2 y:2 z:4," in (
        capsys.readouterr().out
    )
    file = tmp_path / "symmetries.json"
    file.write_text(json.dumps(info))
    assert render(tmp_path / "file", str(block), "--symmetry-file", str(file)) == 0
    again = BopDataset(tmp_path / "file", "train").models_info[1]
    assert again["symmetries_discrete"] == info["symmetries_discrete"]
