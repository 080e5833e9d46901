"""The discriminator: learns r_psi from segments of demos against segments of the policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demos.segments import SegmentSampler
from toolkit.config import RewardConfig
from toolkit.losses import (
    discriminator_loss,
    effective_sample_size,
    gan_gcl_logit,
    generator_reward,
    gradient_penalty,
    solve_log_z,
)
from toolkit.networks import GaussianPolicy, RewardNetwork
from toolkit.policy_mixture import PolicyMixture
from toolkit.rollout import Rollout

Scorer = GaussianPolicy | PolicyMixture  # whoever says log q of [L, N, .] segments
_PENALTY_POINTS = 2048  # enough for a mean; the double backward pass is the dearest part of an update


@dataclass(frozen=True)
class Segments:
    """N segments of L steps with the log density of their actions."""

    observation: Tensor  # [L, N, obs_dim]
    action: Tensor  # [L, N, act_dim] dimensionless
    log_q: Tensor  # [L, N] log q(a_t | s_t) under the present policy [nats]


class RewardLearner:
    """GAN-GCL's discriminator D = sigmoid(kappa (r_psi / alpha - log Z - log q)) and the reward inside it."""

    def __init__(self, reward: RewardNetwork, config: RewardConfig, segment: int, rng: np.random.Generator) -> None:
        """Makes the optimiser.

        Args:
            reward: r_psi.
            config: Settings.
            segment: L, steps per segment (resolved: never 0).
            rng: Draws expert segments.
        """
        self.reward = reward
        self.config = config
        self.segment = segment
        self.temper = config.alpha / segment if config.temper is None else config.temper
        self.rng = rng
        self.optimizer = torch.optim.Adam(reward.parameters(), lr=config.learning_rate)
        self.log_z = 0.0  # of one segment [nats], as last solved

    def update(
        self, demos: SegmentSampler, rollout: Rollout, policy: Scorer, generator: torch.Generator
    ) -> dict[str, float]:
        """A few discriminator steps against one rollout (Finn et al. 2016, L_D; the policy is held fixed).

        Args:
            demos: The expert's segments.
            rollout: Experience of the present policy.
            policy: Scores the expert's actions afresh: a stale log q is the published failure.
            generator: Draws policy segments, jitter and interpolates.

        Returns:
            Metrics by name, of the last step.
        """
        metrics: dict[str, float] = {}
        for _ in range(self.config.updates):
            expert = self.expert_segments(demos, policy, generator, self.config.batch_segments)
            actor = self.policy_segments(rollout, generator)
            metrics = self._gradient_step(expert, actor, generator)
        return metrics

    @torch.no_grad()
    def label(
        self,
        observation: Tensor,
        next_observation: Tensor,  # noqa: ARG002 - for rewards that look ahead
        action: Tensor,
        log_prob: Tensor,
        termination: Tensor,  # noqa: ARG002
    ) -> Tensor:
        """(...) reward of the generator for steps (..., .) whose actions have log density `log_prob` (...)."""
        return generator_reward(self.reward(observation, action), log_prob, self.log_z, self.config.alpha, self.segment)

    @torch.no_grad()
    def expert_segments(
        self, demos: SegmentSampler, policy: Scorer, generator: torch.Generator, count: int
    ) -> Segments:
        """Draws expert segments, jitters their actions and scores them under the present policy.

        Args:
            demos: The expert's segments.
            policy: q_theta.
            generator: Source of the jitter.
            count: N.

        Returns:
            The segments, on the generator's device.
        """
        device = generator.device
        batch = demos.sample(count, self.rng)
        observation = torch.from_numpy(batch.observations[:-1]).to(device, torch.float32)
        action = torch.from_numpy(batch.actions).to(device, torch.float32)
        noise = self.config.expert_jitter * torch.randn(action.shape, generator=generator, device=device)
        # An action at its limit stays there: a density has a point mass at the limit already.
        action = torch.where(action.abs() >= 1.0, action, (action + noise)).clamp(-1.0, 1.0)
        return Segments(observation, action, policy.log_prob(observation, action))

    @torch.no_grad()
    def policy_segments(self, rollout: Rollout, generator: torch.Generator) -> Segments:
        """Draws segments of the rollout that cross no episode end and no broken step.

        Args:
            rollout: [T, B] experience, T >= L.
            generator: Draws the segments.

        Returns:
            The segments.
        """
        length, device = self.segment, generator.device
        steps = rollout.log_prob.shape[0]
        # A segment from t0 is whole if nothing ended in its first L - 1 steps and nothing broke in any of them.
        broken = (rollout.ended.int().cumsum(0), rollout.quarantined.int().cumsum(0))
        starts = torch.arange(steps - length + 1, device=device)
        ends = broken[0][starts + length - 1] - rollout.ended[starts + length - 1].int()
        ended = ends - (broken[0][starts] - rollout.ended[starts].int())
        bad = broken[1][starts + length - 1] - (broken[1][starts] - rollout.quarantined[starts].int())
        whole = ((ended == 0) & (bad == 0)).nonzero()  # (K, 2): t0, environment
        if len(whole) == 0:
            raise ValueError(f"no environment ran {length} steps without an episode end in a rollout of {steps}")
        pick = whole[torch.randint(len(whole), (self.config.batch_segments,), generator=generator, device=device)]
        t = pick[:, 0] + torch.arange(length, device=device)[:, None]  # [L, N]
        return Segments(
            rollout.observation[t, pick[:, 1]], rollout.action[t, pick[:, 1]], rollout.log_prob[t, pick[:, 1]]
        )

    def _gradient_step(self, expert: Segments, actor: Segments, generator: torch.Generator) -> dict[str, float]:
        config, count = self.config, expert.log_q.shape[1]
        features = self.reward.features(
            torch.cat([expert.observation, actor.observation], 1), torch.cat([expert.action, actor.action], 1)
        )
        r = self.reward.net(features).squeeze(-1).sum(0)  # (N + M,)
        log_q = torch.cat([expert.log_q, actor.log_q], 1).double().sum(0).float()
        is_expert = torch.arange(len(r), device=r.device) < count
        log_z = solve_log_z(r, log_q, is_expert, config.alpha, self.temper)
        logit = gan_gcl_logit(r, log_q, log_z.float(), config.alpha, self.temper)
        loss = discriminator_loss(logit[:count], logit[count:])
        penalty = gradient_penalty(self._interpolate_gradient(features, count, generator))
        self.optimizer.zero_grad()
        (loss + config.gradient_penalty * penalty).backward()
        self.optimizer.step()
        self.log_z = float(log_z)
        with torch.no_grad():
            log_weight = (r / config.alpha - log_q)[count:]
            return {
                "reward/loss": float(loss),
                "reward/accuracy": float(((logit > 0) == is_expert).float().mean()),
                "reward/penalty": float(penalty),
                "reward/expert": float(r[:count].mean() / self.segment),
                "reward/policy": float(r[count:].mean() / self.segment),
                "reward/log_z": self.log_z,
                "reward/ess": float(effective_sample_size(log_weight) / len(log_weight)),
            }

    def _interpolate_gradient(self, features: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Gradient of r_psi at random points between expert and policy steps, (points, features)."""
        width = features.shape[-1]
        expert, actor = features[:, :count].detach().reshape(-1, width), features[:, count:].detach().reshape(-1, width)
        size, device = min(_PENALTY_POINTS, len(expert), len(actor)), features.device
        i = torch.randint(len(expert), (size,), generator=generator, device=device)
        j = torch.randint(len(actor), (size,), generator=generator, device=device)
        u = torch.rand(size, 1, generator=generator, device=device)
        point = (u * expert[i] + (1.0 - u) * actor[j]).requires_grad_()
        (gradient,) = torch.autograd.grad(self.reward.net(point).sum(), point, create_graph=True)
        return gradient

    @torch.no_grad()
    def held_out(
        self, demos: SegmentSampler, rollout: Rollout, policy: Scorer, generator: torch.Generator
    ) -> dict[str, float]:
        """How the discriminator sees demos it never learned from.

        Args:
            demos: Held-out segments.
            rollout: Experience of the present policy.
            policy: q_theta.
            generator: Draws segments.

        Returns:
            Metrics by name: share called expert, mean log q per step [nats].
        """
        expert = self.expert_segments(demos, policy, generator, self.config.batch_segments)
        r = self.reward(expert.observation, expert.action).sum(0)
        logit = gan_gcl_logit(r, expert.log_q.sum(0), self.log_z, self.config.alpha, self.temper)
        return {
            "held_out/accuracy": float((logit > 0).float().mean()),
            "held_out/log_q": float(expert.log_q.mean()),
            "held_out/reward": float(r.mean() / self.segment),
        }
