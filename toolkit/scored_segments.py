"""Segments of recorded episodes together with two log densities of their actions: the demos' and the background's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demos.episode import Episode
from demos.segments import SegmentSampler
from toolkit.networks import GaussianPolicy, clipped_gaussian_log_prob


@dataclass(frozen=True)
class ScoredBatch:
    """N segments of L steps."""

    observation: Tensor  # [L, N, obs_dim]
    action: Tensor  # [L, N, act_dim] dimensionless
    log_p: Tensor  # (N,) float64, log density of the actions under the demos' policy [nats]
    log_q: Tensor  # (N,) float64, the same under the background's


class ScoredSegments:
    """Draws segments and scores them; what depends on observations alone is computed once, as nothing moves here."""

    def __init__(
        self, episodes: Sequence[Episode], length: int, demo_policy: GaussianPolicy, background_policy: GaussianPolicy
    ) -> None:
        """Lays the episodes end to end.

        Args:
            episodes: Where to draw from.
            length: L, steps in a segment.
            demo_policy: p(a | s).
            background_policy: q(a | s), on the same device.

        Raises:
            EpisodeError: No episode is that long.
        """
        sampler = SegmentSampler(episodes, length)
        device = background_policy.log_std_raw.device
        self.length = length
        self.observation = torch.from_numpy(sampler.observations).to(device)  # (rows, obs_dim)
        self.action = torch.from_numpy(sampler.actions).to(device).clamp(-1.0, 1.0)  # (rows, act_dim)
        self.starts = torch.from_numpy(sampler.starts).to(device)  # (places,)
        with torch.no_grad():
            self._densities = [
                (policy(self.observation), policy.log_std) for policy in (demo_policy, background_policy)
            ]

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator, jitter: float = 0.0) -> ScoredBatch:
        """Draws segments with replacement.

        Args:
            count: N.
            generator: Source of the places and of the jitter.
            jitter: Std of Gaussian noise added to actions inside their limits: a density needs a width.

        Returns:
            The segments, scored with the actions they are given out with.
        """
        device = generator.device
        place = torch.randint(len(self.starts), (count,), generator=generator, device=device)
        rows = torch.arange(self.length, device=device)[:, None] + self.starts[place]  # [L, N]
        action = self.action[rows]
        if jitter:
            noisy = (action + jitter * torch.randn(action.shape, generator=generator, device=device)).clamp(-1.0, 1.0)
            action = torch.where(action.abs() >= 1.0, action, noisy)
        log_p, log_q = (
            clipped_gaussian_log_prob(action, mean[rows], log_std).double().sum(0) for mean, log_std in self._densities
        )
        return ScoredBatch(self.observation[rows], action, log_p, log_q)


def mixture_log_density(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log mu = log(share p + (1 - share) q), in float64 and without overflow (Finn, Levine, Abbeel 2016, section 4.2).

    Args:
        log_p: (N,) log density under the demos' policy.
        log_q: (N,) log density under the background's.
        share: Part of the demos in the mixture, in (0, 1).

    Returns:
        (N,) float64.
    """
    if log_p.ndim != 1 or log_p.shape != log_q.shape or not 0.0 < share < 1.0:
        raise ValueError(
            f"shapes {tuple(log_p.shape)} and {tuple(log_q.shape)}, share {share}; expected (N,), in (0, 1)"
        )
    return torch.logaddexp(log_p.double() + math.log(share), log_q.double() + math.log1p(-share))
