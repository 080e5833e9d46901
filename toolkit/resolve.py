"""What a run's settings come to on its robot and with its demos: numbers in place of "as fits"."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from demos.episode import Episode
from robots.spec import RobotSpec
from toolkit.config import TrainConfig
from toolkit.settings import ConfigError

_STEPS = {"ppo": 2_000_000, "sac": 200_000}  # control steps of a run that names no number
_OFFLINE_STEPS = 1000  # the same for objective "offline", in gradient steps
_HOLDOUT = 0.1  # of each demo, where there is more than one
_BATCH_STEPS = {"ppo": 4096, "sac": 2048}  # of each kind per discriminator update
# On-policy, of 256 environments each takes 31 iterations for an episode of 1,000 steps: the judge then praises and
# blames what the policy did up to 39 iterations ago, and the policy comes and goes (walker, whole episodes)
_LONG_SEGMENT = 256  # steps; beyond it fewer environments take more steps each
_ENVS_AND_HORIZON = {False: (256, 32), True: (64, 128)}  # by whether segments are long


def resolve(config: TrainConfig, spec: RobotSpec, lengths: Sequence[int] = ()) -> TrainConfig:
    """Fills in what depends on the robot, so that the checkpoint holds numbers and no "auto".

    Args:
        config: As the user gave it.
        spec: The robot.
        lengths: Steps that each demo lasts. Where "the whole episode" is asked for, the shortest says how long that is.

    Returns:
        The config with segment and episode length, environments, horizon, temper, shaping, batches and steps as they
        will be used.

    Raises:
        ConfigError: Training episodes too short to hold a segment.
    """
    reward = config.reward
    # AIRL's discriminator judges single steps.
    whole = min([spec.episode_steps, *lengths])
    segment = 1 if config.objective == "airl" else min(reward.segment or whole, spec.episode_steps)
    practised = config.episode_steps
    if practised is None:
        practised = spec.practice_steps if segment <= spec.practice_steps < spec.episode_steps else 0
    if 0 < practised < segment:
        raise ConfigError(
            f"episode_steps {practised}: too short for segments of {segment} steps; give {segment} or more, 0 for "
            "whole episodes, or a shorter reward.segment"
        )
    num_envs, horizon = _ENVS_AND_HORIZON[segment > _LONG_SEGMENT]
    ppo = dataclasses.replace(
        config.ppo, num_envs=config.ppo.num_envs or num_envs, horizon=config.ppo.horizon or horizon
    )
    temper = reward.alpha / segment if reward.temper is None else reward.temper
    shaping = config.objective == "airl" if reward.shaping is None else reward.shaping
    batch_steps = reward.batch_steps or _BATCH_STEPS[config.generator]
    reward = dataclasses.replace(reward, segment=segment, temper=temper, shaping=shaping, batch_steps=batch_steps)
    default = _OFFLINE_STEPS if config.objective == "offline" else _STEPS[config.generator]
    # Every negative is scored under the present policy at every iteration; of long ones that is much for little.
    negatives = min(config.sac.segments, 4 * reward.batch_segments)
    holdout = (0.0 if len(lengths) == 1 else _HOLDOUT) if config.holdout is None else config.holdout
    return dataclasses.replace(
        config,
        total_steps=config.total_steps or default,
        episode_steps=practised,
        holdout=holdout,
        reward=reward,
        ppo=ppo,
        sac=dataclasses.replace(config.sac, segments=negatives),
    )


def lasting(episodes: Sequence[Episode], spec: RobotSpec) -> list[int]:
    """Steps that episodes last: what ended for good goes on to its limit in the absorbing state, where there is one."""
    ends = bool(spec.terminate)
    return [spec.episode_steps if ends and e.ended_by == "termination" else e.length for e in episodes]
