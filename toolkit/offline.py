"""Guided cost learning without a simulator: the reward that sets the demos apart from a fixed set of recordings.

Finn, Levine, Abbeel 2016, "Guided Cost Learning" (arXiv 1603.00448), with a sampling distribution that stays as it was
recorded. The background may have been recorded by anybody; its rewards, like the demos', are never read.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demos.agreement import demo_weights
from demos.episode import Episode, require_actions
from demos.segments import SegmentSampler
from robots.spec import RobotSpec, ToolkitError
from toolkit.background import estimate_log_q
from toolkit.config import TrainConfig
from toolkit.device import device_of
from toolkit.expert_segments import Segments
from toolkit.held_out import Split, split
from toolkit.losses import gradient_penalty
from toolkit.maxent import guided_cost_loss
from toolkit.networks import GaussianPolicy, build_reward_network
from toolkit.overlap import NEEDED_ESS, WHAT_TO_DO, OverlapError, effective_share, measure_overlap
from toolkit.resolve import lasting, resolve
from toolkit.scored_segments import ScoredBatch, ScoredSegments
from toolkit.segment_reward import gradient_between, rewards_along

_MEASURED_SEGMENTS = 2048  # background segments on which the overlap is measured


class OfflineError(ToolkitError):
    """Demos or background that offline learning cannot start from."""


class OfflineLearner:
    """A run of offline reward learning; the policy it holds is a clone of the demos and is not improved.

    Counts as `Trainer` does, with gradient steps of the reward in place of control steps.
    """

    def __init__(
        self,
        spec: RobotSpec,
        config: TrainConfig,
        demos: Sequence[Episode],
        background: Sequence[Episode],
        background_policy: GaussianPolicy | None = None,
    ) -> None:
        """Fits the densities, measures the overlap, and builds the reward.

        Args:
            spec: The robot.
            config: Settings; resolved here. `total_steps` counts gradient steps.
            demos: The expert's episodes.
            background: Recorded by others.
            background_policy: What acted in the background, where its density is known; estimated if None.

        Raises:
            OfflineError: No demos or no background, of the robot's size and a segment's length; or no gradient steps
                for the density fits.
            EpisodeError: Recordings of another robot, or without actions.
            OverlapError: They have too little in common.
        """
        if config.policy.warm_start == 0:
            raise OfflineError("policy.warm_start 0: offline, it is the gradient steps of the density fits; at least 1")
        self.spec, self.config = spec, resolve(config, spec, lasting((*demos, *background), spec))
        config, segment = self.config, self.config.reward.segment
        demos = _usable(demos, "demos", spec, segment)
        background = _usable(background, "background", spec, segment)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = device_of(config.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.demo_weights, how = demo_weights(demos, config.weighting), (config.held_out_share, segment, config.seed)
        self._demos = split(demos, self.demo_weights.tolist(), *how)
        # How a background's episode compares with the others says nothing about its worth.
        self._background = split(background, [1.0] * len(background), *how)
        self.reward = build_reward_network(spec, config.reward).to(self.device)
        observations = np.concatenate([e.observations for e in self._demos.train])
        self.reward.normalizer.update(torch.from_numpy(observations).to(self.device))
        fit = (config.policy, config.seed, self.device)
        started = time.perf_counter()
        self.policy = estimate_log_q(self._demos.train, *fit, self._demos.weights)
        if background_policy is None:
            background_policy = estimate_log_q(self._background.train, *fit)
        self.cloning_seconds = time.perf_counter() - started
        self.background_policy = background_policy.to(self.device)
        self._score()
        demo, other = (self._draw_to_measure(side) for side in (self._demos, self._background))
        ratios = demo.log_p - demo.log_q, other.log_p - other.log_q
        self.overlap = measure_overlap(self._demos.train, self._background.train, segment, ratios, config.seed)
        if (fault := self.overlap.fault()) is not None:
            raise OverlapError(fault)
        self.optimizer = torch.optim.Adam(self.reward.parameters(), lr=config.reward.learning_rate)
        self.iteration = 0

    @property
    def steps(self) -> int:
        """Gradient steps so far."""
        return self.iteration * self.steps_per_iteration

    @property
    def steps_per_iteration(self) -> int:
        """Gradient steps per iteration, which is one row of metrics."""
        return self.config.reward.updates

    @property
    def iterations(self) -> int:
        """Iterations in the whole run."""
        assert self.config.total_steps is not None, "resolved settings hold a number"
        return -(-self.config.total_steps // self.steps_per_iteration)

    def iterate(self) -> dict[str, float]:
        """A few gradient steps.

        Returns:
            Metrics by name; those under "time/" are wall-clock seconds.
        """
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        temper = self.config.reward.temper_at(self.iteration / self.iterations)
        for _ in range(self.steps_per_iteration):
            metrics = self._gradient_step(temper)
        metrics |= self._measure_held_out()
        self.iteration += 1
        return metrics | {"time/reward": time.perf_counter() - started}

    @torch.no_grad()
    def refused(self) -> str | None:
        """Why the reward must not be used, in one line: its weights leave too little background to estimate log Z from.

        Returns:
            None if they leave enough.
        """
        config, batch = self.config.reward, self._draw_to_measure(self._background)
        temper = config.temper_at(1.0)
        share = effective_share(temper * (self._sums(batch.segments) / config.alpha - batch.log_mixture()))
        if share >= NEEDED_ESS:
            return None
        return (
            f"the learned reward leaves an effective {share:.2%} of the background, {NEEDED_ESS:.1%} are needed: "
            f"it knows the demos and not the task; {WHAT_TO_DO}, or lower reward.temper ({temper:g})"
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation and an export need."""
        return {
            "iteration": self.iteration,
            "policy": self.policy.state_dict(),
            "background_policy": self.background_policy.state_dict(),
            "reward": self.reward.state_dict(),
            "reward_optimizer": self.optimizer.state_dict(),
            "torch_generator": self.generator.get_state(),
            "numpy_generator": self.rng.bit_generator.state,
            "overlap": dataclasses.asdict(self.overlap),
            "refused": self.refused(),  # what looks at a checkpoint later has no background to ask
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run back where `state_dict` found it."""
        self.iteration = state["iteration"]
        self.policy.load_state_dict(state["policy"])
        self.background_policy.load_state_dict(state["background_policy"])
        self.reward.load_state_dict(state["reward"])
        self.optimizer.load_state_dict(state["reward_optimizer"])
        self.generator.set_state(state["torch_generator"])
        self.rng.bit_generator.state = state["numpy_generator"]
        self._score()

    def _score(self) -> None:
        """Scores all recordings under the two policies."""
        jitter, kinds = self.config.reward.expert_jitter, (self._demos, self._background)
        # Jitter on both: on the demos alone it would be what tells them apart.
        train, held_out = zip(*(self._samplers(kind) for kind in kinds), strict=True)
        self.demos, self.background = (self._scored(sampler, jitter, self.rng) for sampler in train)
        self.held_out = [sampler and self._scored(sampler, 0.0, self.rng) for sampler in held_out]

    def _samplers(self, side: Split) -> tuple[SegmentSampler, SegmentSampler | None]:
        return side.samplers(self.config.reward.segment, past_end=self.reward.absorbing is not None)

    def _scored(self, sampler: SegmentSampler, jitter: float, rng: np.random.Generator) -> ScoredSegments:
        policies = (self.policy, self.background_policy)
        return ScoredSegments(sampler, self.reward.normalizer, jitter, rng, policies)

    def _draw_to_measure(self, side: Split) -> ScoredBatch:
        """The same segments whenever it is asked; no random number of the learning is used up."""
        seed = self.config.seed
        sampler, _ = self._samplers(side)
        scored = self._scored(sampler, 0.0, np.random.default_rng(seed))
        return scored.draw(_MEASURED_SEGMENTS, torch.Generator(self.device).manual_seed(seed))

    def _sums(self, segments: Segments) -> Tensor:
        """(N,) float64 sum of the learned reward over each segment."""
        return rewards_along(self.reward, segments, self.config.ppo.discount).double().sum(0)

    def _gradient_step(self, temper: float) -> dict[str, float]:
        config, count = self.config.reward, self.config.reward.batch_segments
        demo, other = (side.draw(count, self.generator) for side in (self.demos, self.background))
        both = demo.segments.beside(other.segments)
        r, log_mu = self._sums(both), torch.cat([demo.log_mixture(), other.log_mixture()])
        loss = guided_cost_loss(r[:count], r, log_mu, config.alpha, temper)
        penalty = torch.zeros(())
        if config.gradient_penalty > 0.0:
            penalty = gradient_penalty(gradient_between(self.reward, both, count, self.generator))
        self.optimizer.zero_grad()
        (loss + config.gradient_penalty * penalty).backward()
        self.optimizer.step()
        with torch.no_grad():
            log_weight = r / config.alpha - log_mu
            return {
                "reward/loss": float(loss),
                "reward/penalty": float(penalty),
                "reward/demos": float(r[:count].mean() / config.segment),
                "reward/background": float(r[count:].mean() / config.segment),
                "reward/ess": effective_share(temper * log_weight),
                "reward/ess_background": effective_share(temper * log_weight[count:]),
                "reward/ess_exact": effective_share(log_weight),
                "reward/temper": temper,
            }

    @torch.no_grad()
    def _measure_held_out(self) -> dict[str, float]:
        """Reward per step of demos minus that of background, both never learned from; nothing if there are none."""
        demos, background = self.held_out
        if demos is None or background is None:
            return {}
        count, segment = self.config.reward.batch_segments, self.config.reward.segment
        r, other = (self._sums(side.draw(count, self.generator).segments) / segment for side in (demos, background))
        return {
            "held_out/gap": float(r.mean() - other.mean()),
            "held_out/auc": float((r[:, None] > other).double().mean()),
        }


def _usable(episodes: Sequence[Episode], what: str, spec: RobotSpec, segment: int) -> list[Episode]:
    for episode in episodes:
        episode.check_robot(spec)
    require_actions(episodes, f"--offline ({what})")
    usable = [episode for episode in episodes if episode.length >= segment]
    if not usable:
        longest = max((episode.length for episode in episodes), default=0)
        raise OfflineError(
            f"{what}: {len(episodes)} episodes, the longest of {longest} steps; needed is one of {segment} or more"
        )
    return usable
