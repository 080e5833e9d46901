"""One control step: a reading becomes a command, and what came of it a score. Nothing is allocated on the way."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from export.black_box_layout import Flag
from export.hot_swap import Successor
from export.monitor import RewardMonitor
from export.safety import SafetyLayer
from robots.backend import SensorReading
from robots.command import CommandMap
from robots.observation import ObservationMap
from robots.spec import RobotSpec


class Policy(Protocol):
    """Observation in, action out: `OnnxPolicy`, or anything else that answers in time."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """(obs_dim,) -> (act_dim,) dimensionless."""
        ...


class Reward(Protocol):
    """The reward of one step: `OnnxReward`, or anything else."""

    uses_next_observation: bool

    def score(self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray | None = None) -> float:
        """(obs_dim,), (act_dim,), (obs_dim,) or None -> reward."""
        ...


class ControlStep:
    """From a reading to a command, and from what came of it to a score: buffers made once."""

    def __init__(
        self, spec: RobotSpec, policy: Policy, safety: SafetyLayer, reward: Reward | None, monitor: RewardMonitor | None
    ) -> None:
        """Makes the buffers.

        Args:
            spec: The robot.
            policy: The policy.
            safety: Checks and limits.
            reward: Scored where there is a monitor.
            monitor: What the scores go to.
        """
        self.spec, self._policy, self._safety, self._reward, self.monitor = spec, policy, safety, reward, monitor
        self._observe, self._map = ObservationMap(spec), CommandMap(spec)
        self.observation, self._next = _fresh_buffer(policy, spec), np.zeros(spec.obs_dim)
        self.wanted = safety.limits.rest.copy()  # what the policy last wanted
        self._applied = np.zeros(spec.act_dim)
        self._scored = self._left_out = False
        self.reward_value = float("nan")  # of the newest step, if it was scored
        self.swaps = 0  # policies that were replaced
        self._stale_before = 0

    @property
    def window_mean(self) -> float:
        """Of the reward monitor; NaN without one, and until its window is full."""
        return self.monitor.window_mean if self.monitor is not None else float("nan")

    @property
    def needs_outcome(self) -> bool:
        """Whether a step is judged by the reading that comes of it, too."""
        return self.monitor is not None and self._reward is not None and self._reward.uses_next_observation

    @property
    def flags(self) -> int:
        """Bits of `Flag` that tell of the newest step."""
        stale = self._safety.stale_readings
        bits = Flag.STALE if stale != self._stale_before else 0
        self._stale_before = stale
        if self._scored:
            bits |= Flag.SCORED
        if self._safety.stopping:
            bits |= Flag.STOPPING
        return bits | Flag.FAULT if self._safety.fault is not None else bits

    def replace(self, successor: Successor) -> None:
        """Goes on with another bundle's networks from the next command on; what the robot was sent stays as it is.

        Args:
            successor: Loaded and checked, for the same robot.
        """
        self._policy, self._reward, self.monitor = successor.policy, successor.reward, successor.monitor
        self.observation = _fresh_buffer(successor.policy, self.spec)
        self.swaps += 1

    def command(self, reading: SensorReading, now_ns: int) -> np.ndarray:
        """The command that may be sent for a reading.

        Args:
            reading: The newest.
            now_ns: [ns] monotonic clock.

        Returns:
            (act_dim,) an internal buffer that a later call overwrites.
        """
        usable = self._safety.check_reading(reading, now_ns)
        if usable:
            self._observe(reading.values, out=self.observation)
            self._map.command(self._policy.act(self.observation), out=self.wanted)
        # While it is blended in or out, the policy is not what moves the robot, and must not be judged by it.
        self._scored = usable and self._safety.blend >= 1.0 and not self._safety.stopping
        return self._safety.limit(self.wanted)

    def score(self, outcome: SensorReading | None, command: np.ndarray, now_ns: int, hurried: bool) -> None:
        """Scores the step, if the policy is what moved the robot.

        It is what can wait when a machine is slow for a while: the robot has its command already.

        Args:
            outcome: The reading that came of it, where the step `needs_outcome`.
            command: (act_dim,) what was sent.
            now_ns: [ns] monotonic clock.
            hurried: Whether little is left of the period: then no more than every other step is scored.
        """
        self.reward_value = float("nan")
        if self._reward is None or self.monitor is None or not self._scored or self._safety.fault is not None:
            return
        self._left_out = hurried and not self._left_out
        if self._left_out:
            self._scored = False
            return
        following = None
        if outcome is not None:
            following = self._observe(outcome.values, out=self._next)
        # The action that was really applied, after every limit: the demos' actions are what was sent, too.
        np.subtract(command, self._map.offset, out=self._applied)
        np.divide(self._applied, self._map.scale, out=self._applied)
        self.reward_value = self._reward.score(self.observation, self._applied, following)
        reason = self.monitor.update(self.reward_value)
        if reason is not None and self.monitor.config.response == "fault":
            detail = f"window mean {self.monitor.window_mean:g}, threshold {self.monitor.threshold:g}"
            self._safety.trip(reason, detail, now_ns)


def _fresh_buffer(policy: Policy, spec: RobotSpec) -> np.ndarray:
    """Where an observation is assembled: where the policy reads it, if it lets us; what is not copied costs nothing.

    A policy that remembers begins with nothing to remember.
    """
    reset = getattr(policy, "reset", None)
    if reset is not None:
        reset()
    own = getattr(policy, "observation_buffer", None)
    return np.zeros(spec.obs_dim) if own is None else own
