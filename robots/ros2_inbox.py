"""What the robot last said on its topics, kept by a thread of its own so that a message's arrival is when it arrived.

Each topic has one publisher. A second one, another in its place, or somebody else who commands the robot is a fault
that stays until the next `forget`: one of them is not the robot, and nobody can tell which.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from cyclonedds.core import DDSException, InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.internal import InvalidSample
from cyclonedds.sub import DataReader
from cyclonedds.util import duration

from robots.hardware import Wiring
from robots.ros2_messages import Float64MultiArray, Imu, JointState
from robots.ros2_node import Node
from robots.ros2_options import Ros2Options
from robots.ros2_samples import JointSample, JointStates, SampleReader, SensorReader

_LOOK_AGAIN = duration(milliseconds=20)  # how often the publishers are counted when nothing arrives
_HANDLE = 2**64 - 1  # cyclonedds gives one and the same handle with a sign here and without one there
_AT_ONCE = 64  # messages of a topic read in one go, so that a flood on one does not starve the others
_SENSOR_MESSAGES = {"imu": Imu, "multi_array": Float64MultiArray}
_UNREAD = SampleState.NotRead | ViewState.Any | InstanceState.Any


@dataclass(frozen=True)
class Snapshot:
    """The newest of all topics, taken at one instant."""

    number: int  # joint states accepted so far
    joints: JointSample
    sensors: np.ndarray  # (n_sensors,) in the order of Wiring.sensor_sources
    arrived_ns: int  # [ns] monotonic clock, arrival of the oldest part


class Feed:
    """One topic: its reader, its one publisher and the newest that it said."""

    def __init__(self, topic: str, reader: DataReader, samples: SampleReader) -> None:
        """Nothing came yet.

        Args:
            topic: ROS 2 name.
            reader: DDS reader of the topic.
            samples: What makes sense of its messages.
        """
        self.topic, self.reader, self.samples = topic, reader, samples
        self.publisher: int | None = None  # instance handle of the one that is believed
        self.newest: Any = None
        self.arrived_ns = 0  # [ns] monotonic clock

    def forget(self) -> None:
        """Begins anew, with whoever publishes then."""
        self.publisher = self.newest = None
        self.samples.forget()

    def wrong_publishers(self) -> str | None:
        """Counts the publishers and takes the first single one for the robot; returns why that cannot be."""
        present = [handle & _HANDLE for handle in self.reader.get_matched_publications()]
        if len(present) > 1:
            return f"{len(present)} publishers of {self.topic}: one of them is not the robot"
        if present and self.publisher is None:
            self.publisher = present[0]
        if present and present[0] != self.publisher:
            return f"another publisher of {self.topic} than at the start"
        return None

    def take(self) -> bool:
        """Reads what is there; returns whether anything new was in it. Malformed messages are counted, never raised."""
        fresh = False
        for _ in range(_AT_ONCE):
            arrived = time.monotonic_ns()
            try:
                taken = self.reader.take(1)
            except DDSException:
                raise
            except Exception:  # noqa: BLE001 - the decoder raises whatever its author did not think of
                self.samples.counts["not decodable"] += 1
                continue
            if not taken:
                break
            if isinstance(taken[0], InvalidSample):
                continue  # word of a publisher's end, without data
            if taken[0].sample_info.publication_handle & _HANDLE != self.publisher:
                self.samples.counts["of a stranger"] += 1
                continue
            values = self.samples.read(taken[0])
            if values is not None:
                self.newest, self.arrived_ns, fresh = values, arrived, True
        return fresh


class Inbox:
    """All topics of a robot."""

    def __init__(self, node: Node, options: Ros2Options, wiring: Wiring, command: type) -> None:
        """Subscribes and begins to read.

        Args:
            node: The driver's participant.
            options: The topics.
            wiring: What is wanted of them.
            command: Message type of the command topic, to see who else publishes there.
        """
        self._joints = Feed(
            options.joint_states,
            node.reader(options.joint_states, JointState, reliable=options.reliable),
            JointStates(wiring),
        )
        self._sensors = [
            Feed(
                sensor.topic,
                node.reader(
                    sensor.topic, Imu if sensor.type == "imu" else Float64MultiArray, reliable=options.reliable
                ),
                SensorReader(sensor),
            )
            for sensor in options.sensor_topics
        ]
        self._feeds = [self._joints, *self._sensors]
        self._places = [list(sensor.places) for sensor in options.sensor_topics]
        self._num_sensors = len(wiring.sensor_sources)
        self._allowed_ns = round(options.sensor_seconds * 1e9)
        self._command = options.command
        self._others = node.reader(options.command, command, reliable=False, others_only=True)
        self._changed = threading.Condition()
        self._number = 0
        self._fault: str | None = None
        self._ending = threading.Event()
        self._waiting = WaitSet(node.participant)
        self._conditions = [ReadCondition(feed.reader, _UNREAD) for feed in self._feeds]
        for condition in self._conditions:
            self._waiting.attach(condition)
        self._thread = threading.Thread(target=self._run, name="ros2-inbox", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Why nothing that comes may be believed any more."""
        return self._fault

    @property
    def number(self) -> int:
        """How many joint states were accepted."""
        return self._number

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """By topic, how many messages were accepted, and refused for which reason."""
        return {feed.topic: Counter(feed.samples.counts) for feed in self._feeds}

    def silent(self) -> str:
        """For people: what has been heard of each topic."""
        told = []
        for feed in self._feeds:
            refused = ", ".join(f"{count} {why}" for why, count in feed.samples.counts.items() if why != "accepted")
            heard = f"{feed.samples.counts['accepted']} messages" + (f" (and refused: {refused})" if refused else "")
            told.append(f"{feed.topic}: {heard if feed.publisher is not None else 'no publisher found'}")
        return "; ".join(told)

    def forget(self) -> None:
        """Begins anew: with the publishers that are there now, and no fault."""
        with self._changed:
            for feed in self._feeds:
                feed.forget()
            self._fault = None

    def newer_than(self, number: int, timeout: float) -> Snapshot | None:
        """Waits for a joint state beside which all other topics are fresh.

        Args:
            number: That of the snapshot had last.
            timeout: [s] how long to wait at most.

        Returns:
            The newest, or None if nothing newer came in time or there is a fault.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._fault is not None or self._complete(number), timeout)
            if self._fault is not None or not self._complete(number):
                return None
            sensors = np.empty(self._num_sensors)
            for feed, places in zip(self._sensors, self._places, strict=True):
                sensors[places] = feed.newest
            return Snapshot(self._number, self._joints.newest, sensors, min(feed.arrived_ns for feed in self._feeds))

    def close(self) -> None:
        """Ends the thread. Closing twice is allowed."""
        self._ending.set()
        self._thread.join()

    def _complete(self, number: int) -> bool:
        if self._number <= number or self._joints.newest is None:
            return False
        oldest = time.monotonic_ns() - self._allowed_ns
        return all(feed.newest is not None and feed.arrived_ns >= oldest for feed in self._sensors)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._waiting.wait(_LOOK_AGAIN)
                self._turn()
            except DDSException as error:
                with self._changed:
                    self._fault = f"DDS failed: {error.msg}"
                    self._changed.notify_all()
                return

    def _turn(self) -> None:
        """One look at everything; faults latch."""
        with self._changed:
            wrong = [feed.wrong_publishers() for feed in self._feeds]
            if self._others.get_matched_publications():
                wrong.append(f"somebody else publishes on {self._command}: a robot has one driver")
            self._fault = self._fault or next((why for why in wrong if why is not None), None)
            fresh = [feed.take() for feed in self._feeds]
            if fresh[0]:
                self._number += 1
            if self._fault is not None or any(fresh):
                self._changed.notify_all()
