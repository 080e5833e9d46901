"""Guided cost learning without a simulator: the reward that sets the demos apart from a fixed set of recordings.

Finn, Levine, Abbeel 2016, "Guided Cost Learning" (arXiv 1603.00448), with a sampling distribution that stays as it was
recorded. The background may have been recorded by anybody; its rewards, like the demos', are never read.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from demos.episode import Episode
from robots.spec import RobotSpec, ToolkitError
from toolkit.background import estimate_log_q
from toolkit.config import TrainConfig
from toolkit.held_out import hold_out
from toolkit.losses import gradient_penalty
from toolkit.networks import GaussianPolicy, RewardNetwork
from toolkit.overlap import NEEDED_ESS, WHAT_TO_DO, OverlapError, effective_share, measure_overlap
from toolkit.scored_segments import ScoredBatch, ScoredSegments, mixture_log_density

_PENALTY_POINTS = 2048  # as in reward_learner.py
_MEASURED_SEGMENTS = 2048  # background segments on which the overlap is measured


class OfflineError(ToolkitError):
    """Demos or background that offline learning cannot start from."""


def guided_cost_loss(r_expert: Tensor, r: Tensor, log_mu: Tensor, alpha: float, temper: float) -> Tensor:
    """L_r = -E_p[kappa r / alpha] + log mean_i exp(kappa (r_i / alpha - log mu_i)).

    Finn, Levine, Abbeel 2016 (arXiv 1603.00448), equations 2 and 3 with cost -r / alpha. The second term is log Z by
    importance sampling with tau_i ~ mu; its gradient is that of self-normalised weights. With kappa = 1 it is the exact
    maximum-entropy likelihood; a smaller kappa flattens reward and weights alike.

    Args:
        r_expert: (M,) summed reward of each demo segment.
        r: (N,) summed reward of each segment drawn from mu, demos and background together.
        log_mu: (N,) log density of each of those under mu [nats].
        alpha: Temperature.
        temper: kappa in (0, 1].

    Returns:
        () float64 loss.

    Raises:
        ValueError: Not vectors, or r and log_mu of different lengths.
    """
    if r_expert.ndim != 1 or r.ndim != 1 or r.shape != log_mu.shape:
        raise ValueError(
            f"expected (M,), (N,), (N,), got {tuple(r_expert.shape)}, {tuple(r.shape)}, {tuple(log_mu.shape)}"
        )
    score = temper * (r.double() / alpha - log_mu.double())
    return torch.logsumexp(score, 0) - math.log(len(score)) - temper * r_expert.double().mean() / alpha


def resolve_offline(config: TrainConfig, spec: RobotSpec) -> TrainConfig:
    """Fills in segment length and temper, so that the checkpoint holds numbers and no "auto".

    Args:
        config: As the user gave it.
        spec: The robot, for the length of whole-episode segments.

    Returns:
        The config as it will be used.

    Raises:
        OfflineError: No gradient steps for the density fits.
    """
    if config.policy.warm_start == 0:
        raise OfflineError("policy.warm_start 0: offline, it is the gradient steps of the density fits; at least 1")
    segment = min(config.reward.segment or spec.episode_steps, spec.episode_steps)
    temper = config.reward.alpha / segment if config.reward.temper is None else config.reward.temper
    return dataclasses.replace(config, reward=dataclasses.replace(config.reward, segment=segment, temper=temper))


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
            OfflineError: No demos or no background, of the robot's size and a segment's length.
            OverlapError: They have too little in common.
        """
        self.spec, self.config = spec, resolve_offline(config, spec)
        config, segment = self.config, self.config.reward.segment
        demos = _usable(demos, "demos", spec, segment)
        background = _usable(background, "background", spec, segment)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = torch.device(config.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self._demos = hold_out(demos, config.holdout, segment, config.seed)
        self._background = hold_out(background, config.holdout, segment, config.seed)
        self.policy = estimate_log_q(self._demos[0], config.policy, config.seed, self.device)
        if background_policy is None:
            background_policy = estimate_log_q(self._background[0], config.policy, config.seed, self.device)
        self.background_policy = background_policy.to(self.device)
        self._score()
        generator = torch.Generator(self.device).manual_seed(config.seed)
        demo, other = (side.draw(_MEASURED_SEGMENTS, generator) for side in (self.demos, self.background))
        ratios = demo.log_p - demo.log_q, other.log_p - other.log_q
        self.overlap = measure_overlap(self._demos[0], self._background[0], segment, ratios, config.seed)
        if (fault := self.overlap.fault()) is not None:
            raise OverlapError(fault)
        self.reward = RewardNetwork(spec.obs_dim, spec.act_dim, config.reward.hidden).to(self.device)
        self.reward.normalizer.update(self.demos.observation)
        self.optimizer = torch.optim.Adam(self.reward.parameters(), lr=config.reward.learning_rate)
        self.iteration = 0
        self.refused: str | None = None  # why the reward must not be used, known when the run is over

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
        return -(-self.config.total_steps // self.steps_per_iteration)

    def learn(self, on_iteration: Callable[[OfflineLearner, dict[str, float]], bool]) -> None:
        """Trains until the run's steps are used up.

        Args:
            on_iteration: Called after each iteration with its metrics; returning False stops the run.
        """
        while self.iteration < self.iterations:
            if not on_iteration(self, self.iterate()):
                return

    def iterate(self) -> dict[str, float]:
        """A few gradient steps.

        Returns:
            Metrics by name; those under "time/" are wall-clock seconds.
        """
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        for _ in range(self.steps_per_iteration):
            metrics = self._gradient_step()
        metrics |= self._measure_held_out()
        self.iteration += 1
        self.refused = self._collapse() if self.iteration >= self.iterations else None
        return metrics | {"time/reward": time.perf_counter() - started}

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation and an export need."""
        return {
            "iteration": self.iteration,
            "policy": self.policy.state_dict(),
            "background_policy": self.background_policy.state_dict(),
            "reward": self.reward.state_dict(),
            "reward_optimizer": self.optimizer.state_dict(),
            "torch_generator": self.generator.get_state(),
            "overlap": dataclasses.asdict(self.overlap),
            "refused": self.refused,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run back where `state_dict` found it."""
        self.iteration = state["iteration"]
        self.policy.load_state_dict(state["policy"])
        self.background_policy.load_state_dict(state["background_policy"])
        self.reward.load_state_dict(state["reward"])
        self.optimizer.load_state_dict(state["reward_optimizer"])
        self.generator.set_state(state["torch_generator"])
        self.refused = state["refused"] if self.iteration >= self.iterations else None
        self._score()

    def _score(self) -> None:
        """Scores all recordings under the two policies."""
        segment, policies = self.config.reward.segment, (self.policy, self.background_policy)
        self.demos, self.background = (
            ScoredSegments(kind[0], segment, *policies) for kind in (self._demos, self._background)
        )
        self.held_out = [
            ScoredSegments(kind[1], segment, *policies) if kind[1] else None for kind in (self._demos, self._background)
        ]

    def _gradient_step(self) -> dict[str, float]:
        config, generator = self.config.reward, self.generator
        # Jitter on both: on the demos alone it would be what tells them apart.
        demo, other = (
            side.draw(config.batch_segments, generator, config.expert_jitter) for side in (self.demos, self.background)
        )
        features = self.reward.features(
            torch.cat([demo.observation, other.observation], 1), torch.cat([demo.action, other.action], 1)
        )
        r, count = self.reward.net(features).squeeze(-1).sum(0), config.batch_segments
        log_mu = torch.cat([_log_mu(demo), _log_mu(other)])
        assert config.temper is not None
        loss = guided_cost_loss(r[:count], r, log_mu, config.alpha, config.temper)
        penalty = gradient_penalty(self._interpolate_gradient(features, count))
        self.optimizer.zero_grad()
        (loss + config.gradient_penalty * penalty).backward()
        self.optimizer.step()
        with torch.no_grad():
            log_weight = r.double() / config.alpha - log_mu
            return {
                "reward/loss": float(loss),
                "reward/penalty": float(penalty),
                "reward/demos": float(r[:count].mean() / self.config.reward.segment),
                "reward/background": float(r[count:].mean() / self.config.reward.segment),
                "reward/ess": effective_share(config.temper * log_weight),
                "reward/ess_background": effective_share(config.temper * log_weight[count:]),
                "reward/ess_exact": effective_share(log_weight),
            }

    def _interpolate_gradient(self, features: Tensor, count: int) -> Tensor:
        """dr/dx at random points between demo and background steps, in normalised units, (points, features)."""
        width, generator, device = features.shape[-1], self.generator, features.device
        demo, other = (side.detach().reshape(-1, width) for side in (features[:, :count], features[:, count:]))
        size = min(_PENALTY_POINTS, len(demo), len(other))
        i, j = (torch.randint(len(side), (size,), generator=generator, device=device) for side in (demo, other))
        u = torch.rand(size, 1, generator=generator, device=device)
        point = (u * demo[i] + (1.0 - u) * other[j]).requires_grad_()
        (gradient,) = torch.autograd.grad(self.reward.net(point).sum(), point, create_graph=True)
        return gradient

    @torch.no_grad()
    def _collapse(self) -> str | None:
        """Says in one line if the learned weights leave too little of the background to estimate log Z from."""
        config = self.config.reward
        assert config.temper is not None
        batch = self.background.draw(_MEASURED_SEGMENTS, torch.Generator(self.device).manual_seed(self.config.seed))
        r = self.reward(batch.observation, batch.action).double().sum(0)
        share = effective_share(config.temper * (r / config.alpha - _log_mu(batch)))
        if share >= NEEDED_ESS:
            return None
        return (
            f"the learned reward leaves an effective {share:.2%} of the background, {NEEDED_ESS:.1%} are needed: "
            f"it knows the demos and not the task; {WHAT_TO_DO}, or lower reward.temper ({config.temper:g})"
        )

    @torch.no_grad()
    def _measure_held_out(self) -> dict[str, float]:
        """Reward per step of demos minus that of background, both never learned from; nothing if there are none."""
        demos, background = self.held_out
        if demos is None or background is None:
            return {}
        r = []
        for side in (demos, background):
            batch = side.draw(self.config.reward.batch_segments, self.generator)
            r.append(self.reward(batch.observation, batch.action).mean(0))
        return {
            "held_out/gap": float(r[0].mean() - r[1].mean()),
            "held_out/auc": float((r[0][:, None] > r[1]).double().mean()),
        }


def _log_mu(batch: ScoredBatch) -> Tensor:
    # Half of each batch is demos.
    return mixture_log_density(batch.log_p, batch.log_q, 0.5)


def _usable(episodes: Sequence[Episode], what: str, spec: RobotSpec, segment: int) -> list[Episode]:
    for episode in episodes:
        episode.check_robot(spec)
    usable = [episode for episode in episodes if episode.length >= segment]
    if not usable:
        longest = max((episode.length for episode in episodes), default=0)
        raise OfflineError(
            f"{what}: {len(episodes)} episodes, the longest of {longest} steps; needed is one of {segment} or more"
        )
    return usable
