"""The training loop, in the paper's order: act, judge, improve the reward, improve the policy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demos.episode import Episode
from demos.segments import SegmentSampler
from robots.batch import BatchSim
from robots.spec import RobotSpec, ToolkitError
from toolkit.config import TrainConfig
from toolkit.held_out import hold_out
from toolkit.losses import generator_reward
from toolkit.networks import GaussianPolicy, RewardNetwork, ValueNetwork
from toolkit.ppo import PolicyLearner
from toolkit.replay import demo_transitions
from toolkit.reward_learner import RewardLearner
from toolkit.rollout import Collector
from toolkit.sac import SacLearner
from toolkit.warm_start import clone_behaviour

TaskReward = Callable[[BatchSim], np.ndarray]  # true reward [B] of the step just simulated; makes experts, nothing else


_PPO_STEPS, _SAC_STEPS = 2_000_000, 200_000  # control steps of a run that names no number


class TrainingError(ToolkitError):
    """A run that cannot start or go on."""


def resolve(config: TrainConfig, spec: RobotSpec) -> TrainConfig:
    """Fills in what depends on the robot, so that the checkpoint holds numbers and no "auto".

    Args:
        config: As the user gave it.
        spec: The robot.

    Returns:
        The config with segment length, temper, horizon, number of environments and of segments as they will be used.
        Longer segments need longer rollouts; environments and segments get fewer, so that an iteration keeps its size.
    """
    reward, acting = config.reward, config.acting
    segment = min(reward.segment or spec.episode_steps, spec.episode_steps)
    temper = reward.alpha / segment if reward.temper is None else reward.temper
    horizon = max(acting.horizon, segment) if config.objective == "gan-gcl" else acting.horizon
    reward = dataclasses.replace(reward, segment=segment, temper=temper)
    if config.generator == "sac":
        return dataclasses.replace(
            config,
            total_steps=config.total_steps or _SAC_STEPS,
            reward=reward,
            sac=dataclasses.replace(config.sac, horizon=horizon),
        )
    num_envs = max(min(32, acting.num_envs), acting.num_envs * acting.horizon // horizon)
    batch_segments = max(min(16, reward.batch_segments), reward.batch_segments * acting.horizon // horizon)
    return dataclasses.replace(
        config,
        total_steps=config.total_steps or _PPO_STEPS,
        reward=dataclasses.replace(reward, batch_segments=batch_segments),
        ppo=dataclasses.replace(config.ppo, horizon=horizon, num_envs=num_envs),
    )


class Trainer:
    """Everything a run consists of; `state_dict` holds all of it, so that a resumed run is the same run."""

    def __init__(
        self, spec: RobotSpec, config: TrainConfig, episodes: Sequence[Episode], task_reward: TaskReward | None = None
    ) -> None:
        """Builds networks, simulator and learners.

        Args:
            spec: The robot.
            config: Settings; resolved here.
            episodes: Demos to learn from; may be empty for objective "task-reward".
            task_reward: The true reward, for objective "task-reward" only.

        Raises:
            TrainingError: No demos, or demos of another size than the robot, or a task reward where none may be.
        """
        _check(spec, config, episodes, task_reward)
        self.spec, self.config = spec, resolve(config, spec)
        config = self.config
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = torch.device(config.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        limits = (config.policy.log_std_init, config.policy.log_std_min, config.policy.log_std_max)
        self.policy = GaussianPolicy(spec.obs_dim, spec.act_dim, config.policy.hidden, limits).to(self.device)
        self.value = ValueNetwork(spec.obs_dim, config.policy.hidden).to(self.device)
        self.reward = RewardNetwork(spec.obs_dim, spec.act_dim, config.reward.hidden).to(self.device)
        self.reward_learner = RewardLearner(self.reward, config.reward, config.reward.segment, self.rng)
        self.task_reward = task_reward
        self.demos = self.held_out_demos = demo_steps = None
        if episodes:
            train, held_out = hold_out(episodes, config.holdout, config.reward.segment, config.seed)
            self.demos = SegmentSampler(train, config.reward.segment)
            self.held_out_demos = SegmentSampler(held_out, config.reward.segment) if held_out else None
            demo_steps = demo_transitions(train, self.device)
            observations = torch.from_numpy(np.concatenate([e.observations for e in train])).to(self.device)
            self.reward.normalizer.update(observations)
            self.policy.normalizer.update(observations)
            clone_behaviour(self.policy, self.demos, config.policy.warm_start, self.rng, self.generator)
        if config.generator == "sac":
            alpha, segment = config.reward.alpha, config.reward.segment
            self.policy_learner = SacLearner(self.policy, config.sac, alpha, segment, demo_steps, self.generator)
        else:
            self.policy_learner = PolicyLearner(self.policy, self.value, config.ppo)
        stagger = config.reward.segment < spec.episode_steps
        self.sim = BatchSim(spec, config.acting.num_envs, seed=config.seed, num_threads=config.threads, stagger=stagger)
        self.collector = Collector(self.sim, self.device, self.generator)
        self.iteration = 0

    @property
    def steps(self) -> int:
        """Control steps simulated so far, over all environments."""
        return self.iteration * self.steps_per_iteration

    @property
    def steps_per_iteration(self) -> int:
        """Control steps simulated per iteration."""
        return self.config.acting.num_envs * self.config.acting.horizon

    @property
    def iterations(self) -> int:
        """Iterations in the whole run."""
        assert self.config.total_steps is not None  # resolved
        return -(-self.config.total_steps // self.steps_per_iteration)

    def learn(self, on_iteration: Callable[[Trainer, dict[str, float]], bool]) -> None:
        """Trains until the run's steps are used up.

        Args:
            on_iteration: Called after each iteration with its metrics; returning False stops the run.
        """
        while self.iteration < self.iterations:
            if not on_iteration(self, self.iterate()):
                return

    def iterate(self) -> dict[str, float]:
        """One iteration: collect, learn the reward, label, learn the policy.

        Returns:
            Metrics by name; those under "time/" are wall-clock seconds.
        """
        true_reward: list[np.ndarray] = []
        before_reset = None
        if self.task_reward is not None:
            task_reward = self.task_reward
            before_reset = lambda: true_reward.append(task_reward(self.sim))  # noqa: E731
        started = time.perf_counter()
        rollout = self.collector.collect(self.policy, self.config.acting.horizon, before_reset)
        collected = time.perf_counter()
        if self.demos is None:
            r_t = torch.from_numpy(np.stack(true_reward)).to(self.device, torch.float32)
            metrics = {"reward/task": float(r_t.mean())}
            label = lambda *step: generator_reward(r_t, step[3], 0.0, self.config.reward.alpha, 1)  # noqa: E731
        else:
            experience, scorer = self.policy_learner.remember(rollout), self.policy_learner.scorer
            metrics = self.reward_learner.update(self.demos, experience, scorer, self.generator)
            if self.held_out_demos is not None:
                metrics |= self.reward_learner.held_out(self.held_out_demos, experience, scorer, self.generator)
            label = self.reward_learner.label
        judged = time.perf_counter()
        wait = self.demos is not None and self.iteration < self.config.acting.head_start
        metrics |= self.policy_learner.update(rollout, label, self.generator, value_only=wait)
        if self.demos is None:
            # Last, so that every log q of this iteration was computed with one and the same policy. With demos the
            # normaliser stays as they set it: that is where the policy is headed, and a cloned policy must not drift.
            self.policy.normalizer.update(rollout.observation)
        self.iteration += 1
        finished = time.perf_counter()
        return metrics | {
            "quarantined": float(rollout.quarantined.float().mean()),
            "time/simulate": collected - started,
            "time/reward": judged - collected,
            "time/policy": finished - judged,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs: networks, optimisers, normalisers, random numbers, simulator."""
        return {
            "iteration": self.iteration,
            "policy": self.policy.state_dict(),
            "value": self.value.state_dict(),
            "reward": self.reward.state_dict(),
            "policy_learner": self.policy_learner.state_dict(),
            "reward_optimizer": self.reward_learner.optimizer.state_dict(),
            "log_z": self.reward_learner.log_z,
            "torch_generator": self.generator.get_state(),
            "numpy_generator": self.rng.bit_generator.state,
            "observation": torch.from_numpy(self.collector.observation.copy()),
            "sim": {
                k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in self.sim.state_dict().items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run back where `state_dict` found it."""
        self.iteration = state["iteration"]
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])
        self.reward.load_state_dict(state["reward"])
        self.policy_learner.load_state_dict(state["policy_learner"])
        self.reward_learner.optimizer.load_state_dict(state["reward_optimizer"])
        self.reward_learner.log_z = state["log_z"]
        self.generator.set_state(state["torch_generator"])
        self.rng.bit_generator.state = state["numpy_generator"]
        self.sim.load_state_dict({k: v.numpy() if isinstance(v, Tensor) else v for k, v in state["sim"].items()})
        self.collector.observation = state["observation"].numpy().copy()


def _check(spec: RobotSpec, config: TrainConfig, episodes: Sequence[Episode], task_reward: TaskReward | None) -> None:
    if config.objective == "task-reward":
        if task_reward is None or episodes:
            raise TrainingError('objective "task-reward" takes the robot\'s task and no demos')
        return
    if task_reward is not None:
        raise TrainingError(f"objective {config.objective!r} must never see the true reward")
    if not episodes:
        raise TrainingError(f"objective {config.objective!r} learns from demos; none were given")
    for i, episode in enumerate(episodes):
        dims = (episode.observations.shape[1], episode.actions.shape[1])
        if dims != (spec.obs_dim, spec.act_dim):
            raise TrainingError(
                f"demo {i}: observation and action of {dims}; {spec.name} has ({spec.obs_dim}, {spec.act_dim})"
            )
