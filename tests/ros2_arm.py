"""A small arm wired to ROS 2 topics: what the tests of the driver and of its fuzzer share. Needs no DDS."""

import os
import socket
from itertools import count
from typing import Any

from robots.hardware import HardwareSpec
from robots.hardware_yaml import parse_hardware
from robots.robot_yaml import parse_robot
from robots.spec import RobotSpec

JOINTS: tuple[str, ...] = ("shoulder", "elbow", "wrist")
_next = count(os.getpid())


def arm(kind: str = "velocity", sensors: dict[str, list[str]] | None = None) -> RobotSpec:
    """A robot.yaml in which channels, actuators and the order of JOINTS all differ."""
    added = [{"name": name, "sensor": channels, "unit": "1"} for name, channels in (sensors or {}).items()]
    return parse_robot({
        "name": "arm", "mjcf": "arm.xml", "control_dt": 0.02, "episode_seconds": 5,
        "observation": [
            {"name": "velocity", "joint_vel": ["elbow", "wrist", "shoulder"], "unit": "rad/s"},
            {"name": "position", "joint_pos": ["wrist", "shoulder", "elbow"], "unit": "rad"},
            *added,
        ],
        "action": [
            {"actuator": name, "kind": kind, "unit": "rad", "scale": 1.0} for name in ("elbow", "shoulder", "wrist")
        ],
    })  # fmt: skip


def wired(spec: RobotSpec, sensors: Any = None, **ros2: Any) -> HardwareSpec:
    """Its hardware.yaml; further keys of the section ros2 by name."""
    section = {"joint_states": "/joint_states", "command": "/commands", **ros2}
    if section.get("command_type") != "trajectory":
        section.setdefault("command_joints", list(JOINTS))
    joints = {"shoulder": {"source": "shoulder"}, "elbow": {"source": "elbow", "sign": -1, "offset": 0.5}}
    joints["wrist"] = {"source": "wrist"}
    data = {"robot": "arm", "driver": "ros2", "ros2": section, "joints": joints, "sensors": sensors or {}}
    return parse_hardware(data, spec)


def free_domain() -> int:
    """A DDS domain that nobody on this machine is in: other tests may run beside this one."""
    while True:
        domain = 1 + next(_next) % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("0.0.0.0", 7400 + 250 * domain + 10))
                return domain
            except OSError:
                continue
