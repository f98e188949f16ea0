import json
import re

import pytest

from posegrad.train import LossConfig, RunError, TrainConfig


def test_stored_settings_are_checked_like_options() -> None:
    stored = json.loads(TrainConfig().to_json())
    stored["loss"]["sigma"] = 0
    with pytest.raises(RunError, match=re.escape("--sigma: got 0, expected a finite number > 0")):
        TrainConfig.from_json(json.dumps(stored))


def test_the_ends_of_the_ranges_are_allowed() -> None:
    config = LossConfig(beta=0, robust=0, beta_start=0, beta_full=0, max_gain=0)
    assert TrainConfig.from_json(TrainConfig(loss=config).to_json()).loss == config
    with pytest.raises(RunError, match="beta-full"):
        LossConfig(beta_start=0.6, beta_full=0.5)
