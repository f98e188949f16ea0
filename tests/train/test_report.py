import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from posegrad.optim.status import Status
from posegrad.pose import Pose
from posegrad.problems.pnp import solve_pnp
from posegrad.problems.uncertainty import pose_covariance
from posegrad.projection import project_points
from posegrad.testing import random_scene
from posegrad.train import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig, run
from posegrad.train.build import build_network
from posegrad.train.evaluation import COLUMNS, compare, item_errors
from posegrad.train.predictor import PosePredictor
from posegrad.train.report import Evaluated, write_report
from posegrad.train.report_data import Errors, errors_by_object, examine, examples, keypoint_covariances
from posegrad.train.source import Source
from posegrad.train.use_config import EvalConfig
from tests.train.pages import Page

NAME = 'a<b> & "c"'


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """What `posegrad train` reports after six steps into a folder of an awkward name."""
    kept: list[Evaluated] = []

    def keep(evaluated: Evaluated) -> Path:
        kept.append(evaluated)
        return write_report(evaluated)

    config = TrainConfig(
        data=DataConfig(root=dataset, image_size=64, keypoints=8, workers=0),
        model=ModelConfig(backbone="test_efficientnet", width=16),
        optimizer=OptimizerConfig(steps=6, batch_size=8),
        run=RunConfig(out=tmp_path_factory.mktemp("report") / NAME, log_every=1, pictures=0),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_report", keep)
        run.train(config)
    return kept[0]


@pytest.fixture
def evaluated(trained: Evaluated, tmp_path: Path) -> Evaluated:
    """The same with an empty folder of its own."""
    return dataclasses.replace(trained, folder=tmp_path)


def read(evaluated: Evaluated) -> tuple[str, Page]:
    text = write_report(evaluated).read_text()
    return text, Page(text)


def headings(page: Page) -> list[str]:
    return page.texts["h2"]


def all_failed(evaluated: Evaluated) -> Evaluated:
    count = len(evaluated.source.test)
    pose = Pose(
        torch.eye(3).double().expand(count, 3, 3), torch.tensor([0.0, 0, 1]).double().expand(count, 3)
    )
    status = torch.full((count,), int(Status.DEGENERATE))
    nothing = torch.zeros_like(evaluated.found.covariance)
    found = dataclasses.replace(
        evaluated.found, pose=pose, ok=status == 0, status=status, covariance=nothing, score=nothing[:, 0, 0]
    )
    return dataclasses.replace(evaluated, found=found, objects=compare(evaluated.source, found))


def test_a_run_leaves_one_valid_page_that_needs_nothing_else(trained: Evaluated) -> None:
    text = (trained.folder / "report.html").read_text()
    page = Page(text)
    assert len(text) < 3e6
    assert "http" not in text.lower()
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    for link in page.links:
        assert link.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) or link[1:] in page.ids
    for tag, attributes in page.attributes:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert headings(page) == [
        *("Metrics", "Predictions", "Errors", "Statuses", "Training", "Settings", "Time and machine")
    ]
    assert len(page.texts["caption"]) == len(page.tables)


def test_names_are_escaped(trained: Evaluated) -> None:
    text = (trained.folder / "report.html").read_text()
    assert NAME not in text
    assert Page(text).texts["h1"] == [f"posegrad: {NAME}"]


def test_the_numbers_are_those_of_the_metrics(trained: Evaluated) -> None:
    page = Page((trained.folder / "report.html").read_text())
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    head, *rows = page.tables[0]
    keys = [next(key for key, (name, unit) in COLUMNS.items() if name + unit == cell) for cell in head[1:]]
    assert {row[0]: len(row) for row in rows} == {"posegrad": len(head), "mean pose": len(head)}
    for row in rows:
        for key, shown in zip(keys, row[1:], strict=True):
            assert float(shown) == pytest.approx(metrics["test"][row[0]][key], abs=0.0501)
    statuses = page.tables[1][1:]
    assert sum(int(row[1]) for row in statuses) == len(trained.source.test)
    wrong = sum(int(row[1]) for row in statuses if row[0] != "CONVERGED")
    assert wrong == metrics["test"]["posegrad"]["failed"] / 100 * len(trained.source.test)
    assert "pose loss joins" in page.texts["text"]
    assert metrics["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    changed = {row[0]: row[1:] for row in page.tables[2][1:]}
    assert changed["optimizer.steps"] == ["6", "-"]
    assert "loss.loss" not in changed


def test_evaluation_writes_the_same_report(trained: Evaluated) -> None:
    path = trained.folder / "report.html"
    before = path.read_text()
    path.unlink()
    (trained.folder / "log.jsonl").write_text("not JSON")
    run.evaluate(EvalConfig(run=trained.folder))
    after = Page(path.read_text())
    assert [h for h in headings(Page(before)) if h != "Training"] == headings(after)
    assert after.tables[:2] == Page(before).tables[:2]


def test_everything_failed(evaluated: Evaluated) -> None:
    text, page = read(all_failed(evaluated))
    assert "Errors" not in headings(page)
    assert page.tables[1][1][:3] == ["DEGENERATE", "8", "100.0"]
    assert "add points off the line" in page.tables[1][1][3]
    assert "failed: DEGENERATE" in " ".join(page.texts["span"])
    assert 'class="found"' not in text
    assert 'id="show-pose-ellipses"' not in text
    assert not [t for texts in page.texts.values() for t in texts if "nan" in t.split()]


def test_a_log_with_gaps_and_one_without_a_pose_loss(evaluated: Evaluated) -> None:
    log = [dict(line, l_h=None if k % 2 else line["l_h"]) for k, line in enumerate(evaluated.log)]
    _, page = read(dataclasses.replace(evaluated, log=log))
    assert "Heatmap loss l_h" in page.texts["h3"]
    config = dataclasses.replace(evaluated.config, loss=LossConfig(loss="heatmap"))
    log = [dict(line, l_p=None, beta=0.0, failed=None) for line in evaluated.log]
    _, page = read(dataclasses.replace(evaluated, log=log, config=config))
    assert "Pose loss l_p" not in page.texts["h3"]
    assert "pose loss joins" not in page.texts["text"]
    _, page = read(dataclasses.replace(evaluated, log=[], summary={}))
    assert "Training" not in headings(page)


def test_long_and_short_runs(evaluated: Evaluated) -> None:
    long = [dict(evaluated.log[-1], step=k, l_h=1 / (1 + k)) for k in range(20_000)]
    text, _ = read(dataclasses.replace(evaluated, log=long))
    assert len(text) < 1e6
    _, page = read(dataclasses.replace(evaluated, log=evaluated.log[-1:]))
    assert "Heatmap loss l_h" in page.texts["h3"]


def test_several_objects_one_of_them_symmetric_one_without_images(evaluated: Evaluated) -> None:
    (model,) = evaluated.source.objects.values()
    turned = np.diag([-1.0, -1.0, 1.0])
    both = np.stack([np.eye(3), turned]), np.zeros((2, 3))
    models = {
        1: model,
        2: dataclasses.replace(model, id=2, symmetries=both),
        7: dataclasses.replace(model, id=7),
    }
    train, test = (
        sorted(
            [dataclasses.replace(item, object_id=1 + k % 2) for k, item in enumerate(part)],
            key=lambda item: item.object_id,
        )
        for part in (evaluated.source.train, evaluated.source.test)
    )
    source = Source("toy, objects 1, 2, 7", train, test, models)
    net = build_network(evaluated.config, 3, len(model.keypoints))
    predictor = PosePredictor(net, source.keypoints)
    found = predictor.on(test)
    objects = compare(source, found)
    _, page = read(
        dataclasses.replace(
            evaluated, source=source, predictor=predictor, boxed=test, found=found, objects=objects
        )
    )
    table = page.tables[0]
    assert [row[0] for row in table[1:]] == [
        *("object 1", "mean pose", "object 2", "mean pose", "mean of 2 objects", "mean pose")
    ]
    column = table[0].index("ADD(-S)-0.1d%")
    expected = (objects["1"]["posegrad"]["add_01d"] + objects["2"]["posegrad"]["adds_01d"]) / 2
    assert float(table[5][column]) == pytest.approx(expected, abs=0.0501)
    cards = [title for title in page.texts["h3"] if title.startswith("object")]
    assert cards == [f"object {k}, {rank}" for k in (1, 2) for rank in ("best", "median", "worst")]
    assert {"object 1", "object 2"} <= set(page.texts["text"])


def test_a_network_without_heatmaps_and_an_image_without_a_box(evaluated: Evaluated) -> None:
    config = dataclasses.replace(evaluated.config, loss=LossConfig(loss="regression"))
    net = build_network(config, 1, 8)
    predictor = PosePredictor(net, evaluated.source.keypoints)
    text, page = read(
        dataclasses.replace(
            evaluated, config=config, predictor=predictor, found=predictor.on(evaluated.source.test)
        )
    )
    assert "Predictions" in headings(page)
    assert "heatmap" not in " ".join(page.texts["p"])
    assert 'class="strip"' not in text
    found = evaluated.predictor.on(evaluated.source.test[:6]).placed(range(6), 8)
    _, page = read(dataclasses.replace(evaluated, found=found, objects=compare(evaluated.source, found)))
    assert ["UNDETECTED", "2", "25.0"] in [row[:3] for row in page.tables[1]]
    assert "failed: UNDETECTED" in " ".join(page.texts["span"])


def errors_of(distance: list[float]) -> Errors:
    values, index = np.array(distance), np.arange(10, 10 + len(distance))
    return Errors("object 1", index, "ADD", *[values] * 8)


def test_examples_are_best_median_and_worst() -> None:
    errors = errors_of([0.3, 0.1, np.inf, 0.2, 0.5])
    assert [(e.label, e.index) for e in examples(errors, more=False)] == [
        *(("best", 11), ("median", 10), ("worst", 12))
    ]
    many = [(e.label, e.error) for e in examples(errors_of(list(np.arange(100) / 100)), more=True)]
    assert many == [
        *(("best", 0.0), ("median", 0.49), ("90 % are better", 0.89)),
        *(("third worst", 0.97), ("second worst", 0.98), ("worst", 0.99)),
    ]
    for count in range(1, 6):  # never the same image twice, always the worst
        few = examples(errors_of(list(np.arange(count) / 10)), more=True)
        assert len({e.index for e in few}) == len(few) <= count
        assert few[-1].index == 9 + count


def test_errors_are_those_of_the_evaluation(trained: Evaluated) -> None:
    (errors,) = errors_by_object(trained.source, trained.found)
    (model,) = trained.source.objects.values()
    expected = item_errors(trained.found.pose, model, trained.source.test)
    ok = trained.found.ok.numpy()
    np.testing.assert_allclose(errors.distance[ok] * model.diameter, expected["add"].numpy()[ok])
    both = np.hypot(errors.along, errors.across)[ok]
    np.testing.assert_allclose(both, expected["translation"].numpy()[ok], rtol=1e-9)


def test_heatmaps_lie_where_their_keypoints_and_ellipses_are(trained: Evaluated) -> None:
    (view,) = examine(trained.predictor, trained.source, trained.boxed, trained.found, [3])
    assert view.heatmaps is not None
    assert view.moments is not None
    assert view.full_from_cell is not None
    # brute force: the cells' centres, and the square that each of them stands for
    h, w = view.heatmaps.shape[1:]
    v, u = np.mgrid[:h, :w]
    centres = np.stack([u, v], -1) @ view.full_from_cell[:, :2].T + view.full_from_cell[:, 2]
    for heatmap, moment, point in zip(view.heatmaps, view.moments, view.points2d, strict=True):
        expected = np.cov(centres.reshape(-1, 2).T, aweights=heatmap.ravel(), ddof=0)
        expected += np.eye(2) * view.full_from_cell[0, 0] ** 2 / 12
        np.testing.assert_allclose(moment, expected, rtol=1e-3)  # the network was in bfloat16 batches
        sharp = heatmap**trained.predictor.net.sharpness
        read = (centres * sharp[..., None]).sum((0, 1)) / sharp.sum()
        np.testing.assert_allclose(point, read, atol=0.05)


def test_the_pose_covariance_is_that_of_noisy_keypoints() -> None:
    scene = random_scene(1, 12)
    points3d, noise = scene.points3d.reshape(-1, 12, 3)[0], torch.Generator().manual_seed(0)
    points2d = scene.points2d + 0.5 * torch.randn(2000, 12, 2, generator=noise).double()
    K = scene.K.reshape(-1, 3, 3)[0]
    solution = solve_pnp(points2d, points3d, K)
    off = project_points(points3d, K, solution.pose) - scene.points2d
    expected = torch.einsum("mni,mnj->nij", off, off) / len(off)
    covariance = pose_covariance(solution, points2d, points3d, K, noise=0.5)[0].numpy()
    pose = solution.pose.R[0].numpy(), solution.pose.t[0].numpy()
    found = keypoint_covariances(pose, points3d.numpy(), K.numpy(), covariance)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0.1, atol=0.005)
