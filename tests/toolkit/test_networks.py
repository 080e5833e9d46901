"""Networks and normaliser: densities by hand, statistics, and the value scale that must not move the value."""

import math

import numpy as np
import pytest
import torch

from toolkit.networks import GaussianPolicy, RewardNetwork, ValueNetwork, gaussian_log_prob
from toolkit.normalizer import CLIP, RunningNormalizer


def test_gaussian_log_prob_by_hand():
    """N(1; 0, 2) x N(0; 0, 1): -1/8 - log 2 - log 2 pi."""
    log_prob = gaussian_log_prob(torch.tensor([0.5, 0.0]), torch.tensor([math.log(2.0), 0.0]))
    assert float(log_prob) == pytest.approx(-0.125 - math.log(2.0) - math.log(2.0 * math.pi), abs=1e-6)


def test_sampled_density_is_the_scored_density():
    """log q of a sample equals log q of the same action scored afresh: the discriminator relies on it."""
    policy = GaussianPolicy(3, 2, (16,), (-0.5, -3.0, 0.5))
    observation = torch.randn(50, 3)
    action, log_prob = policy.sample(observation, torch.Generator().manual_seed(0))
    torch.testing.assert_close(policy.log_prob(observation, action), log_prob, atol=1e-4, rtol=1e-4)


def test_entropy_is_minus_the_mean_log_density():
    """Monte Carlo agrees with the closed form."""
    policy = GaussianPolicy(3, 4, (8,), (-0.3, -3.0, 0.5))
    _, log_prob = policy.sample(torch.randn(20_000, 3), torch.Generator().manual_seed(0))
    assert float(-log_prob.detach().mean()) == pytest.approx(float(policy.entropy().detach()), abs=0.05)


@pytest.mark.parametrize(("raw", "held"), [(-9.0, -3.0), (9.0, 0.5), (-1.0, -1.0)])
def test_log_std_stays_within_limits(raw: float, held: float):
    """However far the optimiser pushes."""
    policy = GaussianPolicy(3, 2, (8,), (raw, -3.0, 0.5))
    assert policy.log_std.tolist() == [held, held]


def test_normaliser_equals_numpy_over_batches():
    """Mean and standard deviation of everything seen, whatever the batches."""
    data = np.random.default_rng(0).normal(3.0, 2.0, (500, 4)).astype(np.float32)
    normalizer = RunningNormalizer(4)
    for part in np.split(data, [10, 200]):
        normalizer.update(torch.from_numpy(part))
    expected = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(normalizer(torch.from_numpy(data)).numpy(), expected, atol=1e-4)


def test_normaliser_survives_a_constant_feature():
    """A feature that never moved in the demos gives numbers, and bounded ones, when it does move."""
    normalizer = RunningNormalizer(2)
    normalizer.update(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
    assert normalizer(torch.tensor([1.5, 5.0]))[1] == 0.0
    assert normalizer(torch.tensor([1.5, 1e6]))[1] == CLIP


def test_value_scale_moves_without_moving_the_value():
    """Pop-Art: in return units V(s) is the same before and after the scale is tracked."""
    value = ValueNetwork(3, (16,))
    features = torch.randn(10, 3)
    for returns in (torch.randn(100) * 50.0 + 200.0, torch.randn(100) * 5.0 - 20.0):
        before = value.unscale(value(features))
        value.track(returns)
        torch.testing.assert_close(value.unscale(value(features)), before, atol=1e-3, rtol=1e-3)
    assert float(value.scale) != 1.0


def test_reward_sees_what_the_robot_does():
    """Actions beyond [-1, 1] are clipped before they reach the robot, so they earn what the clipped one earns."""
    reward = RewardNetwork(3, 2, (16,))
    observation = torch.randn(5, 3)
    far, near = torch.full((5, 2), 7.0), torch.ones(5, 2)
    torch.testing.assert_close(reward(observation, far), reward(observation, near))
    assert not torch.allclose(reward(observation, -near), reward(observation, near))
