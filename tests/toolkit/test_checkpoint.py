"""Checkpoints of earlier runs: what was learned then can still be used, or a line says why not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from robots.robot_yaml import load_robot
from toolkit import checkpoint as checkpoints
from toolkit.checkpoint import CheckpointError
from toolkit.config import TrainConfig

SPEC = load_robot("cartpole")


def saved(folder: Path, **settings: Any) -> Path:
    """A checkpoint whose config has settings that there are no more: "reward__average" for reward.average."""
    file = folder / checkpoints.FILE_NAME
    none = torch.zeros(0, SPEC.obs_dim), torch.zeros(0, SPEC.act_dim)
    checkpoints.save(file, checkpoints.Checkpoint(SPEC, TrainConfig(seed=7), {}, *none, {"trainer": {}}))
    data = torch.load(file, weights_only=True)
    for name, value in settings.items():
        group, _, own = name.rpartition("__")
        (data["config"][group] if group else data["config"])[own] = value
    torch.save(data, file)
    return file


def test_withdrawn_settings_without_effect_are_forgotten(tmp_path: Path):
    """Every resolved setting is in a checkpoint, so that each of the time of `attempts` names it."""
    assert checkpoints.load(saved(tmp_path, attempts=1, reward__average=0)).config == TrainConfig(seed=7)


@pytest.mark.parametrize(("name", "said"), [("attempts", "attempts=3"), ("reward__average", "reward.average=3")])
def test_a_withdrawn_setting_that_had_an_effect_is_refused(tmp_path: Path, name: str, said: str):
    """What it did is not known any more, so that the reward or the policy would be another one."""
    with pytest.raises(CheckpointError, match=f"learned with {said}, a setting this gcl has no more"):
        checkpoints.load(saved(tmp_path, **{name: 3}))
