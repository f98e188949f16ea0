"""Choices of a run beside the three losses: direct regression, weights of PnP, symmetric objects."""

import json
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch.utils.data import default_collate

from posegrad.data import symmetry_transforms
from posegrad.nn import PoseRegressionNet
from posegrad.pose import Pose
from posegrad.train import LossConfig, TrainConfig, evaluate, open_source, train
from posegrad.train.build import build_network, training_crops
from posegrad.train.lookup import KeypointTable
from posegrad.train.objective import Terms, make_objective
from posegrad.train.use_config import EvalConfig


def changed(config: TrainConfig, *, weighting: Any = "learned", **loss: Any) -> TrainConfig:
    return replace(config, loss=LossConfig(**loss), model=replace(config.model, weighting=weighting))


@pytest.mark.parametrize("kind", ["weighted", "reprojection"])
def test_direct_regression_shares_loop_table_and_evaluation(
    config: TrainConfig, kind: Literal["weighted", "reprojection"]
) -> None:
    config = changed(config, loss="regression", regression=kind)
    report = train(config)
    log = [json.loads(line) for line in (config.run.out / "log.jsonl").read_text().splitlines()]
    assert [line["l_h"] for line in log] == [None] * 6
    assert all(line["l_p"] is not None and line["grad_weights"] > 0 for line in log)
    assert report.metrics["posegrad"]["count"] == 8
    assert report.metrics["posegrad"]["failed"] == 0
    assert evaluate(EvalConfig(run=config.run.out)).metrics == report.metrics


def test_the_learned_weights_learn(config: TrainConfig) -> None:
    config = changed(config, loss="regression")
    train(config)
    from safetensors.torch import load_file

    stored = load_file(config.run.out / "model.safetensors")["log_variances"]
    start = PoseRegressionNet("test_efficientnet", image_size=64, width=16).log_variances
    assert (stored - start).abs().min() > 1e-4


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_regression_takes_every_normalisation(config: TrainConfig, norm: Any) -> None:
    config = changed(config, loss="regression")
    config = replace(config, model=replace(config.model, norm=norm))
    net = build_network(config).train()
    image = torch.rand(3, 3, 64, 64)
    alone = torch.cat([net(one[None]).numbers for one in image])
    torch.testing.assert_close(net(image).numbers, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weighting", ["moments", "uniform"])
def test_weightings_train_and_evaluate(config: TrainConfig, weighting: str) -> None:
    config = changed(config, weighting=weighting, loss="pose")
    report = train(config)
    assert TrainConfig.from_json((config.run.out / "config.json").read_text()).model.weighting == weighting
    assert evaluate(EvalConfig(run=config.run.out)).metrics == report.metrics


@pytest.mark.parametrize("loss", ["mixed", "regression"])
def test_losses_of_symmetric_objects_do_not_depend_on_the_annotated_pose(
    config: TrainConfig, loss: Any
) -> None:
    """The embedded object, called symmetric by a half turn: its true poses turned, and the losses are the same."""
    config = changed(config, loss=loss)
    source = open_source(config.data)
    (object_id,) = source.objects
    own = symmetry_transforms({"symmetries_discrete": [[-1.0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]]})
    net = build_network(config, 1, 8).double().eval()
    batch = default_collate([training_crops(config, source)[0][i] for i in range(4)])
    batch["image"] = batch["image"].double() / 255
    half_turn = Pose(torch.from_numpy(own[0][1]), torch.from_numpy(own[1][1]))
    turned = Pose(batch["R"], batch["t"]) @ half_turn
    other = batch | {"R": turned.R, "t": turned.t}

    def losses(batch: dict[str, torch.Tensor], symmetries: Any) -> Terms:
        objective = make_objective(config.loss, net, KeypointTable(source.keypoints, None, symmetries))
        counts = objective.counts(batch)
        return objective(objective.see(batch), batch, 1.0, replace(counts, keypoints=30.0))  # pyright: ignore

    blind, other_blind = losses(batch, None), losses(other, None)
    assert (blind.total - other_blind.total).abs() > 1e-3
    one, two = losses(batch, {object_id: own}), losses(other, {object_id: own})
    torch.testing.assert_close(one.total, two.total, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(one.pose, two.pose, rtol=1e-8, atol=1e-10)
