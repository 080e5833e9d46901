"""The training loop, in the paper's order: act, judge, improve the reward, improve the policy."""

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
from robots.batch import BatchSim
from robots.spec import RobotSpec, ToolkitError
from robots.termination import Termination
from toolkit.checkpoint import Checkpoint
from toolkit.config import ADVERSARIAL, FROM_DEMOS, TrainConfig
from toolkit.device import device_of
from toolkit.given_reward import FrozenReward, GivenReward, TaskReward, constant_reward
from toolkit.held_out import split
from toolkit.networks import ValueNetwork, build_policy_network, build_reward_network
from toolkit.ppo import PolicyLearner
from toolkit.replay import demo_transitions
from toolkit.resolve import lasting, resolve
from toolkit.reward_learner import RewardLearner
from toolkit.rollout import Collector
from toolkit.sac import SacLearner
from toolkit.warm_start import clone_behaviour


class TrainingError(ToolkitError):
    """A run that cannot start or go on."""


class Trainer:
    """Everything a run consists of; `state_dict` holds all of it, so that a resumed run is the same run."""

    def __init__(
        self,
        spec: RobotSpec,
        config: TrainConfig,
        episodes: Sequence[Episode],
        task_reward: TaskReward | None = None,
        frozen_reward: FrozenReward | None = None,
    ) -> None:
        """Builds networks, simulator and learners.

        Args:
            spec: The robot.
            config: Settings; resolved here.
            episodes: Demos to learn from; empty for the objectives that take none.
            task_reward: The true reward, for objective "task-reward" only.
            frozen_reward: A reward learned elsewhere, for objective "reward" only.

        Raises:
            TrainingError: No demos, or demos of another size than the robot, or a reward where none may be.
        """
        _check(spec, config, episodes, task_reward, frozen_reward)
        self.spec, self.config = spec, resolve(config, spec, lasting(episodes, spec))
        config = self.config
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = device_of(config.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.policy = build_policy_network(spec.obs_dim, spec.act_dim, config.policy).to(self.device)
        self.value: ValueNetwork | None = None  # SAC has critics of its own
        if config.generator == "ppo":
            self.value = ValueNetwork(spec.obs_dim, config.policy.hidden).to(self.device)
        self.reward = build_reward_network(spec, config.reward).to(self.device)
        if self.reward.absorbing is not None and config.acting.discount == 1.0:
            raise TrainingError(f"{spec.name} has a `terminate`: what comes after an end needs a discount below 1")
        self.policy_learner = self._policy_learner()
        self.task_reward = task_reward
        self.from_demos = bool(episodes)
        self.continues = False  # with the policy of another run
        judge = constant_reward if config.objective in ("constant", "bc") else frozen_reward
        self.judge: RewardLearner | GivenReward = GivenReward(judge, config.reward.alpha, config.acting.discount)
        self.demos: SegmentSampler | None = None
        self.held_out_demos: SegmentSampler | None = None
        started = time.perf_counter()
        if episodes:
            self._learn_from(episodes)
        self.cloning_seconds = time.perf_counter() - started  # [s] wall clock; part of what a run takes
        practised = spec
        if config.episode_steps:
            practised = dataclasses.replace(spec, episode_seconds=config.episode_steps * spec.control_dt)
        self.sim = BatchSim(
            practised, config.num_envs, seed=config.seed, num_threads=config.threads, randomize=config.randomize
        )
        self.collector = Collector(self.sim, self.device, self.generator)
        self.iteration = 0
        learns = self.value is not None and isinstance(self.judge, RewardLearner)
        policies = config.ppo.restarts + 1 if learns else 1
        self._restarts = {round(k * self.iterations / policies) for k in range(1, policies)} - {0}

    def _policy_learner(self) -> PolicyLearner | SacLearner:
        config = self.config
        if self.value is not None:
            return PolicyLearner(self.policy, self.value, config.ppo)
        reward, past_end = config.reward, self.reward.absorbing is not None
        return SacLearner(self.policy, config.sac, reward.alpha, reward.segment, self.generator, past_end)

    def _learn_from(self, episodes: Sequence[Episode]) -> None:
        """Takes in the demos: what is held out, normalisers, the policy's start, the judge."""
        config, segment = self.config, self.config.reward.segment
        self.demo_weights = demo_weights(episodes, config.weighting)
        parts = split(episodes, self.demo_weights.tolist(), config.held_out_share, segment, config.seed)
        train, weights = parts.train, parts.weights
        self.demos, self.held_out_demos = parts.samplers(segment, past_end=self.reward.absorbing is not None)
        observations = torch.from_numpy(np.concatenate([e.observations for e in train])).to(self.device)
        self.reward.normalizer.update(observations)
        self.policy.normalizer.update(observations)
        if all(episode.actions_known for episode in train):
            clone_behaviour(self.policy, self.demos, config.policy.warm_start, self.rng, self.generator)
            weight = torch.from_numpy(np.repeat(weights, [e.length for e in train])).to(self.device)
            self.policy_learner.hold_near(demo_transitions(train, self.device), weight)
        if config.objective in ADVERSARIAL:
            self.judge = RewardLearner(self.reward, config, self.demos, self.held_out_demos, self.rng)

    def _begin_anew(self) -> None:
        """Policy and value from random weights; what normalises observations, and the reward, stay as they are."""
        torch.manual_seed(self.config.seed + self.iteration)  # so that a resumed run draws the same weights
        fresh = build_policy_network(self.spec.obs_dim, self.spec.act_dim, self.config.policy)
        fresh.normalizer.load_state_dict(self.policy.normalizer.state_dict())
        self.policy.load_state_dict(fresh.state_dict())
        assert self.value is not None and isinstance(self.policy_learner, PolicyLearner)
        self.value.load_state_dict(ValueNetwork(self.spec.obs_dim, self.config.policy.hidden).state_dict())
        self.policy_learner.begin_anew()

    def start_from(self, checkpoint: Checkpoint) -> str:
        """Takes policy and value from another run, in place of fresh or cloned ones; SAC has and leaves no value.

        Args:
            checkpoint: Of a robot with the same observations and actions, and networks of the same widths.

        Returns:
            Identity of that robot, for the record.

        Raises:
            TrainingError: Its networks do not fit.
        """
        state = checkpoint.state["trainer"]
        try:
            self.policy.load_state_dict(state["policy"])
            if self.value is not None and state.get("value") is not None:
                self.value.load_state_dict(state["value"])
        except (RuntimeError, KeyError) as error:
            raise TrainingError(
                f"--start: a policy of {checkpoint.spec.name} with hidden layers {checkpoint.config.policy.hidden}; "
                f"this run trains {self.spec.name} with {self.config.policy.hidden}, and they must fit"
            ) from error
        self.continues = True
        return checkpoint.spec.sha256

    @property
    def steps(self) -> int:
        """Control steps simulated so far, over all environments."""
        return self.iteration * self.steps_per_iteration

    @property
    def steps_per_iteration(self) -> int:
        """Control steps simulated per iteration."""
        return self.config.num_envs * self.config.horizon

    @property
    def iterations(self) -> int:
        """Iterations in the whole run; none where cloning is all."""
        assert self.config.total_steps is not None, "resolved settings hold a number"
        return 0 if self.config.objective == "bc" else -(-self.config.total_steps // self.steps_per_iteration)

    def iterate(self) -> dict[str, float]:
        """One iteration: collect, learn the reward, label, learn the policy.

        Returns:
            Metrics by name; those under "time/" are wall-clock seconds.
        """
        if self.iteration in self._restarts:
            self._begin_anew()
        before_reset = None
        if self.task_reward is not None:
            assert isinstance(self.judge, GivenReward)
            task_reward, true_reward = self.task_reward, self.judge.true_reward
            true_reward.clear()
            before_reset = lambda: true_reward.append(task_reward(self.sim))  # noqa: E731
        started = time.perf_counter()
        rollout = self.collector.collect(self.policy, self.config.horizon, before_reset)
        collected = time.perf_counter()
        progress = self.iteration / self.iterations
        remembered = self.policy_learner.remember(rollout)
        metrics = self.judge.update(remembered, self.policy_learner.scorer, self.generator, progress)
        judged = time.perf_counter()
        if isinstance(self.judge, RewardLearner):
            wait = self.judge.rounds <= self.config.acting.head_start
        else:  # a value that does not know this reward yet would soon spoil a policy that is good already
            wait = self.continues and self.iteration < self.config.acting.head_start
        metrics |= self.policy_learner.update(rollout, self.judge.label, self.generator, progress, value_only=wait)
        if not (self.from_demos or self.continues):
            # Last, so that every log q of this iteration was computed with one and the same policy. With demos the
            # normaliser stays as they set it, for that is where the policy is headed; and a policy that acts already
            # would be another one under another normaliser.
            self.policy.normalizer.update(rollout.observation)
        self.iteration += 1
        finished = time.perf_counter()
        if self.spec.terminate:
            metrics["terminated"] = float(rollout.termination.float().mean())
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
            "value": None if self.value is None else self.value.state_dict(),
            "reward": self.reward.state_dict(),
            "policy_learner": self.policy_learner.state_dict(),
            "judge": self.judge.state_dict(),
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
        if self.value is not None:
            self.value.load_state_dict(state["value"])
        self.reward.load_state_dict(state["reward"])
        self.policy_learner.load_state_dict(state["policy_learner"])
        self.judge.load_state_dict(state["judge"], self.policy)
        self.generator.set_state(state["torch_generator"])
        self.rng.bit_generator.state = state["numpy_generator"]
        self.sim.load_state_dict({k: v.numpy() if isinstance(v, Tensor) else v for k, v in state["sim"].items()})
        self.collector.observation = state["observation"].numpy().copy()


def _check(
    spec: RobotSpec,
    config: TrainConfig,
    episodes: Sequence[Episode],
    task_reward: TaskReward | None,
    frozen_reward: FrozenReward | None,
) -> None:
    objective = config.objective
    if objective != "task-reward" and task_reward is not None:
        raise TrainingError(f"objective {objective!r} must never see the true reward")
    if objective == "offline":
        raise TrainingError(f"objective {objective!r} simulates nothing: `gcl train --offline`, toolkit/offline.py")
    if objective not in FROM_DEMOS:
        given = task_reward if objective == "task-reward" else frozen_reward
        if given is None or episodes:
            whose = "the robot's task" if objective == "task-reward" else "a learned reward"
            raise TrainingError(f"objective {objective!r} takes {whose} and no demos")
        return
    if frozen_reward is not None:
        raise TrainingError(f"objective {objective!r} takes no frozen reward; that is for objective 'reward'")
    if not episodes:
        raise TrainingError(f"objective {objective!r} learns from demos; none were given")
    if objective != "gail" or config.reward.inputs != "state":  # which looks at no expert action and needs no log q
        instead = "--objective gail --set reward.inputs=state does without"
        require_actions(episodes, f"objective {objective!r}", instead)
    terminates = Termination(spec)
    for i, episode in enumerate(episodes):
        dims = (episode.observations.shape[1], episode.actions.shape[1])
        if dims != (spec.obs_dim, spec.act_dim):
            raise TrainingError(
                f"demo {i}: observation and action of {dims}; {spec.name} has ({spec.obs_dim}, {spec.act_dim})"
            )
        # Of what never happens in training, the demos' share of it would be all that the reward sees
        going_on = episode.observations[: -1 if episode.ended_by == "termination" else None]
        if len(beyond := np.flatnonzero(terminates(going_on))):
            t = int(beyond[0])
            raise TrainingError(
                f"demo {i}: beyond `terminate` of {spec.name} at step {t} of {episode.length}, which did not end it: "
                f"{terminates.reason(episode.observations[t])}; widen the limit, or leave out the demo"
            )
