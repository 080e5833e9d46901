"""The safety layer between a policy and a robot: whatever comes in, what goes out is finite and within limits.

Its faults are latched: once tripped it holds or damps the robot, whatever the policy says and however well the readings
look again, until a person re-arms it. The normal path allocates no array.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from export.safety_limits import SafetyError, SafetyLimits
from robots.backend import SensorReading
from robots.safety_spec import FAULT_RESPONSES, SafetySpec
from robots.spec import RobotSpec


@dataclass(frozen=True)
class Fault:
    """Why the layer tripped: the first reason, later ones are consequences."""

    reason: str  # "nonfinite_reading", "stale_reading", "limit_violation", ...
    detail: str  # one line for a person
    timestamp_ns: int = field(default=0)  # [ns] monotonic clock of this process


class SafetyLayer:
    """Checks what comes from the robot and limits what goes to it. One loop drives it."""

    def __init__(self, spec: RobotSpec, config: SafetySpec | None = None) -> None:
        """Makes the layer, not armed: until `arm` is called it puts out the command at rest.

        Args:
            spec: The robot.
            config: How patient and gentle; None for what robot.yaml says.
        """
        self.config = _checked(config or spec.safety)
        self.limits = SafetyLimits.from_spec(spec, self.config)
        self.fault: Fault | None = Fault("not_armed", "the safety layer was not armed yet")
        self.blend = 0.0  # 0: hold command, 1: the policy's
        self.stale_readings = 0  # readings that repeated one already seen
        self.stopping = False
        self._num_channels, self._shape = len(spec.channels), (len(spec.channels),)
        self._stale_ns = round(max(self.config.stale_seconds, 3.0 * spec.control_dt) * 1e9)
        self._rise = _per_tick(spec.control_dt, self.config.soft_start_seconds)
        self._fall = _per_tick(spec.control_dt, self.config.soft_stop_seconds)
        self._sequence = -1
        self._fresh_ns = 0
        self._sent = self.limits.rest.copy()
        self._hold = self.limits.rest.copy()
        self._velocity = np.zeros(spec.act_dim)  # [rad/s | m/s] last finite joint velocities, for damping
        self._begun = self.limits.rest.copy()  # hold command that the soft start began from
        self._share, self._fade = 0.0, 1.0  # blend at which the soft stop began, and how much of that is left
        self._damps = self.config.on_fault == "damp"
        self._target, self._low, self._high = (np.empty(spec.act_dim) for _ in range(3))
        self._command_shape = (spec.act_dim,)
        self._slewed = np.isfinite(self.limits.slew_step)
        self._slew_step = self.limits.slew_step.copy()
        self.slews = bool(self._slewed.any())  # whether any drive has a slew limit
        # Bounds are kept by fmax and fmin: they take `out` by position, which costs least, and let no NaN through.
        self._lower, self._upper = self.limits.lower, self.limits.upper
        self._least, self._most = self.limits.legal_readings()
        self._legal = np.empty(self._num_channels)
        self._tracked = np.flatnonzero(self.limits.holds_position & (self.limits.position_channel >= 0))
        self._tracked_channel = self.limits.position_channel[self._tracked]
        self._astray = 0  # ticks in a row in which a drive was not where it was sent
        self._astray_ticks = max(1, round(self.config.tracking_seconds / spec.control_dt))
        tilt = self.config.tilt
        self._quaternion = None if tilt is None else [spec.channels.index(channel) for channel in tilt.quaternion]
        self._least_cos = -1.0 if tilt is None else math.cos(min(tilt.most, math.pi))

    @property
    def stopped(self) -> bool:
        """Whether a soft stop has run out and what was sent last is the hold command, slew included."""
        return self.stopping and self.blend <= 0.0 and np.array_equal(self._sent, self._hold)

    @property
    def periods_used(self) -> float:
        """How many control periods' slew the last command took, of the drive that took most."""
        return float(np.max(np.abs(self._sent - self._target) / self.limits.slew_step))

    def moving(self) -> str:
        """The drives that what was sent last does not leave at rest; a position is rest, wherever it is.

        Returns:
            A few words for a person; empty if there is none.
        """
        rest = self.limits.rest
        moving = np.flatnonzero((self._sent != rest) & ~self.limits.holds_position)
        return ", ".join(f"{self.limits.actuators[i]} was last sent {self._sent[i]:g}" for i in moving)

    def arm(self, reading: SensorReading, now_ns: int) -> bool:
        """Clears a fault and begins a soft start from where the robot is. Someone decides this, never a timer.

        Who may not arm it must send nothing to a robot that he does not hold already. Who does holds it on: positions
        where they are measured, else as last sent.

        Args:
            reading: The newest reading.
            now_ns: [ns] monotonic clock.

        Returns:
            Whether it is armed: False if this very reading trips it again, or a drive stands outside what it may be
            sent, with `fault` saying why.
        """
        self.fault, self.blend, self.stopping, self._astray = None, 0.0, False, 0
        self._sequence, self._damps = -1, self.config.on_fault == "damp"
        # Position drives start at the measured pose: any other first command would be a jump.
        fits = reading.values.shape == self._shape
        pose = self.limits.pose(reading.values) if fits else np.full(self._command_shape, np.nan)
        known = np.isfinite(pose)
        np.copyto(self._sent, np.clip(pose, self._lower, self._upper), where=known)
        if self.check_reading(reading, now_ns) and (outside := self.limits.outside_commands(pose)) is not None:
            self.trip("outside_commands", outside, now_ns)
        self._sequence = -1  # the loop checks this very reading again, and must not take it for a repeated one
        if self.fault is not None:
            return False
        # What no position is known of keeps, until it is told otherwise, what it was sent last: slew begins from there
        np.copyto(self._hold, self.limits.rest)
        np.copyto(self._hold, self._sent, where=self.limits.holds_position)
        np.copyto(self._begun, self._hold)
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
        if self._damps:
            self._velocity[:] = 0.0  # damping by a velocity that is no longer measured would push, not brake
        if values.shape != self._shape:
            self.trip("bad_reading", f"reading of shape {values.shape}, expected {self._shape}", now_ns)
            return False
        # One pass over the values sees that every one is a number and legal: fmax and fmin change what is not, NaN
        # included, and comparing bytes costs least of all comparisons.
        np.fmin(np.fmax(values, self._least, self._legal), self._most, self._legal)
        suspicious = self._legal.tobytes() != values.tobytes()
        if suspicious and not self._check_finite(values, now_ns):
            return False
        if reading.sequence > self._sequence:
            self._sequence, self._fresh_ns = reading.sequence, reading.timestamp_ns
        else:
            self.stale_readings += 1
        age_ns = now_ns - self._fresh_ns
        if not -self._stale_ns <= age_ns <= self._stale_ns:
            # From the future is as wrong: its clock is not ours, so age means nothing.
            self.trip(
                "stale_reading", f"newest is {age_ns / 1e6:.1f} ms old, allowed {self._stale_ns / 1e6:.1f} ms", now_ns
            )
            return False
        if suspicious:
            self._check_limits(values, now_ns)
        if self._quaternion is not None:
            self._check_tilt(values, now_ns)
        if self.config.tracking is not None and self._tracked.size:
            self._check_tracking(values, self.config.tracking, now_ns)
        if self._damps:
            np.take(values, self.limits.velocity_channel, out=self._velocity, mode="clip")
        return self.fault is None

    def limit(self, command: np.ndarray, periods: float = 1.0) -> np.ndarray:
        """The command that may be sent.

        Args:
            command: (act_dim,) what the policy wants, SI units; anything at all may be in it.
            periods: How many control periods' slew it may take.

        Returns:
            (act_dim,) finite, within limits and slew; an internal buffer that the next call overwrites.

        Raises:
            SafetyError: The command has a wrong shape, a mistake in the program rather than in the robot.
        """
        target = self._target
        if command.shape != self._command_shape:
            raise SafetyError(f"command of shape {command.shape}, expected {self._command_shape}")
        np.fmin(np.fmax(command, self._lower, target), self._upper, target)
        if self.fault is None and target.tobytes() != command.tobytes() and not np.isfinite(command).all():
            self.trip("nonfinite_command", f"the policy's command is not finite: {np.asarray(command).tolist()}")
        if self.fault is not None:
            self._fault_target(target)
        elif self.blend < 1.0 or self.stopping:
            self._blend_in(target)
        if self.slews:
            step = self.limits.slew_step
            if periods != 1.0:
                step = np.multiply(step, periods, out=self._slew_step, where=self._slewed)
            np.subtract(self._sent, step, self._low)
            np.add(self._sent, step, self._high)
            np.fmin(np.fmax(target, self._low, target), self._high, target)
        # What was sent before lies within limits, so this last bound can only shorten a slew step, never lengthen it.
        # It has work to do only where rounding in the blend, or damping, left the limits.
        if self.blend < 1.0 or self.fault is not None:
            np.fmin(np.fmax(target, self._lower, target), self._upper, target)
        self._sent, self._target = target, self._sent
        return target

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
            self.stopping, self._share, self._fade = True, self.blend, 1.0
            self._hold_here()

    def stop_damping(self) -> None:
        """After a fault, holds from now on, also what was damped.

        A drive keeps its last command for ever, and a brake that stays on when nothing moves any more is a push.
        """
        self._damps = False

    def _hold_here(self) -> None:
        """Positions stay where they were last sent to: going anywhere else, home included, would be a motion."""
        np.copyto(self._hold, self.limits.rest)
        np.copyto(self._hold, self._sent, where=self.limits.holds_position)

    def _fault_target(self, target: np.ndarray) -> None:
        np.copyto(target, self._hold)
        if self._damps:
            np.multiply(self._velocity, self.limits.damping, out=target, where=self.limits.damps)
            np.negative(target, out=target, where=self.limits.damps)

    def _blend_in(self, target: np.ndarray) -> None:
        """Between the hold command and the policy's, in place.

        A stop during the soft start fades out what that has come to: the policy's share stands still, and where the
        start began is as much a part of the command as before, else the first command of the stop would be a jump.
        """
        if not self.stopping:
            self.blend = min(self.blend + self._rise, 1.0)
            if self.blend < 1.0:
                _mix(target, self._hold, self.blend)
            return
        self._fade = max(self._fade - self._fall, 0.0)
        self.blend = self._share * self._fade
        if self._share < 1.0:
            _mix(target, self._begun, self._share)
        _mix(target, self._hold, self._fade)

    def _check_finite(self, values: np.ndarray, now_ns: int) -> bool:
        finite = np.isfinite(values)
        if not finite.all():
            self.trip("nonfinite_reading", f"not finite: {self.limits.channel_names(np.flatnonzero(~finite))}", now_ns)
        return bool(finite.all())

    def _check_limits(self, values: np.ndarray, now_ns: int) -> None:
        limits = self.limits
        watched = values[limits.watched]
        outside = np.flatnonzero((watched < limits.watched_lower) | (watched > limits.watched_upper))
        if outside.size:
            first = int(outside[0])
            name = limits.channel_names(limits.watched[first : first + 1])
            legal = f"[{limits.watched_lower[first]:g}, {limits.watched_upper[first]:g}]"
            self.trip(limits.watched_reason[first], f"{name} measured {watched[first]:g}, legal is {legal}", now_ns)

    def _check_tracking(self, values: np.ndarray, most: float, now_ns: int) -> None:
        """A drive that stays far from where it was sent is jammed, loose, or wired the wrong way round."""
        error = np.abs(values[self._tracked_channel] - self._sent[self._tracked])
        worst = int(error.argmax())
        self._astray = self._astray + 1 if error[worst] > most else 0
        if self._astray >= self._astray_ticks:
            name = self.limits.channel_names(self._tracked_channel[worst : worst + 1])
            self.trip(
                "tracking_error", f"{name} is {error[worst]:.3g} from where it was sent, allowed {most:g}", now_ns
            )

    def _check_tilt(self, values: np.ndarray, now_ns: int) -> None:
        """The z axis of the body in the world is (.., .., 1 - 2 (x^2 + y^2)) for a unit quaternion."""
        w, x, y, z = (values.item(i) for i in self._quaternion or ())
        norm = w * w + x * x + y * y + z * z
        if not 0.25 < norm < 4.0:
            self.trip("tilt", f"orientation has norm {math.sqrt(norm):g}, so it is none; expected 1", now_ns)
        elif 1.0 - 2.0 * (x * x + y * y) / norm < self._least_cos:
            angle = math.degrees(math.acos(max(1.0 - 2.0 * (x * x + y * y) / norm, -1.0)))
            most = math.degrees(math.acos(self._least_cos))
            self.trip("tilt", f"leans by {angle:.0f} degrees, allowed {most:.0f}", now_ns)


def _mix(target: np.ndarray, other: np.ndarray, share: float) -> None:
    """Leaves `share` of the target, in place, and the rest to the other."""
    target -= other
    target *= share
    target += other


def _checked(config: SafetySpec) -> SafetySpec:
    """Refuses values that would switch a check off without saying so."""
    if config.on_fault not in FAULT_RESPONSES:
        raise SafetyError(f"on_fault {config.on_fault!r}; legal are {', '.join(FAULT_RESPONSES)}")
    for name in (f.name for f in fields(config) if f.name.endswith("_seconds")):
        value = getattr(config, name)
        if not 0.0 <= value < float("inf"):
            raise SafetyError(f"{name} {value!r}; legal are seconds from 0 up")
    return config


def _per_tick(control_dt: float, seconds: float) -> float:
    return 1.0 if seconds <= control_dt else control_dt / seconds
