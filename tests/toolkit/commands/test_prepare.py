"""What a training run is made of: the robot as it is trained today, whatever the demos were recorded with."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from demos.store import DemoStore
from robots.robot_yaml import load_robot
from robots.spec import TerminationLimit
from toolkit.commands import prepare
from toolkit.commands.prepare import _as_trained_today, config_from_options, open_demos
from toolkit.commands.quickstart import shipped_demos
from toolkit.commands.train import command
from toolkit.config import TrainConfig, with_settings
from toolkit.guide import GUIDE, GUIDE_STEPS
from toolkit.settings import ConfigError


def options(*words: str) -> dict[str, Any]:
    """The options of `gcl train` as click hands them over."""
    return command.make_context("train", list(words)).params


def test_a_store_older_than_where_its_robot_ends_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`terminate` is of the robot as it ships today, too."""
    limits, recorded = (TerminationLimit("height", lower=0.1),), DemoStore.open(shipped_demos("walker")).spec
    shipped = dataclasses.replace(load_robot("walker"), terminate=limits)
    monkeypatch.setattr(prepare, "load_robot", lambda _: shipped)
    assert recorded.terminate == () and _as_trained_today(recorded).terminate == limits


def test_a_store_older_than_what_its_robot_says_of_training() -> None:
    """Practice and randomisation come from the robot that ships, all else stays as recorded."""
    recorded = DemoStore.open(shipped_demos("walker")).spec
    old = dataclasses.replace(recorded, practice_seconds=None, randomize=None)
    today = _as_trained_today(old)
    assert today.practice_steps == 250 and today.randomize is not None
    assert today == old and today.safety is old.safety
    assert today.terminate == ()  # the walker that ships gets up from the ground
    own = dataclasses.replace(old, practice_seconds=3.0, terminate=(TerminationLimit("height", lower=0.1),))
    assert _as_trained_today(own).terminate == own.terminate
    assert _as_trained_today(own).practice_steps == 120


def test_another_robot_of_the_same_name_is_left_as_it_is() -> None:
    """Neither a stranger nor somebody's changed walker is trained as ours."""
    recorded = DemoStore.open(shipped_demos("walker")).spec
    for other in (
        dataclasses.replace(recorded, name="our-walker"),
        dataclasses.replace(recorded, default_pose=(("right_hip", 0.1),)),
    ):
        assert _as_trained_today(other) is other


def test_a_robot_that_is_named_is_trained_as_it_says() -> None:
    """Who gives a robot.yaml without practice wants none; the recorded robot is trained as the one that ships."""
    demos = shipped_demos("walker")
    plain = dataclasses.replace(load_robot("walker"), practice_seconds=None)
    assert open_demos(demos, plain, None)[0] is plain
    assert open_demos(demos, None, None)[0].practice_steps == 250


def test_guide_has_the_settings_of_a_reward_that_leads_new_policies() -> None:
    """--guide is GUIDE and its steps, and nothing else."""
    expected = with_settings(TrainConfig(total_steps=GUIDE_STEPS), list(GUIDE))
    assert config_from_options(options("--guide")) == expected != TrainConfig(total_steps=GUIDE_STEPS)


def test_what_is_nearer_to_the_user_counts(tmp_path: Path) -> None:
    """A way of training, --guide, the file, named options and --set, each over those before it and over no other."""
    file = tmp_path / "settings.yaml"
    file.write_text("total_steps: 700\nseed: 3\nreward: {panel: 4, alpha: 0.3}\n")
    words = ["--guide", "--config", str(file), "--steps", "800", "--seed", "4", "--set", "seed=5"]
    config = config_from_options(options(*words), ["reward.alpha=0.2", "reward.temper=0.5", "reward.memory=0.1"])
    assert (config.total_steps, config.seed) == (800, 5)
    reward = config.reward
    assert (reward.panel, reward.alpha, reward.temper, reward.memory, reward.inputs) == (4, 0.3, 0.5, 0.65, "state")
    assert config_from_options(options("--set", "seed=1")) == TrainConfig(seed=1)


@pytest.mark.parametrize("objective", ["bc", "constant", "reward", "task-reward", "offline"])
def test_guide_is_for_learning_a_reward(objective: str) -> None:
    """It goes with no objective that learns none, and the message names the ones it goes with."""
    with pytest.raises(ConfigError, match=f"--guide with objective '{objective}'; it goes with gan-gcl, gcl"):
        config_from_options(options("--guide", "--objective", objective))


@pytest.mark.parametrize(
    "text", ["- 1", "reward: 3", "reward: {panels: 3}", "rewards: {}", "reward: {", "objective: x"]
)
def test_a_file_that_is_no_settings_is_refused(text: str, tmp_path: Path) -> None:
    """Not a mapping, not a group, not a setting, not YAML, not a legal value."""
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        config_from_options(options("--config", str(file)))
