"""What r_psi says of segments while it is being learned: the reward of each step, and how steep it is between kinds."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.expert_segments import Segments
from toolkit.maxent import shaped_reward
from toolkit.networks import RewardNetwork

_PENALTY_POINTS = 2048  # enough for a mean; the double backward pass is the dearest part of an update


def step_rewards(reward: RewardNetwork, segments: Segments, discount: float) -> Tensor:
    """f of each step that was taken: r_psi, with the potential's difference where there is one.

    Args:
        reward: r_psi, perhaps with a potential.
        segments: N segments of L steps, or steps of any other shape.
        discount: gamma of the potential's difference.

    Returns:
        [L, N] rewards.
    """
    g = reward.net(reward.features(segments.state, segments.action)).squeeze(-1)
    if reward.potential is None:
        return g
    h, next_h = reward.potential(segments.state).squeeze(-1), reward.potential(segments.next_state).squeeze(-1)
    return shaped_reward(g, h, next_h, discount, segments.termination)


def rewards_along(reward: RewardNetwork, segments: Segments, discount: float) -> Tensor:
    """f of each step of segments, those in the absorbing state included, which are worth `reward.absorbing`.

    Args:
        reward: r_psi, perhaps with a potential.
        segments: N segments of L steps.
        discount: gamma of the potential's difference.

    Returns:
        [L, N] rewards.
    """
    f = step_rewards(reward, segments, discount)
    return f if reward.absorbing is None else torch.where(segments.absorbed, reward.absorbing, f)


def gradient_between(reward: RewardNetwork, segments: Segments, count: int, generator: torch.Generator) -> Tensor:
    """Gradient of r_psi at random points between steps of two kinds, in normalised units.

    Args:
        reward: r_psi.
        segments: `count` segments of one kind and then those of the other.
        count: Where the second kind begins.
        generator: Draws the points.

    Returns:
        (points, features), differentiable, for `losses.gradient_penalty`.
    """
    features = reward.features(segments.state, segments.action)  # [L, N + M, features], the expert's first
    length, total, device = *features.shape[:2], features.device
    size = min(_PENALTY_POINTS, length * count, length * (total - count))
    step, other = (torch.randint(length, (size,), generator=generator, device=device) for _ in range(2))
    first = torch.randint(count, (size,), generator=generator, device=device)
    second = torch.randint(count, total, (size,), generator=generator, device=device)
    u = torch.rand(size, 1, generator=generator, device=device)
    point = (u * features[step, first] + (1.0 - u) * features[other, second]).requires_grad_()
    (gradient,) = torch.autograd.grad(reward.net(point).sum(), point, create_graph=True)
    return gradient
