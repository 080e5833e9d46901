"""Behaviour cloning, as a start: the policy imitates the demos' actions before it learns what they are for."""

from __future__ import annotations

import numpy as np
import torch

from demos.segments import SegmentSampler
from toolkit.networks import GaussianPolicy

_BATCH = 256  # demo steps per gradient step
_LEARNING_RATE = 1e-3
_NOISE = 0.1  # [std of each feature] added to observations, so that a few demos are not learned by heart


def clone_behaviour(
    policy: GaussianPolicy, demos: SegmentSampler, steps: int, rng: np.random.Generator, generator: torch.Generator
) -> float:
    """Maximises log q(a_t | s_t) of the demos at the policy's present spread: least squares on the mean action.

    Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation". The spread is left as
    it is: demos recorded without noise would shrink it to nothing, and with it all exploration.

    Args:
        policy: Changed in place; its normaliser must already know the demos.
        demos: Where observations and actions come from.
        steps: Gradient steps; 0 does nothing.
        rng: Draws demo steps.
        generator: Draws the noise.

    Returns:
        Root mean square error of the mean action over the last batches [action units]; nan for 0 steps.
    """
    optimizer = torch.optim.Adam(policy.mean_net.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    error = torch.tensor(float("nan"))
    for _ in range(steps):
        batch = demos.sample(max(1, _BATCH // demos.length), rng)
        observation = torch.from_numpy(batch.observations[:-1]).to(generator.device)
        action = torch.from_numpy(batch.actions).to(generator.device).clamp(-1.0, 1.0)
        features = policy.normalizer(observation)
        if bool((past_end := action.isnan().any(-1)).any()):
            features, action = features[~past_end], action[~past_end]
        features = features + _NOISE * torch.randn(features.shape, generator=generator, device=features.device)
        loss = (policy.mean_net(features) - action).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        error = loss.detach() if error.isnan() else 0.95 * error + 0.05 * loss.detach()
    return float(error.sqrt())
