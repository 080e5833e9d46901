"""A training so small that a test can wait for it: its settings, whatever its objective or generator, and demos."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from demos.episode import Episode
from robots.robot_yaml import load_robot
from toolkit.config import TrainConfig, with_settings
from toolkit.trainer import Trainer

SMALL = [
    "total_steps=640", "threads=1", "ppo.num_envs=8", "ppo.horizon=16", "policy.hidden=[8]", "reward.hidden=[8]",
    "reward.segment=8", "reward.batch_steps=128", "policy.warm_start=5", "ppo.head_start=1",
    "sac.num_envs=8", "sac.horizon=16", "sac.batch=16", "sac.hidden=[8]", "sac.segments=16", "sac.head_start=1",
    "sac.updates_per_step=0.1",
]  # fmt: skip
SPEC = load_robot("cartpole")


def episodes(count: int = 2, length: int = 120, **changes: Any) -> list[Episode]:
    rng = np.random.default_rng(0)
    made = [
        Episode(
            observations=rng.normal(size=(length + 1, SPEC.obs_dim)).astype(np.float32),
            actions=rng.uniform(-1, 1, (length, SPEC.act_dim)).astype(np.float32),
            timestamps=np.arange(length + 1) * SPEC.control_dt,
            ended_by="truncation",
        )
        for _ in range(count)
    ]
    return [dataclasses.replace(episode, **changes) for episode in made]


def trainer(demos: list[Episode] | None = None, *settings: str) -> Trainer:
    return Trainer(SPEC, with_settings(TrainConfig(), [*SMALL, *settings]), episodes() if demos is None else demos)
