"""The mathematics of GAN-GCL and of the policy gradient, as pure functions.

Symbols: r = sum_t r_psi(s_t, a_t) over a segment of L steps, log_q = sum_t log pi_theta(a_t | s_t), alpha =
temperature, kappa = temper. Sources: Finn, Christiano, Abbeel, Levine 2016, "A Connection between GANs, Inverse RL and
Energy-Based Models" (arXiv 1611.03852), sections 3.1 to 3.3; Fu, Luo, Levine 2018, "AIRL" (arXiv 1710.11248);
Schulman et al. 2016 (arXiv 1506.02438) and 2017 (arXiv 1707.06347).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor


def gan_gcl_logit(r: Tensor, log_q: Tensor, log_z: Tensor | float, alpha: float, temper: float) -> Tensor:
    """Discriminator logit l = kappa (r / alpha - log Z - log q); D = sigmoid(l).

    With kappa = 1 this is D = p / (p + q) for the maximum-entropy density p = exp(r / alpha) / Z (Finn et al. 2016,
    equation 4 and section 3.1). A kappa below 1 keeps the fixed point l = 0 but not the gradient.

    Args:
        r: (N,) summed reward of each segment.
        log_q: (N,) summed log density of its actions under the policy.
        log_z: log Z, the log partition function.
        alpha: Temperature of the generator: it maximises E[r] + alpha H.
        temper: kappa in (0, 1].

    Returns:
        (N,) logits.
    """
    _same_vectors(r, log_q)
    return temper * (r / alpha - log_z - log_q)


def solve_log_z(r: Tensor, log_q: Tensor, expert: Tensor, alpha: float, temper: float) -> Tensor:
    """The log Z that minimises the discriminator loss on this batch, found by bisection in float64.

    L_D is convex in log Z; its derivative vanishes where the mean of D over all segments is the share of expert ones:
    mean_i sigmoid(kappa (r_i / alpha - log Z - log q_i)) = N_expert / N. With kappa = 1 that Z is the
    importance-sampling estimate of the partition function under mu = (p + q) / 2 (Finn et al. 2016, section 3.3.1).

    Args:
        r: (N,) summed rewards, expert and policy segments together.
        log_q: (N,) summed log densities.
        expert: (N,) bool, True for expert segments.
        alpha: Temperature.
        temper: kappa.

    Returns:
        () float64, detached: at its minimiser L_D does not change with log Z to first order (envelope theorem), so no
        gradient needs to pass through it.
    """
    _same_vectors(r, log_q, expert)
    score = (r.detach().double() / alpha - log_q.detach().double()) * temper
    expert_share = expert.double().mean()
    margin = (torch.log1p(-expert_share) - torch.log(expert_share)).abs() + 1.0
    low, high, share = float(score.min() - margin), float(score.max() + margin), float(expert_share)
    for _ in range(60):  # in Python's floats, which are float64, too: tensors of one number cost more than the batch
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if float((score - middle).sigmoid_().sum()) / len(score) > share:
            low = middle
        else:
            high = middle
    return torch.tensor(0.5 * (low + high) / temper, dtype=torch.float64, device=score.device)


def discriminator_loss(logit_expert: Tensor, logit_policy: Tensor) -> Tensor:
    """L_D = -E_p[log D] - E_q[log(1 - D)], from logits so that neither logarithm can overflow.

    Args:
        logit_expert: (N,) logits of expert segments.
        logit_policy: (M,) logits of policy segments.

    Returns:
        () the loss; 2 log 2 where D is 1/2 throughout.
    """
    return F.softplus(-logit_expert).mean() + F.softplus(logit_policy).mean()


def generator_reward(r_t: Tensor, log_q_t: Tensor, log_z: Tensor | float, alpha: float, length: int) -> Tensor:
    """Per-step reward of the generator, r_t - alpha log q_t - alpha log Z / L.

    Its sum over a segment is alpha (log D - log(1 - D)) at kappa = 1, so maximising it minimises
    L_G = E_q[log(1 - D) - log D] = log Z + E_q[log q - r / alpha] exactly (Finn et al. 2016, section 3.3.3).

    Args:
        r_t: (...) reward of each step.
        log_q_t: (...) log density of each step's action.
        log_z: log Z of a segment.
        alpha: Temperature.
        length: L, steps in a segment.

    Returns:
        (...) rewards.
    """
    return r_t - alpha * log_q_t - alpha * log_z / length


def reward_after_end(absorbing: Tensor, discount: float) -> Tensor:
    """sum_{k=1}^inf gamma^k r_a = gamma r_a / (1 - gamma): what the end is worth beside the reward of its own step.

    In the absorbing state each step is worth r_a and nobody acts, so that its soft value is r_a / (1 - gamma)
    (Kostrikov et al. 2019, "Discriminator-Actor-Critic", arXiv 1809.02925, section 4.2). Given with the last step, it
    needs no value network to know of that state.

    Args:
        absorbing: () r_a, reward of each step after the end.
        discount: gamma, below 1.

    Returns:
        () what comes after the end, as seen from the step that ends it.
    """
    return discount / (1.0 - discount) * absorbing


def gradient_penalty(gradient: Tensor) -> Tensor:
    """E |d r_psi / d x|^2: pulls the reward toward one that changes slowly (Mescheder et al. 2018, arXiv 1801.04406).

    Args:
        gradient: (..., features) gradient of the reward at each point.

    Returns:
        () mean squared norm.
    """
    return gradient.square().sum(-1).mean()


def generalized_advantage(
    reward: Tensor, value: Tensor, next_value: Tensor, ended: Tensor, terminated: Tensor, discount: float, lam: float
) -> Tensor:
    """A_t = delta_t + gamma lambda (1 - ended_t) A_{t+1}, delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t).

    Schulman et al. 2016, equations 11 to 16. A time limit (ended but not terminated) still bootstraps from V(s_{t+1}).

    Args:
        reward: [T, B].
        value: [T, B], V(s_t).
        next_value: [T, B], V(s_{t+1}) of the same episode, s_{t+1} taken before any reset.
        ended: [T, B] bool, the episode ends with step t.
        terminated: [T, B] bool, it ends because the task is over, not because time is.
        discount: gamma.
        lam: lambda.

    Returns:
        [T, B] advantages.
    """
    if not reward.shape == value.shape == next_value.shape == ended.shape == terminated.shape:
        raise ValueError(f"shapes differ: {[tuple(x.shape) for x in (reward, value, next_value, ended, terminated)]}")
    delta = reward + discount * next_value * (~terminated) - value
    carry = discount * lam * (~ended)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        running = delta[t] + carry[t] * running
        advantage[t] = running
    return advantage


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)], rho = pi(a|s) / pi_old(a|s) (Schulman et al. 2017, equation 7).

    Args:
        log_prob: (N,) under the policy being improved.
        old_log_prob: (N,) under the policy that acted.
        advantage: (N,).
        clip: eps.

    Returns:
        () the loss.
    """
    _same_vectors(log_prob, old_log_prob, advantage)
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()


def gaussian_kl(mean_old: Tensor, log_std_old: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) of diagonal Gaussians, sum_i [log(s/s0) + (s0^2 + (m0 - m)^2) / (2 s^2) - 1/2], averaged.

    Args:
        mean_old: (N, d).
        log_std_old: (d,).
        mean: (N, d).
        log_std: (d,).

    Returns:
        () mean divergence [nats].
    """
    ratio = torch.exp(2.0 * (log_std_old - log_std))
    distance = (mean_old - mean).square() * torch.exp(-2.0 * log_std)
    return (log_std - log_std_old + 0.5 * (ratio + distance) - 0.5).sum(-1).mean()


def effective_sample_size(log_weight: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of importance weights, between 1 and N.

    Args:
        log_weight: (N,) log of each unnormalised weight.

    Returns:
        () the effective number of samples.
    """
    return torch.exp(2.0 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2.0 * log_weight, 0))


def chance_loss() -> float:
    """L_D of a discriminator that knows nothing: 2 log 2."""
    return 2.0 * math.log(2.0)


def _same_vectors(*tensors: Tensor) -> None:
    if any(tensor.ndim != 1 or tensor.shape != tensors[0].shape for tensor in tensors):
        raise ValueError(f"expected vectors of one length, got shapes {[tuple(tensor.shape) for tensor in tensors]}")
