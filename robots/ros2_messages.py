"""The ROS 2 messages that a robot speaks, as DDS types: the fields of their .msg files, in order. Needs cyclonedds.

The annotations are the wire format, so this file alone does without `from __future__ import annotations`.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, int32, sequence, uint32

if TYPE_CHECKING:  # what they are in Python; a type checker cannot read what they are on the wire
    Texts = list[str]
    Floats = list[float]
    Nine = list[float]
else:
    Texts = sequence[str]
    Floats = sequence[float64]
    Nine = array[float64, 9]


def _dds(package: str, message: str) -> str:
    # Cyclone's Python writes "." where the wire has "::", as `ros2_wire.mangled_type` spells it; a test compares them.
    return f"{package}.msg.dds_.{message}_"


@dataclass
class Time(IdlStruct, typename=_dds("builtin_interfaces", "Time")):
    """builtin_interfaces/msg/Time."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Duration(IdlStruct, typename=_dds("builtin_interfaces", "Duration")):
    """builtin_interfaces/msg/Duration."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(IdlStruct, typename=_dds("std_msgs", "Header")):
    """std_msgs/msg/Header."""

    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class JointState(IdlStruct, typename=_dds("sensor_msgs", "JointState")):
    """sensor_msgs/msg/JointState."""

    header: Header = field(default_factory=Header)
    name: Texts = field(default_factory=list)
    position: Floats = field(default_factory=list)
    velocity: Floats = field(default_factory=list)
    effort: Floats = field(default_factory=list)


@dataclass
class Quaternion(IdlStruct, typename=_dds("geometry_msgs", "Quaternion")):
    """geometry_msgs/msg/Quaternion."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0
    w: float64 = 1.0


@dataclass
class Vector3(IdlStruct, typename=_dds("geometry_msgs", "Vector3")):
    """geometry_msgs/msg/Vector3."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Imu(IdlStruct, typename=_dds("sensor_msgs", "Imu")):
    """sensor_msgs/msg/Imu."""

    header: Header = field(default_factory=Header)
    orientation: Quaternion = field(default_factory=Quaternion)
    orientation_covariance: Nine = field(default_factory=lambda: [0.0] * 9)
    angular_velocity: Vector3 = field(default_factory=Vector3)
    angular_velocity_covariance: Nine = field(default_factory=lambda: [0.0] * 9)
    linear_acceleration: Vector3 = field(default_factory=Vector3)
    linear_acceleration_covariance: Nine = field(default_factory=lambda: [0.0] * 9)


@dataclass
class MultiArrayDimension(IdlStruct, typename=_dds("std_msgs", "MultiArrayDimension")):
    """std_msgs/msg/MultiArrayDimension."""

    label: str = ""
    size: uint32 = 0
    stride: uint32 = 0


if TYPE_CHECKING:
    Dimensions = list[MultiArrayDimension]
else:
    Dimensions = sequence[MultiArrayDimension]


@dataclass
class MultiArrayLayout(IdlStruct, typename=_dds("std_msgs", "MultiArrayLayout")):
    """std_msgs/msg/MultiArrayLayout."""

    dim: Dimensions = field(default_factory=list)
    data_offset: uint32 = 0


@dataclass
class Float64MultiArray(IdlStruct, typename=_dds("std_msgs", "Float64MultiArray")):
    """std_msgs/msg/Float64MultiArray."""

    layout: MultiArrayLayout = field(default_factory=MultiArrayLayout)
    data: Floats = field(default_factory=list)


@dataclass
class JointTrajectoryPoint(IdlStruct, typename=_dds("trajectory_msgs", "JointTrajectoryPoint")):
    """trajectory_msgs/msg/JointTrajectoryPoint."""

    positions: Floats = field(default_factory=list)
    velocities: Floats = field(default_factory=list)
    accelerations: Floats = field(default_factory=list)
    effort: Floats = field(default_factory=list)
    time_from_start: Duration = field(default_factory=Duration)


if TYPE_CHECKING:
    Points = list[JointTrajectoryPoint]
else:
    Points = sequence[JointTrajectoryPoint]


@dataclass
class JointTrajectory(IdlStruct, typename=_dds("trajectory_msgs", "JointTrajectory")):
    """trajectory_msgs/msg/JointTrajectory."""

    header: Header = field(default_factory=Header)
    joint_names: Texts = field(default_factory=list)
    points: Points = field(default_factory=list)
