"""A robot whose faults can be switched on, behind a guardian in a thread, at the end of a bad cable."""

import dataclasses
import heapq
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from export.guarded_robot import GuardedRobot
from export.guardian import serve
from export.safety import Fault
from robots.backend import Backend, SensorReading, check_command
from robots.robot_yaml import parse_robot
from robots.safety_spec import SafetySpec
from robots.spec import RobotSpec

PERIOD = 0.005  # [s]
SAFETY = SafetySpec(
    stale_seconds=0.15, soft_start_seconds=0.02, soft_stop_seconds=0.02, watchdog_seconds=0.1, fault_seconds=0.2,
    miss_seconds=10.0, tracking=0.3, tracking_seconds=0.1,
)  # fmt: skip
SPEC = dataclasses.replace(
    parse_robot({
        "name": "twolink", "mjcf": "twolink.xml", "control_dt": PERIOD, "episode_seconds": 1.0,
        "observation": [
            {"name": "position", "joint_pos": ["arm", "hand"], "unit": "rad"},
            {"name": "velocity", "joint_vel": ["hand"], "unit": "rad/s"},
        ],
        "action": [
            {"actuator": "arm", "kind": "position", "unit": "rad", "scale": 1.0},
            {"actuator": "hand", "kind": "effort", "unit": "N m", "scale": 2.0},
        ],
        "joint_limits": {"arm": {"lower": -2.0, "upper": 2.0}, "hand": {"lower": -1.0, "upper": 1.0, "velocity": 20.0}},
    }),
    safety=SAFETY,
)  # fmt: skip


class FaultyRobot(Backend):
    """An arm that goes where it is sent, a hand that is pushed; `tamper` may change each reading."""

    def __init__(self, spec: RobotSpec = SPEC) -> None:
        self.spec = spec
        self.tamper: Callable[[SensorReading], SensorReading] = lambda reading: reading
        self.sent: list[tuple[int, np.ndarray]] = []  # ([ns], (2,) command), all that ever reached the motors
        self.push = 0.0  # [N m] what leans on the hand
        self.sequence = -1
        self.state = np.array([0.6, 0.0, 0.0])  # arm, hand, speed of the hand

    def reset(self) -> SensorReading:
        self.sequence = -1
        return self.measure()

    def step(self, command: np.ndarray) -> SensorReading:
        check_command(self.spec, command)
        self.sent.append((time.monotonic_ns(), command.copy()))
        self.state[0] += np.clip(command[0] - self.state[0], -0.05, 0.05)
        self.state[2] += PERIOD * (4.0 * (command[1] + self.push) - 4.0 * self.state[2])
        self.state[1] += PERIOD * self.state[2]
        return self.measure()

    def measure(self) -> SensorReading:
        self.sequence += 1
        return self.tamper(SensorReading(self.state.copy(), time.monotonic_ns(), self.sequence))

    def close(self) -> None:
        self.closed = True


@contextmanager
def guarded(robot: FaultyRobot, key: bytes = b"") -> Iterator[tuple[str, list[Fault]]]:
    """Serves the robot from a thread; yields its address and what made the guardian act."""
    events: list[Fault] = []
    lifeline, ours = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(GuardedRobot(robot, key), sock, lifeline, events.append))
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}", events
        finally:
            os.close(ours)
            thread.join(10.0)
            os.close(lifeline)


@contextmanager
def bad_cable(address: str, fate: Callable[[random.Random, bool], list[float]]) -> Iterator[str]:
    """A cable to a robot on which each datagram meets its fate; yields the address at the controller's end.

    Args:
        address: The robot's.
        fate: Takes a source of chance and whether the datagram goes to the robot; returns the delays [s] after which
            it arrives: none at all if it is lost, two if it is doubled.
    """
    host, port = address.split(":")
    ended = threading.Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.connect((host, int(port)))

        def carry() -> None:
            chance, on_the_way, number = random.Random(0), [], 0
            controller: tuple[str, int] | None = None
            with selectors.DefaultSelector() as selector:
                selector.register(near, selectors.EVENT_READ)
                selector.register(far, selectors.EVENT_READ)
                while not ended.is_set():
                    wait = max(on_the_way[0][0] - time.monotonic(), 0.0) if on_the_way else 0.05
                    for key, _ in selector.select(min(wait, 0.05)):
                        to_robot = key.fileobj is near
                        if to_robot:
                            datagram, controller = near.recvfrom(65535)
                        else:
                            datagram = far.recv(65535)
                        for delay in fate(chance, to_robot):
                            number += 1
                            heapq.heappush(on_the_way, (time.monotonic() + delay, number, to_robot, datagram))
                    while on_the_way and on_the_way[0][0] <= time.monotonic():
                        _, _, to_robot, datagram = heapq.heappop(on_the_way)
                        if to_robot:
                            far.send(datagram)
                        elif controller is not None:
                            near.sendto(datagram, controller)

        thread = threading.Thread(target=carry)
        thread.start()
        try:
            yield f"127.0.0.1:{near.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(5.0)
