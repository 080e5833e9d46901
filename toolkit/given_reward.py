"""Rewards that are given and not learned here: the true one (makes experts), a frozen learned one, a constant one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robots.batch import BatchSim
from toolkit.exported_reward import ExportedReward
from toolkit.losses import generator_reward, reward_after_end
from toolkit.networks import GaussianPolicy
from toolkit.policy_mixture import Scorer
from toolkit.rollout import Rollout

TaskReward = Callable[[BatchSim], np.ndarray]  # true reward [B] of the step just simulated; makes experts, nothing else
FrozenReward = Callable[[Tensor, Tensor], Tensor]  # observation (..., obs_dim), action (..., act_dim) -> reward (...)


class GivenReward:
    """Stands where the RewardLearner stands, and learns nothing."""

    def __init__(self, reward: FrozenReward | None, alpha: float, discount: float) -> None:
        """Takes the reward.

        Args:
            reward: A frozen reward of observation and action, perhaps with an attribute `absorbing`, what each step
                after the end of a task is worth; None for the true reward, which each rollout brings.
            alpha: Temperature: the generator maximises E[r] + alpha H.
            discount: gamma.
        """
        self.reward, self.alpha, self.discount = reward, alpha, discount
        self.true_reward: list[np.ndarray] = []  # [T][B] of the rollout under way, where the task is the judge

    def update(self, rollout: Rollout, scorer: Scorer, generator: torch.Generator, progress: float) -> dict[str, float]:
        """Reports the mean reward of a rollout; the remaining arguments are the RewardLearner's."""
        r_t = self._reward(rollout.observation, rollout.action)
        return {"reward/policy": float(r_t.mean())}

    @torch.no_grad()
    def label(
        self, observation: Tensor, next_observation: Tensor, action: Tensor, log_prob: Tensor, termination: Tensor
    ) -> Tensor:
        """Reward of the generator for steps, r - alpha log q; arguments and result as `RewardLearner.label`."""
        r = generator_reward(self._reward(observation, action), log_prob, 0.0, self.alpha, 1)
        after = getattr(self.reward, "absorbing", None)
        return r if after is None else r + termination * reward_after_end(after.to(r.device), self.discount)

    def _reward(self, observation: Tensor, action: Tensor) -> Tensor:
        if self.reward is not None:
            return self.reward(observation, action)
        return torch.from_numpy(np.stack(self.true_reward)).to(observation.device, torch.float32)

    def state_dict(self) -> dict[str, Any]:
        """A learned reward goes along with the policy that learned from it, as the bytes of its file."""
        if not isinstance(self.reward, ExportedReward):
            return {}
        return {"onnx": torch.frombuffer(bytearray(self.reward.onnx), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Any], policy: GaussianPolicy) -> None:
        """Takes nothing: the reward has been given again, and the run has seen that it is the same."""


def constant_reward(observation: Tensor, action: Tensor) -> Tensor:
    """The control run's reward: it knows nothing, so what is learned from it is the method's own bias."""
    return torch.zeros(observation.shape[:-1], device=observation.device)
