"""PolicyMixture: the density of experience that many past policies made, exact over whole segments."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from toolkit.networks import GaussianPolicy

MOST = 20  # snapshots; each costs a pass through a network per scored step


class PolicyMixture:
    """q(tau) = 1/K sum_k prod_t pi_k(a_t | s_t) over K frozen snapshots of one policy."""

    def __init__(self) -> None:
        """Starts empty."""
        self.snapshots: list[GaussianPolicy] = []

    def add(self, policy: GaussianPolicy) -> None:
        """Keeps a copy of `policy` as it is now; beyond `MOST` the oldest goes."""
        snapshot = copy.deepcopy(policy).requires_grad_(False)
        self.snapshots = [*self.snapshots, snapshot][-MOST:]

    @torch.no_grad()
    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Per-step log q whose sum over the segment is the log density of the mixture of segments.

        One policy makes a segment, so the mixture is one of products, not a product of mixtures; see `mix_segments`.

        Args:
            observation: [L, N, obs_dim], time first, each column one segment from its first step.
            action: [L, N, act_dim].

        Returns:
            [L, N] log densities [nats], summed in float64.

        Raises:
            ValueError: No snapshot yet, or not [L, N, .].
        """
        if not self.snapshots:
            raise ValueError("a mixture of no policies has no density; add one first")
        if observation.ndim != 3:
            raise ValueError(f"observation {tuple(observation.shape)}; expected [L, N, obs_dim]")
        return mix_segments(torch.stack([policy.log_prob(observation, action) for policy in self.snapshots]))

    def state_dict(self) -> list[dict[str, Any]]:
        """Weights of every snapshot, oldest first."""
        return [policy.state_dict() for policy in self.snapshots]

    def load_state_dict(self, state: list[dict[str, Any]], policy: GaussianPolicy) -> None:
        """Takes over saved snapshots; `policy` gives their shape and stays as it is."""
        self.snapshots = []
        for weights in state:
            self.add(policy)
            self.snapshots[-1].load_state_dict(weights)


def mix_segments(log_prob: Tensor) -> Tensor:
    """Per-step log q of a uniform mixture of segments, from the log q of its K members.

    Step t gets log q(a_t | everything before) = S_t - S_{t-1}, S_t = log 1/K sum_k exp sum_{i<=t} log pi_k(a_i | s_i).

    Args:
        log_prob: [K, L, N] log pi_k(a_t | s_t) [nats], each column one segment from its first step.

    Returns:
        [L, N] log densities [nats], summed in float64; with one member, its own.

    Raises:
        ValueError: Not [K, L, N].
    """
    if log_prob.ndim != 3:
        raise ValueError(f"log_prob {tuple(log_prob.shape)}; expected [K, L, N]")
    if len(log_prob) == 1:
        return log_prob[0]
    total = torch.logsumexp(log_prob.double().cumsum(1), 0) - math.log(len(log_prob))  # [L, N] S_t
    return torch.diff(total, dim=0, prepend=torch.zeros_like(total[:1])).to(log_prob.dtype)


Scorer = GaussianPolicy | PolicyMixture  # whoever says log q of [L, N, .] segments


def members(scorer: Scorer) -> list[GaussianPolicy]:
    """The policies that a scorer mixes; of a policy, itself."""
    return scorer.snapshots if isinstance(scorer, PolicyMixture) else [scorer]
