"""MockBackend: no physics, only an echo; it can be told to fail in the ways robots fail."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection

import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.spec import RobotSpec, RobotSpecError


class MockBackend(Backend):
    """Readings follow the commands: channel i shows the command of actuator i modulo act_dim, as a share of its range.

    Faults are given by the number of the step since reset in which they happen, the first step being 1.
    """

    def __init__(
        self,
        spec: RobotSpec,
        seed: int = 0,
        *,
        delay: int = 0,
        drop: Collection[int] = (),
        freeze_from: int | None = None,
        poison: Collection[int] = (),
        poison_channel: str | None = None,
        latency_seconds: float = 0.0,
    ) -> None:
        """Remembers which faults to show.

        Args:
            spec: The robot to stand in for.
            seed: Decides the first readings of all episodes, in order.
            delay: [control steps] how much later than its command a value shows; the reading itself is fresh.
            drop: Steps whose reading is lost: the previous one comes again, with its sequence number and time.
            freeze_from: From this step on every reading is a repetition; None for never.
            poison: Steps whose reading holds a NaN.
            poison_channel: Which channel the NaN is in, None for the first.
            latency_seconds: [s] how long `step` takes.

        Raises:
            RobotSpecError: `poison_channel` is none of the robot's.
        """
        if poison_channel is not None and poison_channel not in spec.channels:
            raise RobotSpecError(f"poison_channel {poison_channel!r}; the channels are {', '.join(spec.channels)}")
        self.spec = spec
        self.commands: list[np.ndarray] = []  # (act_dim,) copies of what was taken since the last reset
        self._drop, self._poison, self._freeze_from = frozenset(drop), frozenset(poison), freeze_from
        self._poisoned = 0 if poison_channel is None else spec.channels.index(poison_channel)
        self._latency = latency_seconds
        self._rng = np.random.default_rng(seed)
        self._actuator = np.arange(len(spec.channels)) % spec.act_dim
        self._range = np.array([max(abs(term.lower), abs(term.upper)) for term in spec.action])
        self._delay = delay
        self._pipeline: deque[np.ndarray] = deque(maxlen=delay + 1)
        self._last: SensorReading | None = None
        self._looks = 0  # before any reset
        self._closed = False

    def reset(self) -> SensorReading:
        """Begins an episode with small random values."""
        self._check_open()
        self.commands.clear()
        values = self._rng.uniform(-0.1, 0.1, len(self.spec.channels))
        self._pipeline.extend([values] * (self._delay + 1))
        self._last = SensorReading(values.copy(), time.monotonic_ns(), 0)
        return self._last

    def step(self, command: np.ndarray) -> SensorReading:
        """Takes a command and echoes it, with whatever fault is due."""
        self._check_open()
        if self._last is None:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        self.commands.append(np.array(command, dtype=np.float64))
        self._pipeline.append((self.commands[-1] / self._range)[self._actuator])
        if self._latency:
            time.sleep(self._latency)
        step = len(self.commands)
        if step in self._drop or (self._freeze_from is not None and step >= self._freeze_from):
            return self._last
        values = self._pipeline[0].copy()
        if step in self._poison:
            values[self._poisoned] = np.nan
        self._last = SensorReading(values, time.monotonic_ns(), self._last.sequence + 1)
        return self._last

    def measure(self) -> SensorReading:
        """Shows the newest values once more, as a fresh reading; zeros before the first reset."""
        self._check_open()
        if self._last is None:
            self._looks += 1
            return SensorReading(np.zeros(len(self.spec.channels)), time.monotonic_ns(), self._looks - 1)
        self._last = SensorReading(self._last.values.copy(), time.monotonic_ns(), self._last.sequence + 1)
        return self._last

    def close(self) -> None:
        """Takes no more commands. Closing twice is allowed."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the mock robot is closed")
