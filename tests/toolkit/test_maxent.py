"""The maximum-entropy functions against numbers worked by hand. The identities are in test_equivalences.py."""

import math

import pytest
import torch

from toolkit.maxent import guided_cost_loss, importance_log_z, mixture_log_density, shaped_reward

F64 = torch.float64


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_mixture_by_hand():
    """r = (log 6, 0) / 2 at alpha 1/2, Z = 2, q = (1, 1/4): (6/2 + 1) / 2 = 2 and (1/2 + 1/4) / 2 = 3/8."""
    r = tensor(math.log(6.0), 0.0) / 2
    log_mu = mixture_log_density(r, tensor(0.0, math.log(0.25)), math.log(2.0), alpha=0.5)
    torch.testing.assert_close(log_mu.exp(), tensor(2.0, 0.375))


def test_tempered_mixture_by_hand():
    """Densities 4 and 16, kappa 1/2: ((2 + 4) / 2)^2 = 9."""
    log_mu = mixture_log_density(tensor(math.log(4.0)), tensor(math.log(16.0)), 0.0, alpha=1.0, temper=0.5)
    torch.testing.assert_close(log_mu.exp(), tensor(9.0))


def test_mixture_survives_a_whole_episode():
    """Thousands of nats either way: the larger of the two less log 2, not infinity."""
    log_mu = mixture_log_density(tensor(5000.0, -5000.0), tensor(-5000.0, 4000.0), 0.0, alpha=1.0)
    torch.testing.assert_close(log_mu, tensor(5000.0, 4000.0) - math.log(2.0))


def test_importance_estimate_by_hand():
    """exp(r / alpha) = (4, 9), mu = (1/2, 3): mean of 8 and 3 is 5.5; counted 1 to 3 it is 4.25."""
    r, log_mu = tensor(math.log(2.0), math.log(3.0)), tensor(math.log(0.5), math.log(3.0))
    assert float(importance_log_z(r, log_mu, alpha=0.5).exp()) == pytest.approx(5.5)
    log_weight = 100.0 + tensor(0.0, math.log(3.0))
    assert float(importance_log_z(r, log_mu, alpha=0.5, log_weight=log_weight).exp()) == pytest.approx(4.25)


def test_guided_cost_loss_by_hand():
    """Expert mean 3 / alpha 1/2 = 6; weights exp(2r) / mu = 8 and 3: -6 + log 5.5. At kappa 1/2, their roots."""
    r_expert, r = tensor(1.0, 3.0, 5.0), tensor(math.log(2.0), math.log(3.0))
    log_mu = tensor(math.log(0.5), math.log(3.0))
    assert float(guided_cost_loss(r_expert, r, log_mu, 0.5, 1.0)) == pytest.approx(-6.0 + math.log(5.5))
    tempered = -3.0 + math.log((math.sqrt(8.0) + math.sqrt(3.0)) / 2)
    assert float(guided_cost_loss(r_expert, r, log_mu, 0.5, 0.5)) == pytest.approx(tempered)


def test_guided_cost_loss_of_a_tiny_temper_is_a_difference_of_means():
    """L_r / kappa -> -E_p[r] / alpha + E_mu[r / alpha - log mu] = -6 + (log 8 + log 3) / 2."""
    r_expert, r = tensor(1.0, 3.0, 5.0), tensor(math.log(2.0), math.log(3.0))
    loss = guided_cost_loss(r_expert, r, tensor(math.log(0.5), math.log(3.0)), 0.5, 1e-7) / 1e-7
    assert float(loss) == pytest.approx(-6.0 + math.log(24.0) / 2, abs=1e-6)


def test_guided_cost_gradient_by_hand():
    """d/dr_i is the normalised weight, 8/11 and 3/11, over alpha; what log mu depends on gets none."""
    r = tensor(math.log(2.0), math.log(3.0)).requires_grad_()
    log_mu = tensor(math.log(0.5), math.log(3.0)).requires_grad_()
    guided_cost_loss(tensor(0.0), r, log_mu, 0.5, 1.0).backward()
    assert r.grad is not None
    torch.testing.assert_close(r.grad, tensor(16.0 / 11.0, 6.0 / 11.0))
    assert log_mu.grad is None


def test_shaped_reward_by_hand():
    """1 + 0.5 * 4 - 3 = 0; a terminated step has no h(s'): 1 - 3 = -2."""
    shaped = shaped_reward(tensor(1.0, 1.0), tensor(3.0, 3.0), tensor(4.0, 4.0), 0.5, torch.tensor([False, True]))
    torch.testing.assert_close(shaped, tensor(0.0, -2.0))


def test_shaping_telescopes():
    """Discounted over an episode that terminates, all of the potential goes but -h(s_0)."""
    g, h = tensor(1.0, -2.0, 0.5), tensor(7.0, -3.0, 11.0)
    next_h, last = tensor(-3.0, 11.0, 99.0), torch.tensor([False, False, True])
    power = 0.9 ** torch.arange(3, dtype=F64)
    difference = (power * (shaped_reward(g, h, next_h, 0.9, last) - g)).sum()
    assert float(difference) == pytest.approx(-7.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mixture_log_density(torch.zeros(3, 1), torch.zeros(3), 0.0, 1.0),
        lambda: importance_log_z(torch.zeros(3), torch.zeros(3), 1.0, torch.zeros(2)),
        lambda: importance_log_z(torch.zeros(3, 2), torch.zeros(3, 2), 1.0),
        lambda: guided_cost_loss(torch.zeros(2, 1), torch.zeros(3), torch.zeros(3), 1.0, 1.0),
        lambda: guided_cost_loss(torch.zeros(2), torch.zeros(3, 1), torch.zeros(3), 1.0, 1.0),
        lambda: shaped_reward(torch.zeros(3, 1), torch.zeros(3), torch.zeros(3), 0.9, torch.zeros(3) > 0),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call):
    """A column against a row would silently become a matrix of nonsense."""
    with pytest.raises(ValueError, match="shapes"):
        call()


def test_precision_is_kept():
    """Single precision in, single out: the functions choose no dtype of their own."""
    r = torch.zeros(3)
    log_mu = mixture_log_density(r, r, 0.0, 1.0)
    loss = guided_cost_loss(r, r, log_mu, 1.0, 1.0)
    assert {log_mu.dtype, loss.dtype, importance_log_z(r, log_mu, 1.0).dtype} == {torch.float32}
