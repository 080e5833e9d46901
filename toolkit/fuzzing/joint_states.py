"""Hostile JointState messages to the ROS 2 driver's reader, and a second opinion on each."""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from robots.hardware import Wiring
from robots.ros2_samples import JointSample, JointStates
from robots.spec import RobotSpec
from toolkit.fuzzing.datagram_oracle import ViolationError
from toolkit.fuzzing.plain_wiring import plain_wiring

_FIELDS = ("position", "velocity", "effort")
_ODD: tuple[Any, ...] = (
    math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0, None, "1.0", True, 2**70, [0.5], b"\1", 3, complex(1, 1),
)  # fmt: skip


class JointStateTarget:
    """The reader that stands between the wire and the robot's readings."""

    def __init__(self, spec: RobotSpec, seed: int) -> None:
        """Wires the robot's joints to sources of other names.

        Args:
            spec: A robot all of whose channels are joints'.
            seed: Of the hostile messages.
        """
        self._wiring = Wiring(spec, plain_wiring(spec, {}))
        self._reader = JointStates(self._wiring)
        self._needed = {
            "position": set(self._wiring.position_sources),
            "velocity": set(self._wiring.velocity_sources),
            "effort": set(self._wiring.effort_sources),
        }
        self._random = random.Random(seed)
        self._names = [*self._wiring.sources, "gripper", "base"]
        self._now = 10**9  # [ns] stamp of the newest message that was not spoilt
        self._newest: JointSample | None = None
        self.counts: Counter[str] = Counter()
        self._ways: list[Callable[[Any], None]] = [lambda _: None] * 4 + [
            self._other_order, self._other_name, self._name_twice, self._fewer_names, self._more_names, self._huge_name,
            self._many_names, self._odd_name, self._other_length, self._odd_number, self._odd_number, self._no_values,
            self._odd_values, self._odd_stamp, self._old_stamp, self._old_stamp, self._no_field,
        ]  # fmt: skip

    def some(self, count: int) -> tuple[int, int]:
        """Reads `count` messages; returns how many, and how many were taken."""
        taken = sum(self.one() for _ in range(count))
        self.counts = self._reader.counts
        return count, taken

    def one(self) -> bool:
        """Reads one message.

        Returns:
            Whether it was taken.

        Raises:
            ViolationError: It was taken and is malformed, was read as what it does not say, was refused and is whole,
                or raised.
        """
        self._now += 1000
        message = self._good()
        self._random.choice(self._ways)(message)
        if self._random.random() < 0.25:
            with contextlib.suppress(AttributeError, TypeError, LookupError, ValueError):
                self._random.choice(self._ways)(message)  # which the first way may have left without what it spoils
        try:
            sample = self._reader.read(message)
        except Exception as error:
            raise ViolationError(f"the reader raised {error!r} at {self._shown(message)}") from error
        try:
            self._check(message, sample)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            if sample is not None:
                raise ViolationError(f"taken, though {error!r}: {self._shown(message)}") from error
        if sample is not None:
            self._newest = sample
            if sample.stamp_ns > self._now + 10**12:
                self._reader.forget()  # after a stamp from far ahead no other is newer
                self._newest = None
        return sample is not None

    def _check(self, message: Any, sample: JointSample | None) -> None:
        """The second opinion: by dictionaries of names, one number at a time."""
        seconds, nanoseconds = message.header.stamp.sec, message.header.stamp.nanosec
        if type(seconds) is not int or type(nanoseconds) is not int:
            raise TypeError("a stamp of something else than whole numbers")
        stamp = seconds * 10**9 + nanoseconds
        whole = 0 <= nanoseconds < 10**9 and seconds >= 0
        whole = whole and len(set(message.name)) == len(message.name) <= 1024
        said: dict[str, dict[str, Any]] = {}
        for field in _FIELDS:
            values = getattr(message, field)
            said[field] = dict(zip(message.name, values, strict=False))
            whole = whole and (len(values) == len(message.name) or (len(values) == 0 and not self._needed[field]))
            whole = whole and all(
                source in said[field] and math.isfinite(said[field][source]) for source in self._needed[field]
            )
        fresh = self._newest is None or stamp >= self._newest.stamp_ns
        if sample is None:
            plain = all(type(value) is float for field in _FIELDS for value in getattr(message, field))
            new = self._newest is None or stamp > self._newest.stamp_ns
            if whole and new and plain and all(type(name) is str for name in message.name):
                raise ViolationError(f"a whole message was refused: {self._shown(message)}; {self._reader.counts}")
            return
        if not (whole and fresh and sample.stamp_ns == stamp):
            raise ViolationError(f"a malformed or old message was taken: {self._shown(message)}")
        for field in _FIELDS:
            read = dict(zip(self._wiring.sources, getattr(sample, field).tolist(), strict=True))
            wrong = [source for source in self._needed[field] if read[source] != said[field][source]]
            if wrong:
                raise ViolationError(f"{field} of {wrong} was read as something else: {self._shown(message)}")

    def _good(self) -> SimpleNamespace:
        count, draw = len(self._names), self._random.random
        return SimpleNamespace(
            header=SimpleNamespace(stamp=SimpleNamespace(sec=self._now // 10**9, nanosec=self._now % 10**9)),
            name=list(self._names),
            position=[draw() for _ in range(count)],
            velocity=[draw() for _ in range(count)],
            effort=[],
        )

    def _shown(self, message: Any) -> str:
        return repr(message)[:400]

    # Each spoils a message in one way.

    def _other_order(self, message: Any) -> None:
        self._random.shuffle(message.name)

    def _other_name(self, message: Any) -> None:
        self._put(message.name, self._random.choice(("", "motor_99", "MOTOR_0", "motor_0\0", "motor_0 ", "\ud800")))

    def _name_twice(self, message: Any) -> None:
        self._put(message.name, self._random.choice(message.name))

    def _fewer_names(self, message: Any) -> None:
        del message.name[self._random.randrange(len(message.name)) :]

    def _more_names(self, message: Any) -> None:
        message.name.append(self._random.choice(("more", "motor_0")))

    def _huge_name(self, message: Any) -> None:
        self._put(message.name, "x" * self._random.choice((100, 60_000)))

    def _many_names(self, message: Any) -> None:
        if self._random.random() < 0.02:
            message.name = [f"motor_{i}" for i in range(5000)]
            message.position = message.velocity = [0.5] * 5000

    def _odd_name(self, message: Any) -> None:
        if self._random.random() < 0.5:
            self._put(message.name, self._random.choice((None, 0, 1.5, ["motor_0"], b"motor_0")))
        else:
            message.name = self._random.choice((None, "motor_0", 7, {"motor_0": 1}, ()))

    def _other_length(self, message: Any) -> None:
        values = getattr(message, self._random.choice(_FIELDS))
        if values and self._random.random() < 0.5:
            values.pop()
        else:
            values.append(0.5)

    def _odd_number(self, message: Any) -> None:
        self._put(getattr(message, self._random.choice(_FIELDS[:2])), self._random.choice(_ODD))

    def _no_values(self, message: Any) -> None:
        setattr(message, self._random.choice(_FIELDS), [])

    def _odd_values(self, message: Any) -> None:
        odd = self._random.choice((None, 0.5, "0.5", {}, [[0.5] * len(self._names)], [None] * len(self._names)))
        setattr(message, self._random.choice(_FIELDS), odd)

    def _odd_stamp(self, message: Any) -> None:
        stamp = message.header.stamp
        stamp.sec = self._random.choice((-1, 0, 2**31 - 1, None, "1", 1.5, stamp.sec))
        stamp.nanosec = self._random.choice((-1, 10**9, 2**32 - 1, 0, True, stamp.nanosec))

    def _old_stamp(self, message: Any) -> None:
        old = max(0, self._now - self._random.choice((0, 1000, 2000, 10**6, 10**9)))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(old, 10**9)

    def _no_field(self, message: Any) -> None:
        field = self._random.choice(("name", "header", *_FIELDS))
        if hasattr(message, field):
            delattr(message, field)

    def _put(self, values: Any, value: Any) -> None:
        """Writes over one element of what may have been spoilt before."""
        if isinstance(values, list) and values:
            values[self._random.randrange(len(values))] = value
