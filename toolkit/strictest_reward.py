"""StrictestReward: of all that a reward was while it was learned, what is said by the one that finds most fault.

The reward and the policy play a game, and the newest reward answers the newest policy: of what earlier policies did
wrong it says little, since nobody does it any more. A new policy finds that out. Where all answers judge it and the
worst counts, it cannot please one by what another objects to (worst-case optimisation over an ensemble of rewards:
Coste et al. 2023, arXiv 2310.02743). Their mean is too kind: it forgives what few of them object to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.networks import RewardNetwork


@dataclass(frozen=True)
class Snapshot:
    """r_k: r_psi as it was at one time of the run."""

    net: dict[str, Tensor]  # state dict of `RewardNetwork.net`
    expert: float  # c_k = E_demo[r_k], reward of a step
    absorbing: float | None = None  # r_k of a step after the end of a task; None where tasks do not end


class StrictestReward(nn.Module):
    """r(s, a) = c + min_k (r_k(s, a) - c_k), c = 1/K sum_k c_k, over K snapshots of r_psi.

    A reward is known but for a constant (log Z takes up the rest), so that two of them compare only by their distance
    from what the expert earns of each.
    """

    offset: Tensor  # (K, 1) c - c_k
    absorbing: Tensor | None  # () the same of a step after the end; None where tasks do not end

    def __init__(self, reward: RewardNetwork, snapshots: Sequence[Snapshot]) -> None:
        """Stacks the snapshots.

        Args:
            reward: r_psi, whose normaliser and view of the observation all of them share.
            snapshots: r_1 to r_K, K at least 1.
        """
        super().__init__()
        self.reward = reward
        places = [i for i, layer in enumerate(reward.net) if isinstance(layer, nn.Linear)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i in places:
            self.weights.append(torch.stack([one.net[f"{i}.weight"].T for one in snapshots]))  # (K, in, out)
            self.biases.append(torch.stack([one.net[f"{i}.bias"] for one in snapshots])[:, None])  # (K, 1, out)
        expert = torch.tensor([one.expert for one in snapshots], dtype=torch.float64)
        offset = expert.mean() - expert  # (K,)
        self.register_buffer("offset", offset[:, None].to(self.weights[0].dtype))
        after = [one.absorbing for one in snapshots if one.absorbing is not None]
        self.absorbing = None
        if len(after) == len(offset):
            self.absorbing = (torch.tensor(after, dtype=torch.float64) + offset).amin().to(self.weights[0].dtype)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Reward (...) for `observation` (..., obs_dim) and `action` (..., act_dim)."""
        features = self.reward.features(self.reward.normalizer(observation), action)
        x = features.reshape(-1, features.shape[-1])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.matmul(torch.tanh(x) if i else x, weight) + bias  # (K, n, out)
        return (x.squeeze(-1) + self.offset).amin(0).reshape(features.shape[:-1])
