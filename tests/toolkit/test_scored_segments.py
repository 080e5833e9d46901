"""Segments are scored as the policies score them, and the mixture is the mixture."""

import math

import numpy as np
import pytest
import torch

from demos.episode import Episode
from demos.segments import SegmentSampler
from toolkit.networks import GaussianPolicy
from toolkit.normalizer import RunningNormalizer
from toolkit.scored_segments import ScoredBatch, ScoredSegments


def policies() -> tuple[GaussianPolicy, GaussianPolicy]:
    torch.manual_seed(0)
    first, second = (GaussianPolicy(3, 2, (8,), (log_std, -3.0, 0.0)) for log_std in (-1.0, -0.3))
    return first, second


def segments(jitter: float = 0.0, at_limit: bool = False) -> ScoredSegments:
    rng = np.random.default_rng(0)
    made = []
    for length in (9, 14):
        actions = rng.uniform(-0.8, 0.8, (length, 2)).astype(np.float32)
        if at_limit:
            actions[:, 0] = 1.0
        state = rng.normal(size=(length + 1, 3)).astype(np.float32)
        made.append(Episode(state, actions, np.arange(length + 1) * 0.01, ended_by="truncation"))
    normalizer = RunningNormalizer(3)
    normalizer.update(torch.from_numpy(np.concatenate([e.observations for e in made])))
    return ScoredSegments(SegmentSampler(made, 4), normalizer, jitter, np.random.default_rng(0), policies())


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_scores_are_those_of_the_actions_given_out(jitter: float):
    """log p and log q are sums over the segment, of the jittered actions where there is jitter."""
    scored = segments(jitter)
    batch = scored.draw(50, torch.Generator().manual_seed(0))
    assert batch.segments.state.shape == (4, 50, 3)
    normalizer = RunningNormalizer(3)
    normalizer.update(scored.recorded.observation)
    observation = batch.segments.state * normalizer.std + normalizer.mean
    for log_density, policy in zip((batch.log_p, batch.log_q), policies(), strict=True):
        with torch.no_grad():
            expected = policy.log_prob(observation, batch.segments.action).double().sum(0)
        torch.testing.assert_close(log_density, expected, atol=1e-4, rtol=1e-4)


def test_jitter_moves_actions_within_their_limits_only():
    """Jitter there is; but a density has a point mass at the limit, which jitter would take away."""
    still, moved = (segments(jitter, at_limit=True).draw(50, torch.Generator().manual_seed(0)) for jitter in (0.0, 0.1))
    assert (moved.segments.action[..., 0] == 1.0).all()
    assert (moved.segments.action[..., 1] != still.segments.action[..., 1]).all()


def test_mixture_by_hand():
    """Half of density 2 and half of density 4 are 3; far tails do not overflow."""
    log_p, log_q = (torch.tensor([math.log(x), tail], dtype=torch.float64) for x, tail in ((2.0, -5000.0), (4.0, -4e3)))
    log_mu = ScoredBatch(segments().draw(2, torch.Generator()).segments, log_p, log_q).log_mixture()
    assert log_mu.dtype == torch.float64
    assert log_mu.tolist() == pytest.approx([math.log(3.0), -4000.0 + math.log(0.5)], rel=1e-12)
