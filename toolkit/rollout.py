"""Collecting experience: the policy acts in all environments of the batched simulator at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robots.batch import BatchSim
from toolkit.networks import GaussianPolicy, clipped_gaussian_log_prob


@dataclass(frozen=True)
class Rollout:
    """T steps of B environments, time first. Holds no reward: that is what is being learned."""

    observation: Tensor  # [T, B, obs_dim] s_t
    next_observation: Tensor  # [T, B, obs_dim] s_{t+1} of the same episode, taken before any reset
    action: Tensor  # [T, B, act_dim] as sampled, in [-1, 1], dimensionless
    log_prob: Tensor  # [T, B] log q(a_t | s_t) under the policy that acted [nats]
    termination: Tensor  # [T, B] bool, the task ended with this step
    truncation: Tensor  # [T, B] bool, the time limit ended the episode with this step
    quarantined: Tensor  # [T, B] bool, the simulation broke in this step: learn nothing from it
    mean: Tensor | None = None  # [T, B, act_dim] of the Gaussian that acted; None of steps that several policies made

    @property
    def ended(self) -> Tensor:
        """[T, B] bool: the next step of this environment belongs to another episode."""
        return self.termination | self.truncation | self.quarantined


class Collector:
    """Drives a BatchSim with a policy, from where the last call left off."""

    def __init__(self, sim: BatchSim, device: torch.device, generator: torch.Generator) -> None:
        """Resets every environment.

        Args:
            sim: The simulator.
            device: Where the networks are.
            generator: Source of the policy's noise, on `device`.
        """
        self.sim = sim
        self.device = device
        self.generator = generator
        self.observation = sim.reset()

    @torch.no_grad()
    def collect(self, policy: GaussianPolicy, steps: int, before_reset: Callable[[], None] | None = None) -> Rollout:
        """Runs `steps` control steps in every environment.

        Args:
            policy: Acts by sampling.
            steps: T.
            before_reset: Called after each simulated step and before episodes that ended are reset.

        Returns:
            The experience, on the collector's device.
        """
        sim, shape = self.sim, (steps, self.sim.num_envs)
        observation = torch.empty(*shape, sim.obs_dim)
        next_observation = torch.empty(*shape, sim.obs_dim)
        mean, action = torch.empty(2, *shape, sim.act_dim, device=self.device)
        flags = np.empty((3, *shape), dtype=bool)
        for t in range(steps):
            observation[t] = torch.from_numpy(self.observation)
            mean[t] = policy(observation[t].to(self.device))
            action[t] = policy.around(mean[t], self.generator)
            step = sim.step(action[t].cpu().numpy(), before_reset)
            next_observation[t] = torch.from_numpy(step.final_observation)
            flags[0, t], flags[1, t], flags[2, t] = step.termination, step.truncation, step.quarantined
            self.observation = step.observation
        # Of all steps at once: it is many small operations
        log_prob = clipped_gaussian_log_prob(action, mean, policy.log_std)
        termination, truncation, quarantined = torch.from_numpy(flags).to(self.device)
        return Rollout(
            observation.to(self.device), next_observation.to(self.device), action, log_prob,
            termination, truncation, quarantined, mean,
        )  # fmt: skip
