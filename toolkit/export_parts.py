"""What `gcl export` makes a bundle of: policy, reward, and the steps that both are proven with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robots.batch import BatchSim
from robots.processors import available_cpus
from robots.spec import RobotSpec
from toolkit.checkpoint import (
    Checkpoint,
    CheckpointError,
    DeterministicPolicy,
    build_policy,
    build_reward,
    load,
    require_accepted,
    sample_steps,
)
from toolkit.evidence import FIRST_JUDGING_SEED, act, mean_action

_EPISODES = 8  # of the policy, where there are no demos


@dataclass(frozen=True)
class ExportParts:
    """What the exporter needs of a run."""

    policy_module: torch.nn.Module  # observation (N, obs_dim) -> action (N, act_dim)
    reward_module: torch.nn.Module  # observation (N, obs_dim), action (N, act_dim) -> reward (N,)
    spec: RobotSpec
    settings: dict[str, Any]  # the resolved TrainConfig
    demos: dict[str, Any]  # identity of the demo store, or of the reward that the policy was given
    sample_observations: np.ndarray  # (N, obs_dim) float32
    sample_actions: np.ndarray  # (N, act_dim) float32


def load_for_export(path: str | Path) -> ExportParts:
    """Reads what `gcl export` turns into a bundle.

    Args:
        path: Run folder or checkpoint file.

    Returns:
        The parts.

    Raises:
        CheckpointError: As `load`, an expert (it has no learned reward to ship), or a run whose reward was refused.
    """
    checkpoint = load(path)
    if checkpoint.config.objective == "task-reward":
        raise CheckpointError(
            f"{path}: an expert trained on the task reward has learned no reward; export a run trained from demos"
        )
    require_accepted(path, checkpoint)
    return parts_of(checkpoint)


def parts_of(checkpoint: Checkpoint) -> ExportParts:
    """The parts of a checkpoint that has them."""
    observations, actions = samples_of(checkpoint)
    return ExportParts(
        policy_module=DeterministicPolicy(build_policy(checkpoint)),
        reward_module=build_reward(checkpoint),
        spec=checkpoint.spec,
        settings=checkpoint.config.to_dict(),
        demos=checkpoint.demos,
        sample_observations=observations,
        sample_actions=actions,
    )


def samples_of(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Observations (N, obs_dim) and actions (N, act_dim) of demo steps; without demos, of the policy in simulation."""
    if len(checkpoint.sample_observations):
        # Where nobody knows the actions the reward is one of states, so that any will do
        return checkpoint.sample_observations.numpy(), checkpoint.sample_actions.nan_to_num(0.0).numpy()
    spec = checkpoint.spec
    sim = BatchSim(spec, _EPISODES, seed=FIRST_JUDGING_SEED, num_threads=available_cpus(), stagger=False)
    episodes, _ = act(sim, mean_action(build_policy(checkpoint), torch.device("cpu")), spec.episode_steps)
    sim.close()
    rows = np.concatenate(episodes).astype(np.float32)
    return sample_steps(rows[:, : spec.obs_dim], rows[:, spec.obs_dim :])
