"""MeanReward: what a reward was on average while it was learned, which is what a frozen one has to be.

The reward and the policy play a game, and the newest reward answers the newest policy: of what earlier policies did
wrong it says little, since nobody does it any more. In a game like this it is the mean of all answers that holds
against every policy (fictitious play: Brown 1951; of regret-minimising players: Freund and Schapire 1999).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from toolkit.networks import RewardNetwork


class MeanReward(nn.Module):
    """r(s, a) = 1/K sum_k r_k(s, a) over K snapshots of r_psi, all of them evaluated at once."""

    def __init__(self, reward: RewardNetwork, snapshots: Sequence[Mapping[str, Tensor]]) -> None:
        """Stacks the snapshots.

        Args:
            reward: r_psi, whose normaliser and view of the observation all of them share.
            snapshots: K state dicts of `reward.net`, K at least 1.
        """
        super().__init__()
        self.reward = reward
        places = [i for i, layer in enumerate(reward.net) if isinstance(layer, nn.Linear)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i in places:
            self.weights.append(torch.stack([snapshot[f"{i}.weight"].T for snapshot in snapshots]))  # (K, in, out)
            self.biases.append(torch.stack([snapshot[f"{i}.bias"] for snapshot in snapshots])[:, None])  # (K, 1, out)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Reward (...) for `observation` (..., obs_dim) and `action` (..., act_dim)."""
        features = self.reward.features(self.reward.normalizer(observation), action)
        x = features.reshape(-1, features.shape[-1])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.matmul(torch.tanh(x) if i else x, weight) + bias  # (K, n, out)
        return x.squeeze(-1).mean(0).reshape(features.shape[:-1])
