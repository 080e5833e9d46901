"""From a ROS 2 message that anyone may have written to numbers by name, or to nothing and a count of why.

Nothing here needs DDS: a message is any object with the fields of its .msg file. Whatever it holds, `read` never
raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robots.hardware import Wiring
from robots.ros2_options import SensorTopic

_MOST_JOINTS = 1024  # names in a message; more is no robot
_BROKEN = (AttributeError, TypeError, ValueError, OverflowError, KeyError, IndexError)  # what nonsense makes numpy do


@dataclass(frozen=True)
class JointSample:
    """One joint state, in the driver's own order and units."""

    stamp_ns: int  # [ns] clock of the machine that measured: good for order, worthless for age
    position: np.ndarray  # (n_sources,) [rad | m] in the order of Wiring.sources; NaN where nobody asked
    velocity: np.ndarray  # (n_sources,) [rad/s | m/s]
    effort: np.ndarray  # (n_sources,) [N m | N]


class SampleReader(Protocol):
    """Reads the messages of one topic."""

    counts: Counter[str]  # "accepted" and why others were refused

    def read(self, message: object) -> Any:
        """What the message says, or None."""
        ...

    def forget(self) -> None:
        """Begins anew: what comes next is not compared with what came before."""
        ...


class JointStates:
    """Reads sensor_msgs/JointState: each message by its own names, in whatever order and among whatever others."""

    def __init__(self, wiring: Wiring) -> None:
        """Looks up what has to be there.

        Args:
            wiring: Whose sources are names of joints.
        """
        self.counts: Counter[str] = Counter()
        self._sources = wiring.sources
        self._needed = tuple(
            (field, np.array([wiring.sources.index(source) for source in named], dtype=np.intp))
            for field, named in (
                ("position", wiring.position_sources),
                ("velocity", wiring.velocity_sources),
                ("effort", wiring.effort_sources),
            )
        )
        self._measured = {source for field, index in self._needed for source in (wiring.sources[i] for i in index)}
        self._names: list[str] = []  # of the last message; most are like it
        self._places = np.empty(0, dtype=np.intp)  # (n_sources,) where in a message of these names each source is
        self._newest: JointSample | None = None

    def forget(self) -> None:
        """Begins anew: the next message is new whatever its stamp."""
        self._newest = None

    def read(self, message: Any) -> JointSample | None:
        """Checks a message.

        Args:
            message: Whatever came on the topic.

        Returns:
            What it measured, or None for one that is malformed, older than the newest, or the newest once more;
            `counts` says which. Never raises.
        """
        try:
            sample = self._sample(message)
        except _BROKEN:
            sample = "malformed"
        if isinstance(sample, str):
            self.counts[sample] += 1
            return None
        if self._newest is not None and sample.stamp_ns <= self._newest.stamp_ns:
            # An equal stamp with other numbers is new all the same: some publishers do not stamp.
            if sample.stamp_ns < self._newest.stamp_ns or _same(sample, self._newest):
                self.counts["out of order" if sample.stamp_ns < self._newest.stamp_ns else "repeated"] += 1
                return None
        self._newest = sample
        self.counts["accepted"] += 1
        return sample

    def _sample(self, message: Any) -> JointSample | str:
        """The sample, or the reason why there is none."""
        stamp = stamp_ns(message.header.stamp)
        if stamp is None:
            return "bad stamp"
        reason = self._look_up(message.name)
        if reason is not None:
            return reason
        arrays: dict[str, np.ndarray] = {}
        for field, needed in self._needed:
            arrays[field] = np.full(len(self._sources), np.nan)
            given = getattr(message, field)
            if len(given) == 0 and not needed.size:
                continue  # ROS 2 leaves out what is not measured
            if len(given) != len(self._names):
                return f"wrong number of values in {field}"
            if not needed.size:
                continue
            arrays[field][needed] = numbers(given)[self._places[needed]]
            if not np.isfinite(arrays[field][needed]).all():
                return f"{field} not finite"
        return JointSample(stamp, **arrays)

    def _look_up(self, names: Any) -> str | None:
        """Finds each source among a message's names; returns why it cannot be."""
        if len(names) > _MOST_JOINTS:
            return "too many joints"
        names = list(names)
        if names == self._names:
            return None
        self._names = []
        place = {name: i for i, name in enumerate(names)}
        if not all(type(name) is str for name in names):
            return "malformed"
        if len(place) < len(names):
            return "joint named twice"
        if not self._measured <= place.keys():
            return "joint missing"
        # A source that is only driven is not measured, so its place is never read.
        self._places = np.array([place.get(source, -1) for source in self._sources], dtype=np.intp)
        self._names = names
        return None


class SensorReader:
    """Reads sensor_msgs/Imu or std_msgs/Float64MultiArray into the channels that are wired to it."""

    def __init__(self, sensor: SensorTopic) -> None:
        """Remembers the fields.

        Args:
            sensor: The topic and what is wired to it.
        """
        self.counts: Counter[str] = Counter()
        self._paths = tuple(tuple(field.split("/")) for field in sensor.fields)
        self._groups = tuple(dict.fromkeys(path[0] for path in self._paths))
        self._index = tuple(int(field) for field in sensor.fields) if sensor.type == "multi_array" else ()
        self._newest_ns = -1

    def forget(self) -> None:
        """Begins anew: the next message is new whatever its stamp."""
        self._newest_ns = -1

    def read(self, message: Any) -> np.ndarray | None:
        """Checks a message.

        Args:
            message: Whatever came on the topic.

        Returns:
            (number of fields,) what it measured, or None; `counts` says why. Never raises.
        """
        try:
            values = self._elements(message) if self._index else self._imu(message)
        except _BROKEN:
            values = "malformed"
        if not isinstance(values, str) and not np.isfinite(values).all():
            values = "not finite"
        self.counts[values if isinstance(values, str) else "accepted"] += 1
        return None if isinstance(values, str) else values

    def _elements(self, message: Any) -> np.ndarray | str:
        if message.layout.data_offset != 0 or len(message.data) <= max(self._index):
            return "too few values"
        return numbers(message.data)[list(self._index)]

    def _imu(self, message: Any) -> np.ndarray | str:
        stamp = stamp_ns(message.header.stamp)
        if stamp is None:
            return "bad stamp"
        if stamp < self._newest_ns:
            return "out of order"
        # The .msg file: a covariance that begins with -1 says that the sensor does not measure this
        if any(getattr(message, f"{group}_covariance")[0] == -1 for group in self._groups):
            return "not measured"
        values = numbers([getattr(getattr(message, group), axis) for group, axis in self._paths])
        if np.isfinite(values).all():
            self._newest_ns = stamp
        return values


def stamp_ns(stamp: Any) -> int | None:
    """The time of a header [ns], None if it is no time."""
    seconds, nanoseconds = stamp.sec, stamp.nanosec
    if type(seconds) is not int or type(nanoseconds) is not int or seconds < 0 or not 0 <= nanoseconds < 10**9:
        return None
    return seconds * 10**9 + nanoseconds


def numbers(given: Sequence[Any]) -> np.ndarray:
    """A list of numbers as a row.

    Raises:
        ValueError: Not a flat list of numbers, texts that look like numbers included.
    """
    row = np.asarray(given)
    if row.ndim != 1 or row.dtype.kind not in "fiu" or bool in map(type, given):  # beside numbers numpy makes it one
        raise ValueError(f"{row.dtype} of {row.ndim} dimensions")
    return row.astype(np.float64)


def _same(one: JointSample, other: JointSample) -> bool:
    return all(
        np.array_equal(getattr(one, field), getattr(other, field), equal_nan=True)
        for field in ("position", "velocity", "effort")
    )
