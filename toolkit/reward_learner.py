"""The discriminator: learns r_psi from segments of demos against segments of the policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from demos.segments import SegmentSampler
from toolkit.config import TrainConfig
from toolkit.expert_segments import ExpertSegments, Segments
from toolkit.losses import (
    discriminator_loss,
    effective_sample_size,
    gan_gcl_logit,
    generator_reward,
    gradient_penalty,
    reward_after_end,
    solve_log_z,
)
from toolkit.maxent import guided_cost_loss, mixture_log_density
from toolkit.memory import Memory
from toolkit.networks import GaussianPolicy, RewardNetwork
from toolkit.policy_mixture import Scorer, members
from toolkit.rollout import Rollout
from toolkit.segment_reward import gradient_between, rewards_along, step_rewards
from toolkit.strictest_reward import Snapshot
from toolkit.trail import Trail
from toolkit.whole_segments import draw_segments, whole_segments

_KEPT = 64  # segments longer than a rollout that are kept, the latest
_REMEMBERED = 65_536  # steps of past policies that are kept, as segments
_REPORTED = tuple(f"reward/{name}" for name in ("loss", "accuracy", "penalty", "expert", "policy", "log_z", "ess"))
_HELD_OUT = ("held_out/accuracy", "held_out/log_q", "held_out/reward")


class RewardLearner:
    """Teaches r_psi by one of the family's objectives; GAN-GCL's is D = sigmoid(kappa (r/alpha - log Z - log q))."""

    def __init__(
        self,
        reward: RewardNetwork,
        config: TrainConfig,
        demos: SegmentSampler,
        held_out: SegmentSampler | None,
        rng: np.random.Generator,
    ) -> None:
        """Makes the optimiser.

        Args:
            reward: r_psi, its normaliser already fitted to the demos.
            config: Settings, resolved; the objective is one of `toolkit.config.ADVERSARIAL`.
            demos: The expert's segments.
            held_out: Segments to measure on, never learned from; None if there are none.
            rng: Draws expert segments.
        """
        self.reward, self.objective, self.discount = reward, config.objective, config.acting.discount
        self.config = settings = config.reward
        self.expert = ExpertSegments(demos, reward.normalizer, settings.expert_jitter, rng)
        self.held_out = ExpertSegments(held_out, reward.normalizer, settings.expert_jitter, rng) if held_out else None
        self.segment = settings.segment
        self.batch = settings.batch_segments
        # A replay has long segments in it already.
        long = config.generator == "ppo" and self.segment > config.horizon
        self.trail = Trail(self.segment, _KEPT, reward.absorbing is not None) if long else None
        self.memory = Memory(max(_KEPT, _REMEMBERED // self.segment)) if settings.memory > 0.0 else None
        self.rounds = 0  # rounds of updates so far
        self.snapshots: list[Snapshot] = []  # r_psi as it was once in each of `panel` parts of the run
        self.log_z = torch.zeros((), dtype=torch.float64, device=reward.normalizer.mean.device)  # of one segment [nats]
        groups: list[Tensor] = [*reward.parameters()]
        if settings.log_z == "adam":
            groups.append(self.log_z.requires_grad_())
        self.optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)
        self.first_policy: GaussianPolicy | None = None  # as learning began: the demos' clone

    def update(self, rollout: Rollout, scorer: Scorer, generator: torch.Generator, progress: float) -> dict[str, float]:
        """A few discriminator steps against one rollout (Finn et al. 2016, L_D; the policy is held fixed).

        Args:
            rollout: Experience of the present policy; or what a replay hands out, segments scored by `scorer`.
            scorer: Scores the expert's actions afresh: a stale log q is the published failure.
            generator: Draws policy segments, jitter and interpolates.
            progress: Share of the run that is over, in [0, 1).

        Returns:
            Metrics by name, of the last step.
        """
        if self.first_policy is None and (self.objective == "gcl" or self.config.expert_log_q == "stale"):
            self.first_policy = copy.deepcopy(members(scorer)[0]).requires_grad_(False)
        stale = self.first_policy if self.config.expert_log_q == "stale" else None
        self.expert.score(stale or scorer)
        experience, temper = self._experience(rollout), self.config.temper_at(progress)
        # The same names in every row of a table, also while there is nothing to report yet.
        metrics = dict.fromkeys(_REPORTED + (_HELD_OUT if self.held_out else ()), math.nan)
        draw_actor = self._actor(rollout, experience, generator)
        if draw_actor is None:
            return metrics | {"reward/temper": temper}
        draw_actor = self._with_memory(draw_actor, generator)
        updates = self.config.batch_updates
        for i in range(updates):
            expert = self.expert.draw(self.batch, generator)
            metrics |= self._gradient_step(expert, draw_actor(self.batch), temper, generator, report=i == updates - 1)
        if self.held_out is not None:
            self.held_out.score(scorer)
            metrics |= self._measure_held_out(self.held_out.draw(self.batch, generator), temper)
        self.rounds += 1
        if progress * self.config.panel >= len(self.snapshots) + 0.5:  # in the middle of its part
            net = {name: x.clone() for name, x in self.reward.net.state_dict().items()}
            after = self.reward.absorbing
            absorbing = None if after is None else float(after.detach())
            self.snapshots.append(Snapshot(net, self.expert.mean_reward(self.reward), absorbing))
        return metrics | {"reward/temper": temper}

    def _actor(
        self, rollout: Rollout, experience: Segments, generator: torch.Generator
    ) -> Callable[[int], Segments] | None:
        """Draws the policy's segments; None while there are too few of them: whole episodes take a while."""
        if (trail := self.trail) is not None:
            trail.add(rollout, experience, generator)
            return (lambda count: trail.draw(count, generator)) if len(trail) == _KEPT else None
        if rollout.log_prob.numel() == 0:
            return None
        whole = whole_segments(rollout, self.segment, past_end=self.reward.absorbing is not None)
        return lambda count: draw_segments(experience, whole, self.segment, count, generator)

    def _with_memory(
        self, draw_actor: Callable[[int], Segments], generator: torch.Generator
    ) -> Callable[[int], Segments]:
        """The same, with a share of the segments from all policies so far where there is a memory."""
        if (memory := self.memory) is None:
            return draw_actor
        memory.offer(draw_actor(_KEPT), generator)
        old = round(self.config.memory * self.batch)
        return lambda count: draw_actor(count - old).beside(memory.draw(old, generator)) if old else draw_actor(count)

    @torch.no_grad()
    def label(
        self, observation: Tensor, next_observation: Tensor, action: Tensor, log_prob: Tensor, termination: Tensor
    ) -> Tensor:
        """Reward of the generator for steps: f - alpha log q - alpha log Z / L; a plain GAN's is its logit.

        A step that ends the task brings all that comes after it, `reward_after_end`.

        Args:
            observation: (..., obs_dim) s_t.
            next_observation: (..., obs_dim) s_{t+1}.
            action: (..., act_dim).
            log_prob: (...) log q(a_t | s_t) [nats].
            termination: (...) bool, the task ended with this step.

        Returns:
            (...) rewards.
        """
        normalizer = self.reward.normalizer
        next_state = normalizer(next_observation) if self.reward.potential is not None else next_observation
        f = step_rewards(
            self.reward,
            Segments(normalizer(observation), next_state, action, termination, log_prob),
            self.discount,
        )
        after = self.reward.absorbing
        if self.objective != "gail":
            how = float(self.log_z), self.config.alpha, self.segment
            f = generator_reward(f, log_prob, *how)
            after = None if after is None else generator_reward(after, torch.zeros_like(after), *how)
        return f if after is None else f + termination * reward_after_end(after, self.discount)

    def _experience(self, rollout: Rollout) -> Segments:
        """The rollout as one stretch [T, B, .], normalised once."""
        normalizer = self.reward.normalizer
        state = normalizer(rollout.observation)
        next_state = normalizer(rollout.next_observation) if self.reward.potential is not None else state
        return Segments(state, next_state, rollout.action, rollout.termination, rollout.log_prob)

    def _gradient_step(
        self, expert: Segments, actor: Segments, temper: float, generator: torch.Generator, report: bool
    ) -> dict[str, float]:
        config, count = self.config, expert.log_q.shape[1]
        both = expert.beside(actor)
        r = rewards_along(self.reward, both, self.discount).sum(0)  # (N + M,)
        log_q = both.log_density().to(r.dtype)
        is_expert = torch.arange(len(r), device=r.device) < count
        logit = self._logit(r, log_q, is_expert, temper)
        if self.objective == "gcl":
            loss = guided_cost_loss(r[:count], r, self._log_mixture(both, log_q), config.alpha, temper)
        else:
            loss = discriminator_loss(logit[:count], logit[count:])
        penalty = torch.zeros(())
        if config.gradient_penalty > 0.0:
            penalty = gradient_penalty(gradient_between(self.reward, both, count, generator))
        self.optimizer.zero_grad()
        (loss + config.gradient_penalty * penalty).backward()
        self.optimizer.step()
        return self._report(r, log_q, logit, is_expert, loss, penalty) if report else {}

    def _logit(self, r: Tensor, log_q: Tensor, is_expert: Tensor, temper: float) -> Tensor:
        """The logit of GAN-GCL, of AIRL (log Z is left to r_psi) or of a plain GAN (no log q); gcl only reports it."""
        config = self.config
        if self.objective == "gail":
            return gan_gcl_logit(r, torch.zeros_like(r), 0.0, config.alpha, temper)
        if self.objective in ("gan-gcl", "gcl") and config.log_z == "solved":
            self.log_z = solve_log_z(r, log_q, is_expert, config.alpha, temper)
        return gan_gcl_logit(r, log_q, self.log_z.to(r.dtype), config.alpha, temper)

    @torch.no_grad()
    def _log_mixture(self, segments: Segments, log_q: Tensor) -> Tensor:
        """(N,) log mu, mu = (p^ + q) / 2, where p^ is the demos' clone: guided cost learning needs a guess of p."""
        assert self.first_policy is not None
        normalizer = self.reward.normalizer
        observation = segments.state * normalizer.std + normalizer.mean
        log_p = segments.log_density(self.first_policy.log_prob(observation, segments.action)).to(log_q.dtype)
        return mixture_log_density(log_p, log_q, 0.0, 1.0)

    @torch.no_grad()
    def _report(
        self, r: Tensor, log_q: Tensor, logit: Tensor, is_expert: Tensor, loss: Tensor, penalty: Tensor
    ) -> dict[str, float]:
        log_weight = (r / self.config.alpha - log_q)[~is_expert]
        return {
            "reward/loss": float(loss),
            "reward/accuracy": float(((logit > 0) == is_expert).float().mean()),
            "reward/penalty": float(penalty),
            "reward/expert": float(r[is_expert].mean() / self.segment),
            "reward/policy": float(r[~is_expert].mean() / self.segment),
            "reward/log_z": float(self.log_z),
            "reward/ess": float(effective_sample_size(log_weight) / len(log_weight)),
        }

    @torch.no_grad()
    def _measure_held_out(self, expert: Segments, temper: float) -> dict[str, float]:
        """How the discriminator sees demos it never learned from: share called expert, mean log q and r a step."""
        r = rewards_along(self.reward, expert, self.discount).sum(0)
        log_q = torch.zeros_like(r) if self.objective == "gail" else expert.log_density().to(r.dtype)
        logit = gan_gcl_logit(r, log_q, self.log_z.to(r.dtype), self.config.alpha, temper)
        return {
            "held_out/accuracy": float((logit > 0).float().mean()),
            "held_out/log_q": float(expert.log_q[~expert.absorbed].mean()),
            "held_out/reward": float(r.mean() / self.segment),
        }

    def state_dict(self) -> dict[str, object]:
        """What a bit-exact continuation needs, beside the reward network itself."""
        first = None if self.first_policy is None else self.first_policy.state_dict()
        return {
            "optimizer": self.optimizer.state_dict(),
            "log_z": float(self.log_z),
            "rounds": self.rounds,
            "snapshots": [dict(vars(one)) for one in self.snapshots],
            "first_policy": first,
            "trail": None if self.trail is None else self.trail.state_dict(),
            "memory": None if self.memory is None else self.memory.state_dict(),
        }

    def load_state_dict(self, state: dict, policy: GaussianPolicy) -> None:
        """Puts the learner back where `state_dict` found it; `policy` gives the first policy its shape."""
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            self.log_z.fill_(state["log_z"])
        self.rounds = state["rounds"]
        self.snapshots = [Snapshot(**one) for one in state.get("snapshots", ())]  # runs from before there were any
        if self.trail is not None:
            self.trail.load_state_dict(state["trail"])
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        if state["first_policy"] is not None:
            self.first_policy = copy.deepcopy(policy).requires_grad_(False)
            self.first_policy.load_state_dict(state["first_policy"])
