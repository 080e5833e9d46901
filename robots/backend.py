"""Backend: the seam between a policy and whatever moves.

A simulator, a mock and each hardware driver implement it and pass one contract test (`tests/backend_contract.py`), so
that simulator and robot differ by one constructor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np

from robots.spec import RobotSpec, ToolkitError


class BackendError(ToolkitError):
    """The robot, or its stand-in, cannot do what was asked: not reachable, closed, or a command it must not take."""


class DriverEndedError(BackendError):
    """The process that a driver runs in is gone, and a new one is being started: keep stepping, it will be there."""


@dataclass(frozen=True)
class SensorReading:
    """What the robot measured at one instant."""

    values: np.ndarray  # (len(spec.channels),) float64, in the order and units of spec.channels
    timestamp_ns: int  # [ns] monotonic clock of the process that called, when the values were measured or arrived
    sequence: int  # counts readings since reset, from 0; a repeated number is a repeated (stale) reading


class Backend(ABC):
    """Something that takes commands and measures. Not thread-safe: one loop drives it."""

    spec: RobotSpec
    # [ns] monotonic clock, set by a loop before each exchange: who may return an older reading rather than be late does
    # so.
    answer_by_ns: int | None = None
    _outcome: SensorReading | None = None  # of the step that `send` has made and `receive` has not told of

    @abstractmethod
    def reset(self) -> SensorReading:
        """Brings the robot to the start of an episode and measures.

        Returns:
            The first reading, with `sequence` 0.

        Raises:
            BackendError: The robot cannot be reached or is closed.
        """

    @abstractmethod
    def step(self, command: np.ndarray) -> SensorReading:
        """Sends one command, lets one control period of the robot's time pass, and measures.

        A simulated robot returns at once (its time is its own); a real one returns when the reading arrives. Keeping
        the wall-clock period is the loop's business, never the backend's.

        Args:
            command: (act_dim,) float64, SI units as in `spec.action`. Not kept: the caller may reuse the buffer.

        Returns:
            The reading after the command took effect.

        Raises:
            BackendError: Closed, not yet reset, command of a wrong shape or not finite; nothing was sent.
        """

    def send(self, command: np.ndarray) -> None:
        """Begins what `step` does, for a loop that has something else to do until the reading is there.

        A robot that answers over a cable is told and not waited for; any other does the whole step at once.

        Args:
            command: As for `step`.

        Raises:
            BackendError: As for `step`.
        """
        self._outcome = self.step(command)

    def receive(self) -> SensorReading:
        """Ends the step that `send` began; to be called once for each, before anything else is asked of the robot.

        Returns:
            As of `step`.

        Raises:
            BackendError: As for `step`, or nothing was sent.
        """
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            raise BackendError("receive before send")
        return outcome

    def reseed(self, seed: int) -> None:  # noqa: B027 - most robots have nothing to do here
        """Begins the episodes anew from another seed; a real robot begins where it stands, and is not changed by it.

        Args:
            seed: Decides the beginnings of all episodes, in order.
        """

    def measure(self) -> SensorReading:
        """Measures without telling the robot anything: what the wiring check shows. Allowed before `reset`.

        Returns:
            A fresh reading, counted like any other.

        Raises:
            BackendError: Closed, not reachable, or a robot that only measures when it is commanded.
        """
        raise BackendError(f"{type(self).__name__} does not measure without a command")

    @abstractmethod
    def close(self) -> None:
        """Leaves the robot in its safe state and frees everything. Closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_command(spec: RobotSpec, command: np.ndarray) -> None:
    """Refuses a command that must not reach any robot.

    Args:
        spec: The robot.
        command: Should be (act_dim,), finite.

    Raises:
        BackendError: Wrong shape, or NaN or infinity in it.
    """
    if command.shape != (spec.act_dim,):
        raise BackendError(
            f"command of shape {command.shape}; {spec.name} takes ({spec.act_dim},): {spec.action_names}"
        )
    if not np.isfinite(command).all():
        bad = [spec.action_names[i] for i in np.flatnonzero(~np.isfinite(command))]
        raise BackendError(f"command is not finite for {bad}; nothing was sent")
