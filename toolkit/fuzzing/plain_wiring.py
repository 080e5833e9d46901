"""A wiring for any robot whose channels are all joints': sources motor_0, motor_1, ... as they are first mentioned."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from robots.hardware import HardwareSpec, JointWire
from robots.spec import RobotSpec, RobotSpecError


def plain_wiring(spec: RobotSpec, options: Mapping[str, Any]) -> HardwareSpec:
    """Wires a robot to ROS 2 as it is: no signs, no offsets.

    Args:
        spec: The robot.
        options: The section `ros2`.

    Returns:
        The wiring.

    Raises:
        RobotSpecError: A channel is no joint's.
    """
    other = [channel for channel in spec.channels if channel.partition("/")[0] not in ("joint_pos", "joint_vel")]
    if other:
        raise RobotSpecError(f"{spec.name} measures {', '.join(other)}; take a robot that measures joints alone")
    names = dict.fromkeys([*(channel.partition("/")[2] for channel in spec.channels), *spec.action_names])
    joints = tuple(JointWire(name, f"motor_{i}") for i, name in enumerate(names))
    return HardwareSpec(spec.name, "ros2", MappingProxyType(dict(options)), joints)
