"""GAN-GCL is guided cost learning is maximum-entropy IRL: facts 1 to 5, and that each check sees broken mathematics."""

from __future__ import annotations

import math

import pytest
import torch
from equivalence_checks import (
    TEMPERS,
    Maths,
    check_enumerated_estimate,
    check_generator,
    check_gradient,
    check_optimum,
    check_partition_function,
    check_shaping_hard,
    check_shaping_soft,
    close,
    optimise,
    other_psi,
)
from exact_systems import (
    ALPHA,
    F64,
    LENGTH,
    POLICIES,
    Batch,
    LinearGaussian,
    finite_batch,
    one_hot,
    optimal_policy,
    trajectories,
)
from torch import Tensor

from toolkit import losses, maxent

FINITE = (finite_batch(POLICIES[0], stale=POLICIES[1]), finite_batch(POLICIES[1], stale=POLICIES[0]))
NARROW, WIDE = (-0.9, 0.8), (-0.3, 1.0)
GAUSSIAN = (LinearGaussian().batch(NARROW, stale=WIDE), LinearGaussian().batch(WIDE, stale=NARROW))
SYSTEMS = {"finite": FINITE, "gaussian": GAUSSIAN}
F1, F2, F3, F4, F5 = check_partition_function, check_gradient, check_optimum, check_generator, check_shaping_soft
MU, HARD = check_enumerated_estimate, check_shaping_hard
ON_THE_FINITE_SYSTEM = (MU, F5, HARD)


# --- The facts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("check", [F1, F2, F3, F4])
def test_fact(check, system):
    """It holds on both systems."""
    check(Maths(), SYSTEMS[system])


@pytest.mark.parametrize("check", ON_THE_FINITE_SYSTEM)
def test_fact_of_the_finite_system(check):
    """It holds where every trajectory can be counted."""
    check(Maths(), FINITE)


def test_shaping_is_no_accident():
    """A change of the reward that is no potential changes the policy, with entropy or without."""
    generator = torch.Generator().manual_seed(0)
    g, change = torch.randn(2, 3, 2, 3, generator=generator, dtype=F64)
    for alpha in (ALPHA, 0.0):
        moved = (optimal_policy(g + 10.0 * change, 0.8, alpha) - optimal_policy(g, 0.8, alpha)).abs().max()
        assert moved > 0.1


# --- What a temper below 1 costs --------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", FINITE)
def test_a_tempered_optimum_depends_on_the_policy(batch):
    """D is still p / (p + q), but r / alpha = log q + log(p / q) / kappa + log Z: log p only once q = p."""
    temper = 0.25
    psi, log_z = optimise(Maths(), batch, temper)
    r, log_q, log_p = batch.reward(psi), batch.log_q, batch.log_p
    close(torch.sigmoid(temper * (r / ALPHA - log_z - log_q)), torch.sigmoid(log_p - log_q), 1e-6)
    close(r / ALPHA - log_z, log_q + (log_p - log_q) / temper, 1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("temper", [0.25, 0.01])
def test_tempered_is_exact_for_a_reward_that_leans_on_the_policy(system, temper):
    """The tempered L_D(r) is the exact one of r' = kappa r + (1 - kappa) alpha log q, where q is the present policy.

    So by fact 2 the gradient of the tempered loss is a maximum-entropy one, of r' and not of r. And it is why r has to
    shrink to r', and not to kappa r, if the game is to go on unmoved as kappa rises to 1.
    """
    for batch in SYSTEMS[system]:
        psi = other_psi(batch)
        r = batch.reward(psi)
        leaning = temper * r + (1.0 - temper) * ALPHA * batch.log_q
        log_z = losses.solve_log_z(r, batch.log_q, batch.expert, ALPHA, temper)
        close(losses.solve_log_z(leaning, batch.log_q, batch.expert, ALPHA, 1.0), temper * log_z, 1e-9)
        tempered = losses.gan_gcl_logit(r, batch.log_q, log_z, ALPHA, temper)
        exact = losses.gan_gcl_logit(leaning, batch.log_q, temper * log_z, ALPHA, 1.0)
        close(exact, tempered, 1e-9)
        log_mu = maxent.mixture_log_density(leaning, batch.log_q, temper * log_z, ALPHA)
        guided = maxent.guided_cost_loss(leaning[batch.expert], leaning, log_mu, ALPHA, 1.0)
        loss = losses.discriminator_loss(tempered[batch.expert], tempered[~batch.expert])
        of_guided, of_loss = (torch.autograd.grad(x, psi, retain_graph=True)[0] for x in (guided, loss))
        assert of_guided.abs().max() > 1e-4  # 0 = 0 would show nothing
        close(of_loss, of_guided, 1e-9)


def test_a_tempered_guided_cost_overstates_the_step_to_the_expert():
    """Counted out: L_r is least at r / alpha = log mu + log(p / mu) / kappa, where its gradient is 0."""
    p, mu = torch.tensor([0.25, 0.75], dtype=F64), torch.tensor([0.5, 0.5], dtype=F64)
    samples = torch.tensor([0, 1])  # of mu
    for temper in TEMPERS:
        table = (ALPHA * (mu.log() + (p / mu).log() / temper)).requires_grad_()
        expert = table[torch.tensor([0, 1, 1, 1])]
        loss = maxent.guided_cost_loss(expert, table[samples], mu.log()[samples], ALPHA, temper)
        close(torch.autograd.grad(loss, table)[0], torch.zeros(2), 1e-12)


@pytest.mark.parametrize("temper", [1.0, 0.25, 0.01])
def test_the_expert_is_a_fixed_point_at_any_temper(temper):
    """Where q = p and r / alpha = log p + log Z, D is 1/2 on every segment and the solved Z is the true one."""
    batch = FINITE[0]
    r = batch.reward(batch.psi)
    log_z = losses.solve_log_z(r, batch.log_p, batch.expert, ALPHA, temper)
    close(log_z, batch.log_z, 1e-9)
    close(losses.gan_gcl_logit(r, batch.log_p, log_z, ALPHA, temper), torch.zeros(len(r)), 1e-9)


# --- The systems ------------------------------------------------------------------------------------------------------
def test_finite_partition_function_is_the_sum_over_trajectories():
    """The log Z of the batch is that of all trajectories, and the expert's copies are its probabilities."""
    states, actions, dynamics = trajectories()
    r = one_hot(states, actions).sum(0) @ FINITE[0].psi
    close((dynamics * (r / ALPHA).exp()).sum().log(), FINITE[0].log_z, 1e-12)
    assert float(dynamics.sum()) == pytest.approx(2.0**LENGTH)  # each sequence of actions has the dynamics' mass 1
    assert len(FINITE[0].expert) == FINITE[0].features.shape[1] == 2 * int(FINITE[0].expert.sum())


def test_gaussian_partition_function_by_hand():
    """One step from a known state 1: Z = exp(-Q / 2 alpha) sqrt(2 pi alpha / R)."""
    log_z = LinearGaussian(length=1, noise=0.0, start=1.0).answer()[0]
    assert log_z == pytest.approx(-1.0 / (2 * ALPHA) + 0.5 * math.log(2 * math.pi * ALPHA / 0.8))


def test_gaussian_partition_function_by_quadrature():
    """Two steps, summed over a grid of both noises and both actions."""
    system = LinearGaussian(length=2)
    grid = torch.linspace(-6.0, 6.0, 31, dtype=F64)
    x = torch.cartesian_prod(grid, grid, grid, grid)
    matrix, offset = system.states()
    r = -0.5 * (x @ matrix.T + offset).square().sum(1) - 0.4 * x[:, 2:].square().sum(1)
    log_noise = -0.5 * x[:, :2].square().sum(1) - math.log(2 * math.pi)
    log_z = torch.logsumexp(log_noise + r / ALPHA, 0) + 4 * math.log(0.4)
    close(log_z, system.answer()[0], 1e-6)


def test_gaussian_estimate_under_the_expert_has_no_variance():
    """Drawn from p itself every weight is Z, so any number of samples gives the closed form."""
    batch = GAUSSIAN[0]
    r, log_p = batch.reward(batch.psi)[:5], batch.log_p[:5]
    close(maxent.importance_log_z(r, log_p, ALPHA), batch.log_z, 1e-12)


# --- Broken on purpose ------------------------------------------------------------------------------------------------
def swap_expert(batch: Batch) -> Tensor:
    return torch.where(batch.expert, batch.stale_log_q, batch.log_q)


BROKEN = {
    "logit: sign of log q": (
        Maths(logit=lambda r, log_q, z, alpha, k: losses.gan_gcl_logit(r, -log_q, z, alpha, k)),
        [F1, F2, F3, F4],
    ),
    "logit: Z dropped": (
        Maths(logit=lambda r, log_q, z, alpha, k: losses.gan_gcl_logit(r, log_q, 0.0 * z, alpha, k)),
        [F1, F2, F3, F4],
    ),
    "logit: log q dropped": (
        Maths(logit=lambda r, log_q, z, alpha, k: losses.gan_gcl_logit(r, 0.0 * log_q, z, alpha, k)),
        [F1, F2, F3, F4],
    ),
    "logit: alpha forgotten": (
        Maths(logit=lambda r, log_q, z, alpha, k: losses.gan_gcl_logit(r, log_q, z, 1.0, k)),
        [F1, F2, F3, F4],
    ),
    "logit: temper on log q only": (
        Maths(logit=lambda r, log_q, z, alpha, k: losses.gan_gcl_logit(r, k * log_q, z, alpha, 1.0)),
        [F1, F2],
    ),
    "log Z: sign of log q": (
        Maths(solve_log_z=lambda r, log_q, expert, alpha, k: losses.solve_log_z(r, -log_q, expert, alpha, k)),
        [F1, F2, F3],
    ),
    "log Z: dropped": (
        Maths(solve_log_z=lambda r, *_: torch.zeros((), dtype=F64)),
        [F1, F2, F3],
    ),
    "log Z: temper on log q only": (
        Maths(solve_log_z=lambda r, log_q, expert, alpha, k: losses.solve_log_z(r, k * log_q, expert, alpha, 1.0)),
        [F1, F2],
    ),
    "both: temper on log q only": (
        Maths(
            logit=lambda r, log_q, z, alpha, k: losses.gan_gcl_logit(r, k * log_q, z, alpha, 1.0),
            solve_log_z=lambda r, log_q, expert, alpha, k: losses.solve_log_z(r, k * log_q, expert, alpha, 1.0),
        ),
        [F1, F2],
    ),
    "stale log q of the expert": (Maths(score=swap_expert), [F1, F2, F3]),
    "stale log q of all": (Maths(score=lambda batch: batch.stale_log_q), [F1, F2, F3]),
    "L_D: labels swapped": (
        Maths(discriminator_loss=lambda expert, policy: losses.discriminator_loss(policy, expert)),
        [F2, F3],
    ),
    "generator: sign of log q": (
        Maths(generator_reward=lambda r, log_q, z, alpha, n: losses.generator_reward(r, -log_q, z, alpha, n)),
        [F4],
    ),
    "generator: Z dropped": (
        Maths(generator_reward=lambda r, log_q, z, alpha, n: losses.generator_reward(r, log_q, 0.0, alpha, n)),
        [F4],
    ),
    "generator: Z at every step": (
        Maths(generator_reward=lambda r, log_q, z, alpha, n: losses.generator_reward(r, log_q, z, alpha, 1)),
        [F4],
    ),
    "mu: sign of log q": (
        Maths(mixture=lambda r, log_q, z, alpha, k=1.0: maxent.mixture_log_density(r, -log_q, z, alpha, k)),
        [F1, F2, MU],
    ),
    "mu: Z dropped": (
        Maths(mixture=lambda r, log_q, z, alpha, k=1.0: maxent.mixture_log_density(r, log_q, 0.0, alpha, k)),
        [F1, F2, MU],
    ),
    "mu: the half forgotten": (
        Maths(mixture=lambda *args: maxent.mixture_log_density(*args) + math.log(2.0)),
        [F1, MU],
    ),
    "mu: temper forgotten": (
        Maths(mixture=lambda r, log_q, z, alpha, k=1.0: maxent.mixture_log_density(r, log_q, z, alpha)),
        [F1, F2],
    ),
    "estimate: mu forgotten": (
        Maths(importance_log_z=lambda r, mu, *args: maxent.importance_log_z(r, 0.0 * mu, *args)),
        [F1, MU],
    ),
    "L_r: mu forgotten": (
        Maths(guided_cost_loss=lambda e, r, mu, *args: maxent.guided_cost_loss(e, r, 0.0 * mu, *args)),
        [F2],
    ),
    "L_r: sign of the expert": (
        Maths(guided_cost_loss=lambda e, r, *args: maxent.guided_cost_loss(-e, r, *args)),
        [F2],
    ),
    "L_r: temper on mu only": (
        Maths(guided_cost_loss=lambda e, r, mu, alpha, k: maxent.guided_cost_loss(e, r, k * mu, alpha, 1.0)),
        [F2],
    ),
    "L_r: weights not held constant": (
        Maths(guided_cost_loss=lambda e, r, mu, alpha, k: -k * e.mean() / alpha + (k * (r / alpha - mu)).logsumexp(0)),
        [F2],
    ),
    "shaping: sign of h flipped": (
        Maths(shaped_reward=lambda g, h, next_h, *args: maxent.shaped_reward(g, -h, next_h, *args)),
        [F5, HARD],
    ),
    "shaping: gamma forgotten": (
        Maths(shaped_reward=lambda g, h, next_h, discount, end: maxent.shaped_reward(g, h, next_h, 1.0, end)),
        [F5, HARD],
    ),
    "shaping: termination forgotten": (
        Maths(
            shaped_reward=lambda g, h, next_h, discount, end: maxent.shaped_reward(g, h, next_h, discount, end & False)
        ),
        [F5, HARD],
    ),
}


# A table of rewards holds a constant, which takes the place of log Z: only the Gaussian system's reward misses it.
ABSORBED = {("logit: Z dropped", F3, "finite"), ("log Z: dropped", F3, "finite")}
CASES = [
    (name, check, system)
    for name, (_, checks) in BROKEN.items()
    for check in checks
    for system in (["finite"] if check in ON_THE_FINITE_SYSTEM else SYSTEMS)
    if (name, check, system) not in ABSORBED
]


@pytest.mark.parametrize(("name", "check", "system"), CASES)
def test_broken_mathematics_is_seen(name, check, system):
    """Each check fails for what breaks its fact, so a pass above means something."""
    with pytest.raises(AssertionError):
        check(BROKEN[name][0], SYSTEMS[system])


@pytest.mark.parametrize(("name", "check", "system"), sorted(ABSORBED, key=str))
def test_a_constant_in_the_reward_takes_the_place_of_log_z(name, check, system):
    """Fact 3 holds with Z dropped too, if the reward can add a constant."""
    check(BROKEN[name][0], SYSTEMS[system])
