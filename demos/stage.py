"""Where an operator acts: a robot behind its backend, or a task in its own simulator, seen in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robots.backend import Backend, BackendError
from robots.command import CommandMap
from robots.observation import ObservationMap
from robots.spec import RobotSpec
from robots.termination import Termination


class TaskEnvironment(Protocol):
    """A task in its own simulator, as `robots.task.TaskEnv`."""

    def reset(self) -> np.ndarray:
        """Begins an episode; observation (obs_dim,)."""
        ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Takes an action (act_dim,); observation (obs_dim,), reward, termination, truncation."""
        ...


@dataclass(frozen=True)
class Moment:
    """What is known after a reset or a step."""

    observation: np.ndarray  # (obs_dim,) float32
    measured_ns: int | None  # [ns] monotonic clock; None where time is only simulated
    reward: float = float("nan")  # true reward of the step that led here, NaN = unknown
    ended_by: str | None = None  # None = the episode goes on


class BackendStage:
    """A robot, or what stands in for one."""

    def __init__(self, backend: Backend, spec: RobotSpec) -> None:
        """Stands before `backend`."""
        self._backend = backend
        self._observe, self._command = ObservationMap(spec), CommandMap(spec)
        self._terminates = Termination(spec)
        self._sequence = -1
        self._slewed = self._command.rest.copy()  # (act_dim,) where slew limits have let the commands come
        self._sent: np.ndarray | None = None  # (act_dim,) the last command

    def reset(self) -> Moment:
        """Begins an episode.

        Raises:
            BackendError: The robot is beyond where its task ends, so that there is nothing to show.
        """
        reading = self._backend.reset()
        self._sequence = reading.sequence
        observation = self._observe(reading.values)
        if self._terminates(observation):
            reason = self._terminates.reason(observation)
            raise BackendError(f"the task is over as it begins: {reason}; move the robot, or change its `terminate`")
        return Moment(observation.astype(np.float32), reading.timestamp_ns)

    def step(self, action: np.ndarray) -> Moment:
        """Takes an action (act_dim,) float32."""
        self._sent = self._command.command(action)
        step = self._command.slew_step
        np.clip(self._sent, self._slewed - step, self._slewed + step, out=self._slewed)
        reading = self._backend.step(self._sent)
        # A repeated reading is not a measurement: recorded, it would teach that the action did nothing.
        stale = reading.sequence == self._sequence
        self._sequence = reading.sequence
        observation = self._observe(reading.values)
        ended_by = "interrupted" if stale else "termination" if self._terminates(observation) else None
        return Moment(observation.astype(np.float32), reading.timestamp_ns, ended_by=ended_by)

    def rest(self) -> Iterator[None]:
        """Takes the efforts and speeds off that the last command left on; a robot would keep them.

        Yields:
            After each control step, of which slew limits may need many.
        """
        command, sent = self._command, self._sent
        if sent is None or command.keeps_position.all():
            return
        left = np.where(command.keeps_position, 0.0, np.abs(self._slewed - command.rest))
        rest = np.where(command.keeps_position, sent, command.rest)
        for _ in range(1 + int(np.ceil(left / command.slew_step).max())):
            self._backend.step(rest)
            yield


class TaskStage:
    """A task in its own simulator, which knows the true reward."""

    def __init__(self, environment: TaskEnvironment) -> None:
        """Stands before `environment`."""
        self._environment = environment

    def reset(self) -> Moment:
        """Begins an episode."""
        return Moment(np.asarray(self._environment.reset(), np.float32), None)

    def step(self, action: np.ndarray) -> Moment:
        """Takes an action (act_dim,) float32."""
        observation, reward, termination, truncation = self._environment.step(action.astype(np.float64))
        ended_by = "termination" if termination else "truncation" if truncation else None
        return Moment(np.asarray(observation, np.float32), None, float(reward), ended_by)

    def rest(self) -> Iterator[None]:
        """Nothing goes on where time stands still."""
        return iter(())


def stage_for(backend: Backend | TaskEnvironment, spec: RobotSpec) -> BackendStage | TaskStage:
    """The stage in front of whatever there is.

    Args:
        backend: A robot, its stand-in, or a task in its own simulator.
        spec: The robot.

    Returns:
        Something to reset and step with actions.
    """
    return BackendStage(backend, spec) if isinstance(backend, Backend) else TaskStage(backend)
