"""Two systems whose partition function is known: a finite MDP, counted out, and a linear-Gaussian one, integrated.

Densities of segments are relative to the dynamics, as everywhere: log p = r / alpha - log Z, log q = sum_t log pi.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

F64 = torch.float64
ALPHA = 0.5  # not 1, so that a forgotten temperature shows
LENGTH = 3


@dataclass(frozen=True)
class Batch:
    """Expert segments, then as many of a policy; r(tau) = sum_t features_t @ psi."""

    features: Tensor  # [L, N, k]
    log_q_t: Tensor  # [L, N] under the policy
    stale_log_q: Tensor  # (N,) under another policy, such as the one before the last update
    log_p: Tensor  # (N,) true log density of the expert
    expert: Tensor  # (N,) bool
    psi: Tensor  # (k,) reward of which the expert is the maximum-entropy answer
    log_z: float  # its true log partition function
    tolerance: float  # how far the batch's means are from expectations

    @property
    def log_q(self) -> Tensor:
        """(N,) log density of each segment under the policy."""
        return self.log_q_t.sum(0)

    def reward(self, psi: Tensor) -> Tensor:
        """(N,) reward of each segment."""
        return self.features.sum(0) @ psi


# --- Three states, two actions, three steps -------------------------------------------------------------------------
# Probabilities are halves and quarters, so that whole numbers of copies of each trajectory have its exact frequency.
INITIAL = torch.tensor([0.5, 0.5, 0.0], dtype=F64)
TRANSITION = torch.tensor(
    [
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]],
        [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]],
        [[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]],
    ],
    dtype=F64,
)  # [s, a, s']
TERMINATED = torch.zeros(3, 2, 3, dtype=torch.bool)
TERMINATED[0, 1, 2] = TERMINATED[1, 0, 2] = True  # only fact 5 has episodes that end
EXPERT = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], dtype=F64)  # [s, a]
POLICIES = (
    torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], dtype=F64),
    torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]], dtype=F64),
)
COPIES = 2**3 * 4**3  # product of the denominators of a trajectory's probability
BONUS = 0.7  # a constant in each step's reward, so that log Z is not 0


def trajectories() -> tuple[Tensor, Tensor, Tensor]:
    """All of them: states [L, M], actions [L, M] and the dynamics' share of each one's probability (M,)."""
    every = torch.tensor(list(itertools.product(*[range(3)] * LENGTH, *[range(2)] * LENGTH))).T
    states, actions = every[:LENGTH], every[LENGTH:]
    dynamics = INITIAL[states[0]] * TRANSITION[states[:-1], actions[:-1], states[1:]].prod(0)
    possible = dynamics > 0.0
    return states[:, possible], actions[:, possible], dynamics[possible]


def one_hot(states: Tensor, actions: Tensor) -> Tensor:
    """[L, M, 6]: a table with one reward for each state and action, as features."""
    return torch.nn.functional.one_hot(states * 2 + actions, 6).to(F64)


def finite_batch(policy: Tensor, stale: Tensor) -> Batch:
    """Means over this batch are exact expectations: each trajectory is there as often as it is likely."""
    states, actions, dynamics = trajectories()
    likely = [dynamics * table[states, actions].prod(0) for table in (EXPERT, policy)]
    copies = [(probability * COPIES).round().long() for probability in likely]
    index = torch.cat([torch.arange(len(dynamics)).repeat_interleave(count) for count in copies])
    states, actions = states[:, index], actions[:, index]
    return Batch(
        features=one_hot(states, actions),
        log_q_t=policy[states, actions].log(),
        stale_log_q=stale[states, actions].log().sum(0),
        log_p=EXPERT[states, actions].log().sum(0),
        expert=torch.arange(2 * COPIES) < COPIES,
        psi=(ALPHA * EXPERT.log() + BONUS).flatten(),
        log_z=LENGTH * BONUS / ALPHA,
        tolerance=1e-6,
    )


def optimal_policy(reward: Tensor, discount: float, alpha: float) -> Tensor:
    """[s, a] maximiser of E[sum gamma^t (r + alpha H)] by value iteration; for alpha 0 even over the best actions.

    Args:
        reward: [s, a, s'].
        discount: gamma.
        alpha: Temperature.
    """
    value = torch.zeros(3, dtype=F64)
    q = torch.zeros(3, 2, dtype=F64)
    for _ in range(400):
        q = (TRANSITION * (reward + discount * value * (~TERMINATED))).sum(-1)
        value = q.amax(-1) if alpha == 0.0 else alpha * torch.logsumexp(q / alpha, -1)
    if alpha == 0.0:
        best = (q > q.amax(-1, keepdim=True) - 1e-9).to(F64)
        return best / best.sum(-1, keepdim=True)
    return torch.softmax(q / alpha, -1)


# --- s' = a s + b u + noise, r = -(Q s^2 + R u^2) / 2 -----------------------------------------------------------------
@dataclass(frozen=True)
class LinearGaussian:
    """The scalar system; its segments are linear in x = (noise of each state, action of each step)."""

    length: int = LENGTH
    a: float = 0.9
    b: float = 0.5
    noise: float = 0.4
    start: float = 2.0
    state_cost: float = 1.0
    action_cost: float = 0.8

    def states(self) -> tuple[Tensor, Tensor]:
        """[L, 2L] matrix and (L,) offset that give s_0 .. s_{L-1} from x."""
        matrix, offset = torch.zeros(self.length, 2 * self.length, dtype=F64), torch.zeros(self.length, dtype=F64)
        for t in range(self.length):
            if t > 0:
                matrix[t], offset[t] = self.a * matrix[t - 1], self.a * offset[t - 1]
                matrix[t, self.length + t - 1] += self.b
            else:
                offset[t] = self.start
            matrix[t, t] += self.noise
        return matrix, offset

    def answer(self) -> tuple[float, Tensor, Tensor]:
        """log Z, and mean (2L,) and covariance of x under p = exp(r / alpha) / Z times the dynamics.

        Z = integral of N(noise; 0, 1) exp(r / alpha) = integral of (2 pi)^(-L/2) exp(-x'Px/2 + v'x + c)
        = (2 pi)^(L/2) det(P)^(-1/2) exp(v'P^-1 v / 2 + c).
        """
        n = self.length
        matrix, offset = self.states()
        precision = torch.diag(torch.tensor([1.0] * n + [self.action_cost / ALPHA] * n, dtype=F64))
        precision += self.state_cost / ALPHA * matrix.T @ matrix
        vector = -self.state_cost / ALPHA * matrix.T @ offset
        constant = -0.5 * self.state_cost / ALPHA * offset @ offset
        covariance = torch.linalg.inv(precision)
        mean = covariance @ vector
        log_z = 0.5 * n * math.log(2 * math.pi) - 0.5 * torch.logdet(precision) + 0.5 * vector @ mean + constant
        return float(log_z), mean, covariance

    def features(self, states: Tensor, actions: Tensor) -> Tensor:
        """[L, N, 2]: r_t = features @ (Q, R)."""
        return -0.5 * torch.stack([states, actions], -1).square()

    def batch(self, policy: tuple[float, float], stale: tuple[float, float], count: int = 4096) -> Batch:
        """Quasi-random segments of the expert and of u = gain s + std N(0, 1), policy = (gain, std)."""
        log_z, mean, covariance = self.answer()
        matrix, offset = self.states()
        x = mean + normal_points(2 * self.length, count, seed=0) @ torch.linalg.cholesky(covariance).T
        expert_states, expert_actions = (x @ matrix.T + offset).T, x[:, self.length :].T
        states, actions = self.roll_out(policy, normal_points(2 * self.length, count, seed=1).T)
        states, actions = torch.cat([expert_states, states], 1), torch.cat([expert_actions, actions], 1)
        psi = torch.tensor([self.state_cost, self.action_cost], dtype=F64)
        features = self.features(states, actions)
        return Batch(
            features=features,
            log_q_t=gaussian_log_density(states, actions, policy),
            stale_log_q=gaussian_log_density(states, actions, stale).sum(0),
            log_p=features.sum(0) @ psi / ALPHA - log_z,
            expert=torch.arange(2 * count) < count,
            psi=psi,
            log_z=log_z,
            tolerance=0.02,
        )

    def roll_out(self, policy: tuple[float, float], points: Tensor) -> tuple[Tensor, Tensor]:
        """States and actions [L, N] of the policy, from standard normal points [2L, N]."""
        states, actions = [self.start + self.noise * points[0]], []
        for t in range(self.length):
            actions.append(policy[0] * states[t] + policy[1] * points[self.length + t])
            if t + 1 < self.length:
                states.append(self.a * states[t] + self.b * actions[t] + self.noise * points[t + 1])
        return torch.stack(states), torch.stack(actions)


def normal_points(dimension: int, count: int, seed: int) -> Tensor:
    """(count, dimension) standard normal, spread more evenly than by chance (scrambled Sobol)."""
    points = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed).draw(count, dtype=F64)
    return math.sqrt(2.0) * torch.erfinv((2.0 * points - 1.0).clamp(-1.0 + 1e-12, 1.0 - 1e-12))


def gaussian_log_density(states: Tensor, actions: Tensor, policy: tuple[float, float]) -> Tensor:
    """Log density of each action [L, N] under u = gain s + std N(0, 1)."""
    gain, std = policy
    return -0.5 * ((actions - gain * states) / std).square() - math.log(std) - 0.5 * math.log(2 * math.pi)
