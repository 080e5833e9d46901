"""Entropy of the clipped Gaussian against numerical integration, and a clip that lets go."""

from __future__ import annotations

import math

import pytest
import torch

from toolkit.clipped_entropy import clipped_gaussian_entropy, inward_clip
from toolkit.networks import clipped_gaussian_log_prob


def integrated(mean: float, std: float) -> float:
    """-int q log q inside by the midpoint rule, plus -P log P at each limit, from the density the policy uses."""
    n = 200_000
    a = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2.0 - 1.0
    points = torch.cat([a, torch.tensor([-1.0, 1.0], dtype=torch.float64)])[:, None]
    mu, log_std = torch.tensor([mean], dtype=torch.float64), torch.tensor([math.log(std)], dtype=torch.float64)
    log_q = clipped_gaussian_log_prob(points, mu.expand_as(points), log_std)
    weight = torch.cat([torch.full((n,), 2.0 / n, dtype=torch.float64), torch.ones(2, dtype=torch.float64)])
    assert float((weight * log_q.exp()).sum()) == pytest.approx(1.0, abs=1e-8)
    return -float((weight * log_q.exp() * log_q).sum())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.1), (0.0, 1.0), (0.7, 0.3), (-0.95, 0.2), (1.0, 0.05), (1.6, 0.4)])
def test_entropy_is_the_integral(mean: float, std: float):
    """Well inside, across a limit, on it and beyond it."""
    log_std = torch.tensor([math.log(std)], dtype=torch.float64)
    entropy = clipped_gaussian_entropy(torch.tensor([[mean]], dtype=torch.float64), log_std)
    assert float(entropy) == pytest.approx(integrated(mean, std), abs=1e-7)


def test_far_inside_it_is_the_gaussian_entropy_and_adds_up():
    """1/2 log(2 pi e sigma^2) for each element."""
    std = torch.tensor([0.01, 0.02], dtype=torch.float64)
    entropy = clipped_gaussian_entropy(torch.zeros(3, 2, dtype=torch.float64), std.log())
    expected = sum(0.5 * math.log(2.0 * math.pi * math.e * s**2) for s in (0.01, 0.02))
    assert entropy.tolist() == pytest.approx([expected] * 3)


def test_gradient_is_finite_far_beyond_the_limits():
    """A mean that ran away must not poison the weights."""
    mean = torch.tensor([[-30.0], [0.0], [30.0]], requires_grad=True)
    log_std = torch.full((1,), -3.0, requires_grad=True)
    clipped_gaussian_entropy(mean, log_std).sum().backward()
    assert mean.grad is not None
    assert log_std.grad is not None
    assert mean.grad.isfinite().all()
    assert log_std.grad.isfinite().all()


def test_entropy_refuses_another_number_of_elements():
    """Broadcasting would hide it."""
    with pytest.raises(ValueError, match="log_std"):
        clipped_gaussian_entropy(torch.zeros(3, 2), torch.zeros(1))


def test_inward_clip_pulls_back_and_never_pushes_out():
    """Minimising +a from beyond +1 leads back: passed. Minimising -a from there leads out: stopped."""
    for slope, expected in ((1.0, [0.0, 1.0, 1.0]), (-1.0, [-1.0, -1.0, 0.0])):
        x = torch.tensor([-1.5, 0.2, 1.5], requires_grad=True)
        clipped = inward_clip(x)
        assert clipped.tolist() == pytest.approx([-1.0, 0.2, 1.0])
        (slope * clipped.sum()).backward()
        assert x.grad is not None
        assert x.grad.tolist() == expected
