"""TwinCritic: two independent values, targets that follow, and the soft target by hand."""

from __future__ import annotations

import pytest
import torch

from toolkit.critic import TwinCritic, soft_target


def test_soft_target_by_hand():
    """y = r + 0.9 (min(q1, q2) + 0.5 H), and r alone after a termination."""
    target = soft_target(
        reward=torch.tensor([1.0, 2.0], dtype=torch.float64),
        next_q=torch.tensor([[10.0, 4.0], [8.0, 5.0]], dtype=torch.float64),
        next_entropy=torch.tensor([-2.0, 3.0], dtype=torch.float64),
        termination=torch.tensor([False, True]),
        discount=0.9,
        alpha=0.5,
    )
    assert target.tolist() == pytest.approx([1.0 + 0.9 * (8.0 + 0.5 * -2.0), 2.0])


def test_soft_target_refuses_shapes_that_would_broadcast():
    """(N, 1) against (N,) gives N x N numbers, silently."""
    with pytest.raises(ValueError, match="shapes"):
        soft_target(torch.zeros(3, 1), torch.zeros(2, 3), torch.zeros(3), torch.zeros(3, dtype=torch.bool), 0.9, 0.1)


def test_members_are_two_networks():
    """They differ, and neither hears the other's loss."""
    critic = TwinCritic(3, 2, (8, 8))
    q = critic(torch.randn(5, 3), torch.randn(5, 2))
    assert q.shape == (2, 5)
    assert not torch.allclose(q[0], q[1])
    q[0].sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert parameter.grad[1].abs().max() == 0.0
        assert parameter.grad[0].abs().max() > 0.0


def test_target_follows_by_its_share():
    """Polyak: new = old + tau (source - old)."""
    a, b = TwinCritic(2, 1, (4,)), TwinCritic(2, 1, (4,))
    expected = [x + 0.25 * (y - x) for x, y in zip(a.parameters(), b.parameters(), strict=True)]
    a.follow(b, 0.25)
    for x, y in zip(a.parameters(), expected, strict=True):
        torch.testing.assert_close(x, y)
