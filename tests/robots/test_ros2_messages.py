"""The DDS types are ROS 2's: names as they are mangled, and bytes as the CDR rules of their .msg files give them."""

import struct

import pytest

pytest.importorskip("cyclonedds", reason="the extra ros2 is not installed")

from robots import ros2_messages  # noqa: E402
from robots.ros2_messages import (  # noqa: E402
    Duration,
    Float64MultiArray,
    Header,
    Imu,
    JointState,
    JointTrajectory,
    JointTrajectoryPoint,
    Time,
)
from robots.ros2_wire import mangled_type  # noqa: E402

PACKAGES = {
    "builtin_interfaces": ("Time", "Duration"),
    "std_msgs": ("Header", "MultiArrayDimension", "MultiArrayLayout", "Float64MultiArray"),
    "geometry_msgs": ("Quaternion", "Vector3"),
    "sensor_msgs": ("JointState", "Imu"),
    "trajectory_msgs": ("JointTrajectoryPoint", "JointTrajectory"),
}
LITTLE_CDR = b"\0\1\0\0"


@pytest.mark.parametrize(("package", "name"), [(p, name) for p, names in PACKAGES.items() for name in names])
def test_type_names(package: str, name: str) -> None:
    """Each type bears on the wire the name that ROS 2 gives it."""
    kind = getattr(ros2_messages, name)
    assert kind.__idl__.idl_transformed_typename == mangled_type(f"{package}/msg/{name}")


def text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<I", len(data)) + data


def padded(data: bytes, size: int) -> bytes:
    return data + b"\0" * (-len(data) % size)


def row(data: bytes, values: list[float]) -> bytes:
    """A sequence of float64 behind data: its length at a multiple of 4, its numbers at a multiple of 8."""
    data = padded(data, 4) + struct.pack("<I", len(values))
    return padded(data, 8) + struct.pack(f"<{len(values)}d", *values) if values else data


def test_joint_state_bytes() -> None:
    """header.stamp, header.frame_id, name, position, velocity, effort: in this order, aligned as CDR 1 says."""
    message = JointState(Header(Time(7, 9), "base"), ["a", "bcd"], [1.0, 2.0], [], [3.0, 4.0])
    data = struct.pack("<iI", 7, 9) + text("base")
    data = padded(data, 4) + struct.pack("<I", 2) + text("a")
    data = padded(data, 4) + text("bcd")
    data = row(row(row(data, [1.0, 2.0]), []), [3.0, 4.0])
    assert message.serialize(use_version_2=False) == LITTLE_CDR + data


def test_multi_array_bytes() -> None:
    """layout.dim, layout.data_offset, data."""
    message = Float64MultiArray(data=[0.5, -1.0])
    assert message.serialize(use_version_2=False) == LITTLE_CDR + row(struct.pack("<II", 0, 0), [0.5, -1.0])


def test_trajectory_bytes() -> None:
    """header, joint_names, points; a point is positions, velocities, accelerations, effort, time_from_start."""
    point = JointTrajectoryPoint(positions=[0.25], time_from_start=Duration(1, 2))
    data = padded(struct.pack("<iI", 0, 0) + text(""), 4) + struct.pack("<I", 1) + text("a")
    data = padded(data, 4) + struct.pack("<I", 1)
    data = row(row(row(row(data, [0.25]), []), []), []) + struct.pack("<iI", 1, 2)
    message = JointTrajectory(joint_names=["a"], points=[point])
    assert message.serialize(use_version_2=False) == LITTLE_CDR + data


def test_imu_size() -> None:
    """An Imu is its header, 4 + 3 + 3 numbers and three covariances of 9, without any length between them."""
    header = padded(struct.pack("<iI", 0, 0) + text(""), 8)
    assert len(Imu().serialize(use_version_2=False)) == 4 + len(header) + 8 * (4 + 9 + 3 + 9 + 3 + 9)
