"""ROS 2 names as its design documents give them, and a domain configuration that opens nothing by itself."""

import xml.etree.ElementTree as ET

import pytest

from robots import RobotSpecError
from robots.ros2_wire import domain_ports, domain_xml, mangled_topic, mangled_type


@pytest.mark.parametrize(
    ("topic", "dds"),
    [
        ("/joint_states", "rt/joint_states"),
        ("/effort_controller/commands", "rt/effort_controller/commands"),
        ("/arm1/_private/x2", "rt/arm1/_private/x2"),
    ],
)
def test_topic_names(topic: str, dds: str) -> None:
    """A topic is "rt" and its fully qualified name."""
    assert mangled_topic(topic) == dds


@pytest.mark.parametrize(
    "topic", ["", "/", "joint_states", "~/x", "/a//b", "/a/", "/1a", "/a__b", "/a_", "/a b", "/{ns}/a", "/ä", "/a\n"]
)
def test_names_that_are_none(topic: str) -> None:
    """A relative, private or ill-formed name is refused with the form expected."""
    with pytest.raises(RobotSpecError, match="fully qualified"):
        mangled_topic(topic)


@pytest.mark.parametrize(
    ("name", "dds"),
    [
        ("sensor_msgs/msg/JointState", "sensor_msgs::msg::dds_::JointState_"),
        ("std_msgs/msg/Float64MultiArray", "std_msgs::msg::dds_::Float64MultiArray_"),
    ],
)
def test_type_names(name: str, dds: str) -> None:
    """A type is its package, "msg", "dds_" and its name with an underscore."""
    assert mangled_type(name) == dds


@pytest.mark.parametrize("name", ["JointState", "sensor_msgs/JointState", "a/srv/B", "A/msg/B", "a/msg/b", "a/msg/B\n"])
def test_types_that_are_none(name: str) -> None:
    """A type of another form is refused."""
    with pytest.raises(RobotSpecError, match="message type"):
        mangled_type(name)


def test_ports() -> None:
    """Domain 0 begins at 7400 as RTPS says, and domains do not share a port."""
    assert domain_ports(0)[0] == 7400
    assert domain_ports(0)[-1] + 1 == domain_ports(1)[0]
    assert domain_ports(232)[10 + 2 * 32 + 1] < 65536


def test_only_the_peers_are_listed() -> None:
    """The configuration names the one interface and the peers, switches multicast off, and lets nothing be injected."""
    root = ET.fromstring(domain_xml('e"><Peer/>', ["10.0.0.1", "10.0.0.2"]))
    assert [peer.get("address") for peer in root.iter("Peer")] == ["10.0.0.1", "10.0.0.2"]
    assert [item.get("name") for item in root.iter("NetworkInterface")] == ['e"><Peer/>']
    assert root.findtext("Domain/General/AllowMulticast") == "false"
