"""The off-policy generator: soft actor-critic on remembered steps, whose rewards are labelled when they are drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolkit.clipped_entropy import clipped_gaussian_entropy, inward_clip
from toolkit.critic import TwinCritic, soft_target
from toolkit.generator_config import SacConfig
from toolkit.networks import GaussianPolicy
from toolkit.policy_mixture import MOST, PolicyMixture, Scorer
from toolkit.ppo import Label
from toolkit.replay import ReplayBuffer, Transitions
from toolkit.rollout import Rollout

_DRAWN_AT_ONCE = 64  # batches sampled and labelled in one go: one large pass is cheaper than many small ones


@dataclass(frozen=True)
class _Batch:
    """Steps as the networks take them, with the reward of the moment."""

    features: Tensor  # (..., obs_dim) normalised s_t
    next_features: Tensor  # (..., obs_dim) normalised s_{t+1}
    action: Tensor  # (..., act_dim) dimensionless
    termination: Tensor  # (...) bool
    reward: Tensor  # (...)

    def __getitem__(self, index: int) -> _Batch:
        """One batch of many."""
        return _Batch(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


class SacLearner:
    """Improves a policy and two action values on everything that was experienced so far.

    The temperature is the discriminator's alpha, so both sides mean the same soft optimal policy: the policy maximises
    E[sum_t gamma^t (r_t + alpha H(pi(. | s_t)))].
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        config: SacConfig,
        alpha: float,
        segment: int,
        generator: torch.Generator,
        past_end: bool = False,
    ) -> None:
        """Makes critics, optimisers and an empty replay.

        Args:
            policy: q_theta.
            config: Settings, resolved.
            alpha: Temperature.
            segment: L, steps per segment of negatives.
            generator: Draws segments in `remember`; its device is where everything is kept.
            past_end: Whether those segments may reach past the end of a task.
        """
        self.policy, self.config, self.alpha, self.segment = policy, config, alpha, segment
        self.past_end = past_end
        self.generator = generator
        self.demos: Transitions | None = None
        self.demo_weight = torch.zeros(0)  # (n,)
        obs_dim, act_dim = policy.normalizer.mean.shape[0], policy.log_std_raw.shape[0]
        device = generator.device
        self.critic = TwinCritic(obs_dim, act_dim, config.hidden).to(device)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.policy_optimizer = torch.optim.Adam(policy.parameters(), lr=config.policy_learning_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=config.critic_learning_rate, fused=True)
        rows = max(config.capacity // config.num_envs, segment)
        self.replay = ReplayBuffer(rows, config.num_envs, obs_dim, act_dim, device)
        self._from_demos = 0  # steps of each batch
        self.mixture = PolicyMixture()
        self.iteration = 0  # rollouts remembered
        # Snapshots so far apart that those kept span the replay: older policies have no steps in it any more.
        self.snapshot_every = max(1, -(-rows // (config.horizon * MOST)))

    def hold_near(self, demos: Transitions, weight: Tensor) -> None:
        """Gives the demos that make up a share of each batch, and that the policy is held near.

        Args:
            demos: (n, .) steps of the expert.
            weight: (n,) how much each step counts, at least 0.
        """
        self.demos, self.demo_weight = demos, weight
        self._from_demos = round(self.config.demo_share * self.config.batch)

    @property
    def scorer(self) -> Scorer:
        """What log q of the discriminator means: demos must be scored by the same density as the negatives."""
        return self.mixture if self.config.negatives == "mixture" else self.policy

    @torch.no_grad()
    def remember(self, rollout: Rollout) -> Rollout:
        """Keeps new experience and hands out the discriminator's negatives.

        Args:
            rollout: [T, B] as just collected by the present policy.

        Returns:
            [L, N] segments of old and new experience, scored by `scorer` as it is now; [L, 0] while there is no whole
            segment yet.
        """
        if self.config.negatives == "mixture" and self.iteration % self.snapshot_every == 0:
            self.mixture.add(self.policy)
        self.iteration += 1
        self.replay.add(rollout)
        newest = None if self.config.negatives_rows == 0 else max(self.config.negatives_rows, self.segment)
        drawn = self.replay.sample_segments(self.segment, self.config.segments, self.generator, newest, self.past_end)
        return Rollout(
            log_prob=self.scorer.log_prob(drawn.observation, drawn.action),
            quarantined=torch.zeros_like(drawn.termination),
            **{name: getattr(drawn, name) for name in Transitions.__dataclass_fields__},
        )

    def update(
        self, rollout: Rollout, label: Label, generator: torch.Generator, progress: float, value_only: bool = False
    ) -> dict[str, float]:
        """As many gradient steps as the settings ask for after each rollout.

        Args:
            rollout: As just collected; it is in the replay already, so nothing is read from it.
            label: The newest reward. It is called with log_prob 0: the entropy term is added here, in closed form.
            generator: Draws batches and actions.
            progress: Share of the run that is over; nothing here depends on it.
            value_only: Leave the policy as it is.

        Returns:
            Metrics by name, averaged over the gradient steps.
        """
        del rollout, progress
        config = self.config
        count = max(1, round(config.updates_per_step * config.num_envs * config.horizon))
        sums = torch.zeros(4, device=generator.device)
        for first in range(0, count, _DRAWN_AT_ONCE):
            drawn = self._draw(min(_DRAWN_AT_ONCE, count - first), label, generator)
            for i in range(len(drawn.reward)):
                batch = drawn[i]
                sums[:3] += self._critic_step(batch, generator)
                if not value_only and (first + i) % config.policy_delay == 0:
                    sums[3] += self._policy_step(batch, generator) * config.policy_delay
        loss, q, mean_reward, surrogate = (sums / count).tolist()
        return {
            "policy/std": float(self.policy.log_std.detach().exp().mean()),
            "policy/surrogate": surrogate,
            "value/loss": loss,
            "value/mean": q,
            "reward/label": mean_reward,
            "replay/steps": float(self.replay.size * self.replay.num_envs),
        }

    @torch.no_grad()
    def _draw(self, batches: int, label: Label, generator: torch.Generator) -> _Batch:
        """[batches, batch, .] steps, the first ones of each batch from the demos."""
        steps = self.replay.sample_steps(batches * (self.config.batch - self._from_demos), generator)
        names = Transitions.__dataclass_fields__
        parts = {name: getattr(steps, name).unflatten(0, (batches, -1)) for name in names}
        if self.demos is not None and self._from_demos:
            count = batches * self._from_demos
            pick = torch.multinomial(self.demo_weight, count, replacement=True, generator=generator)
            demos = self.demos[pick.unflatten(0, (batches, -1))]
            parts = {name: torch.cat([getattr(demos, name), x], 1) for name, x in parts.items()}
        drawn, normalizer = Transitions(**parts), self.policy.normalizer
        zero = torch.zeros(drawn.termination.shape, device=generator.device)
        reward = label(drawn.observation, drawn.next_observation, drawn.action, zero, drawn.termination)
        features, next_features = normalizer(drawn.observation), normalizer(drawn.next_observation)
        return _Batch(features, next_features, drawn.action, drawn.termination, reward)

    def _critic_step(self, batch: _Batch, generator: torch.Generator) -> Tensor:
        policy, config = self.policy, self.config
        with torch.no_grad():
            mean, log_std = policy.mean_net(batch.next_features), policy.log_std
            action = (mean + log_std.exp() * _noise_like(mean, generator)).clamp(-1.0, 1.0)
            next_q = self.target(batch.next_features, action)
            entropy = clipped_gaussian_entropy(mean, log_std)
            target = soft_target(batch.reward, next_q, entropy, batch.termination, config.discount, self.alpha)
        q = self.critic(batch.features, batch.action)
        loss = (q - target).square().mean()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        self.target.follow(self.critic, config.tau)
        return torch.stack([loss.detach(), target.mean(), batch.reward.mean()])

    def _policy_step(self, batch: _Batch, generator: torch.Generator) -> Tensor:
        policy, weight, demos = self.policy, self.config.clone_weight, self._from_demos
        mean = policy.mean_net(batch.features)
        action = inward_clip(mean + policy.log_std.exp() * _noise_like(mean, generator))
        self.critic.requires_grad_(False)
        q = self.critic(batch.features, action).amin(0)
        self.critic.requires_grad_(True)
        loss = -(q + self.alpha * clipped_gaussian_entropy(mean, policy.log_std)).mean()
        if demos and weight > 0.0:
            # Squared distance, as in cloning, and not log q: that would hold on ever harder as the spread shrinks. In
            # units of how much Q varies, for the reward grows while it is learned.
            distance = (mean[:demos] - batch.action[:demos]).square().mean()
            loss = loss + weight * q.detach().std() * distance
        self.policy_optimizer.zero_grad()
        loss.backward()
        self.policy_optimizer.step()
        with torch.no_grad():
            # Beyond its limits the spread has no gradient, so it must not be left there.
            policy.log_std_raw.clamp_(policy.log_std_min, policy.log_std_max)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Critics, optimisers, replay and snapshots; the policy itself is the trainer's."""
        return {
            "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "mixture": self.mixture.state_dict(),
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts everything back where `state_dict` found it."""
        for name in ("critic", "target", "policy_optimizer", "critic_optimizer", "replay"):
            getattr(self, name).load_state_dict(state[name])
        self.mixture.load_state_dict(state["mixture"], self.policy)
        self.iteration = state["iteration"]


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
