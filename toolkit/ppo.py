"""The on-policy generator: proximal policy optimisation of whatever reward it is handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from toolkit.generator_config import PpoConfig
from toolkit.losses import clipped_surrogate, gaussian_kl, generalized_advantage
from toolkit.networks import GaussianPolicy, ValueNetwork, clipped_gaussian_log_prob
from toolkit.replay import Transitions
from toolkit.rollout import Rollout

_DEMO_BATCH = 512  # demo steps beside each minibatch
_LEARNING_RATE_RANGE = (1e-5, 3e-3)
_KL_STRIDE = 4  # the divergence is a mean over every fourth environment: whole, it costs half an epoch's forward

# observation (..., obs_dim), next observation, action (..., act_dim), log q (...), termination (...) -> reward (...)
Label = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class PolicyLearner:
    """Improves a policy and its value network on one rollout at a time."""

    def __init__(self, policy: GaussianPolicy, value: ValueNetwork, config: PpoConfig) -> None:
        """Makes the optimiser.

        Args:
            policy: q_theta.
            value: V, fed with the policy's normalised observations.
            config: Settings.
        """
        self.policy = policy
        self.value = value
        self.config = config
        self.parameters = [*policy.parameters(), *value.parameters()]
        self.demos: Transitions | None = None
        self.demo_weight = torch.zeros(0)  # (n,)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets the optimiser's moments and step size, which are of no use to networks with other weights."""
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.learning_rate, fused=True)

    def hold_near(self, demos: Transitions, weight: Tensor) -> None:
        """Gives the demos that the policy is held near.

        Args:
            demos: (n, .) steps of the expert.
            weight: (n,) how much each step counts, at least 0.
        """
        self.demos, self.demo_weight = demos, weight

    @property
    def scorer(self) -> GaussianPolicy:
        """What log q of the discriminator means: the present policy, which made the rollout."""
        return self.policy

    @property
    def learning_rate(self) -> float:
        """Adam's present step size."""
        return self.optimizer.param_groups[0]["lr"]

    def remember(self, rollout: Rollout) -> Rollout:
        """What the discriminator learns from: on-policy, the rollout itself."""
        return rollout

    def update(
        self, rollout: Rollout, label: Label, generator: torch.Generator, progress: float, value_only: bool = False
    ) -> dict[str, float]:
        """One iteration of PPO (Schulman et al. 2017, algorithm 1).

        Args:
            rollout: Experience of the present policy.
            label: Gives each step its reward.
            generator: Shuffles the minibatches.
            progress: Share of the run that is over, in [0, 1).
            value_only: Leave the policy as it is.

        Returns:
            Metrics by name.
        """
        config = self.config
        samples, explained = self._samples(rollout, label)
        mean_old, log_std_old = samples.pop("mean_old")[::_KL_STRIDE], self.policy.log_std.detach().clone()
        seen = samples["features"][::_KL_STRIDE].contiguous()
        demo_weight = 0.0
        if self.demos is not None and not value_only and config.demo_fade > 0.0:
            demo_weight = config.demo_weight * max(0.0, 1.0 - progress / config.demo_fade)
        kl, losses = 0.0, torch.zeros(2)
        for _ in range(config.epochs):
            order = torch.randperm(len(samples["features"]), generator=generator, device=generator.device)
            for index in order.chunk(config.minibatches):
                batch = {name: x.index_select(0, index) for name, x in samples.items()}
                losses += self._gradient_step(batch, demo_weight, generator, value_only)
            with torch.no_grad():
                kl = float(gaussian_kl(mean_old, log_std_old, self.policy.mean_net(seen), self.policy.log_std))
            if not value_only:
                self._adapt_learning_rate(kl)
        losses /= config.epochs * config.minibatches
        return {
            "policy/kl": kl,
            "policy/learning_rate": self.learning_rate,
            "policy/std": float(self.policy.log_std.detach().exp().mean()),
            "policy/surrogate": float(losses[0]),
            "value/loss": float(losses[1]),
            "value/explained_variance": explained,
        }

    @torch.no_grad()
    def _samples(self, rollout: Rollout, label: Label) -> tuple[dict[str, Tensor], float]:
        """What each unbroken step of a rollout teaches, [n, .] by name, and how much of the returns V foresaw."""
        config, mean_old = self.config, rollout.mean
        assert mean_old is not None, "one policy made an on-policy rollout"
        reward = label(
            rollout.observation, rollout.next_observation, rollout.action, rollout.log_prob, rollout.termination
        )
        features = self.policy.normalizer(rollout.observation)
        value = self.value.unscale(self.value(features))
        next_value = self._next_value(rollout, value)
        # A broken step is given delta = 0: the steps before it then look ahead only to the value of its state.
        reward = torch.where(rollout.quarantined, value, reward)
        terminated = rollout.termination | rollout.quarantined
        advantage = generalized_advantage(
            reward, value, next_value, rollout.ended, terminated, config.discount, config.gae_lambda
        )
        returns = advantage + value
        keep = (~rollout.quarantined).flatten()
        self.value.track(returns.flatten()[keep])
        features = features.flatten(0, 1)[keep]
        explained = 1.0 - (returns - value).var() / returns.var().clamp_min(1e-12)
        return {
            "features": features,
            "action": rollout.action.flatten(0, 1)[keep],
            "log_prob": rollout.log_prob.flatten()[keep],
            "target": self.value.rescale(returns.flatten()[keep]),
            "advantage": _standardize(advantage.flatten()[keep]),
            "mean_old": mean_old.flatten(0, 1)[keep],
        }, float(explained)

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs, beside the networks themselves."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the learner back where `state_dict` found it."""
        self.optimizer.load_state_dict(state["optimizer"])

    def _next_value(self, rollout: Rollout, value: Tensor) -> Tensor:
        """V(s_{t+1}): the next row where the episode goes on, computed afresh where it ended and in the last row."""
        next_value = torch.empty_like(value)
        next_value[:-1] = value[1:]
        fresh = rollout.ended.clone()
        fresh[-1] = True
        features = self.policy.normalizer(rollout.next_observation[fresh])
        next_value[fresh] = self.value.unscale(self.value(features))
        return next_value

    def _gradient_step(
        self, batch: dict[str, Tensor], demo_weight: float, generator: torch.Generator, value_only: bool
    ) -> Tensor:
        policy, config = self.policy, self.config
        log_prob = clipped_gaussian_log_prob(batch["action"], policy.mean_net(batch["features"]), policy.log_std)
        surrogate = clipped_surrogate(log_prob, batch["log_prob"], batch["advantage"], config.clip)
        value_loss = (self.value(batch["features"]) - batch["target"]).square().mean()
        loss = config.value_weight * value_loss
        if not value_only:
            loss = loss + surrogate
        if demo_weight > 0.0:
            loss = loss - demo_weight * self._demo_log_prob(generator)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm, foreach=True)
        self.optimizer.step()
        return torch.stack([surrogate.detach(), value_loss.detach()]).cpu()

    def _demo_log_prob(self, generator: torch.Generator) -> Tensor:
        """() E_demo[log q]; sigma is left alone: demos without noise would shrink it to nothing."""
        assert self.demos is not None
        index = torch.multinomial(self.demo_weight, _DEMO_BATCH, replacement=True, generator=generator)
        mean = self.policy(self.demos.observation.index_select(0, index))
        action = self.demos.action.index_select(0, index)
        return clipped_gaussian_log_prob(action, mean, self.policy.log_std.detach()).mean()

    def _adapt_learning_rate(self, kl: float) -> None:
        """Keeps the divergence per iteration near its target, the rule of Schulman et al. 2017, section 4."""
        target = self.config.target_kl
        if target <= 0.0:
            return
        factor = 1.0 / 1.5 if kl > 2.0 * target else 1.5 if kl < 0.5 * target else 1.0
        low, high = _LEARNING_RATE_RANGE
        for group in self.optimizer.param_groups:
            group["lr"] = min(max(group["lr"] * factor, low), high)


def _standardize(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std().clamp_min(1e-8)
