"""Reads `hardware.yaml`, the wiring of one physical robot: strict, for a wrong sign or a swapped joint moves an arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from robots.checked_yaml import any_mapping, did_you_mean, mapping, number, text
from robots.hardware import DRIVERS, EFFORT, HardwareSpec, JointWire, SensorWire
from robots.spec import RobotSpec, RobotSpecError

_JOINT_CHANNELS = ("joint_pos", "joint_vel")


def read_hardware(path: str | Path, spec: RobotSpec) -> HardwareSpec:
    """Reads the wiring of one physical robot.

    Args:
        path: The `hardware.yaml`.
        spec: The robot that it must be for.

    Returns:
        The checked wiring; the driver's own section is the driver's to check.

    Raises:
        RobotSpecError: Not readable, for another robot, a key or value that is not legal, a source named twice, a
            channel that nothing gives, or an actuator that nothing drives.
    """
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_OneKeyOnce)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise RobotSpecError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    try:
        return parse_hardware(data, spec)
    except RobotSpecError as error:
        raise RobotSpecError(f"{path}: {error}") from error


def parse_hardware(data: object, spec: RobotSpec) -> HardwareSpec:
    """Builds a HardwareSpec from the mapping that a `hardware.yaml` holds.

    Args:
        data: What YAML gave.
        spec: The robot that it must be for.

    Returns:
        The checked wiring.

    Raises:
        RobotSpecError: As `read_hardware`.
    """
    top = mapping(data, "the file", ["robot", "driver", *DRIVERS, "joints", "sensors"], ["robot", "driver", "joints"])
    if text(top["robot"], "robot") != spec.name:
        raise RobotSpecError(f"robot: this is the wiring of {top['robot']!r}, expected {spec.name!r}")
    driver = text(top["driver"], "driver")
    if driver not in DRIVERS:
        raise RobotSpecError(f"driver {driver!r}{did_you_mean(driver, DRIVERS)}; legal are {', '.join(DRIVERS)}")
    others = [name for name in DRIVERS if name in top and name != driver]
    if others:
        raise RobotSpecError(f"driver is {driver}, so the sections {', '.join(others)} do not belong here")
    if driver not in top:
        raise RobotSpecError(f"driver is {driver}: its section {driver!r} is missing")
    if not isinstance(top[driver], Mapping):
        raise RobotSpecError(f"{driver}: expected a mapping, got {type(top[driver]).__name__}")
    joints = tuple(_joint(name, item, spec) for name, item in any_mapping(top["joints"], "joints"))
    sensors = tuple(_sensor(name, item, spec) for name, item in any_mapping(top.get("sensors", {}), "sensors"))
    hardware = HardwareSpec(spec.name, driver, MappingProxyType(dict(top[driver])), joints, sensors)
    _check_sources(hardware, spec)
    _check_complete(hardware, spec)
    return hardware


class _OneKeyOnce(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: plain YAML would take the later joint and drop the earlier."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Builds a mapping, refusing a key that was there already."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = _twice(keys)
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key named twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def _measured_joints(spec: RobotSpec) -> list[str]:
    pairs = (channel.split("/", 1) for channel in spec.channels)
    return list(dict.fromkeys(name for kind, name in pairs if kind in _JOINT_CHANNELS))


def _joint(name: str, item: object, spec: RobotSpec) -> JointWire:
    legal = list(dict.fromkeys([*_measured_joints(spec), *spec.action_names]))
    if name not in legal:
        raise RobotSpecError(
            f"joints: {spec.name} has no joint or actuator {name!r}{did_you_mean(name, legal)}; "
            f"legal are {', '.join(legal)}"
        )
    where = f"joints.{name}"
    wire = mapping(item, where, ["source", "sign", "offset"], ["source"])
    sign = wire.get("sign", 1)
    if isinstance(sign, bool) or not isinstance(sign, (int, float)) or sign not in (1, -1):
        raise RobotSpecError(f"{where}.sign: {sign!r}; legal are 1 and -1")
    return JointWire(
        name, _source(wire["source"], where), int(sign), number(wire.get("offset", 0.0), f"{where}.offset")
    )


def _sensor(channel: str, item: object, spec: RobotSpec) -> SensorWire:
    if channel not in spec.channels:
        raise RobotSpecError(
            f"sensors: {spec.name} has no channel {channel!r}{did_you_mean(channel, spec.channels)}; "
            f"legal are {', '.join(spec.channels)}"
        )
    where = f"sensors.{channel}"
    wire = mapping(item, where, ["source", "scale", "offset"], ["source"])
    scale = number(wire.get("scale", 1.0), f"{where}.scale")
    if scale == 0.0:
        raise RobotSpecError(f"{where}.scale: 0 would hide what is measured")
    return SensorWire(
        channel, _source(wire["source"], where), scale, number(wire.get("offset", 0.0), f"{where}.offset")
    )


def _source(value: object, where: str) -> str:
    source = text(value, f"{where}.source")
    if not source or source != source.strip():
        raise RobotSpecError(f"{where}.source: {source!r} is empty or has blanks around it")
    return source


def _check_sources(hardware: HardwareSpec, spec: RobotSpec) -> None:
    measured = _measured_joints(spec)
    # A motor may drive an actuator of one name and measure a joint of another (a cart: slide and slider), once each.
    for role, names in (("measures", measured), ("drives", spec.action_names)):
        twice = _twice(wire.source for wire in hardware.joints if wire.joint in names)
        if twice:
            raise RobotSpecError(f"joints: a source {role} one joint, but these are named twice: {twice}")
    twice = _twice(wire.source for wire in hardware.sensors)
    if twice:
        raise RobotSpecError(f"sensors: a source gives one channel, but these are named twice: {twice}")
    wired = [wire.joint for wire in hardware.joints]
    for sensor in hardware.sensors:
        kind, _, joint = sensor.channel.partition("/")
        if kind in _JOINT_CHANNELS and joint in wired:
            raise RobotSpecError(f"sensors.{sensor.channel}: the joint {joint} already gives this channel")
        name = sensor.source.removeprefix(EFFORT)
        if sensor.source.startswith(EFFORT) and name not in wired:
            raise RobotSpecError(
                f"sensors.{sensor.channel}.source: no joint {name!r} to take the effort of; "
                f"the joints are {', '.join(wired)}"
            )


def _check_complete(hardware: HardwareSpec, spec: RobotSpec) -> None:
    wired = {wire.joint for wire in hardware.joints}
    given = {f"{kind}/{joint}" for kind in _JOINT_CHANNELS for joint in wired}
    given |= {wire.channel for wire in hardware.sensors}
    missing = [channel for channel in spec.channels if channel not in given]
    if missing:
        raise RobotSpecError(
            f"nothing gives {', '.join(missing)}: a joint under joints gives its joint_pos/ and joint_vel/, "
            "every other channel is named under sensors"
        )
    idle = [name for name in spec.action_names if name not in wired]
    if idle:
        raise RobotSpecError(
            f"nothing drives {', '.join(idle)}: an actuator is wired under joints by its own name; "
            f"wired are {', '.join(sorted(wired)) or 'none'}"
        )
    raw = [term.actuator for term in spec.action if term.kind == "ctrl"]
    if raw:
        raise RobotSpecError(
            f"{spec.name} drives {', '.join(raw)} by MuJoCo's own ctrl, which no hardware understands; "
            "legal kinds are effort, velocity, position"
        )


def _twice(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))
