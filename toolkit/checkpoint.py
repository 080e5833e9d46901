"""Checkpoints: one file that holds the whole run, written so that a crash leaves the old one or the new one.

Loaded with torch's weights-only reader, so that a checkpoint from a stranger can hold numbers and no code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robots.model_place import at_place, model_place
from robots.spec import RobotSpec, ToolkitError, spec_from_dict
from toolkit.config import WITHOUT_REWARD, TrainConfig, config_from_dict
from toolkit.exported_reward import ExportedReward
from toolkit.networks import GaussianPolicy, RewardNetwork, build_policy_network, build_reward_network
from toolkit.strictest_reward import Snapshot, StrictestReward

FORMAT_VERSION = 1
FILE_NAME = "checkpoint.pt"
_SAMPLES = 2048  # steps kept for the export's parity check
# Settings of earlier runs that there are no more, and the value that had no effect
_WITHDRAWN = {"attempts": 1, "reward.average": 0}


class CheckpointError(ToolkitError):
    """A checkpoint that is not there, damaged, or of another kind."""


@dataclass(frozen=True)
class Checkpoint:
    """What a training run saves."""

    spec: RobotSpec
    config: TrainConfig  # resolved
    demos: dict[str, Any]  # identity of the demo store: path, chain_sha256, n_episodes, spec_sha256; or of the reward
    sample_observations: torch.Tensor  # (N, obs_dim) real demo observations, for the export's parity check
    sample_actions: torch.Tensor  # (N, act_dim) the demo actions that went with them
    state: dict[str, Any]  # "trainer": Trainer.state_dict(), "seconds": wall clock spent [s]


def sample_steps(observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some of the steps (N, obs_dim), (N, act_dim), the same each time: what an export is proven with."""
    pick = np.random.default_rng(0).permutation(len(actions))[:_SAMPLES]
    return observations[pick], actions[pick]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint beside its final place, flushes it to disk, and renames it: old or new, never half.

    Args:
        path: The file to write.
        checkpoint: What to write.

    Raises:
        CheckpointError: The disk would not take it; the old file is untouched.
    """
    data = {
        "format_version": FORMAT_VERSION,
        "kind": "gcl.checkpoint",
        "spec": checkpoint.spec.to_dict(),
        "model_place": model_place(checkpoint.spec, path.parent),
        "config": checkpoint.config.to_dict(),
        "demos": checkpoint.demos,
        "sample_observations": checkpoint.sample_observations,
        "sample_actions": checkpoint.sample_actions,
        "state": checkpoint.state,
    }
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: not saved ({' '.join(str(error).split())}); the previous one is intact"
        ) from error


def load(path: str | Path) -> Checkpoint:
    """Reads a checkpoint; all tensors come to the CPU, wherever they were trained.

    Args:
        path: The file, or the run folder that holds it.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: Not there, not a checkpoint, damaged, or of a newer format.
    """
    file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise CheckpointError(f"{path}: no checkpoint there; expected a run folder with {FILE_NAME}, or that file")
    try:
        data = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{file}: damaged or not a checkpoint ({type(error).__name__}: {reason})") from error
    if not isinstance(data, dict) or data.get("kind") != "gcl.checkpoint":
        raise CheckpointError(f"{file}: a torch file, but not a gcl checkpoint")
    if data["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: checkpoint format {data['format_version']}; this gcl reads up to {FORMAT_VERSION}: upgrade gcl"
        )
    return Checkpoint(
        spec=at_place(spec_from_dict(data["spec"]), data.get("model_place"), file.parent),
        config=config_from_dict(_without_withdrawn(data["config"], file)),
        demos=data["demos"],
        sample_observations=data["sample_observations"],
        sample_actions=data["sample_actions"],
        state=data["state"],
    )


def _without_withdrawn(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """The settings of a run without those that there are no more, none of which may have had an effect on it."""
    kept = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    for dotted, without_effect in _WITHDRAWN.items():
        group, _, name = dotted.rpartition(".")
        value = (kept[group] if group else kept).pop(name, without_effect)
        if value != without_effect:
            raise CheckpointError(
                f"{file}: learned with {dotted}={value}, a setting this gcl has no more; train it anew"
            )
    return kept


def build_policy(checkpoint: Checkpoint) -> GaussianPolicy:
    """The trained policy network of a checkpoint, on the CPU."""
    spec = checkpoint.spec
    policy = build_policy_network(spec.obs_dim, spec.act_dim, checkpoint.config.policy)
    policy.load_state_dict(checkpoint.state["trainer"]["policy"])
    return policy.eval()


def build_reward(checkpoint: Checkpoint) -> RewardNetwork | StrictestReward | ExportedReward:
    """The reward of a checkpoint, on the CPU: learned, the strictest of its snapshots where it has some, or given.

    One that learns none has 0 everywhere.

    Raises:
        CheckpointError: A policy learned from a given reward that is not in the checkpoint.
    """
    spec, trainer, objective = checkpoint.spec, checkpoint.state["trainer"], checkpoint.config.objective
    if objective == "reward":
        if "onnx" not in trainer["judge"]:
            raise CheckpointError("a run from before the given reward was kept in its checkpoint; train it anew")
        return ExportedReward(trainer["judge"]["onnx"].numpy().tobytes()).eval()
    reward = build_reward_network(spec, checkpoint.config.reward)
    reward.load_state_dict(trainer["reward"])
    if objective in WITHOUT_REWARD:
        for parameter in reward.parameters():
            torch.nn.init.zeros_(parameter)
    snapshots = trainer.get("judge", {}).get("snapshots")
    return (StrictestReward(reward, [Snapshot(**one) for one in snapshots]) if snapshots else reward).eval()


def require_reward(path: str | Path, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError, naming `path`, if the run learned no reward, or one that was refused at its end."""
    if checkpoint.config.objective in WITHOUT_REWARD:
        raise CheckpointError(f"{path}: objective {checkpoint.config.objective!r} learns no reward")
    require_accepted(path, checkpoint)


def require_accepted(path: str | Path, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError, naming `path`, if the reward of `checkpoint` was refused at the end of its run."""
    refused = checkpoint.state["trainer"].get("refused")
    if refused is not None:
        raise CheckpointError(f"{path}: {refused}")


class DeterministicPolicy(torch.nn.Module):
    """What runs on the robot: the policy's mean, clipped to [-1, 1]; normaliser inside."""

    def __init__(self, policy: GaussianPolicy) -> None:
        """Wraps `policy`."""
        super().__init__()
        self.policy = policy

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Action (..., act_dim) for `observation` (..., obs_dim)."""
        return self.policy(observation).clamp(-1.0, 1.0)

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action (act_dim,) float32 for one observation (obs_dim,), the same signature as the robot's OnnxPolicy."""
        return self(torch.as_tensor(observation, dtype=torch.float32)).numpy()


def load_policy(path: str | Path) -> DeterministicPolicy:
    """The policy of a run, ready to act.

    Args:
        path: Run folder or checkpoint file.

    Returns:
        The deterministic policy.

    Raises:
        CheckpointError: As `load`.
    """
    return DeterministicPolicy(build_policy(load(path)))
