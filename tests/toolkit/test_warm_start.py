"""Behaviour cloning finds the demos' actions and leaves the spread alone."""

import math

import numpy as np
import torch

from demos.episode import Episode
from demos.segments import SegmentSampler
from toolkit.networks import GaussianPolicy
from toolkit.warm_start import clone_behaviour


def demos() -> SegmentSampler:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(401, 3)).astype(np.float32)
    actions = np.tanh(observations[:-1, :2]).astype(np.float32)
    episode = Episode(observations, actions, np.arange(401) * 0.01, ended_by="truncation")
    return SegmentSampler([episode], 16)


def policy() -> GaussianPolicy:
    torch.manual_seed(0)
    return GaussianPolicy(3, 2, (32,), (-1.2, -3.0, 0.0))


def test_actions_are_imitated_and_the_spread_is_kept():
    """The error falls far below the actions' own size; exploration stays as configured."""
    cloned = policy()
    error = clone_behaviour(cloned, demos(), 400, np.random.default_rng(0), torch.Generator().manual_seed(0))
    observation = torch.randn(200, 3)
    assert error < 0.2
    assert float((cloned(observation) - observation[:, :2].tanh()).detach().square().mean().sqrt()) < 0.2
    assert cloned.log_std.tolist() == policy().log_std.tolist()


def test_no_steps_change_nothing():
    """Switched off means off."""
    cloned = policy()
    assert math.isnan(clone_behaviour(cloned, demos(), 0, np.random.default_rng(0), torch.Generator()))
    assert all(torch.equal(a, b) for a, b in zip(cloned.parameters(), policy().parameters(), strict=True))
