"""The density of recorded actions: log q(a | s) of episodes whose policy nobody can be asked for any more."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from demos.episode import Episode
from toolkit.config import PolicyConfig
from toolkit.held_out import split
from toolkit.networks import GaussianPolicy, build_policy_network

_HELD_OUT = 0.1  # share of each episode on which the fit is measured
_STRETCH = 32  # [steps] shortest stretch held out: neighbouring steps are too alike to measure anything
_CHECK_EVERY = 100  # gradient steps between measurements
_PATIENCE = 5  # measurements without gain after which the fit ends
_BATCH = 256  # steps per gradient step
_LEARNING_RATE = 1e-3


def estimate_log_q(
    episodes: Sequence[Episode],
    settings: PolicyConfig,
    seed: int,
    device: torch.device | str = "cpu",
    weights: Sequence[float] | None = None,
) -> GaussianPolicy:
    """Fits q(a | s) to the actions of episodes by maximum likelihood, mean and spread both.

    max_theta E[log q_theta(a_t | s_t)] over the recorded steps; a stretch of each episode is kept from the fit, and the
    weights that score it best are the ones returned. One Gaussian is fitted even where several operators acted: then
    its spread covers all of them, and log q is that of the mixture's nearest Gaussian.

    Args:
        episodes: At least one.
        settings: Widths of the network; first, least and greatest log standard deviation; `warm_start`, the most
            gradient steps.
        seed: Of the weights, the held-out stretches and the batches.
        device: Where to fit.
        weights: How much each episode counts; None, or all the same, counts every step alike.

    Returns:
        The fitted policy, in evaluation mode, without gradients; its normaliser knows these episodes.
    """
    weights = [1.0] * len(episodes) if weights is None else weights
    parts = split(episodes, weights, _HELD_OUT, _STRETCH, seed)
    observation, action, weight = _steps(parts.train, parts.weights, device)
    shares = None if len(set(parts.weights)) == 1 else weight.cumsum(0) / weight.sum()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = build_policy_network(observation.shape[1], action.shape[1], settings).to(device)
    policy.normalizer.update(observation)
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=_LEARNING_RATE)
    judged = _steps(parts.held_out, parts.held_out_weights, device) if parts.held_out else None
    best, best_score, checks_without_gain = copy.deepcopy(policy.state_dict()), -float("inf"), 0
    for step in range(1, settings.warm_start + 1):
        pick = _draw(len(action), shares, generator)
        loss = -policy.log_prob(observation[pick], action[pick]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if judged is None or step % _CHECK_EVERY:
            continue
        with torch.no_grad():
            score = float((judged[2] * policy.log_prob(*judged[:2])).sum() / judged[2].sum())
        if score > best_score:
            best, best_score, checks_without_gain = copy.deepcopy(policy.state_dict()), score, 0
        else:
            checks_without_gain += 1
            if checks_without_gain >= _PATIENCE:
                break
    if judged is not None:
        policy.load_state_dict(best)
    return policy.eval().requires_grad_(False)


def _steps(
    episodes: Sequence[Episode], weights: Sequence[float], device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Observations (N, obs_dim), actions (N, act_dim) and float64 weights (N,) of all steps."""
    observation = torch.cat([torch.from_numpy(episode.observations[:-1]) for episode in episodes])
    action = torch.cat([torch.from_numpy(episode.actions) for episode in episodes])
    weight = torch.cat(
        [torch.full((e.length,), w, dtype=torch.float64) for e, w in zip(episodes, weights, strict=True)]
    )
    return observation.to(device), action.clamp(-1.0, 1.0).to(device), weight.to(device)


def _draw(count: int, shares: Tensor | None, generator: torch.Generator) -> Tensor:
    """A batch of `count` steps' numbers; `shares` (count,) of the weight up to each step, None if all are alike."""
    if shares is None:
        return torch.randint(count, (_BATCH,), generator=generator, device=generator.device)
    draw = torch.rand(_BATCH, generator=generator, device=generator.device, dtype=torch.float64)
    return torch.searchsorted(shares, draw, right=True).clamp_max(count - 1)
