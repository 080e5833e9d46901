"""How ROS 2 looks on the wire: names of topics and types, ports, and a configuration that keeps a domain to its peers.

ROS 2 is DDS with mangled names: the topic /joint_states is "rt/joint_states" there, and the type
sensor_msgs/msg/JointState is "sensor_msgs::msg::dds_::JointState_" (design.ros2.org, "Topic and Service name mapping
to DDS"). Nothing here needs DDS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from robots.spec import RobotSpecError

LOOPBACK = "lo"  # the interface that reaches no other machine
LOOPBACK_ADDRESS = "127.0.0.1"
LARGEST_SAMPLE = 65_536  # bytes; a longer message is thrown away unread, and bounds what one may cost to decode
LARGEST_DOMAIN = 232  # the last one whose ports exist
_PARTICIPANTS = 32  # greatest participant index on a host that is looked for
_TOPIC = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
_TYPE = re.compile(r"([a-z][a-z0-9_]*)/(msg)/([A-Z][A-Za-z0-9]*)")


def mangled_topic(topic: str) -> str:
    """The DDS name of a ROS 2 topic.

    Args:
        topic: Fully qualified, such as "/joint_states".

    Returns:
        Such as "rt/joint_states".

    Raises:
        RobotSpecError: Not fully qualified or not a legal name.
    """
    if not _TOPIC.fullmatch(topic) or "__" in topic or topic.endswith("_"):
        raise RobotSpecError(
            f"topic {topic!r}; expected a fully qualified ROS 2 name such as /joint_states: parts of letters, digits "
            "and single underscores, each after a slash and none beginning with a digit"
        )
    return f"rt{topic}"


def mangled_type(name: str) -> str:
    """The DDS name of a ROS 2 message type.

    Args:
        name: Such as "sensor_msgs/msg/JointState".

    Returns:
        Such as "sensor_msgs::msg::dds_::JointState_".

    Raises:
        RobotSpecError: Not of that form.
    """
    match = _TYPE.fullmatch(name)
    if match is None:
        raise RobotSpecError(f"message type {name!r}; expected the form sensor_msgs/msg/JointState")
    package, folder, message = match.groups()
    return f"{package}::{folder}::dds_::{message}_"


def domain_ports(domain: int) -> range:
    """The UDP ports that belong to a domain, by the formula that all DDS implementations share.

    Args:
        domain: In [0, LARGEST_DOMAIN].

    Returns:
        Its ports; participant i of a host listens on 10 + 2 i and 11 + 2 i from the first.
    """
    return range(7400 + 250 * domain, 7400 + 250 * (domain + 1))


def domain_xml(interface: str, peers: Sequence[str]) -> str:
    """Cyclone DDS configuration of a domain that speaks to its peers and to nobody else.

    Args:
        interface: Name of the only network interface used, such as "lo" or "eth0".
        peers: Addresses that are spoken to; discovery is by unicast to these, multicast is off.

    Returns:
        XML as in CYCLONEDDS_URI. Cyclone hears whoever knows its ports all the same: see `robots/peer_filter.py`.
    """
    listed = "".join(f"<Peer address={quoteattr(peer)}/>" for peer in peers)
    return (
        '<CycloneDDS><Domain Id="any">'
        f"<General><Interfaces><NetworkInterface name={quoteattr(interface)} multicast={quoteattr('false')}/>"
        "</Interfaces><AllowMulticast>false</AllowMulticast></General>"
        f"<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>{_PARTICIPANTS}"
        f"</MaxAutoParticipantIndex><SPDPInterval>1s</SPDPInterval><Peers>{listed}</Peers></Discovery>"
        f"<Internal><MaxSampleSize>{LARGEST_SAMPLE} B</MaxSampleSize></Internal>"
        "</Domain></CycloneDDS>"
    )
