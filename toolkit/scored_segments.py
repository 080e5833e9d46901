"""Segments of recorded episodes together with two log densities of their actions: the demos' and the background's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demos.segments import SegmentSampler
from toolkit.expert_segments import ExpertSegments, Segments
from toolkit.maxent import mixture_log_density
from toolkit.networks import GaussianPolicy, clipped_gaussian_log_prob
from toolkit.normalizer import RunningNormalizer


@dataclass(frozen=True)
class ScoredBatch:
    """N segments with both densities."""

    segments: Segments  # its log_q is that of the background's policy
    log_p: Tensor  # (N,) float64, log density of the actions under the demos' policy [nats]
    log_q: Tensor  # (N,) float64, the same under the background's

    def log_mixture(self) -> Tensor:
        """(N,) float64 log mu, mu = (p + q) / 2: half of each batch is demos."""
        return mixture_log_density(self.log_p, self.log_q, 0.0, 1.0)


class ScoredSegments:
    """Draws segments and scores them; what depends on observations alone is computed once, as nothing moves here."""

    def __init__(
        self,
        sampler: SegmentSampler,
        normalizer: RunningNormalizer,
        jitter: float,
        rng: np.random.Generator,
        policies: tuple[GaussianPolicy, GaussianPolicy],
    ) -> None:
        """Brings the recordings to the normaliser's device and scores them.

        Args:
            sampler: Where segments come from.
            normalizer: Of the reward, already fitted.
            jitter: Std of the noise on the actions [action units]: a density needs a width.
            rng: Draws the places.
            policies: p(a | s) and q(a | s), on the same device.
        """
        demo_policy, background_policy = policies
        self.recorded = ExpertSegments(sampler, normalizer, jitter, rng)
        self.recorded.score(background_policy)
        with torch.no_grad():
            self._mean, self._log_std = demo_policy(self.recorded.observation), demo_policy.log_std

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> ScoredBatch:
        """Draws segments with replacement.

        Args:
            count: N.
            generator: Source of the jitter.

        Returns:
            The segments, scored with the actions they are given out with.
        """
        segments, rows = self.recorded.draw_with_rows(count, generator)
        log_p = clipped_gaussian_log_prob(segments.action, self._mean[rows], self._log_std)
        return ScoredBatch(segments, segments.log_density(log_p), segments.log_density())
