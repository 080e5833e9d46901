"""The checks of facts 1 to 5: the equivalences of GAN-GCL, guided cost learning and maximum-entropy IRL.

A check takes the functions it examines, so that it can be given wrong ones. What it compares them with is counted out
or integrated in exact_systems.py, or written from the definition. A fact that does not hold is an AssertionError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from exact_systems import ALPHA, F64, LENGTH, POLICIES, TERMINATED, Batch, one_hot, optimal_policy, trajectories
from torch import Tensor

from toolkit import losses, maxent

TEMPERS = (1.0, 0.25)


@dataclass(frozen=True)
class Maths:
    """The functions under test."""

    logit: Callable[..., Tensor] = losses.gan_gcl_logit
    solve_log_z: Callable[..., Tensor] = losses.solve_log_z
    discriminator_loss: Callable[..., Tensor] = losses.discriminator_loss
    generator_reward: Callable[..., Tensor] = losses.generator_reward
    mixture: Callable[..., Tensor] = maxent.mixture_log_density
    importance_log_z: Callable[..., Tensor] = maxent.importance_log_z
    guided_cost_loss: Callable[..., Tensor] = maxent.guided_cost_loss
    shaped_reward: Callable[..., Tensor] = maxent.shaped_reward
    score: Callable[[Batch], Tensor] = lambda batch: batch.log_q  # log q that the discriminator is given

    def d_loss(self, batch: Batch, r: Tensor, log_z: Tensor, temper: float) -> Tensor:
        """L_D of the batch."""
        logit = self.logit(r, self.score(batch), log_z, ALPHA, temper)
        return self.discriminator_loss(logit[batch.expert], logit[~batch.expert])

    def best_log_z(self, batch: Batch, r: Tensor, temper: float) -> Tensor:
        """The log Z that the discriminator is given."""
        return self.solve_log_z(r, self.score(batch), batch.expert, ALPHA, temper)


def close(actual: Tensor | float, expected: Tensor | float, atol: float) -> None:
    """Equal to an absolute tolerance, or AssertionError; NaN equals nothing."""
    as_tensor = [torch.as_tensor(value, dtype=F64).detach() for value in (actual, expected)]
    torch.testing.assert_close(*as_tensor, atol=atol, rtol=0.0)


def other_psi(batch: Batch) -> Tensor:
    """A reward that is not the expert's."""
    shift = torch.linspace(-0.6, 0.5, len(batch.psi), dtype=F64)
    return (batch.psi + shift).requires_grad_()


def check_partition_function(maths: Maths, batches: tuple[Batch, Batch]) -> None:
    """Fact 1: the Z that minimises L_D is the importance-sampling estimate, and the true one at the true reward."""
    for batch in batches:
        for temper in TEMPERS:
            r = batch.reward(other_psi(batch)).detach()
            log_z = maths.best_log_z(batch, r, temper).requires_grad_()
            (slope,) = torch.autograd.grad(maths.d_loss(batch, r, log_z, temper), log_z)
            close(slope, 0.0, 1e-10)
            least = maths.d_loss(batch, r, log_z, temper)
            assert all(maths.d_loss(batch, r, log_z + step, temper) > least for step in (-0.5, 0.5))
            log_mu = maths.mixture(r, batch.log_q, log_z, ALPHA, temper)
            close(maths.importance_log_z(temper * r, temper * log_mu, ALPHA) / temper, log_z, 1e-10)
        close(maths.best_log_z(batch, batch.reward(batch.psi), 1.0), batch.log_z, batch.tolerance)


def check_gradient(maths: Maths, batches: tuple[Batch, Batch]) -> None:
    """Fact 2: at that Z, dL_D/dpsi = dL_r/dpsi with the importance weights held constant."""
    for batch in batches:
        for temper in TEMPERS:
            psi = other_psi(batch)
            r = batch.reward(psi)
            log_z = maths.best_log_z(batch, r, temper)
            log_mu = maths.mixture(r, batch.log_q, log_z, ALPHA, temper)  # depends on psi: the loss must not look
            loss = maths.guided_cost_loss(r[batch.expert], r, log_mu, ALPHA, temper)
            (guided,) = torch.autograd.grad(loss, psi, retain_graph=True)
            (ours,) = torch.autograd.grad(maths.d_loss(batch, r, log_z, temper), psi)
            assert guided.abs().max() > 0.01  # 0 = 0 would show nothing
            close(ours, guided, 1e-10)


def optimise(maths: Maths, batch: Batch, temper: float = 1.0) -> tuple[Tensor, Tensor]:
    """(psi, log Z) where L_D is least; it is convex in both."""
    psi = torch.zeros_like(batch.psi).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [psi], max_iter=100, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        r = batch.reward(psi)
        loss = maths.d_loss(batch, r, maths.best_log_z(batch, r, temper), temper)
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType] - torch annotates the closure as giving a float
    return psi.detach(), maths.best_log_z(batch, batch.reward(psi.detach()), temper)


def check_optimum(maths: Maths, batches: tuple[Batch, Batch]) -> None:
    """Fact 3: at the least L_D, D = p / (p + q) and r / alpha = log p + log Z, whatever q is."""
    rewards = []
    for batch in batches:
        psi, log_z = optimise(maths, batch)
        r = batch.reward(psi)
        d = torch.sigmoid(maths.logit(r, maths.score(batch), log_z, ALPHA, 1.0))
        p, q = batch.log_p.exp(), batch.log_q.exp()
        close(d, p / (p + q), batch.tolerance)
        likely = batch.expert  # where p is next to nothing, so is what r there costs
        close((r / ALPHA - log_z - batch.log_p)[likely].square().mean().sqrt(), 0.0, batch.tolerance)
        rewards.append(batches[0].reward(psi)[batches[0].expert])
    difference = (rewards[0] - rewards[1]) / ALPHA
    close(difference.std(), 0.0, batches[0].tolerance)


def check_generator(maths: Maths, batches: tuple[Batch, Batch]) -> None:
    """Fact 4: E_q[-log D + log(1 - D)] = log Z + E_q[log q - r / alpha], the generator's return, for any r and Z."""
    for batch in batches:
        psi, policy = other_psi(batch).detach(), ~batch.expert
        r, log_q, log_z = batch.reward(psi), batch.log_q, torch.tensor(1.3, dtype=F64)
        logit = maths.logit(r, log_q, log_z, ALPHA, 1.0)[policy]
        confusion = (torch.nn.functional.logsigmoid(-logit) - torch.nn.functional.logsigmoid(logit)).mean()
        close(confusion, log_z + (log_q - r / ALPHA)[policy].mean(), 1e-12)
        odds = r / ALPHA - log_z - log_q  # log D - log(1 - D) for D = p / (p + q), p = exp(r / alpha) / Z
        total = maths.generator_reward(batch.features @ psi, batch.log_q_t, log_z, ALPHA, LENGTH).sum(0)
        close(total, ALPHA * odds, 1e-12)
        close(-total[policy].mean() / ALPHA, confusion, 1e-12)


def check_enumerated_estimate(maths: Maths, batches: tuple[Batch, Batch]) -> None:
    """Importance sampling: with each trajectory counted as often as mu has it, Z = sum exp(r / alpha), for any mu."""
    states, actions, dynamics = trajectories()
    r = one_hot(states, actions).sum(0) @ other_psi(batches[0]).detach()
    true_z = (dynamics * (r / ALPHA).exp()).sum()
    log_q = POLICIES[0][states, actions].log().sum(0)
    mixture = 0.5 * ((r / ALPHA).exp() / true_z + log_q.exp())
    log_mu = maths.mixture(r, log_q, true_z.log(), ALPHA)
    close(log_mu.exp(), mixture, 1e-12)
    for proposal in (mixture.log(), log_q):
        log_weight = (dynamics * proposal.exp()).log()
        close(maths.importance_log_z(r, proposal, ALPHA, log_weight), true_z.log(), 1e-12)


def shaped(maths: Maths, g: Tensor, h: Tensor, discount: float) -> Tensor:
    """[s, a, s'] reward g shaped by the potential h (3,)."""
    shape = (3, 2, 3)
    return maths.shaped_reward(g, h[:, None, None].expand(shape), h.expand(shape), discount, TERMINATED)


def check_shaping(maths: Maths, alpha: float) -> None:
    """Fact 5: the optimal policy, with entropy or without, is that of the reward before shaping."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        g = torch.randn(3, 2, 3, generator=generator, dtype=F64)
        h = 10.0 * torch.randn(3, generator=generator, dtype=F64)
        before = optimal_policy(g, 0.8, alpha)
        close(optimal_policy(shaped(maths, g, h, 0.8), 0.8, alpha), before, 1e-9)


def check_shaping_soft(maths: Maths, _: tuple[Batch, Batch]) -> None:
    """Fact 5 with entropy."""
    check_shaping(maths, ALPHA)


def check_shaping_hard(maths: Maths, _: tuple[Batch, Batch]) -> None:
    """Fact 5 without."""
    check_shaping(maths, 0.0)
