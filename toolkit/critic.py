"""TwinCritic: two action values Q(s, a), computed side by side, and the target they are fitted to."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor, nn

_MEMBERS = 2


class TwinCritic(nn.Module):
    """Two networks with the same shape and different weights: the smaller of their values is not fooled by one."""

    def __init__(self, obs_dim: int, act_dim: int, hidden: tuple[int, ...]) -> None:
        """Builds the networks: rectified units behind layer normalisation, which bounds Q where no data is.

        Ball et al. 2023, "Efficient online reinforcement learning with offline data" (arXiv 2302.02948), section 4.2.

        Args:
            obs_dim: Observation features.
            act_dim: Action elements.
            hidden: Widths of the hidden layers.
        """
        super().__init__()
        sizes = (obs_dim + act_dim, *hidden, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1.0 / math.sqrt(inputs)
            self.weights.append(nn.Parameter(torch.empty(_MEMBERS, inputs, outputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.zeros(_MEMBERS, 1, outputs)))

    def forward(self, normalized_observation: Tensor, action: Tensor) -> Tensor:
        """(2, N) values for N observations (N, obs_dim), already normalised, and actions (N, act_dim)."""
        x = torch.cat([normalized_observation, action], -1).expand(_MEMBERS, -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = F.relu(F.layer_norm(x, x.shape[-1:]))
        return x.squeeze(-1)

    @torch.no_grad()
    def follow(self, other: TwinCritic, rate: float) -> None:
        """Moves every weight toward that of `other` by the share `rate` (Polyak averaging)."""
        for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs, rate)


def soft_target(
    reward: Tensor, next_q: Tensor, next_entropy: Tensor, termination: Tensor, discount: float, alpha: float
) -> Tensor:
    """y = r + gamma (1 - terminated) (min_i Q_i(s', a') + alpha H(pi(. | s'))).

    Haarnoja et al. 2018, "Soft actor-critic" (arXiv 1812.05905), equations 3 and 5, with the entropy itself in place of
    a sample of -log pi. A time limit is not a termination: there, too, the value of s' counts.

    Args:
        reward: (N,) of each step, without an entropy term.
        next_q: (2, N) target networks at s' and an action of the present policy.
        next_entropy: (N,) of the present policy at s' [nats].
        termination: (N,) bool.
        discount: gamma.
        alpha: Temperature.

    Returns:
        (N,) targets.

    Raises:
        ValueError: Shapes that do not fit.
    """
    if not reward.shape == next_q.shape[1:] == next_entropy.shape == termination.shape or next_q.shape[0] != _MEMBERS:
        raise ValueError(f"shapes: {[tuple(x.shape) for x in (reward, next_q, next_entropy, termination)]}")
    return reward + discount * (~termination) * (next_q.amin(0) + alpha * next_entropy)
