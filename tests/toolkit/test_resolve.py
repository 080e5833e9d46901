"""What is left to the robot, the demos or the generator becomes a number, and what the user says stays."""

from __future__ import annotations

import dataclasses

import pytest
from small_training import SPEC

from toolkit.config import TrainConfig, with_settings
from toolkit.resolve import resolve


def test_segment_zero_is_the_whole_episode():
    """--segment episode: L steps of the robot's own episode, and a temper to fit."""
    config = resolve(with_settings(TrainConfig(), ["reward.segment=0"]), SPEC)
    assert config.reward.segment == SPEC.episode_steps
    assert config.reward.temper == pytest.approx(config.reward.alpha / SPEC.episode_steps)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["reward.segment=8"], 20),
        (["reward.segment=20"], 20),
        (["objective=airl"], 20),  # judges single steps
        (["reward.segment=8", "episode_steps=0"], 0),
        (["reward.segment=8", "episode_steps=50"], 50),
        (["reward.segment=21"], 0),  # does not fit
        (["reward.segment=0"], 0),  # judges whole episodes
    ],
)
def test_beginnings_are_practised_as_the_robot_says(settings: list[str], expected: int):
    """practice_seconds of the robot hold where the settings say nothing else and a segment fits into them."""
    practising = dataclasses.replace(SPEC, practice_seconds=20 * SPEC.control_dt)
    assert resolve(with_settings(TrainConfig(), settings), practising, [120]).episode_steps == expected
    assert resolve(TrainConfig(), SPEC, [120]).episode_steps == 0  # it says nothing
    assert practising.sha256 == SPEC.sha256  # and its demos are still its own


def test_generator_decides_the_size_of_a_run():
    """Steps and batches are the generator's, unless the user says otherwise."""
    sac = with_settings(TrainConfig(), ["generator=sac"])
    assert (resolve(TrainConfig(), SPEC).total_steps, resolve(sac, SPEC).total_steps) == (2_000_000, 200_000)
    assert (resolve(TrainConfig(), SPEC).reward.batch_steps, resolve(sac, SPEC).reward.batch_steps) == (4096, 2048)
    asked = resolve(with_settings(sac, ["total_steps=7", "reward.batch_steps=512"]), SPEC)
    assert (asked.total_steps, asked.reward.batch_steps) == (7, 512)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], (256, 32)),
        (["reward.segment=256"], (256, 32)),
        (["reward.segment=257"], (64, 128)),
        (["reward.segment=0"], (64, 128)),
        (["reward.segment=0", "objective=airl"], (256, 32)),  # judges single steps
        (["reward.segment=0", "ppo.num_envs=16"], (16, 128)),
        (["reward.segment=0", "ppo.horizon=32"], (64, 32)),
        (["reward.segment=0", "generator=sac"], (16, 32)),  # its replay holds whole episodes anyway
    ],
)
def test_long_segments_come_from_fewer_environments(settings: list[str], expected: tuple[int, int]):
    """Else an episode spans dozens of iterations. An iteration has 8,192 steps either way."""
    config = resolve(with_settings(TrainConfig(), settings), SPEC)
    assert (config.num_envs, config.horizon) == expected
