"""The safety layer between a policy and a robot: whatever comes in, what goes out is finite and within limits.

Its faults are latched: once tripped it holds or damps the robot, whatever the policy says and however well the readings
look again, until a person re-arms it. The normal path allocates no array.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from export.safety_limits import SafetyError, SafetyLimits
from robots.backend import SensorReading
from robots.spec import RobotSpec

FAULT_RESPONSES = ("hold", "damp")


@dataclass(frozen=True)
class SafetyConfig:
    """How patient and how gentle the layer is."""

    stale_seconds: float = 0.25  # [s] without a new reading before it is a fault, and never under three control periods
    soft_start_seconds: float = 1.0  # [s] over which the policy's command is blended in from the hold command
    soft_stop_seconds: float = 0.5  # [s] over which it is blended out again
    on_fault: str = "hold"  # "hold": positions as last sent, speeds and efforts zero | "damp": efforts -kd * velocity

    def __post_init__(self) -> None:
        """Refuses values that would switch a check off without saying so."""
        if self.on_fault not in FAULT_RESPONSES:
            raise SafetyError(f"on_fault {self.on_fault!r}; legal are {', '.join(FAULT_RESPONSES)}")
        for name in ("stale_seconds", "soft_start_seconds", "soft_stop_seconds"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf"):
                raise SafetyError(f"{name} {value!r}; legal are seconds from 0 up")


@dataclass(frozen=True)
class Fault:
    """Why the layer tripped: the first reason, later ones are consequences."""

    reason: str  # "nonfinite_reading", "stale_reading", "limit_violation", ...
    detail: str  # one line for a person
    timestamp_ns: int = field(default=0)  # [ns] monotonic clock of this process


class SafetyLayer:
    """Checks what comes from the robot and limits what goes to it. One loop drives it."""

    def __init__(self, spec: RobotSpec, config: SafetyConfig | None = None) -> None:
        """Makes the layer, not armed: until `arm` is called it puts out the command at rest.

        Args:
            spec: The robot.
            config: How patient and gentle; None for the defaults.
        """
        self.limits = SafetyLimits.from_spec(spec)
        self.config = config or SafetyConfig()
        self.fault: Fault | None = Fault("not_armed", "the safety layer was not armed yet")
        self.blend = 0.0  # 0: hold command, 1: the policy's
        self.stale_readings = 0  # readings that repeated one already seen
        self.stopping = False
        self._num_channels = len(spec.channels)
        self._stale_ns = round(max(self.config.stale_seconds, 3.0 * spec.control_dt) * 1e9)
        self._rise = _per_tick(spec.control_dt, self.config.soft_start_seconds)
        self._fall = _per_tick(spec.control_dt, self.config.soft_stop_seconds)
        self._sequence = -1
        self._fresh_ns = 0
        self._sent = self.limits.rest.copy()
        self._hold = self.limits.rest.copy()
        self._velocity = np.zeros(spec.act_dim)  # [rad/s | m/s] last finite joint velocities, for damping
        self._target, self._low, self._high = (np.empty(spec.act_dim) for _ in range(3))
        self._finite_command = np.empty(spec.act_dim, dtype=bool)
        self._finite_values = np.empty(self._num_channels, dtype=bool)
        self._watched = np.empty(len(self.limits.watched))
        self._outside = np.empty(len(self.limits.watched), dtype=bool)

    @property
    def stopped(self) -> bool:
        """Whether a soft stop has run out and what was sent last is the hold command, slew included."""
        return self.stopping and self.blend <= 0.0 and np.array_equal(self._sent, self._hold)

    def arm(self, reading: SensorReading, now_ns: int) -> bool:
        """Clears a fault and begins a soft start from where the robot is. Someone decides this, never a timer.

        Args:
            reading: The newest reading.
            now_ns: [ns] monotonic clock.

        Returns:
            Whether it is armed: False if this very reading trips it again, with `fault` saying why.
        """
        self.fault, self.blend, self.stopping, self._sequence = None, 0.0, False, -1
        if not self.check_reading(reading, now_ns):
            return False
        self._sequence = -1  # the loop checks this very reading again, and must not take it for a repeated one
        # Position drives start at the measured pose: any other first command would be a jump.
        np.copyto(self._hold, self.limits.rest)
        known = self.limits.holds_position & (self.limits.position_channel >= 0)
        self._hold[known] = reading.values[self.limits.position_channel[known]]
        np.clip(self._hold, self.limits.lower, self.limits.upper, out=self._hold)
        np.copyto(self._sent, self._hold)
        return True

    def check_reading(self, reading: SensorReading, now_ns: int) -> bool:
        """Checks one reading; trips on anything that must not steer a robot.

        Args:
            reading: The newest reading.
            now_ns: [ns] monotonic clock.

        Returns:
            Whether a policy may use it. False also while a fault is latched.
        """
        values = reading.values
        self._velocity[:] = 0.0  # damping by a velocity that is no longer measured would push, not brake
        if values.shape != (self._num_channels,):
            self.trip("bad_reading", f"reading of shape {values.shape}, expected ({self._num_channels},)", now_ns)
            return False
        np.isfinite(values, out=self._finite_values)
        if not self._finite_values.all():
            bad = self.limits.channel_names(np.flatnonzero(~self._finite_values))
            self.trip("nonfinite_reading", f"not finite: {bad}", now_ns)
            return False
        if reading.sequence > self._sequence:
            self._sequence, self._fresh_ns = reading.sequence, reading.timestamp_ns
        else:
            self.stale_readings += 1
        age_ns = now_ns - self._fresh_ns
        if abs(age_ns) > self._stale_ns:  # from the future is as wrong: its clock is not ours, so age means nothing
            self.trip(
                "stale_reading", f"newest is {age_ns / 1e6:.1f} ms old, allowed {self._stale_ns / 1e6:.1f} ms", now_ns
            )
            return False
        self._check_limits(values, now_ns)
        self._remember_velocity(values)
        return self.fault is None

    def limit(self, command: np.ndarray) -> np.ndarray:
        """The command that may be sent.

        Args:
            command: (act_dim,) what the policy wants, SI units; anything at all may be in it.

        Returns:
            (act_dim,) finite, within limits and slew; an internal buffer that the next call overwrites.

        Raises:
            SafetyError: The command has a wrong shape, a mistake in the program rather than in the robot.
        """
        limits, target = self.limits, self._target
        if command.shape != target.shape:
            raise SafetyError(f"command of shape {command.shape}, expected {target.shape}")
        np.isfinite(command, out=self._finite_command)
        if self.fault is None and not self._finite_command.all():
            self.trip("nonfinite_command", f"the policy's command is not finite: {np.asarray(command).tolist()}")
        if self.fault is not None:
            self._fault_target(target)
        else:
            self.blend = max(self.blend - self._fall, 0.0) if self.stopping else min(self.blend + self._rise, 1.0)
            _bound(command, limits.lower, limits.upper, target)
            target -= self._hold
            target *= self.blend
            target += self._hold
        np.subtract(self._sent, limits.slew_step, out=self._low)
        np.add(self._sent, limits.slew_step, out=self._high)
        _bound(target, self._low, self._high, self._sent)
        # What was sent before lies within limits, so this last bound can only shorten a slew step, never lengthen it.
        _bound(self._sent, limits.lower, limits.upper, self._sent)
        return self._sent

    def trip(self, reason: str, detail: str, timestamp_ns: int = 0) -> None:
        """Latches a fault; only the first reason is kept.

        Args:
            reason: A short name.
            detail: One line for a person.
            timestamp_ns: [ns] monotonic clock.
        """
        if self.fault is None:
            self.fault = Fault(reason, detail, timestamp_ns)
            self._hold_here()

    def soft_stop(self) -> None:
        """Begins to blend the policy out; `stopped` says when it is. Calling it twice changes nothing."""
        if not self.stopping and self.fault is None:
            self.stopping = True
            self._hold_here()

    def _hold_here(self) -> None:
        """Positions stay where they were last sent to: going anywhere else, home included, would be a motion."""
        np.copyto(self._hold, self.limits.rest)
        np.copyto(self._hold, self._sent, where=self.limits.holds_position)

    def _fault_target(self, target: np.ndarray) -> None:
        np.copyto(target, self._hold)
        if self.config.on_fault == "damp":
            np.multiply(self._velocity, self.limits.damping, out=target, where=self.limits.damps)
            np.negative(target, out=target, where=self.limits.damps)

    def _check_limits(self, values: np.ndarray, now_ns: int) -> None:
        limits = self.limits
        if not limits.watched.size:
            return
        np.take(values, limits.watched, out=self._watched, mode="clip")
        np.less(self._watched, limits.watched_lower, out=self._outside)
        if not self._outside.any():
            np.greater(self._watched, limits.watched_upper, out=self._outside)
            if not self._outside.any():
                return
        first = int(np.flatnonzero(self._outside)[0])
        name = limits.channel_names(limits.watched[first : first + 1])
        legal = f"[{limits.watched_lower[first]:g}, {limits.watched_upper[first]:g}]"
        self.trip("limit_violation", f"{name} measured {self._watched[first]:g}, legal is {legal}", now_ns)

    def _remember_velocity(self, values: np.ndarray) -> None:
        if self.config.on_fault == "damp":
            np.take(values, self.limits.velocity_channel, out=self._velocity, mode="clip")


def _bound(values: np.ndarray, lower: np.ndarray, upper: np.ndarray, out: np.ndarray) -> None:
    """np.clip without its Python wrapper, which takes longer than the work for arrays of a robot's size."""
    np.maximum(values, lower, out=out)
    np.minimum(out, upper, out=out)


def _per_tick(control_dt: float, seconds: float) -> float:
    return 1.0 if seconds <= control_dt else control_dt / seconds
