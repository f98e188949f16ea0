import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posegrad.train import LossConfig, OptimizerConfig, RunError, TrainConfig, evaluate, record, train
from posegrad.train.build import build_network
from posegrad.train.files import write_json
from posegrad.train.use_config import EvalConfig


def read_log(config: TrainConfig) -> list[dict]:
    return [json.loads(line) for line in (config.run.out / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_in_its_folder(config: TrainConfig) -> None:
    report = train(config)
    out = config.run.out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"] == report.metrics
    assert metrics["training"]["steps"] == 6
    assert set(report.metrics) == {"posegrad", "mean pose"}
    assert report.metrics["posegrad"]["count"] == 8
    log = read_log(config)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    # l_m: the pose loss joins at a fifth of the run and is at full strength from two fifths on.
    active = [line["beta"] > 0 for line in log]
    assert active == [False, False, True, True, True, True]
    assert log[-1]["beta"] == config.loss.beta
    for line in log:
        assert all(np.isfinite(v) for v in line.values() if v is not None)
        assert line["grad_heatmap_keypoints"] > 0
        assert (line["failed"] is None) == (line["beta"] == 0)
    assert log[-1]["grad_pose_keypoints"] > 0 or log[-1]["failed"] == 1
    assert TrainConfig.from_json((out / "config.json").read_text()) == config
    assert len(list((out / "pictures").glob("*.png"))) == 4
    assert cv2.imread(str(out / "curves.png")) is not None
    assert list(out.glob("events.out.tfevents.*"))
    # Evaluating the stored run gives the stored numbers.
    again = evaluate(EvalConfig(run=out))
    assert again.metrics == report.metrics
    assert json.loads((out / "evaluation.json").read_text())["test"] == report.metrics


def test_the_same_seed_gives_the_same_run(config: TrainConfig, tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        again = replace(config, run=replace(config.run, out=tmp_path / name, pictures=0))
        train(again)
        logs.append(read_log(again))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("loss", ["heatmap", "pose"])
def test_each_loss_alone(config: TrainConfig, loss: str) -> None:
    config = replace(config, loss=LossConfig(loss=loss), run=replace(config.run, pictures=0))
    report = train(config)
    log = read_log(config)
    if loss == "heatmap":
        assert all(line["l_p"] is None and line["loss"] == line["l_h"] for line in log)
    else:
        assert all(line["loss"] == pytest.approx(line["beta"] * line["l_p"]) for line in log)
        assert any(line["grad_pose_keypoints"] > 0 for line in log)
    assert np.isfinite(report.metrics["mean pose"]["median_rotation_deg"])


def test_overfitting_a_few_images_finds_their_poses(config: TrainConfig, dataset: Path) -> None:
    # Eight frames for training, then evaluated: the pipeline's coordinates can only agree if this works.
    split, swapped = (config.run.out.parent / f"{name}.json" for name in ("split", "swapped"))
    split.write_text(json.dumps({"train": list(range(8)), "test": [8]}))
    swapped.write_text(json.dumps({"train": [8], "test": list(range(8))}))
    config = replace(
        config,
        data=replace(config.data, split=split, augment=0.0, shift=0.0, scale=0.0, rotation=0.0),
        optimizer=OptimizerConfig(steps=150, batch_size=8, lr=4e-3),
        run=replace(config.run, pictures=0, log_every=50),
    )
    train(config)
    report = evaluate(EvalConfig(run=config.run.out, split=swapped))
    assert report.metrics["posegrad"]["count"] == 8
    assert report.metrics["posegrad"]["median_projection_px"] < 4
    assert (
        report.metrics["posegrad"]["median_rotation_deg"]
        < report.metrics["mean pose"]["median_rotation_deg"] / 3
    )


def test_images_in_both_lists_of_a_split_are_refused(config: TrainConfig) -> None:
    split = config.run.out.parent / "split.json"
    split.write_text(json.dumps({"train": [0, 1, 2], "test": [2, 3]}))
    with pytest.raises(RunError, match="1 images are in both lists, image 2"):
        train(replace(config, data=replace(config.data, split=split)))


def test_a_run_that_cannot_start_leaves_the_old_one_and_foreign_files(config: TrainConfig) -> None:
    train(config)
    mine = config.run.out / "pictures" / "holiday.png"
    mine.write_bytes(b"mine")
    before = {p: p.read_bytes() for p in config.run.out.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="no_such_net"):
        train(replace(config, model=replace(config.model, backbone="no_such_net")))
    for wrong in ({"freeze": "("}, {"accumulate": 9}, {"steps": None, "epochs": 0.01}):
        with pytest.raises(RunError, match="--"):
            train(replace(config, optimizer=replace(config.optimizer, **wrong)))
    assert {p: p.read_bytes() for p in config.run.out.rglob("*") if p.is_file()} == before
    train(config)
    assert mine.read_bytes() == b"mine"


def test_a_gradient_that_stays_infinite_ends_the_run(config: TrainConfig) -> None:
    wild = replace(
        config, optimizer=OptimizerConfig(steps=60, batch_size=8, lr=1e30, warm_up=0.01, clip=1e30)
    )
    with pytest.raises(RunError, match="lower --lr"):
        train(wild)


def test_the_clock_ends_a_run(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()  # a hundredth of a second at every look, whatever else the machine does
    clock = SimpleNamespace(perf_counter=lambda: 0.01 * next(ticks))
    monkeypatch.setattr("posegrad.train.schedule.time", clock)
    config = replace(
        config,
        optimizer=OptimizerConfig(steps=100_000, batch_size=8, max_minutes=0.005),
        run=replace(config.run, pictures=0),
    )
    train(config)
    log = read_log(config)
    assert 3 < len(log) < 40
    progress = [line["progress"] for line in log]
    assert progress == sorted(progress)
    assert log[-1]["lr"] < log[len(log) // 2]["lr"]


def test_a_run_has_a_step_whatever_the_clock_says(config: TrainConfig) -> None:
    options = replace(config.optimizer, max_minutes=1e-9)
    train(replace(config, optimizer=options, run=replace(config.run, pictures=0)))
    assert len(read_log(config)) == 1


def test_settings_survive_json(config: TrainConfig) -> None:
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json(TrainConfig().to_json()) == TrainConfig()
    broken = json.loads(config.to_json())
    broken["loss"]["betta"] = 1
    with pytest.raises(RunError, match="betta"):
        TrainConfig.from_json(json.dumps(broken))


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"a": {"b": float("inf"), "c": float("nan"), "d": 1.5, "e": 3}})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": {"b": None, "c": None, "d": 1.5, "e": 3}}


def test_evaluation_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not the folder of a finished"):
        evaluate(EvalConfig(run=tmp_path))


def test_evaluation_of_a_run_that_was_killed_before_its_first_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(TrainConfig().to_json())
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(RunError, match=f"unfinished run: go on with posegrad train --resume {tmp_path}"):
        evaluate(EvalConfig(run=tmp_path))


def test_a_log_and_a_summary_that_are_json_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n[2]\n')
    (tmp_path / "metrics.json").write_text("5")
    assert record.read_log(tmp_path) == [{"step": 1}]
    assert record.read_summary(tmp_path) == {}


def test_threads_are_set_and_checked(config: TrainConfig) -> None:
    with pytest.raises(RunError, match="--threads"):
        train(replace(config, run=replace(config.run, threads=0)))
    assert torch.get_num_threads() == 1


def test_training_on_novel_views(config: TrainConfig) -> None:
    data = replace(config.data, novel_views=1.0, view_angle=30.0, swap_background=0.5)
    config = replace(config, data=data, run=replace(config.run, pictures=0))
    train(config)
    assert all(np.isfinite(line["l_h"]) for line in read_log(config))


def test_frozen_weights_stay(config: TrainConfig) -> None:
    options = replace(config.optimizer, freeze="conv_dw")
    config = replace(config, optimizer=options, run=replace(config.run, pictures=0))
    before = build_network(config).state_dict()
    train(config)
    after = load_file(config.run.out / "model.safetensors")
    names = [name for name in before if name.startswith("backbone.") and name.endswith("weight")]
    kept = {name for name in names if torch.equal(before[name], after[name])}
    assert kept == {name for name in names if "conv_dw" in name}
    assert kept


@pytest.mark.parametrize(("pattern", "message"), [("conv_dv", "matches no weight"), ("(", "not a regular")])
def test_a_pattern_that_freezes_nothing_is_refused(config: TrainConfig, pattern: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        train(replace(config, optimizer=replace(config.optimizer, freeze=pattern)))
