"""GuardedRobot: a robot's end of the cable with a watchdog and a safety layer of its own.

It is the second of two layers: the controller's knows the policy and stops softly; this one knows only the robot, and
acts when the controller is killed, stuck, starved, or wrong.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from export.safety import Fault, SafetyLayer
from robots.backend import Backend, BackendError, DriverEndedError, SensorReading, check_command
from robots.datagram import COMMAND, RESET, Message
from robots.server import RobotServer

_MOST_AT_ONCE = 3.0  # periods of slew that one command may take, if the ones before it were lost: more is a jolt
_REACH_NS = 30_000_000_000  # how long a robot that nobody can reach is tried to be reached before it is left


class GuardedRobot(RobotServer):
    """Obeys its driver while that speaks in time, else holds or damps the robot; a fault latches until a reset."""

    def __init__(self, backend: Backend, key: bytes = b"", now: Callable[[], int] = time.monotonic_ns) -> None:
        """Takes the backend over.

        Args:
            backend: The robot.
            key: What sessions are sealed with; empty for a checksum only.
            now: Monotonic clock [ns].
        """
        super().__init__(backend, key)
        spec = backend.spec
        # The controller blends in and out; here commands are only bounded, so that both layers put out the same.
        self.safety = SafetyLayer(spec, dataclasses.replace(spec.safety, soft_start_seconds=0.0))
        self.running = False  # between a reset and a farewell
        self.events: list[Fault] = []  # what made it act, oldest first; whoever serves takes them out
        self.period_ns = round(spec.control_dt * 1e9)
        self._now = now
        self._patience_ns = max(round(spec.safety.watchdog_seconds * 1e9), 3 * self.period_ns)
        self._commanded_ns = 0
        self._passed_ns = 0  # when the last command was passed on
        self._periods = 0.0  # of slew that were not taken yet
        # They are kept for as long as a silence is borne: commands that were held up may then come all at once
        self._most_periods = self._patience_ns / self.period_ns
        self._undelivered = False  # whether the robot refused the last command
        self._hold_ns = 0  # when the next command of our own is due
        self._leave_ns: int | None = None  # when a robot that was left to us has been held for long enough
        self._lost_ns: int | None = None  # when its driver ended, until the next one has heard the robot
        self._refused_ns: int | None = None  # since when the robot cannot be held, which is told once
        self._sequence = 0  # of the newest reading
        self._rest_ns = 2 * self.period_ns * (1 + self.safety.limits.rest_periods)  # by then it rests, pauses or not
        self._nothing = np.zeros(spec.act_dim)

    @property
    def due_ns(self) -> int | None:
        """[ns] when `watch` wants to be called, at the latest; None while nobody drives."""
        if not self.running:
            return None
        return self._commanded_ns + self._patience_ns if self.safety.fault is None else self._hold_ns

    def obey(self, message: Message) -> SensorReading:
        """Bounds and passes on a command; after a fault only a reset is obeyed."""
        try:
            reading = self._obey(message)
        except DriverEndedError as error:
            # What the robot does meanwhile nobody sees, so it is held as soon as it can be reached again.
            self._lose(self._now())
            self.trip("driver_ended", str(error))
            raise
        self._sequence = reading.sequence
        return reading

    def _obey(self, message: Message) -> SensorReading:
        if message.kind == RESET:
            reading = super().obey(message)
            now = self._now()
            self._commanded_ns, self._leave_ns, self._lost_ns = now, None, None
            self._passed_ns, self._periods, self._refused_ns, self._undelivered = now, 1.0, None, False
            if self.safety.arm(reading, now):
                self.running = True
            else:
                self._acted()  # who is held is held on; a robot at which nobody was is told nothing
            return reading
        if message.kind != COMMAND:
            return super().obey(message)
        if self.safety.fault is not None:
            raise BackendError(f"{self.safety.fault.reason}: {self.safety.fault.detail}; it obeys again after a reset")
        if not self.running:
            raise BackendError("step before reset")
        check_command(self.backend.spec, message.payload)
        self._undelivered = True
        reading = self.backend.step(self._slewed(message.payload))
        self._undelivered = False
        self._commanded_ns = self._now()
        if not self.safety.check_reading(reading, self._commanded_ns):
            self._acted()
        return reading

    def _slewed(self, command: np.ndarray) -> np.ndarray:
        """The command as bounded, and slewed by the time that has passed: commands may come faster than they should.

        What the ones before did not take is kept for a while, so that one that comes early is obeyed like any other.
        """
        if not self.safety.slews:
            return self.safety.limit(command)
        now = self._now()
        passed = (now - self._passed_ns) / self.period_ns
        self._passed_ns, self._periods = now, min(self._periods + passed, self._most_periods)
        bounded = self.safety.limit(command, min(self._periods, max(1.0, min(passed, _MOST_AT_ONCE))))
        self._periods = max(self._periods - self.safety.periods_used, 0.0)
        return bounded

    def watch(self) -> None:
        """Trips when a command is overdue, and after a fault holds or damps the robot once a control period."""
        if not self.running:
            return
        now = self._now()
        silent_ns = now - self._commanded_ns
        if self.safety.fault is None and silent_ns > self._patience_ns:
            self.trip("controller_silent", f"no command for {silent_ns / 1e6:.0f} ms")
        if self.safety.fault is None or now < self._hold_ns:
            return
        unreached = self._lost_ns is not None and now < self._lost_ns + _REACH_NS
        if self._leave_ns is not None and now >= self._leave_ns and not unreached:
            self.safety.stop_damping()
            if not (self.safety.moving() or self._undelivered) or now >= self._leave_ns + self._rest_ns:
                self.running = False
                return
        # After a pause of this process, one command is due and not all that were missed.
        self._hold_ns = max(self._hold_ns + self.period_ns, now)
        try:
            reading = self.backend.step(self.safety.limit(self._nothing))
            self._refused_ns, self._undelivered = None, False
            self.safety.check_reading(reading, now)
            self._reached(reading.sequence, now)
        except DriverEndedError as error:
            self._lose(now)
            self.events.append(Fault("driver_ended", str(error), now))
        except BackendError as error:
            # Tried again all the same: a driver that refuses may tell the robot to rest each time, or find it again
            if self._refused_ns is None:
                self._refused_ns = now
                self.events.append(Fault("robot_lost", str(error), now))
            self.running = now < self._refused_ns + _REACH_NS

    def trip(self, reason: str, detail: str) -> None:
        """Takes over from the controller, if it drives and nothing else has happened before.

        Args:
            reason: A short name.
            detail: One line for a person.
        """
        if self.running and self.safety.fault is None:
            self.safety.trip(reason, detail, self._now())
            self._acted()

    def released(self) -> None:
        """The driver said goodbye: it brought the robot to rest, or left it to us because of a fault.

        One who leaves a robot in motion is a fault, and we bring it to rest.
        """
        moving = self.safety.moving() or ("the last command was refused" if self._undelivered else "")
        if self.safety.fault is None and not moving:
            self.running = False
            return
        self.trip("left_in_motion", f"the driver said goodbye before it was at rest: {moving}")
        self.leave()

    def leave(self) -> None:
        """Lets go of the robot once it has been held for a while, and is at rest, which a slew limit may delay.

        One that cannot be reached just now is left after that.
        """
        if self._leave_ns is None:
            self._leave_ns = self._now() + round(self.safety.config.fault_seconds * 1e9)

    def _lose(self, now: int) -> None:
        """Remembers since when the robot cannot be reached, however many drivers end meanwhile."""
        if self._lost_ns is None:
            self._lost_ns = now

    def _reached(self, sequence: int, now: int) -> None:
        """A new driver that has heard the robot begins to hold it only now."""
        if self._lost_ns is not None and sequence > self._sequence:
            self._lost_ns = None
            if self._leave_ns is not None:
                self._leave_ns = now + round(self.safety.config.fault_seconds * 1e9)
        self._sequence = sequence

    def _acted(self) -> None:
        if self.safety.fault is not None:
            self.events.append(self.safety.fault)
            self._hold_ns = self._now()
