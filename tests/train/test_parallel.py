"""Several processes, and batches in parts, do what one process does with whole batches."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from posegrad import cli
from posegrad.nn import KeypointPoseNet, set_normalisation
from posegrad.train import RunError, TrainConfig, open_source, train
from posegrad.train.build import build_network, training_crops
from posegrad.train.checkpoint import CHECKPOINT
from posegrad.train.lookup import KeypointTable
from posegrad.train.objective import Objective

TORCHRUN = [
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
]
ACCELERATE = [
    *(sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]


def words(dataset: Path, out: Path, *more: str) -> list[str]:
    return [
        *("train", "--data", str(dataset), "--out", str(out), "--threads", "1", "--image-size", "64"),
        *("--keypoints", "8", "--backbone", "test_efficientnet", "--width", "16", "--steps", "20"),
        *("--batch-size", "7", "--log-every", "1", "--pictures", "0", "--precision", "float32"),
        *("--norm", "group", *more),
    ]


def launch(launcher: Sequence[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "posegrad.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def assert_near(one: Path, other: Path, tolerance: float) -> None:
    """Losses and weights differ by at most `tolerance` of their size."""
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, other)
    ]
    assert len(logs[0]) == 20
    for a, b in zip(*logs, strict=True):
        assert a.keys() == b.keys()
        for name in ("step", "lr", "loss", "l_h", "l_p", "beta", "failed"):
            assert a[name] == (b[name] if b[name] is None else pytest.approx(b[name], rel=tolerance)), name
    weights = load_file(one / "model.safetensors")
    for name, value in load_file(other / "model.safetensors").items():
        torch.testing.assert_close(value, weights[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps of one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    assert cli.main(words(dataset, out)) == 0
    return out


def test_two_processes_follow_one(dataset: Path, whole: Path, tmp_path: Path) -> None:
    done = launch(TORCHRUN, words(dataset, tmp_path))
    assert done.returncode == 0, done.stderr
    assert_near(whole, tmp_path, 1e-4)
    assert json.loads((tmp_path / "metrics.json").read_text())["training"]["processes"] == 2
    assert done.stdout.count("mean pose") == 1


@pytest.mark.slow
def test_accelerate_launches_them_too(dataset: Path, whole: Path, tmp_path: Path) -> None:
    done = launch(ACCELERATE, words(dataset, tmp_path, "--accumulate", "2"))
    assert done.returncode == 0, done.stderr
    assert_near(whole, tmp_path, 1e-4)


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(dataset: Path, whole: Path, tmp_path: Path) -> None:
    command = [*TORCHRUN, "-m", "posegrad.cli", *words(dataset, tmp_path, "--checkpoint-minutes", "0")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / CHECKPOINT).exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate()
    assert printed.count("go on with: posegrad train --resume") == 1
    assert launch(TORCHRUN, ["train", "--resume", str(tmp_path)]).returncode == 0
    assert_near(whole, tmp_path, 1e-4)


@pytest.mark.slow
def test_two_processes_fail_together(dataset: Path, tmp_path: Path) -> None:
    for folder in dataset.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "train").unlink()
    subprocess.run(["cp", "-r", str(dataset / "train"), str(tmp_path / "train")], check=True)
    bad = sorted((tmp_path / "train" / "000001" / "rgb").iterdir())[3]
    bad.write_bytes(bad.read_bytes()[:400])
    done = launch(TORCHRUN, words(tmp_path, tmp_path / "run"))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "posegrad: " in line]
    assert len(lines) == 1
    assert f"{bad} is truncated" in lines[0]


def test_parts_of_a_batch_add_up(dataset: Path, whole: Path, tmp_path: Path) -> None:
    assert cli.main(words(dataset, tmp_path, "--accumulate", "3")) == 0
    assert_near(whole, tmp_path, 2e-5)


def test_gradients_of_parts_add_up_exactly(config: TrainConfig) -> None:
    config = replace(config, model=replace(config.model, norm="group"))
    source = open_source(config.data)
    net = build_network(config).double()
    (crops,) = training_crops(config, source)
    batch = torch.utils.data.default_collate([crops[index] for index in range(7)])
    batch["t"][0] *= -1  # one whose PnP fails
    objective = Objective(config.loss, net, KeypointTable(source.keypoints))
    counts = objective.counts(batch)
    assert counts.items == 7
    gradients, losses = [], []
    for sizes in ([7], [3, 2, 2], [1, 6]):
        net.zero_grad()
        split = {name: value.split(sizes) for name, value in batch.items()}
        parts = [{name: pieces[k] for name, pieces in split.items()} for k in range(len(sizes))]
        values = []
        for part in parts:
            terms = objective(objective.see(part), part, 1.0, counts if len(sizes) > 1 else None)
            terms.total.backward()
            values.append(terms.values())
        losses.append({name: sum(value[name] for value in values) for name in values[0]})
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert losses[0]["failed"] > 0
    for loss, gradient in zip(losses[1:], gradients[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-6)
        assert (gradient - gradients[0]).norm() < 1e-6 * gradients[0].norm()


def test_more_parts_than_crops_are_refused(config: TrainConfig) -> None:
    options = replace(config.optimizer, batch_size=4, accumulate=5)
    with pytest.raises(RunError, match="--accumulate 5: expected at least 5"):
        train(replace(config, optimizer=options))


def test_frozen_statistics_stay(config: TrainConfig) -> None:
    config = replace(config, model=replace(config.model, norm="frozen"))
    train(config)
    state = load_file(config.run.out / "model.safetensors")
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means
    assert all((value == 0).all() for value in means)


def test_group_normalisation_keeps_names_values_and_activations() -> None:
    torch.manual_seed(0)
    net = KeypointPoseNet(8, "test_efficientnet", image_size=64, width=16)
    before = {name: value.clone() for name, value in net.named_parameters()}
    kinds = [type(getattr(m, "act", nn.Identity())) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert nn.SiLU in kinds or nn.ReLU in kinds
    set_normalisation(net, "group")
    after = dict(net.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [type(m.act) for m in net.modules() if isinstance(m, nn.GroupNorm)] == kinds
    # an item alone gives what it gives in a batch, in training mode too
    images = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(net(images).logits[1:2], net(images[1:2]).logits, atol=1e-5, rtol=1e-5)
