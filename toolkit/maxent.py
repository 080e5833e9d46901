"""The mathematics of maximum-entropy reward learning with a sampled partition function, as pure functions.

Symbols as in toolkit/losses.py: r = sum_t r_psi(s_t, a_t) over a segment, log_q = sum_t log pi_theta(a_t | s_t),
alpha = temperature, kappa = temper. All densities are taken relative to the dynamics, a factor that p, q and mu share
and that cancels: p = exp(r / alpha) / Z, mu = (p + q) / 2. Sources: Finn, Levine, Abbeel 2016, "Guided Cost Learning"
(arXiv 1603.00448); Finn, Christiano, Abbeel, Levine 2016 (arXiv 1611.03852); Ng, Harada, Russell 1999, "Policy
Invariance under Reward Transformations"; Fu, Luo, Levine 2018, "AIRL" (arXiv 1710.11248).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mixture_log_density(r: Tensor, log_q: Tensor, log_z: Tensor | float, alpha: float, temper: float = 1.0) -> Tensor:
    """log mu~ of the proposal that demos and policy segments come from, mu~ = (exp(r / alpha) / Z + q) / 2.

    The demos' own density is unknown, so the reward's estimate of it stands in (Finn et al. 2016, 1611.03852). With a
    temper the two are averaged by the power mean of order kappa,
    mu~^kappa = ((exp(r / alpha) / Z)^kappa + q^kappa) / 2, with which `guided_cost_loss` has the gradient of the
    tempered discriminator loss too.

    Args:
        r: (N,) summed reward of each segment.
        log_q: (N,) summed log density of its actions under the policy.
        log_z: log Z, the log partition function.
        alpha: Temperature.
        temper: kappa in (0, 1].

    Returns:
        (N,) log densities [nats].

    Raises:
        ValueError: r and log_q are not vectors of one length.
    """
    _vectors_of_one_length(r, log_q)
    return (torch.logaddexp(temper * (r / alpha - log_z), temper * log_q) - math.log(2.0)) / temper


def importance_log_z(r: Tensor, log_mu: Tensor, alpha: float, log_weight: Tensor | None = None) -> Tensor:
    """log Z = log mean_i exp(r_i / alpha - log mu_i) for segments i drawn from mu.

    Unbiased in Z, not in log Z, and only as good as mu covers exp(r / alpha): see `effective_sample_size`.

    Args:
        r: (N,) summed rewards.
        log_mu: (N,) log density of each segment under what it was drawn from.
        alpha: Temperature.
        log_weight: (N,) log of how much each segment counts, up to a constant; all the same if None.

    Returns:
        () log Z [nats].

    Raises:
        ValueError: the arguments are not vectors of one length.
    """
    weight = torch.zeros_like(r) if log_weight is None else log_weight
    _vectors_of_one_length(r, log_mu, weight)
    return torch.logsumexp(r / alpha - log_mu + weight, 0) - torch.logsumexp(weight, 0)


def guided_cost_loss(r_expert: Tensor, r: Tensor, log_mu: Tensor, alpha: float, temper: float) -> Tensor:
    """L_r = -kappa E_p[r] / alpha + log E_mu[exp(kappa (r / alpha - log mu))].

    With kappa = 1 this is guided cost learning (Finn, Levine, Abbeel 2016): the negative log likelihood of the demos
    under exp(r / alpha) / Z, up to a constant, with Z estimated by importance sampling.

    A kappa below 1 raises the importance weights w = exp(r / alpha) / mu to the power kappa. They are more even, so no
    single segment takes over the batch, but the loss is no longer the likelihood. Its minimum over all r is
    r / alpha = log mu + log(p / mu) / kappa + const: the step from mu to p is overstated by 1 / kappa. That is log p
    only where mu = p, so the fixed point (the policy has become the expert) stays and the way there does not. For
    kappa toward 0, L_r / kappa becomes the plain difference of means, -E_p[r] / alpha + E_mu[r / alpha - log mu].

    Args:
        r_expert: (M,) summed rewards of expert segments.
        r: (N,) summed rewards of segments drawn from mu; with the mixture of `mixture_log_density` these are the
            expert's and the policy's together, half each.
        log_mu: (N,) their log densities. Held constant: no gradient passes through it, though it may depend on r.
        alpha: Temperature.
        temper: kappa in (0, 1].

    Returns:
        () the loss [nats].

    Raises:
        ValueError: r_expert is no vector, or r and log_mu are not vectors of one length.
    """
    _vectors_of_one_length(r_expert)
    _vectors_of_one_length(r, log_mu)
    log_weight = temper * (r / alpha - log_mu.detach())
    return -temper * r_expert.mean() / alpha + torch.logsumexp(log_weight, 0) - math.log(len(r))


def shaped_reward(g: Tensor, h: Tensor, next_h: Tensor, discount: float, terminated: Tensor) -> Tensor:
    """g(s, a) + gamma (1 - terminated) h(s') - h(s), which leaves the optimal policies of g as they are.

    Ng, Harada, Russell 1999, theorem 1; Fu et al. 2018, equation 4. It holds with entropy in the objective too: the
    values become V(s) - h(s). A terminal state has potential 0, whatever h would say of it; a time limit is no terminal
    state and keeps h(s').

    Args:
        g: (...) reward of each step.
        h: (...) potential h(s_t) of the state before it.
        next_h: (...) potential h(s_{t+1}) of the state after it, taken before any reset.
        discount: gamma, the same that the policy is trained with.
        terminated: (...) bool, the step ended the task (not merely the time).

    Returns:
        (...) shaped rewards.

    Raises:
        ValueError: the shapes differ.
    """
    if not g.shape == h.shape == next_h.shape == terminated.shape:
        raise ValueError(f"shapes differ: {[tuple(tensor.shape) for tensor in (g, h, next_h, terminated)]}")
    return g + discount * next_h * (~terminated) - h


def _vectors_of_one_length(*tensors: Tensor) -> None:
    if any(tensor.ndim != 1 or tensor.shape != tensors[0].shape for tensor in tensors):
        raise ValueError(f"expected vectors of one length, got shapes {[tuple(tensor.shape) for tensor in tensors]}")
