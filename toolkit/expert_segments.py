"""Segments of demonstrations as the discriminator wants them: on its device, normalised, scored under a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor

from demos.segments import SegmentSampler
from toolkit.networks import RewardNetwork, clipped_gaussian_log_prob
from toolkit.normalizer import RunningNormalizer
from toolkit.policy_mixture import Scorer, members, mix_segments


@dataclass(frozen=True)
class Segments:
    """N segments of L steps with the log density of their actions.

    A segment may reach past the end of a task, into the absorbing state: whatever its rows hold after a termination is
    a place holder.
    """

    state: Tensor  # [L, N, obs_dim] s_t, normalised
    next_state: Tensor  # [L, N, obs_dim] s_{t+1}, normalised, taken before any reset
    action: Tensor  # [L, N, act_dim] dimensionless, in [-1, 1]
    termination: Tensor  # [L, N] bool, the task ended with this step
    log_q: Tensor  # [L, N] log q(a_t | s_t) under the policy that is judged [nats]

    @property
    def absorbed(self) -> Tensor:
        """[L, N] bool: the task had ended before this step."""
        return self.termination.cumsum(0) - self.termination.to(torch.int64) > 0

    def log_density(self, log_prob: Tensor | None = None) -> Tensor:
        """Log density of the actions, added up in float64: L may be a thousand.

        Args:
            log_prob: [L, N] log pi(a_t | s_t) [nats] of some policy; None for `log_q`.

        Returns:
            (N,) log pi(tau) = sum_t log pi(a_t | s_t); nobody acts in the absorbing state, so its steps add nothing.
        """
        log_prob = self.log_q if log_prob is None else log_prob
        return log_prob.double().masked_fill(self.absorbed, 0.0).sum(0)

    def beside(self, others: Segments) -> Segments:
        """[L, N + M, .] these N and then M others of the same length."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return Segments(*(torch.cat(pair, 1) for pair in pairs))


class ExpertSegments:
    """Draws expert segments. The policy's mean is computed once for every demo step, not once for every draw."""

    def __init__(
        self, demos: SegmentSampler, normalizer: RunningNormalizer, jitter: float, rng: np.random.Generator
    ) -> None:
        """Brings the demos to the normaliser's device.

        Args:
            demos: Where segments come from.
            normalizer: Of the reward, already fitted; later changes to it do not reach what is drawn here.
            jitter: Std of the noise on the actions [action units]: a density needs a width.
            rng: Draws the places.
        """
        device = normalizer.mean.device
        self.demos, self.jitter, self.rng = demos, jitter, rng
        self.observation = torch.from_numpy(demos.observations).to(device, torch.float32)  # (rows, obs_dim)
        self.state = normalizer(self.observation)  # (rows, obs_dim)
        # Rows between episodes carry no action, and are never drawn.
        self.action = torch.from_numpy(np.nan_to_num(demos.actions)).to(device, torch.float32).clamp(-1.0, 1.0)
        self.termination = torch.from_numpy(demos.terminations).to(device)  # (rows,) bool
        self._mean = torch.zeros(0, *self.action.shape, device=device)  # [K, rows, act_dim], K policies
        self._log_std = torch.zeros(0, self.action.shape[1], device=device)  # [K, act_dim]

    @torch.no_grad()
    def score(self, scorer: Scorer) -> None:
        """Prepares to score segments under `scorer`. A log q left from an earlier policy is the published failure."""
        policies = members(scorer)
        self._mean = torch.stack([policy(self.observation) for policy in policies])
        self._log_std = torch.stack([policy.log_std for policy in policies])

    @torch.no_grad()
    def mean_reward(self, reward: RewardNetwork) -> float:
        """E_demo[r_psi], of all steps as often as they are drawn, those after the end as well, without jitter."""
        r = reward.net(reward.features(self.state, self.action)).squeeze(-1).double()  # (rows,)
        share = torch.from_numpy(self.demos.step_shares()).to(r.device)
        after = 0.0 if reward.absorbing is None else (1.0 - share.sum()) * reward.absorbing.double()
        return float(share @ r + after)

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Segments:
        """Draws segments and jitters their actions.

        Args:
            count: N.
            generator: Source of the jitter.

        Returns:
            The segments, scored under what was last given to `score`.
        """
        return self.draw_with_rows(count, generator)[0]

    @torch.no_grad()
    def draw_with_rows(self, count: int, generator: torch.Generator) -> tuple[Segments, Tensor]:
        """As `draw`, with the [L, N] row numbers of the steps, for who scores them in other ways too."""
        rows = torch.from_numpy(self.demos.draw_rows(count, self.rng)).to(self.state.device)  # [L+1, N]
        # Looked up as an embedding: the same numbers as by an index, several times faster
        state, rows = F.embedding(rows, self.state), rows[:-1]
        action = F.embedding(rows, self.action)
        noise = self.jitter * torch.randn(action.shape, generator=generator, device=action.device)
        # An action at its limit stays there: a density has a point mass at the limit already.
        action = torch.where(action.abs() >= 1.0, action, action + noise).clamp(-1.0, 1.0)
        pairs = [(F.embedding(rows, mean), std) for mean, std in zip(self._mean, self._log_std, strict=True)]
        log_q = mix_segments(torch.stack([clipped_gaussian_log_prob(action, mean, std) for mean, std in pairs]))
        return Segments(state[:-1], state[1:], action, self.termination[rows], log_q), rows
