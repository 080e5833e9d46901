"""The mathematics against numbers worked by hand, identities of the paper, and systems of known answer."""

import math

import pytest
import torch

from toolkit.losses import (
    chance_loss,
    clipped_surrogate,
    discriminator_loss,
    effective_sample_size,
    gan_gcl_logit,
    gaussian_kl,
    generalized_advantage,
    generator_reward,
    gradient_penalty,
    solve_log_z,
)

torch.set_default_dtype(torch.float32)
F64 = torch.float64


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_logit_by_hand():
    """l = 0.5 (r / 0.25 - 1 - log q): (2 / 0.25 - 1 - 3) / 2 = 2 and (0 - 1 + 5) / 2 = 2."""
    logit = gan_gcl_logit(tensor(2.0, 0.0), tensor(3.0, -5.0), 1.0, alpha=0.25, temper=0.5)
    torch.testing.assert_close(logit, tensor(2.0, 2.0))


def test_logit_refuses_shapes_that_would_broadcast():
    """A column against a row would silently become a matrix of nonsense."""
    with pytest.raises(ValueError, match="one length"):
        gan_gcl_logit(torch.zeros(3, 1), torch.zeros(3), 0.0, 1.0, 1.0)


def test_discriminator_is_p_over_p_plus_q():
    """Fact 3: with r = log p + log Z the exact D is p / (p + q), whatever q is."""
    p, q = tensor(0.1, 0.2, 0.7), tensor(0.5, 0.4, 0.1)
    log_z = 1.7
    d = torch.sigmoid(gan_gcl_logit(p.log() + log_z, q.log(), log_z, alpha=1.0, temper=1.0))
    torch.testing.assert_close(d, p / (p + q))


def test_discriminator_loss_by_hand():
    """-log sigmoid(log 3) - log(1 - sigmoid(-log 4)) = log(4/3) + log(5/4)."""
    loss = discriminator_loss(tensor(math.log(3.0)), tensor(-math.log(4.0)))
    assert float(loss) == pytest.approx(math.log(4 / 3) + math.log(5 / 4), abs=1e-12)


def test_discriminator_loss_of_ignorance():
    """D = 1/2 everywhere costs 2 log 2."""
    assert float(discriminator_loss(torch.zeros(5), torch.zeros(7))) == pytest.approx(chance_loss())


def test_discriminator_loss_survives_huge_logits():
    """Logits of a whole episode are thousands of nats; the loss is then linear, not infinite."""
    assert float(discriminator_loss(tensor(-5000.0), tensor(5000.0))) == pytest.approx(10000.0)


def test_solved_log_z_is_the_partition_function():
    """Facts 1 and 3 on a finite set: r = log p~ unnormalised, solved over exact expectations, gives Z = sum p~."""
    p_unnormalised, q = tensor(2.0, 1.0, 5.0, 4.0), tensor(0.1, 0.6, 0.2, 0.1)
    p = p_unnormalised / p_unnormalised.sum()
    # Exact expectations by repetition: 120 samples distributed as p (/12) and 120 as q (/10).
    n = 120
    index = torch.cat(
        [
            torch.arange(4).repeat_interleave((p * n).round().long()),
            torch.arange(4).repeat_interleave((q * n).round().long()),
        ]
    )
    expert = torch.arange(2 * n) < n
    log_z = solve_log_z(p_unnormalised.log()[index], q.log()[index], expert, alpha=1.0, temper=1.0)
    assert float(log_z) == pytest.approx(math.log(12.0), abs=1e-9)


def test_solved_log_z_is_the_importance_sampling_estimate():
    """Fact 1: at the minimiser of L_D, Z = mean over mu of exp(r) / mu~ with mu~ = (exp(r) / Z + q) / 2, for any r."""
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(400, generator=generator, dtype=F64)
    log_q = torch.randn(400, generator=generator, dtype=F64)
    expert = torch.arange(400) < 200
    log_z = solve_log_z(r, log_q, expert, alpha=1.0, temper=1.0)
    mixture = 0.5 * (torch.exp(r - log_z) + torch.exp(log_q))
    estimate = (torch.exp(r) / mixture).mean()
    assert float(estimate.log()) == pytest.approx(float(log_z), abs=1e-8)


def test_solved_log_z_minimises_the_discriminator_loss():
    """Moving log Z either way costs, at any temper and alpha."""
    generator = torch.Generator().manual_seed(1)
    r, log_q = torch.randn(2, 64, generator=generator, dtype=F64) * 5.0
    expert = torch.arange(64) < 32
    for alpha, temper in ((1.0, 1.0), (0.1, 0.003), (0.5, 0.1)):
        log_z = solve_log_z(r, log_q, expert, alpha, temper)

        def loss(z: torch.Tensor, alpha: float = alpha, temper: float = temper) -> float:
            logit = gan_gcl_logit(r, log_q, z, alpha, temper)
            return float(discriminator_loss(logit[:32], logit[32:]))

        step = 0.1 / temper
        assert loss(log_z) < loss(log_z + step)
        assert loss(log_z) < loss(log_z - step)


def test_gradient_is_the_maximum_entropy_gradient():
    """Fact 2: at the solved Z, dL_D/dpsi = -E_p[dr] + E_mu[w dr] with weights w = exp(r)/Z/mu~ held constant."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(200, 3, generator=generator, dtype=F64)
    log_q = torch.randn(200, generator=generator, dtype=F64)
    expert = torch.arange(200) < 100
    psi = torch.randn(3, generator=generator, dtype=F64, requires_grad=True)
    r = features @ psi
    log_z = solve_log_z(r, log_q, expert, 1.0, 1.0)
    logit = gan_gcl_logit(r, log_q, log_z, 1.0, 1.0)
    (ours,) = torch.autograd.grad(discriminator_loss(logit[:100], logit[100:]), psi)
    with torch.no_grad():
        density = torch.exp(r - log_z)
        weight = density / (0.5 * (density + torch.exp(log_q)))
        maxent = -features[:100].mean(0) + (weight[:, None] * features).mean(0)
    torch.testing.assert_close(ours, maxent, atol=1e-9, rtol=1e-9)


def test_generator_reward_is_the_generator_loss():
    """Fact 4: -E_q[sum of rewards] / alpha = E_q[log(1 - D) - log D], exactly, at temper 1."""
    generator = torch.Generator().manual_seed(3)
    r_t, log_q_t = torch.randn(2, 7, 11, generator=generator, dtype=F64)
    log_z, alpha = 2.3, 0.3
    logit = gan_gcl_logit(r_t.sum(0), log_q_t.sum(0), log_z, alpha, 1.0)
    confusion = (torch.nn.functional.logsigmoid(-logit) - torch.nn.functional.logsigmoid(logit)).mean()
    total = generator_reward(r_t, log_q_t, log_z, alpha, length=7).sum(0).mean()
    assert float(-total / alpha) == pytest.approx(float(confusion), abs=1e-12)


def test_advantage_by_hand():
    """Two steps, gamma 0.5, lambda 0.5: delta = (1 + 2 - 1, 2 + 3 - 4), A_0 = 2 + 0.25 * 1."""
    flags = torch.zeros(2, 1, dtype=torch.bool)
    advantage = generalized_advantage(
        tensor(1.0, 2.0)[:, None], tensor(1.0, 4.0)[:, None], tensor(4.0, 6.0)[:, None], flags, flags, 0.5, 0.5
    )
    torch.testing.assert_close(advantage[:, 0], tensor(2.25, 1.0))


def test_time_limit_bootstraps_and_termination_does_not():
    """A truncated step still counts V(s'), a terminated one does not; neither looks into the next episode."""
    reward, value, next_value = (
        torch.ones(2, 2, dtype=F64),
        torch.zeros(2, 2, dtype=F64),
        torch.full((2, 2), 10.0, dtype=F64),
    )
    ended = torch.tensor([[True, True], [False, False]])
    terminated = torch.tensor([[False, True], [False, False]])
    advantage = generalized_advantage(reward, value, next_value, ended, terminated, 0.9, 1.0)
    torch.testing.assert_close(advantage[0], tensor(1.0 + 9.0, 1.0))


def test_surrogate_by_hand():
    """Ratio 1.5 with A = 2 is clipped to 1.2; ratio 0.5 with A = -1 is held at 0.8: -(2.4 - 0.8) / 2."""
    log_prob = tensor(math.log(1.5), math.log(0.5))
    loss = clipped_surrogate(log_prob, tensor(0.0, 0.0), tensor(2.0, -1.0), 0.2)
    assert float(loss) == pytest.approx(-(2.4 - 0.8) / 2, abs=1e-12)


def test_gaussian_kl_by_hand():
    """N(0, 1) to N(1, 2): log 2 + (1 + 1) / 8 - 1/2."""
    kl = gaussian_kl(torch.zeros(1, 1, dtype=F64), tensor(0.0), torch.ones(1, 1, dtype=F64), tensor(math.log(2.0)))
    assert float(kl) == pytest.approx(math.log(2.0) + 0.25 - 0.5, abs=1e-12)


def test_gradient_penalty_by_hand():
    """Mean of |(3, 4)|^2 and |(0, 1)|^2 is 13."""
    assert float(gradient_penalty(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))) == 13.0


def test_effective_sample_size_by_hand():
    """Equal weights count all four; one weight count one; weights 1, 3 count 16 / 10."""
    assert float(effective_sample_size(torch.zeros(4, dtype=F64))) == pytest.approx(4.0)
    assert float(effective_sample_size(tensor(0.0, -1000.0))) == pytest.approx(1.0)
    assert float(effective_sample_size(tensor(0.0, math.log(3.0)))) == pytest.approx(1.6)
