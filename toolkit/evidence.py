"""What a finished run can be judged by when there is no true reward: its behaviour beside that of the demos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demos.episode import Episode
from demos.segments import SegmentSampler
from robots.batch import BatchSim
from toolkit import judgement
from toolkit.config import ADVERSARIAL
from toolkit.expert_segments import ExpertSegments, Segments
from toolkit.losses import effective_sample_size
from toolkit.networks import GaussianPolicy
from toolkit.rollout import Collector, Rollout
from toolkit.segment_reward import rewards_along
from toolkit.whole_segments import draw_segments, whole_segments

if TYPE_CHECKING:
    from toolkit.trainer import Trainer

Action = Callable[[np.ndarray], np.ndarray]  # observations [B, obs_dim] -> actions [B, act_dim]

FIRST_JUDGING_SEED = 2_000_000  # far from the seeds of training (small) and of evaluation (from 1,000,000)
EVERYTHING = "states and actions"
_EPISODES = 12  # of each policy that is compared with the demos
_EPISODE_ROWS = 500  # of one episode in an energy distance
_MIN_STD = 0.05  # [feature units] a feature that hardly moves in the demos must not outweigh the others when it does
_BLOCKS = 20  # pieces a single demo is cut into, to have two halves that cover the same motion
_NORMAL_ROWS = 8  # of metrics in the last quarter: fewer make no trend


@dataclass(frozen=True)
class Evidence:
    """Figures of one run; distances are energy distances of one episode to the demos, in standardised features.

    The features are those that the reward looks at: on what it does not see it cannot insist, and demos may lack it.
    Where no reward is learned there is no discriminator, and None stands for what it would say.
    """

    held_out_auc: float | None  # how well the discriminator tells demos from fresh experience; 1/2 = not at all
    held_out: bool  # False: no demo was kept from the learner, and the AUC is that of demos it knows
    energy_distance: float  # of the policy as it is deployed: the mean action
    energy_distance_sampled: float  # of the policy as it learned: with its noise
    energy_distance_of_demos: float  # of one demo to the others: the floor
    energy_distance_of_demos_max: float  # of the most unusual demo
    energy_distance_of_start: float  # of the policy before its first iteration, which may be a clone
    energy_distance_of_random: float  # of uniform actions: the ceiling
    likelihood_gap: float | None  # log q of own actions less that of demos' [nats per step]; None: nobody knows those
    ess: float | None  # effective share of the importance weights exp(r / alpha) / q, in (0, 1]
    log_z_drift: float | None  # over the last quarter [standard deviations of the reward]; None: too few iterations
    discriminator_loss: float | None  # mean over the last quarter; 2 log 2 = knows nothing, 0 = saturated
    action_std: float  # mean standard deviation of the policy's noise [action units]
    variety: float  # mean distance between the deployed policy's own features, divided by the demos'
    variety_of_start: float  # the same of the start
    broken: float  # share of fresh steps in which the simulation broke
    demos: int  # how many demos it was compared with
    episodes: int  # how many episodes of each policy
    steps: int  # of each episode
    compared: str  # the features, in words


def gather(
    trainer: Trainer, episodes: Sequence[Episode], start: GaussianPolicy, metrics: Sequence[Mapping[str, float]] = ()
) -> Evidence:
    """Collects fresh experience and measures it. The trainer's networks, simulator and random numbers stay untouched.

    Args:
        trainer: A run with demos, as its last iteration left it.
        episodes: The demos, whole.
        start: The policy before the first iteration.
        metrics: Rows of `metrics.csv`, for what only a history shows; may be empty.

    Returns:
        The figures.
    """
    seed = FIRST_JUDGING_SEED + trainer.config.seed
    generator = torch.Generator(trainer.device).manual_seed(seed)
    rng = np.random.default_rng(seed)
    steps = min(trainer.spec.episode_steps, max(episode.length for episode in episodes))
    sim = BatchSim(trainer.spec, _EPISODES, seed=seed, num_threads=trainer.config.threads, reset_pool=64, stagger=False)
    beginning = sim.state_dict()

    def episodes_of(action: Action) -> tuple[list[np.ndarray], float]:
        sim.load_state_dict(beginning)  # all policies begin their episodes in the same states
        return act(sim, action, steps)

    deployed, broken = episodes_of(mean_action(trainer.policy, trainer.device))
    begun, _ = episodes_of(mean_action(start, trainer.device))
    drawn, _ = episodes_of(lambda observation: rng.uniform(-1.0, 1.0, (len(observation), sim.act_dim)))
    sim.load_state_dict(beginning)
    collector = Collector(sim, trainer.device, generator)
    # A segment must fit in, whatever the length of the demos.
    rollout = collector.collect(trainer.policy, max(steps, trainer.config.reward.segment))
    sim.close()
    sampled = list(torch.cat([rollout.observation, rollout.action], 2)[:steps].transpose(0, 1).cpu().numpy())
    columns, compared = _looked_at(trainer)
    yardstick = Yardstick(episodes, columns)
    discriminator = _Discriminator(trainer, rollout, rng, generator)
    known, learns = all(episode.actions_known for episode in episodes), trainer.config.objective in ADVERSARIAL
    return Evidence(
        held_out_auc=discriminator.auc() if learns else None,
        held_out=trainer.held_out_demos is not None,
        energy_distance=yardstick.distance(deployed),
        energy_distance_sampled=yardstick.distance(sampled),
        energy_distance_of_demos=float(np.mean(yardstick.between_demos)),
        energy_distance_of_demos_max=float(np.max(yardstick.between_demos)),
        energy_distance_of_start=yardstick.distance(begun),
        energy_distance_of_random=yardstick.distance(drawn),
        likelihood_gap=discriminator.likelihood_gap() if known else None,
        ess=discriminator.ess() if learns else None,
        log_z_drift=discriminator.log_z_drift(metrics),
        discriminator_loss=_mean_of("reward/loss", last_quarter(metrics)),
        action_std=float(trainer.policy.log_std.detach().exp().mean()),
        variety=yardstick.variety(deployed),
        variety_of_start=yardstick.variety(begun),
        broken=max(broken, float(rollout.quarantined.float().mean())),
        demos=len(episodes),
        episodes=_EPISODES,
        steps=steps,
        compared=compared,
    )


def _looked_at(trainer: Trainer) -> tuple[list[int], str]:
    """Columns of [observation, action] rows that the reward looks at, and what they are."""
    reward, spec = trainer.reward, trainer.spec
    columns = list(range(spec.obs_dim)) if reward.seen is None else reward.seen.tolist()
    words = "states" if reward.seen is None else ", ".join(spec.observation_names[i] for i in columns)
    if reward.state_only:
        return columns, words
    return [*columns, *range(spec.obs_dim, spec.obs_dim + spec.act_dim)], f"{words} and actions"


class Yardstick:
    """Energy distances to a set of demos, arranged so that a policy equal to the expert measures as a demo does.

    Each demo is compared with all others. An episode of the policy takes the place of one demo and is compared with the
    same others. So the number of episodes on each side, and what single episodes differ by, is the same for both.
    """

    def __init__(self, episodes: Sequence[Episode], columns: Sequence[int]) -> None:
        """Standardises the demos and measures each against the others.

        Args:
            episodes: The demos. If there is only one, every second of its pieces is measured against the rest.
            columns: Which of the obs_dim + act_dim columns of a row count.
        """
        self.columns = list(columns)
        both = [np.concatenate([e.observations[:-1], e.actions], axis=1) for e in episodes]
        rows = [x[:, self.columns].astype(np.float64) for x in both]
        everything = np.concatenate(rows)
        self.mean, self.std = everything.mean(0), np.maximum(everything.std(0), _MIN_STD)
        self.demos = [judgement.standardize(x, self.mean, self.std) for x in rows]
        count = len(self.demos)
        if count == 1:
            pieces = np.array_split(self.demos[0], min(_BLOCKS, len(rows[0])))
            one, other = np.concatenate(pieces[::2]), np.concatenate(pieces[1::2] or pieces)
            self.others = [self.demos[0]]
            self.between_demos = [judgement.energy_distance(one, other)]
        else:
            self.others = [np.concatenate(self.demos[:i] + self.demos[i + 1 :]) for i in range(count)]
            self.between_demos = [self._one(demo, i) for i, demo in enumerate(self.demos)]

    def distance(self, episodes: Sequence[np.ndarray]) -> float:
        """Mean distance of episodes, each (T, obs_dim + act_dim) as observed and acted, in the place of a demo."""
        return float(np.mean([self._one(self._standard(x), i % len(self.others)) for i, x in enumerate(episodes)]))

    def variety(self, episodes: Sequence[np.ndarray]) -> float:
        """E|X - X'| of the episodes' rows, divided by that of the demos' rows; 0 if nothing moves."""
        own, demos = np.concatenate([self._standard(x) for x in episodes]), np.concatenate(self.demos)
        own, demos = judgement.spaced_rows(own, judgement.MAX_ROWS), judgement.spaced_rows(demos, judgement.MAX_ROWS)
        return judgement.mean_distance(own, own) / max(judgement.mean_distance(demos, demos), 1e-12)

    def _standard(self, x: np.ndarray) -> np.ndarray:
        return judgement.standardize(x[:, self.columns], self.mean, self.std)

    def _one(self, x: np.ndarray, place: int) -> float:
        return judgement.energy_distance(judgement.spaced_rows(x, _EPISODE_ROWS), self.others[place])


class _Discriminator:
    """What the discriminator and the policy think of demos they did not learn from and of fresh experience."""

    def __init__(
        self, trainer: Trainer, rollout: Rollout, rng: np.random.Generator, generator: torch.Generator
    ) -> None:
        config = trainer.config.reward
        self.reward, self.alpha, self.segment = trainer.reward, config.alpha, config.segment
        self.discount = trainer.config.acting.discount
        self.plain = trainer.config.objective == "gail"  # its logit has no log q
        demos = trainer.demos if trainer.held_out_demos is None else trainer.held_out_demos
        assert isinstance(demos, SegmentSampler)
        count = config.batch_segments
        expert = ExpertSegments(demos, self.reward.normalizer, config.expert_jitter, rng)
        expert.score(trainer.policy)
        self.expert = expert.draw(count, generator)
        state, next_state = map(self.reward.normalizer, (rollout.observation, rollout.next_observation))
        experience = Segments(state, next_state, rollout.action, rollout.termination, rollout.log_prob)
        whole = whole_segments(rollout, self.segment, past_end=self.reward.absorbing is not None)
        self.own = draw_segments(experience, whole, self.segment, count, generator)
        self.rollout = rollout

    @torch.no_grad()
    def _reward(self, segments: Segments) -> Tensor:
        """(N,) f / alpha of segments, summed in float64."""
        return rewards_along(self.reward, segments, self.discount).double().sum(0) / self.alpha

    def auc(self) -> float:
        expert, own = (
            self._reward(segments) - (0.0 if self.plain else segments.log_density())
            for segments in (self.expert, self.own)
        )
        return judgement.auc(expert, own)

    def ess(self) -> float:
        score = self._reward(self.own) - self.own.log_density()
        return float(effective_sample_size(score) / len(score))

    def likelihood_gap(self) -> float:
        taken = self.expert.log_q[~self.expert.absorbed]
        return judgement.likelihood_gap(self.rollout.log_prob[~self.rollout.quarantined], taken)

    @torch.no_grad()
    def log_z_drift(self, metrics: Sequence[Mapping[str, float]]) -> float | None:
        rows = last_quarter(metrics)
        if len(rows) < _NORMAL_ROWS or "reward/log_z" not in rows[0]:
            return None
        spread = float(self.reward(self.rollout.observation, self.rollout.action).std())
        unit = self.segment * max(spread, 1e-6) / self.alpha
        return judgement.log_z_drift(np.array([row["reward/log_z"] for row in rows]), unit)


def act(sim: BatchSim, action: Action, steps: int) -> tuple[list[np.ndarray], float]:
    """Runs one episode in each environment, from its beginning.

    Args:
        sim: The simulator.
        action: Observations [B, obs_dim] to actions [B, act_dim].
        steps: At most an episode's.

    Returns:
        B arrays (steps, obs_dim + act_dim) of what was observed and done, and the share of steps that broke.
    """
    observation, rows, broken = sim.reset(), [], 0.0
    for _ in range(steps):
        chosen = np.clip(action(observation), -1.0, 1.0)
        rows.append(np.concatenate([observation, chosen], axis=1))
        step = sim.step(chosen)
        observation, broken = step.observation, broken + float(step.quarantined.mean())
    return list(np.stack(rows, axis=1)), broken / steps


def mean_action(policy: GaussianPolicy, device: torch.device) -> Action:
    """The policy as it is deployed: observations [B, obs_dim] to mean actions [B, act_dim]."""

    def mean(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return policy(torch.from_numpy(observation).to(device, torch.float32)).cpu().numpy()

    return mean


def last_quarter(metrics: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    """The last quarter of the rows."""
    return metrics[len(metrics) - len(metrics) // 4 :]


def _mean_of(name: str, rows: Sequence[Mapping[str, float]]) -> float | None:
    return float(np.mean([row[name] for row in rows])) if rows and name in rows[0] else None
