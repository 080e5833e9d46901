"""Ros2Backend: a robot that speaks ROS 2, driven without a ROS installation.

Measurements come from sensor_msgs/JointState (and, for channels that are no joint's, sensor_msgs/Imu or
std_msgs/Float64MultiArray), commands go out as std_msgs/Float64MultiArray or trajectory_msgs/JointTrajectory: what
ros2_control's broadcasters and controllers speak. See docs/ros2.md.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import Any

import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.hardware import HardwareSpec, Wiring
from robots.ros2_options import read_options
from robots.spec import RobotSpec

_SETTLE = 0.3  # [s] after joining before a first command may go out: a second publisher is found in that time
_DRIVEN = 1.0  # [s] after a step in which a robot counts as driven: later, somebody may have moved it by hand
_FAREWELL = 200_000_000  # [ns] how long `close` waits for the last command to be acknowledged


class Ros2Backend(Backend):
    """Drives a robot over ROS 2 topics.

    `reset` never moves the robot; it only waits for it to speak. A reading whose `sequence` repeats is the previous
    one: nothing newer came in time.
    """

    def __init__(self, spec: RobotSpec, hardware: HardwareSpec) -> None:
        """Joins the domain and begins to listen; nothing is sent.

        Args:
            spec: The robot.
            hardware: Its wiring; sources are names of joints in JointState, or TOPIC/FIELD.

        Raises:
            RobotSpecError: The section `ros2` says something that is not legal.
            BackendError: cyclonedds is not installed, or the domain cannot be opened.
        """
        self.spec = spec
        self._options = read_options(spec, hardware)
        self._wiring = Wiring(spec, hardware)
        self._order = list(self._options.command_order)
        try:
            from robots import ros2_inbox, ros2_messages, ros2_node
        except ImportError as error:
            raise BackendError(
                f"the ros2 driver needs cyclonedds ({error}): install gcl-toolkit[ros2]; docs/ros2.md says what to do "
                "where there is no wheel of it, as on Linux arm64"
            ) from error
        self._messages = ros2_messages
        self._node: Any = ros2_node.Node(self._options)
        array = self._options.command_type == "multi_array"
        kind = ros2_messages.Float64MultiArray if array else ros2_messages.JointTrajectory
        self._writer = self._node.writer(self._options.command, kind)
        self._inbox = ros2_inbox.Inbox(self._node, self._options, self._wiring, kind)
        self._failure = ros2_node.DDSException
        self._settled = time.monotonic() + _SETTLE
        self._last: SensorReading | None = None  # since reset
        self._number = 0  # of the joint state in it
        self._running = False
        self._sent: np.ndarray | None = None  # (act_dim,) in the wiring's raw units, what the robot was told last
        self._sent_at = -np.inf  # [s] monotonic, when

    def reset(self) -> SensorReading:
        """Waits for the robot to speak anew and for its controller to listen; moves nothing.

        One that was driven until now is told to rest: it is not commanded again before it has been heard.
        """
        self._check_open()
        if self._running and self._is_driven():
            with contextlib.suppress(BackendError):  # that it cannot be told is for the next step to say
                self._rest()
        self._running, self._last = False, None
        self._inbox.forget()
        deadline = time.monotonic() + self._options.reset_seconds
        # From here on the inbox counts publishers; a second one is found while this waits, before anything moves.
        time.sleep(max(0.0, min(self._settled, deadline) - time.monotonic()))
        while not self._writer.get_matched_subscriptions():
            if time.monotonic() >= deadline:
                raise BackendError(
                    f"nobody subscribes to {self._options.command} in domain {self._options.domain}: is the controller "
                    f"active, and is it the right type ({self._options.command_type})?"
                )
            time.sleep(0.01)
        reading = self._fresh(deadline - time.monotonic(), 0)
        self._running = True
        return reading

    def step(self, command: np.ndarray) -> SensorReading:
        """Sends one command; returns the newest reading, or the previous one again if none came in time.

        Raises:
            BackendError: As of every backend; or nobody can tell any more who the robot is. Each such step tells it to
                rest instead, until a reset.
        """
        self._check_open()
        if not self._running or self._last is None:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        self._check_fault()
        self._send(self._wiring.targets(command))
        newer = self._inbox.newer_than(self._number, self._options.wait_seconds)
        self._check_fault()
        return self._last if newer is None else self._take(newer, self._last.sequence + 1)

    def measure(self) -> SensorReading:
        """Waits for a reading that is newer than the call; sends nothing.

        After a reset it has no more patience than `step`, and then returns the newest reading again: who holds the
        robot must not be kept from doing so by one that has fallen silent.
        """
        self._check_open()
        if not self._running or self._last is None:
            return self._fresh(self._options.reset_seconds, 0 if self._last is None else self._last.sequence + 1)
        self._check_fault()
        newer = self._inbox.newer_than(self._inbox.number, self._options.wait_seconds)
        newer = newer or self._inbox.newer_than(self._number, 0.0)
        self._check_fault()
        return self._last if newer is None else self._take(newer, self._last.sequence + 1)

    def close(self) -> None:
        """Sends a last command, position drives hold, others get zero, and leaves the domain.

        None if none was ever sent, or long ago and to position drives alone: these hold already, and whoever has moved
        the robot by hand since does not want it back.
        """
        if self._node is None:
            return
        self._inbox.close()
        # Nobody may be left to hear it; cyclonedds 11.0.1 raises an AttributeError when that took too long.
        with contextlib.suppress(BackendError, AttributeError):
            if self._rest():
                self._writer.wait_for_acks(_FAREWELL)
        self._running = False
        self._node.close()
        self._node = None

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """By topic, how many messages were accepted, and refused for which reason."""
        return self._inbox.counts

    def _check_open(self) -> None:
        if self._node is None:
            raise BackendError("the connection to the robot is closed")

    def _check_fault(self) -> None:
        """Refuses to go on with a fault, which lasts until a reset; a robot in motion is told to rest each time."""
        if self._inbox.fault is None:
            return
        if self._running:  # a reset moves nothing: what was told last may be long ago by then
            with contextlib.suppress(BackendError):  # the fault is what is told
                self._rest()
        raise BackendError(f"ROS 2 domain {self._options.domain}: {self._inbox.fault}; it obeys again after a reset")

    def _is_driven(self) -> bool:
        """Whether the last command is so recent that nobody can have moved the robot by hand since."""
        return time.monotonic() - self._sent_at < self._options.wait_seconds + _DRIVEN

    def _rest(self) -> bool:
        """Tells position drives their last target once more and others zero; False if there is nothing to tell.

        With only position drives an old target is not repeated: it would be a jump. Where there is another drive it
        is: a torque left on is worse.
        """
        hold = np.array([term.kind == "position" for term in self.spec.action])
        if self._sent is None or (hold.all() and not self._is_driven()):
            return False
        self._send(np.where(hold, self._sent, 0.0))
        return True

    def _fresh(self, timeout: float, sequence: int) -> SensorReading:
        """A reading of something that arrives from now on."""
        self._check_fault()
        newer = self._inbox.newer_than(self._inbox.number, max(timeout, 0.0))
        self._check_fault()
        if newer is None:
            raise BackendError(
                f"no reading in domain {self._options.domain} within {self._options.reset_seconds:g} s; "
                f"{self._inbox.silent()}"
            )
        return self._take(newer, sequence)

    def _take(self, newer: Any, sequence: int) -> SensorReading:
        joints = newer.joints
        values = self._wiring.values(joints.position, joints.velocity, joints.effort, newer.sensors)
        self._number = newer.number
        self._last = SensorReading(values, newer.arrived_ns, sequence)
        return self._last

    def _send(self, targets: np.ndarray) -> None:
        """Publishes raw targets, in the order that the message's type asks for."""
        values = targets[self._order].tolist()
        if self._options.command_type == "multi_array":
            message = self._messages.Float64MultiArray(data=values)
        else:
            seconds, rest = divmod(round(self._options.reach_seconds * 1e9), 10**9)
            point = self._messages.JointTrajectoryPoint(
                positions=values, time_from_start=self._messages.Duration(seconds, rest)
            )
            # A stamp of zero, the default, means from now on, and needs no common clock.
            message = self._messages.JointTrajectory(joint_names=list(self._wiring.target_sources), points=[point])
        try:
            self._writer.write(message)
        except self._failure as error:
            raise BackendError(f"cannot publish on {self._options.command}: {error}") from error
        self._sent, self._sent_at = targets, time.monotonic()
