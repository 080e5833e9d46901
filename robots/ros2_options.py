"""The `ros2` section of a hardware.yaml: which domain, interface, peers and topics. Strict, like all of that file."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from robots.checked_yaml import any_mapping, did_you_mean, mapping, number, sequence, text
from robots.hardware import HardwareSpec, Wiring
from robots.ros2_wire import LARGEST_DOMAIN, LOOPBACK, LOOPBACK_ADDRESS, mangled_topic
from robots.spec import RobotSpec, RobotSpecError

COMMAND_TYPES = ("multi_array", "trajectory")
RELIABILITIES = ("best_effort", "reliable")
SENSOR_TYPES = ("imu", "multi_array")
IMU_FIELDS = (
    *(f"orientation/{axis}" for axis in "xyzw"),
    *(f"angular_velocity/{axis}" for axis in "xyz"),
    *(f"linear_acceleration/{axis}" for axis in "xyz"),
)
_KEYS = (
    "domain", "interface", "peers", "joint_states", "command", "command_type", "command_joints", "sensor_topics",
    "reliability", "wait_seconds", "reset_seconds", "reach_seconds", "sensor_seconds",
)  # fmt: skip
_MOST_ELEMENTS = 4096  # of a Float64MultiArray, so that an index is no way to ask for gigabytes
_MOST_PEERS = 64


@dataclass(frozen=True)
class SensorTopic:
    """A topic beside the joint states, and which of its numbers are channels."""

    topic: str  # such as "/imu/data"
    type: str  # one of SENSOR_TYPES
    fields: tuple[str, ...]  # one per channel: of IMU_FIELDS, or the index in a Float64MultiArray
    places: tuple[int, ...]  # (len(fields),) where each goes in the array that is ordered by Wiring.sensor_sources


@dataclass(frozen=True)
class Ros2Options:
    """Everything that the driver's own section says, checked."""

    domain: int  # [0, 232]
    interface: str  # the only network interface used
    peers: tuple[str, ...]  # IPv4 addresses that are spoken to and heard; never empty
    joint_states: str  # topic of sensor_msgs/msg/JointState
    command: str  # topic that the commands go to
    command_type: str  # one of COMMAND_TYPES
    command_order: tuple[int, ...]  # (act_dim,) which element of a command is the message's element i
    sensor_topics: tuple[SensorTopic, ...]
    reliable: bool  # whether measurements are asked for reliably; best effort hears both kinds of publisher
    wait_seconds: float  # [s] how long `step` waits for a reading newer than the last
    reset_seconds: float  # [s] how long `reset` and `measure` wait for the robot to be found and to speak
    reach_seconds: float  # [s] time_from_start of a trajectory's one point
    sensor_seconds: float  # [s] greatest age of another topic's message beside a new joint state


def read_options(spec: RobotSpec, hardware: HardwareSpec) -> Ros2Options:
    """Checks the driver's section.

    Args:
        spec: The robot.
        hardware: Its wiring.

    Returns:
        The options, with defaults filled in; the domain's default is ROS_DOMAIN_ID, else 0.

    Raises:
        RobotSpecError: A key or value that is not legal; the message says which are.
    """
    data = mapping(hardware.options, "ros2", _KEYS, ["joint_states", "command"])
    interface = text(data.get("interface", LOOPBACK), "ros2.interface")
    if not re.fullmatch(r"[A-Za-z0-9_.:@-]{1,15}", interface):
        raise RobotSpecError(f"ros2.interface: {interface!r} is no name of a network interface, such as lo or eth0")
    topics = {key: text(data[key], f"ros2.{key}") for key in ("joint_states", "command")}
    command_type = _choice(data.get("command_type", "multi_array"), "ros2.command_type", COMMAND_TYPES)
    other = [term.actuator for term in spec.action if term.kind != "position"]
    if command_type == "trajectory" and other:
        raise RobotSpecError(
            f"ros2.command_type: a trajectory is of positions, but {', '.join(other)} of {spec.name} takes "
            "no position; legal is multi_array"
        )
    wiring = Wiring(spec, hardware)
    sensors = _sensor_topics(data.get("sensor_topics", {}), wiring.sensor_sources)
    names = [*topics.values(), *(sensor.topic for sensor in sensors)]
    for name in names:
        mangled_topic(name)
    if len(set(names)) < len(names):
        raise RobotSpecError(f"ros2: a topic is named twice: {', '.join(sorted(names))}")
    return Ros2Options(
        domain=_domain(data.get("domain")),
        interface=interface,
        peers=_peers(data.get("peers", []), interface),
        command_type=command_type,
        command_order=_order(data.get("command_joints"), command_type, wiring.target_sources),
        sensor_topics=sensors,
        reliable=_choice(data.get("reliability", "best_effort"), "ros2.reliability", RELIABILITIES) == "reliable",
        wait_seconds=number(data.get("wait_seconds", spec.control_dt / 2), "ros2.wait_seconds", least=0.0),
        reset_seconds=number(data.get("reset_seconds", 10.0), "ros2.reset_seconds", above=0.0),
        reach_seconds=number(data.get("reach_seconds", spec.control_dt), "ros2.reach_seconds", above=0.0),
        sensor_seconds=number(data.get("sensor_seconds", 3 * spec.control_dt), "ros2.sensor_seconds", above=0.0),
        **topics,
    )


def _choice(value: object, where: str, legal: tuple[str, ...]) -> str:
    chosen = text(value, where)
    if chosen not in legal:
        raise RobotSpecError(f"{where}: {chosen!r}{did_you_mean(chosen, legal)}; legal are {', '.join(legal)}")
    return chosen


def _order(data: object, command_type: str, targets: tuple[str, ...]) -> tuple[int, ...]:
    """A trajectory names its joints; an array of numbers does not, so its order has to be named here."""
    where = "ros2.command_joints"
    if command_type == "trajectory":
        if data is not None:
            raise RobotSpecError(f"{where}: a trajectory names its joints itself; this is for multi_array")
        return tuple(range(len(targets)))
    names = [text(name, where) for name in sequence(data if data is not None else [], where)]
    if sorted(names) != sorted(targets):
        raise RobotSpecError(
            f"{where}: {names} has to be the controller's parameter `joints`, in its order, with exactly the sources "
            f"that are driven: {', '.join(targets)}"
        )
    return tuple(targets.index(name) for name in names)


def _domain(value: object) -> int:
    where = "ros2.domain"
    if value is None:
        where, given = "ROS_DOMAIN_ID", os.environ.get("ROS_DOMAIN_ID", "0")
        value = int(given) if given.isascii() and given.isdigit() else given
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_DOMAIN:
        raise RobotSpecError(f"{where}: {value!r}; legal are whole numbers from 0 to {LARGEST_DOMAIN}")
    return value


def _peers(data: object, interface: str) -> tuple[str, ...]:
    """The addresses that may be heard: on loopback this machine, elsewhere those named and no default."""
    found = []
    for value in sequence(data, "ros2.peers"):
        peer = LOOPBACK_ADDRESS if value == "localhost" else text(value, "ros2.peers")
        try:
            address = ipaddress.IPv4Address(peer)
        except ValueError as error:
            raise RobotSpecError(f"ros2.peers: {peer!r}; expected IPv4 addresses such as 192.168.1.10") from error
        if address.is_multicast or address.is_unspecified or address == ipaddress.IPv4Address("255.255.255.255"):
            raise RobotSpecError(f"ros2.peers: {peer} is not the address of one machine")
        if address.is_loopback != (interface == LOOPBACK):
            raise RobotSpecError(f"ros2.peers: {peer} is not reached by the interface {interface}")
        found.append(str(address))
    if not found and interface != LOOPBACK:
        raise RobotSpecError(
            f"ros2.peers: the interface {interface} leads to other machines, so the robot's address has to be named"
        )
    if len(found) > _MOST_PEERS:
        raise RobotSpecError(f"ros2.peers: {len(found)} addresses; at most {_MOST_PEERS}")
    return tuple(dict.fromkeys(found)) or (LOOPBACK_ADDRESS,)


def _sensor_topics(data: object, sources: tuple[str, ...]) -> tuple[SensorTopic, ...]:
    """Finds for each source "TOPIC/FIELD" of the wiring its topic, and refuses what fits nothing."""
    where = "ros2.sensor_topics"
    types = {topic: _choice(kind, f"{where}.{topic}", SENSOR_TYPES) for topic, kind in any_mapping(data, where)}
    wanted: dict[str, list[tuple[str, int]]] = {topic: [] for topic in types}
    for place, source in enumerate(sources):
        # The longest, since /imu may be a topic beside /imu/orientation.
        topic = max((topic for topic in types if source.startswith(f"{topic}/")), key=len, default=None)
        field = "" if topic is None else source[len(topic) + 1 :]
        if topic is None or not _legal_field(types[topic], field):
            raise RobotSpecError(
                f"sensors: source {source!r}; expected TOPIC/FIELD with a topic of ros2.sensor_topics "
                f"({', '.join(types) or 'none is named'}) and a field of its type: imu has {', '.join(IMU_FIELDS)}; "
                f"multi_array has an index from 0 to {_MOST_ELEMENTS - 1}"
            )
        wanted[topic].append((field, place))
    idle = [topic for topic, fields in wanted.items() if not fields]
    if idle:
        raise RobotSpecError(f"{where}: nothing under sensors is wired to {', '.join(idle)}")
    return tuple(_sensor_topic(topic, types, fields) for topic, fields in wanted.items())


def _sensor_topic(topic: str, types: Mapping[str, str], fields: list[tuple[str, int]]) -> SensorTopic:
    return SensorTopic(topic, types[topic], tuple(field for field, _ in fields), tuple(place for _, place in fields))


def _legal_field(kind: str, field: str) -> bool:
    if kind == "imu":
        return field in IMU_FIELDS
    return field.isascii() and field.isdigit() and str(int(field[:9])) == field and int(field) < _MOST_ELEMENTS
