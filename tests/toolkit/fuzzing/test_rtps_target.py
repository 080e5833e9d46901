"""A running ROS 2 driver under raw packets: it lives, drives on, and reads nothing that the robot did not say."""

import struct

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="the extra ros2 is not installed")

from robots import SensorReading, load_robot  # noqa: E402
from toolkit.fuzzing.datagram_oracle import ViolationError  # noqa: E402
from toolkit.fuzzing.rtps_driver import said  # noqa: E402
from toolkit.fuzzing.rtps_packets import RtpsMutator  # noqa: E402
from toolkit.fuzzing.rtps_target import RtpsTarget  # noqa: E402

SPEC = load_robot("cheetah")


def test_the_driver_survives() -> None:
    """Thousands of packets later it still drives, and nothing that must not happen happened."""
    target = RtpsTarget(SPEC, 0)
    assert target.some(4000) == (4000, 0)
    target.close()
    target.close()
    assert target.counts["readings"] > 0 and target.counts["commands that the robot heard"] > 0


def test_a_dead_driver_is_found_out() -> None:
    """When the driver dies, the fuzzer says so."""
    target = RtpsTarget(SPEC, 0)
    target._driver.kill()
    target._driver.wait()
    with pytest.raises(ViolationError, match="died"):
        target.some(10)
    with pytest.raises(ViolationError, match="ended with"):
        target.close()


def test_what_the_robot_says() -> None:
    """A reading of the robot is told from one in which one number is another's, or off by a hair."""
    share = 17 / 1024
    joints = list(dict.fromkeys([*(c.partition("/")[2] for c in SPEC.channels), *SPEC.action_names]))
    values = np.array([
        -share if channel.startswith("joint_vel") else joints.index(channel.partition("/")[2]) + share
        for channel in SPEC.channels
    ])  # fmt: skip
    assert said(SPEC, SensorReading(values, 0, 0))
    for changed in (values + 1e-9, np.roll(values, 1), np.where(values == values[0], np.nan, values), values + 1.0):
        assert not said(SPEC, SensorReading(changed, 0, 0))


def test_packets_are_of_every_kind() -> None:
    """Packets come of all kinds of submessages, in real and false names, the same ones from the same seed."""
    sample = b"RTPS\2\5\1\x10" + bytes(range(12)) + struct.pack("<BBH", 0x15, 5, 4) + b"data"
    make = lambda: RtpsMutator(1, [sample], [b"\0\1\0\0content"], [bytes(range(12))])  # noqa: E731
    one, other = make(), make()
    packets = [one.one() for _ in range(3000)]
    assert packets == [other.one() for _ in range(3000)]
    whole = [packet for packet in packets if packet[:4] == b"RTPS" and len(packet) > 20]
    assert len({packet[20] for packet in whole}) > 15
    assert any(packet[8:20] == bytes(range(12)) for packet in whole) and len(whole) < len(packets)
