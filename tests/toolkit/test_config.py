"""Settings: strict in, lossless out."""

import json

import pytest

from toolkit.config import TrainConfig, config_from_dict, with_settings
from toolkit.settings import ConfigError


def test_round_trip_through_json():
    """What the checkpoint carries reads back equal."""
    config = with_settings(
        TrainConfig(),
        ["reward.alpha=0.03", "policy.hidden=[32, 16]", "reward.learning_rate=1e-3", "reward.temper=0.5", "seed=7"],
    )
    assert config.reward.alpha == 0.03
    assert config.reward.learning_rate == 1e-3
    assert config.policy.hidden == (32, 16)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("reward.alhpa=0.1", "did you mean 'alpha'"),
        ("reward.alpha=0", "must be positive"),
        ("reward.alpha=warm", "expected float"),
        ("ppo.num_envs=1.5", "expected int"),
        ("ppo.num_envs=true", "expected int"),
        ("rewards.alpha=1", "no group 'rewards'"),
        ("policy.hidden=[]x", "not a value in YAML notation"),
        ("policy.hidden=64", "list of positive"),
        ("policy.hidden=[a]", "list of positive"),
        ("reward.observe=velocity", "list of names"),
        ("reward.observe=[1]", "list of names"),
        ("ppo.restarts=-1", "must be >= 0"),
        ("objective=gan-glc", "legal are gan-gcl"),
        ("reward.temper=2", r"\(0, 1\]"),
        ("reward.panel=-1", "must be >= 0"),
        ("reward.memory=1", r"must be in \[0, 1\)"),
        ("alpha", "expected name=value"),
    ],
)
def test_bad_settings_are_named(setting: str, message: str):
    """Each error says what came and what is legal."""
    with pytest.raises(ConfigError, match=message):
        with_settings(TrainConfig(), [setting])


def test_a_second_memory_is_refused():
    """The off-policy generator has a replay; a share of old segments beside it would be counted twice."""
    with pytest.raises(ConfigError, match="whose replay is its memory"):
        with_settings(TrainConfig(), ["generator=sac", "reward.memory=0.5"])


@pytest.mark.parametrize("objective", ["bc", "constant", "reward", "task-reward", "offline"])
@pytest.mark.parametrize("setting", ["reward.memory=0.5", "reward.panel=4"])
def test_what_needs_a_reward_that_is_learned_over_a_run_is_refused_without_one(objective: str, setting: str):
    """It would have no effect, and nobody would be told."""
    with pytest.raises(ConfigError, match=f"with objective '{objective}'; it goes with gan-gcl"):
        with_settings(TrainConfig(), [f"objective={objective}", setting])


def test_defaults_are_immutable():
    """No run can change another's defaults."""
    with pytest.raises(AttributeError):
        TrainConfig().seed = 3  # type: ignore[misc]
