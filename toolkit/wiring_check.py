"""WiringCheck: what readings say about a robot's wires while a person moves its joints by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robots.backend import SensorReading
from robots.spec import RobotSpec

_MOVED = {
    "rad": 0.05,
    "m": 0.01,
    "rad/s": 0.1,
    "m/s": 0.05,
}  # by unit: farther than noise gets, nearer than a hand moves
_MOVED_ELSE = 0.05  # of another unit: of the value's size, or of 1 where that is greater
_STALE_SECONDS = 0.25  # [s] and never under three control periods, as in the safety layer


@dataclass(frozen=True)
class ChannelState:
    """One channel as it is shown."""

    channel: str
    unit: str
    value: float  # [unit] newest
    low: float  # [unit] least finite value seen
    high: float  # [unit] greatest
    lower: float | None  # [unit] where its bar begins: the joint's limit, or the least command
    upper: float | None  # [unit]
    direction: int  # 1: it first moved up, -1: down, 0: it has not moved
    state: str  # "OK" | "FROZEN" | "NaN" | "OUT OF LIMITS"


class WiringCheck:
    """Collects readings. Nothing is ever sent."""

    def __init__(self, spec: RobotSpec) -> None:
        """Looks up limits.

        Args:
            spec: The robot.
        """
        count = len(spec.channels)
        self.spec = spec
        self.readings = 0  # fresh ones
        self.errors: list[str] = []  # what the backend said instead of measuring, each once
        self._low, self._high = np.full(count, np.inf), np.full(count, -np.inf)
        self._first, self._last = np.full(count, np.nan), np.full(count, np.nan)
        self._direction = np.zeros(count, dtype=np.int64)
        self._nans = np.zeros(count, dtype=np.int64)
        self._outside = np.zeros(count, dtype=np.int64)
        self._threshold = np.array([_MOVED.get(unit, np.nan) for unit in spec.channel_units])
        self._lower, self._upper, self._limited = _bounds(spec)
        self._stale_ns = round(max(_STALE_SECONDS, 3.0 * spec.control_dt) * 1e9)
        self._sequence: int | None = None
        self._begin_ns = self._fresh_ns = 0
        self._frozen = self._was_frozen = False
        self._pairs = _position_and_velocity(spec)  # (n, 2) channels of the same joint
        self._agreement = np.zeros(len(self._pairs))  # [rad^2/s | m^2/s] sum of way times speed: negative is against

    def add(self, reading: SensorReading, now_ns: int) -> None:
        """Takes a reading.

        Args:
            reading: What the backend measured.
            now_ns: [ns] monotonic clock.
        """
        if self._sequence is None:
            self._begin_ns = self._fresh_ns = now_ns
        if reading.sequence != self._sequence:
            self._sequence, self._fresh_ns = reading.sequence, now_ns
            self.readings += 1
            self._take(reading.values)
        self.tick(now_ns)

    def tick(self, now_ns: int) -> None:
        """Lets time pass: without a fresh reading everything counts as frozen after a while.

        Args:
            now_ns: [ns] monotonic clock.
        """
        self._frozen = self._sequence is not None and now_ns - self._fresh_ns > self._stale_ns
        self._was_frozen |= self._frozen

    def failed(self, message: str) -> None:
        """Takes note that the backend could not measure.

        Args:
            message: What it said.
        """
        if message not in self.errors:
            self.errors.append(message)

    def age_seconds(self, now_ns: int) -> float:
        """[s] since the newest fresh reading came."""
        return (now_ns - self._fresh_ns) * 1e-9

    def rate_hz(self, now_ns: int) -> float:
        """[Hz] fresh readings a second, on average."""
        return (self.readings - 1) / max((now_ns - self._begin_ns) * 1e-9, 1e-9) if self.readings else 0.0

    def states(self) -> list[ChannelState]:
        """Each channel as it is now, in the order of `spec.channels`."""
        return [self._state(i) for i in range(len(self.spec.channels))]

    def problems(self) -> list[str]:
        """What is wrong, or not yet shown to be right, a line each; empty if the wiring has proved itself."""
        found = [f"lost: {message}" for message in self.errors]
        if self.readings == 0:
            return [*found, "no reading came"]
        if self._was_frozen:
            found.append(f"frozen: no fresh reading for {self._stale_ns * 1e-9:.2g} s or longer")
        for i, channel in enumerate(self.spec.channels):
            if self._nans[i]:
                found.append(f"{channel}: not a number in {self._nans[i]} of {self.readings} readings")
            if self._outside[i]:
                legal = f"[{self._lower[i]:g}, {self._upper[i]:g}] {self.spec.channel_units[i]}"
                found.append(f"{channel}: outside its limits {legal} in {self._outside[i]} of {self.readings} readings")
        for (position, velocity), agreement in zip(self._pairs, self._agreement, strict=True):
            if agreement < 0.0 and self._direction[position] and self._direction[velocity]:
                found.append(
                    f"{self.spec.channels[velocity]} runs against {self.spec.channels[position]}: a sign is wrong"
                )
        still = [
            channel
            for i, channel in enumerate(self.spec.channels)
            if channel.startswith("joint_pos/") and not self._direction[i]
        ]
        return [*found, *(f"{channel} has not moved" for channel in still)]

    def _take(self, values: np.ndarray) -> None:
        finite = np.isfinite(values)
        self._nans += ~finite
        if self._pairs.size:
            position, velocity = self._pairs.T
            way = (values[position] - self._last[position]) * values[velocity]
            self._agreement += np.where(np.isfinite(way), way, 0.0)
        self._last = values
        self._low = np.where(finite, np.minimum(self._low, values), self._low)
        self._high = np.where(finite, np.maximum(self._high, values), self._high)
        self._outside += self._limited & finite & ((values < self._lower) | (values > self._upper))
        new = np.isnan(self._first) & finite
        self._first = np.where(new, values, self._first)
        relative = _MOVED_ELSE * np.maximum(1.0, np.abs(self._first))
        threshold = np.where(np.isnan(self._threshold), relative, self._threshold)
        away = values - self._first
        begins = (self._direction == 0) & (np.abs(away) > threshold)  # NaN is not greater
        self._direction = np.where(begins, np.where(away > 0.0, 1, -1), self._direction)

    def _state(self, i: int) -> ChannelState:
        value = float(self._last[i])
        state = "OK"
        if self._frozen:
            state = "FROZEN"
        elif not np.isfinite(value):
            state = "NaN"
        elif self._limited[i] and not self._lower[i] <= value <= self._upper[i]:
            state = "OUT OF LIMITS"
        known = np.isfinite(self._lower[i])
        return ChannelState(
            channel=self.spec.channels[i], unit=self.spec.channel_units[i], value=value,
            low=float(self._low[i]), high=float(self._high[i]),
            lower=float(self._lower[i]) if known else None, upper=float(self._upper[i]) if known else None,
            direction=int(self._direction[i]), state=state,
        )  # fmt: skip


def _bounds(spec: RobotSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper ends (len(channels),), NaN where there are none, and which of them are limits of the joint."""
    place = {channel: i for i, channel in enumerate(spec.channels)}
    lower, upper = (np.full(len(spec.channels), np.nan) for _ in range(2))
    limited = np.zeros(len(spec.channels), dtype=bool)
    for term in spec.action:
        i = place.get(f"joint_pos/{term.moves}")
        if term.kind == "position" and i is not None:
            lower[i], upper[i] = term.lower, term.upper
    for limit in spec.joint_limits:
        watched = [(f"joint_pos/{limit.joint}", limit.lower, limit.upper)]
        if limit.velocity is not None:
            watched.append((f"joint_vel/{limit.joint}", -limit.velocity, limit.velocity))
        for channel, low, high in watched:
            if channel in place:
                lower[place[channel]], upper[place[channel]], limited[place[channel]] = low, high, True
    return lower, upper, limited


def _position_and_velocity(spec: RobotSpec) -> np.ndarray:
    place = {channel: i for i, channel in enumerate(spec.channels)}
    joints = (channel.removeprefix("joint_pos/") for channel in spec.channels if channel.startswith("joint_pos/"))
    pairs = [(place[f"joint_pos/{j}"], place[f"joint_vel/{j}"]) for j in joints if f"joint_vel/{j}" in place]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)
