"""Segments are scored as the policies score them, and the mixture is the mixture."""

import math

import numpy as np
import pytest
import torch

from demos.episode import Episode
from toolkit.networks import GaussianPolicy
from toolkit.scored_segments import ScoredSegments, mixture_log_density


def policies() -> list[GaussianPolicy]:
    torch.manual_seed(0)
    return [GaussianPolicy(3, 2, (8,), (log_std, -3.0, 0.0)) for log_std in (-1.0, -0.3)]


def segments(jitter_free_limit: bool = False) -> ScoredSegments:
    rng = np.random.default_rng(0)
    made = []
    for length in (9, 14):
        actions = rng.uniform(-0.8, 0.8, (length, 2)).astype(np.float32)
        if jitter_free_limit:
            actions[:, 0] = 1.0
        state = rng.normal(size=(length + 1, 3)).astype(np.float32)
        made.append(Episode(state, actions, np.arange(length + 1) * 0.01, ended_by="truncation"))
    return ScoredSegments(made, 4, *policies())


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_scores_are_those_of_the_actions_given_out(jitter: float):
    """log p and log q are sums over the segment, of the jittered actions where there is jitter."""
    batch = segments().draw(50, torch.Generator().manual_seed(0), jitter)
    assert batch.observation.shape == (4, 50, 3)
    for log_density, policy in zip((batch.log_p, batch.log_q), policies(), strict=True):
        with torch.no_grad():
            expected = policy.log_prob(batch.observation, batch.action).double().sum(0)
        torch.testing.assert_close(log_density, expected, atol=1e-5, rtol=1e-5)


def test_actions_at_their_limit_stay_there():
    """A density has a point mass at the limit; jitter would take it away."""
    batch = segments(jitter_free_limit=True).draw(50, torch.Generator().manual_seed(0), 0.1)
    assert (batch.action[..., 0] == 1.0).all()
    assert (batch.action[..., 1].abs() < 1.0).any()


def test_no_segment_crosses_an_episode():
    """Rows of padding between episodes are NaN; none is ever given out."""
    batch = segments().draw(2000, torch.Generator().manual_seed(0))
    assert torch.isfinite(batch.action).all() and torch.isfinite(batch.log_p).all()


def test_mixture_by_hand():
    """A quarter of density 2 and three quarters of density 4 are 3.5; far tails do not overflow."""
    log_mu = mixture_log_density(torch.tensor([math.log(2.0), -5000.0]), torch.tensor([math.log(4.0), -4000.0]), 0.25)
    assert log_mu.dtype == torch.float64
    assert log_mu.tolist() == pytest.approx([math.log(3.5), -4000.0 + math.log(0.75)], rel=1e-7)
    with pytest.raises(ValueError, match="share 1"):
        mixture_log_density(torch.zeros(2), torch.zeros(2), 1.0)
