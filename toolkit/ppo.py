"""The on-policy generator: proximal policy optimisation of whatever reward it is handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from toolkit.config import PpoConfig
from toolkit.losses import clipped_surrogate, gaussian_kl, generalized_advantage
from toolkit.networks import GaussianPolicy, ValueNetwork, clipped_gaussian_log_prob
from toolkit.rollout import Rollout

# (observation, next_observation, action, log_prob, termination) of some steps -> their reward
Label = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_LEARNING_RATE_RANGE = (1e-5, 3e-3)


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
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate)

    @property
    def learning_rate(self) -> float:
        """Adam's present step size."""
        return self.optimizer.param_groups[0]["lr"]

    @property
    def scorer(self) -> GaussianPolicy:
        """What log q of the discriminator means: the present policy."""
        return self.policy

    def remember(self, rollout: Rollout) -> Rollout:
        """The rollout as it is: an on-policy learner has no other negatives."""
        return rollout

    def state_dict(self) -> dict[str, Any]:
        """The optimiser; the networks are the trainer's."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the optimiser back where `state_dict` found it."""
        self.optimizer.load_state_dict(state["optimizer"])

    def update(
        self, rollout: Rollout, label: Label, generator: torch.Generator, value_only: bool = False
    ) -> dict[str, float]:
        """One iteration of PPO (Schulman et al. 2017, algorithm 1).

        Args:
            rollout: Experience of the present policy.
            label: Gives the [T, B] reward of the rollout's steps.
            generator: Shuffles the minibatches.
            value_only: Leave the policy as it is.

        Returns:
            Metrics by name.
        """
        config = self.config
        steps = (rollout.observation, rollout.next_observation, rollout.action, rollout.log_prob, rollout.termination)
        reward = label(*steps)
        with torch.no_grad():
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
            mean_old = self.policy.mean_net(features).flatten(0, 1)[keep]
            log_std_old = self.policy.log_std.clone()
        flat = {
            "features": features.flatten(0, 1)[keep],
            "action": rollout.action.flatten(0, 1)[keep],
            "log_prob": rollout.log_prob.flatten()[keep],
            "target": self.value.rescale(returns.flatten()[keep]),
            "advantage": _standardize(advantage.flatten()[keep]),
        }
        kl, losses = 0.0, torch.zeros(2)
        for _ in range(config.epochs):
            order = torch.randperm(len(keep.nonzero()), generator=generator, device=generator.device)
            for index in order.chunk(config.minibatches):
                losses += self._gradient_step({name: x[index] for name, x in flat.items()}, value_only)
            with torch.no_grad():
                kl = float(
                    gaussian_kl(mean_old, log_std_old, self.policy.mean_net(flat["features"]), self.policy.log_std)
                )
            if not value_only:
                self._adapt_learning_rate(kl)
        losses /= config.epochs * config.minibatches
        explained = 1.0 - (returns - value).var() / returns.var().clamp_min(1e-12)
        return {
            "policy/kl": kl,
            "policy/learning_rate": self.learning_rate,
            "policy/std": float(self.policy.log_std.detach().exp().mean()),
            "policy/surrogate": float(losses[0]),
            "value/loss": float(losses[1]),
            "value/explained_variance": float(explained),
        }

    def _next_value(self, rollout: Rollout, value: Tensor) -> Tensor:
        """V(s_{t+1}): the next row where the episode goes on, computed afresh where it ended and in the last row."""
        next_value = torch.empty_like(value)
        next_value[:-1] = value[1:]
        fresh = rollout.ended.clone()
        fresh[-1] = True
        features = self.policy.normalizer(rollout.next_observation[fresh])
        next_value[fresh] = self.value.unscale(self.value(features))
        return next_value

    def _gradient_step(self, batch: dict[str, Tensor], value_only: bool) -> Tensor:
        policy, config = self.policy, self.config
        log_prob = clipped_gaussian_log_prob(batch["action"], policy.mean_net(batch["features"]), policy.log_std)
        surrogate = clipped_surrogate(log_prob, batch["log_prob"], batch["advantage"], config.clip)
        value_loss = (self.value(batch["features"]) - batch["target"]).square().mean()
        self.optimizer.zero_grad()
        loss = config.value_weight * value_loss
        (loss if value_only else surrogate + loss).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
        self.optimizer.step()
        return torch.stack([surrogate.detach(), value_loss.detach()]).cpu()

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
