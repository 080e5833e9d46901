"""PolicyMixture: the density of a whole segment, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from toolkit.networks import GaussianPolicy
from toolkit.policy_mixture import MOST, PolicyMixture


def constant_policy(mean: float, std: float) -> GaussianPolicy:
    """A policy that does the same in every state."""
    policy = GaussianPolicy(1, 1, (4,), (math.log(std), -5.0, 2.0)).double()
    policy.log_std_raw.data.fill_(math.log(std))  # in float64, as it was not when the network was built
    last = policy.mean_net[-1]
    torch.nn.init.zeros_(last.weight)  # pyright: ignore[reportArgumentType]
    torch.nn.init.constant_(last.bias, mean)  # pyright: ignore[reportArgumentType]
    return policy


def normal(x: float, mean: float, std: float) -> float:
    return math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))


def test_segment_density_by_hand():
    """1/2 (prod of one + prod of the other), not the product of halves."""
    mixture = PolicyMixture()
    mixture.add(constant_policy(0.0, 0.5))
    mixture.add(constant_policy(0.4, 0.2))
    actions = [0.1, -0.3, 0.5]
    action = torch.tensor(actions, dtype=torch.float64)[:, None, None]
    log_q = mixture.log_prob(torch.zeros(3, 1, 1, dtype=torch.float64), action)
    products = [math.prod(normal(a, mean, std) for a in actions) for mean, std in ((0.0, 0.5), (0.4, 0.2))]
    assert log_q.shape == (3, 1)
    assert float(log_q.sum()) == pytest.approx(math.log(0.5 * sum(products)), rel=1e-12)
    first = 0.5 * (normal(0.1, 0.0, 0.5) + normal(0.1, 0.4, 0.2))
    assert float(log_q[0]) == pytest.approx(math.log(first), rel=1e-12)


def test_one_snapshot_is_that_policy():
    """And stays it, whatever the policy becomes."""
    policy, mixture = constant_policy(0.2, 0.3), PolicyMixture()
    mixture.add(policy)
    observation, action = torch.randn(4, 3, 1).double(), torch.rand(4, 3, 1).double()
    expected = policy.log_prob(observation, action).detach()
    policy.log_std_raw.data += 1.0
    torch.testing.assert_close(mixture.log_prob(observation, action), expected)


def test_impossible_segment_under_one_snapshot_keeps_the_other():
    """Densities that underflow as numbers are sound as logarithms."""
    mixture = PolicyMixture()
    for mean in (-1.0, 0.5):
        mixture.add(constant_policy(mean, 0.01))
    observation = torch.zeros(50, 1, 1).double()
    log_q = mixture.log_prob(observation, torch.full((50, 1, 1), 0.5).double())
    assert float(log_q.sum()) == pytest.approx(50 * math.log(normal(0.0, 0.0, 0.01)) - math.log(2.0))


def test_oldest_goes_and_state_comes_back():
    """No more than MOST, in order."""
    mixture = PolicyMixture()
    for i in range(MOST + 2):
        mixture.add(constant_policy(i / 100.0, 0.3))
    assert len(mixture.snapshots) == MOST
    twin = PolicyMixture()
    twin.load_state_dict(mixture.state_dict(), constant_policy(0.0, 0.3))
    observation, action = torch.zeros(2, 3, 1).double(), torch.rand(2, 3, 1).double()
    assert torch.equal(twin.log_prob(observation, action), mixture.log_prob(observation, action))
    assert float(twin.snapshots[0](observation)[0, 0]) == pytest.approx(0.02)


def test_misuse_is_refused():
    """No snapshot, or steps without their order."""
    with pytest.raises(ValueError, match="no policies"):
        PolicyMixture().log_prob(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    mixture = PolicyMixture()
    mixture.add(constant_policy(0.0, 1.0))
    with pytest.raises(ValueError, match="expected"):
        mixture.log_prob(torch.zeros(4, 1).double(), torch.zeros(4, 1).double())
