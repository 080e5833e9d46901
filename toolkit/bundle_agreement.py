"""Does a bundle do what its run does? On recorded observations, in what it says of the robot, and by true returns."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.runtime import OnnxPolicy, OnnxReward, actions_in_order, load_bundle
from robots.spec import RobotSpec, ToolkitError, spec_from_dict
from toolkit.checkpoint import Checkpoint, DeterministicPolicy, build_policy, build_reward
from toolkit.evaluate import Evaluation, evaluate
from toolkit.export_parts import samples_of

MAX_RETURN_DIFFERENCE = 0.01  # of the torch policy's mean return


class AgreementError(ToolkitError):
    """A run and a bundle that cannot be compared."""


@dataclass(frozen=True)
class Agreement:
    """A bundle beside the run it was exported from."""

    observations: int  # recorded ones, each given to both policies
    max_abs_policy: float  # greatest |onnx - torch| of an action element over them
    max_abs_reward: float  # the same of the reward of each recorded step
    policy_tolerance: float  # allowed, from the bundle
    reward_tolerance: float
    metadata_differences: tuple[str, ...]  # what the bundle says of the robot otherwise than the run; empty = nothing
    torch_returns: Evaluation
    onnx_returns: Evaluation

    @property
    def return_difference(self) -> float:
        """|mean return in ONNX - in torch| over the one in torch."""
        reference = abs(self.torch_returns.mean)
        return abs(self.onnx_returns.mean - self.torch_returns.mean) / reference if reference else float("nan")

    @property
    def standard_error(self) -> float:
        """Of the difference of the mean returns, over the same; from the differences episode by episode.

        A policy that hardly balances makes another episode of the last bit of an action. Where this is not far below
        `MAX_RETURN_DIFFERENCE`, the difference says more about the policy than about the bundle.
        """
        pairs = np.subtract(self.onnx_returns.returns, self.torch_returns.returns)
        reference = abs(self.torch_returns.mean)
        if len(pairs) < 2 or not reference:
            return float("nan")
        return float(pairs.std(ddof=1)) / np.sqrt(len(pairs)) / reference

    @property
    def agrees(self) -> bool:
        """Whether all three are as they should be."""
        equal = self.torch_returns.returns == self.onnx_returns.returns  # also where the mean return is 0
        return (
            self.max_abs_policy <= self.policy_tolerance
            and self.max_abs_reward <= self.reward_tolerance
            and not self.metadata_differences
            and (equal or self.return_difference < MAX_RETURN_DIFFERENCE)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {
            "torch_mean": self.torch_returns.mean,
            "onnx_mean": self.onnx_returns.mean,
            "return_difference": _number(self.return_difference),
            "standard_error": _number(self.standard_error),
            "agrees": self.agrees,
        }


def compare(
    checkpoint: Checkpoint,
    bundle: Path,
    demos: Path | None,
    sample: tuple[int, int],
    variant: str | None = None,
    on_episode: Callable[[float], None] | None = None,
) -> Agreement:
    """Compares a bundle with a run.

    Args:
        checkpoint: The run's.
        bundle: The bundle's folder.
        demos: A demo store whose observations are used; None for those kept in the checkpoint.
        sample: How many episodes in dm_control, and the offset into the evaluation seeds; both policies get the same.
        variant: A smaller copy of the policy instead of the policy itself.
        on_episode: Called after each episode, twice `sample[0]` times.

    Returns:
        What was found.

    Raises:
        AgreementError: They are for different robots, or the bundle's policy remembers and the run's does not.
        ToolkitError: The bundle or the store cannot be read, or the robot has no task.
    """
    loaded, policy, reward = load_bundle(bundle, variant=variant)
    spec, manifest = checkpoint.spec, loaded.manifest
    if (policy.obs_dim, policy.act_dim) != (spec.obs_dim, spec.act_dim) or policy.remembers:
        raise AgreementError(f"{bundle}: not made of this run: its policy takes or remembers other observations")
    observations, steps, actions = recorded(checkpoint, demos)
    torch_policy, torch_reward = DeterministicPolicy(build_policy(checkpoint)), build_reward(checkpoint)
    with torch.inference_mode():
        expected = torch_policy(torch.from_numpy(observations)).numpy()
        rewards = torch_reward(torch.from_numpy(steps), torch.from_numpy(actions)).numpy()
    scores = np.array([reward.score(*step) for step in zip(steps, actions, strict=True)])
    episodes, seed = sample
    return Agreement(
        observations=len(observations),
        max_abs_policy=float(np.abs(actions_in_order(policy, observations).astype(np.float64) - expected).max()),
        max_abs_reward=float(np.abs(scores - rewards).max()),
        policy_tolerance=manifest.parity_tolerance if variant is None else manifest.variants[variant].tolerance,
        reward_tolerance=manifest.parity_tolerance,
        metadata_differences=tuple(metadata_differences(spec, manifest.spec, policy, reward)),
        torch_returns=evaluate(spec, torch_policy.act, episodes, seed, on_episode),
        onnx_returns=evaluate(spec, policy, episodes, seed, on_episode),
    )


def recorded(checkpoint: Checkpoint, demos: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations (n, obs_dim), and of them those with the action that followed: (m, obs_dim), (m, act_dim)."""
    if demos is None:
        observations, actions = samples_of(checkpoint)
        return observations, observations, actions
    from demos.store import DemoStore

    store = DemoStore.open(demos)
    if store.spec_sha256 != checkpoint.spec.sha256:
        raise AgreementError(f"{demos}: recorded on another robot than {checkpoint.spec.name} of this run")
    episodes = store.episodes(include_excluded=True)
    if not episodes:
        raise AgreementError(f"{demos}: holds no episode to compare on")
    return (
        np.concatenate([episode.observations for episode in episodes]),
        np.concatenate([episode.observations[:-1] for episode in episodes]),
        np.concatenate([episode.actions for episode in episodes]),
    )


def metadata_differences(
    spec: RobotSpec, in_manifest: dict[str, Any], policy: OnnxPolicy, reward: OnnxReward
) -> list[str]:
    """What a bundle says of the robot otherwise than its spec, bit for bit.

    Args:
        spec: The robot.
        in_manifest: The manifest's description of it.
        policy: The bundle's policy, whose customary keys are compared, too.
        reward: The bundle's reward.

    Returns:
        A phrase for each difference.
    """
    wanted = _exact(spec.to_dict())
    described = {"bundle.json": _exact(spec_from_dict(in_manifest).to_dict())}
    described |= {
        name: None if network.spec is None else _exact(network.spec.to_dict())
        for name, network in (("policy.onnx", policy), ("reward.onnx", reward))
    }
    found = [f"the robot in {name}" for name, text in described.items() if text != wanted]
    names = {"joint_names": spec.action_names, "observation_names": [term.name for term in spec.observation]}
    found += [key for key, value in names.items() if policy.metadata.get(key, "").split(",") != list(value)]
    numbers = {
        "action_scale": [term.scale for term in spec.action],
        "joint_stiffness": [term.kp or 0.0 for term in spec.action],
        "joint_damping": [term.kd or 0.0 for term in spec.action],
    }
    found += [key for key, value in numbers.items() if _bits_of(policy.metadata.get(key, "")) != _bits(value)]
    return found


def _exact(data: dict[str, Any]) -> str:
    """Text that differs when one bit of a number does: Python writes floats so that they read back the same."""
    return json.dumps(data, sort_keys=True)


def _number(value: float) -> float | None:
    """NaN is not JSON; None is."""
    return value if np.isfinite(value) else None


def _bits(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _bits_of(csv: str) -> bytes | None:
    try:
        return _bits([float(text) for text in csv.split(",")])
    except ValueError:
        return None
