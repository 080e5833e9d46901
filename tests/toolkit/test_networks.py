"""Networks and normaliser: densities by hand, statistics, and the value scale that must not move the value."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from robots.robot_yaml import load_robot
from toolkit.config import RewardConfig
from toolkit.networks import (
    GaussianPolicy,
    RewardNetwork,
    ValueNetwork,
    build_reward_network,
    clipped_gaussian_log_prob,
)
from toolkit.normalizer import CLIP, RunningNormalizer
from toolkit.settings import ConfigError


def test_clipped_log_prob_by_hand():
    """Inside, N(1/2; 0, 1/2): -1/2 - log 1/2 - log(2 pi)/2. At a limit, the tail: Phi(-2) below, Phi(1) above."""
    log_std = torch.tensor(math.log(0.5), dtype=torch.float64).expand(1)
    mean = torch.tensor([[0.0], [0.0], [1.5]], dtype=torch.float64)
    log_prob = clipped_gaussian_log_prob(torch.tensor([[0.5], [-1.0], [1.0]], dtype=torch.float64), mean, log_std)
    inside = -0.5 + math.log(2.0) - 0.5 * math.log(2.0 * math.pi)
    expected = [
        inside,
        math.log(0.5 * math.erfc(2.0 / math.sqrt(2.0))),
        math.log(0.5 * math.erfc(-1.0 / math.sqrt(2.0))),
    ]
    np.testing.assert_allclose(log_prob.numpy(), expected, atol=1e-12)


def test_clipped_density_and_masses_sum_to_one():
    """The two point masses and the integral of the density inside make a probability."""
    mean, log_std = torch.tensor([0.4], dtype=torch.float64), torch.tensor([-0.3], dtype=torch.float64)
    grid = torch.linspace(-1.0 + 1e-9, 1.0 - 1e-9, 20_001, dtype=torch.float64)
    inside = torch.trapezoid(clipped_gaussian_log_prob(grid[:, None], mean, log_std).exp(), grid)
    masses = clipped_gaussian_log_prob(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), mean, log_std).exp().sum()
    assert float(inside + masses) == pytest.approx(1.0, abs=1e-6)


def test_clipped_log_prob_has_finite_gradients_everywhere():
    """Far beyond a limit, at it and inside: the branch not taken must not leak a NaN."""
    mean = torch.tensor([[50.0], [-50.0], [0.0]], requires_grad=True)
    log_std = torch.tensor([-3.0], requires_grad=True)
    clipped_gaussian_log_prob(torch.tensor([[1.0], [1.0], [0.2]]), mean, log_std).sum().backward()
    assert mean.grad is not None and torch.isfinite(mean.grad).all()
    assert log_std.grad is not None and torch.isfinite(log_std.grad).all()


def test_sampled_density_is_the_scored_density():
    """log q of a sample equals log q of the same action scored afresh: the discriminator relies on it."""
    policy = GaussianPolicy(3, 2, (16,), (-0.5, -3.0, 0.5))
    observation = torch.randn(50, 3)
    action, log_prob = policy.sample(observation, torch.Generator().manual_seed(0))
    torch.testing.assert_close(policy.log_prob(observation, action), log_prob, atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ((), range(17)),
        (("velocity_xz", "position_z"), (0, 8, 9)),  # whole terms, in the observation's order
        (("velocity/rooty", "position_z"), (0, 10)),  # one element of a term
        (("velocity", "velocity/bfoot"), range(10, 17)),
    ],
)
def test_reward_looks_at_what_is_named_and_at_nothing_else(names: tuple[str, ...], seen: Sequence[int]):
    """Of the cheetah's 17 elements each one that is named matters, with its action, and no other does."""
    cheetah = load_robot("cheetah")
    torch.manual_seed(0)
    for inputs in ("state", "state-action"):
        reward = build_reward_network(cheetah, RewardConfig(observe=names, inputs=inputs, hidden=(16,)))
        observation = torch.randn(17, requires_grad=True)
        reward(observation, torch.zeros(6)).backward()
        assert observation.grad is not None
        assert observation.grad.nonzero().flatten().tolist() == list(seen)
        acted = reward(observation, torch.ones(6)) != reward(observation, torch.zeros(6))
        assert bool(acted) == (inputs == "state-action")


def test_reward_cannot_look_at_what_is_not_observed():
    """The error says what there is to be named."""
    with pytest.raises(ConfigError, match=r"'speed'; cheetah observes position_z/rootz.*all of that term"):
        build_reward_network(load_robot("cheetah"), RewardConfig(observe=("position_z", "speed")))
