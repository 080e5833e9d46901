"""DryRun: a real robot's sensors with nobody at the motors: every command ends here."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.spec import RobotSpec


class DryRun(Backend):
    """Measures where another backend would move; closing it closes that one."""

    def __init__(self, backend: Backend) -> None:
        """Takes the backend over.

        Args:
            backend: Only its `measure` is ever called.
        """
        self.spec: RobotSpec = backend.spec
        self._backend = backend
        self._first: int | None = None  # number of the reading that counts as 0

    def reset(self) -> SensorReading:
        """Measures; the robot stays where it is."""
        self._first = None
        return self.measure()

    def step(self, command: np.ndarray) -> SensorReading:
        """Checks the command, sends nothing, measures."""
        if self._first is None:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        return self.measure()

    def measure(self) -> SensorReading:
        """Measures."""
        started = time.monotonic_ns()
        reading = self._backend.measure()
        if self._first is None:
            self._first = reading.sequence
        # A robot that nobody commands may measure more often than we look: our count goes by looks that saw something.
        return dataclasses.replace(
            reading, sequence=reading.sequence - self._first, timestamp_ns=max(reading.timestamp_ns, started)
        )

    def close(self) -> None:
        """Closes the backend, which was never reset. Closing twice is allowed."""
        self._backend.close()
