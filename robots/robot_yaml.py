"""Reads `robot.yaml` into a RobotSpec: strict, so that a typing mistake is an error and never a silent default."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from robots.spec import (
    ACTION_KINDS,
    CHANNEL_SOURCES,
    SPEC_FORMAT_VERSION,
    TRANSFORMS,
    ActionTerm,
    AddedSensor,
    Distribution,
    JointLimit,
    ObservationTerm,
    ResetSpec,
    RobotSpec,
    RobotSpecError,
    WorldPlacement,
)

_TOP_KEYS = [f.name for f in dataclasses.fields(RobotSpec) if f.name != "directory"]
_SLICE = re.compile(r"^(?P<name>[^\[\]]+)\[(?P<start>\d+):(?P<stop>\d+)\]$")


def robot_names() -> list[str]:
    """Names of the robots that ship with gcl, sorted."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/robot.yaml"))


def load_robot(name_or_path: str | Path) -> RobotSpec:
    """Loads a robot by the name of a shipped one, or by the path of a `robot.yaml` or the folder that holds it.

    Args:
        name_or_path: "cheetah", "my_robot/robot.yaml" or "my_robot/".

    Returns:
        The checked spec. Names of joints and sensors are checked against the model by `model.compile_model`.

    Raises:
        RobotSpecError: Nothing there, not YAML, or a key or value that is not legal.
    """
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "robot.yaml"
    if not path.is_file():
        shipped = Path(__file__).parent / str(name_or_path) / "robot.yaml"
        if not (re.fullmatch(r"\w+", str(name_or_path)) and shipped.is_file()):
            hint = _did_you_mean(str(name_or_path), robot_names())
            raise RobotSpecError(
                f"no robot {str(name_or_path)!r}{hint}: give the path of a robot.yaml"
                f" or one of {', '.join(robot_names())}"
            )
        path = shipped
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RobotSpecError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    try:
        spec = parse_robot(data)
    except RobotSpecError as error:
        raise RobotSpecError(f"{path}: {error}") from error
    return dataclasses.replace(spec, directory=path.parent.resolve())


def parse_robot(data: object) -> RobotSpec:
    """Builds a RobotSpec from the mapping a `robot.yaml` holds.

    Args:
        data: What YAML gave.

    Returns:
        The checked spec, without `directory`.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    top = _mapping(
        data, "the file", _TOP_KEYS, ["name", "mjcf", "control_dt", "episode_seconds", "observation", "action"]
    )
    if top.get("format", SPEC_FORMAT_VERSION) != SPEC_FORMAT_VERSION:
        raise RobotSpecError(f"format {top['format']!r}; this version of gcl reads format {SPEC_FORMAT_VERSION}")
    observation = tuple(_observation_term(item, i) for i, item in enumerate(_list(top["observation"], "observation")))
    action = tuple(_action_term(item, i) for i, item in enumerate(_list(top["action"], "action")))
    for what, names in (
        ("observation term", [term.name for term in observation]),
        ("actuator", [term.actuator for term in action]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RobotSpecError(f"{what} named twice: {', '.join(twice)}")
    units: dict[str, str] = {}
    for term in observation:
        for channel in term.channels:
            if units.setdefault(channel, term.unit) != term.unit:
                raise RobotSpecError(
                    f"channel {channel} is in {units[channel]!r} in one term and in {term.unit!r} in {term.name}"
                )
    return RobotSpec(
        name=_text(top["name"], "name"),
        mjcf=_text(top["mjcf"], "mjcf"),
        control_dt=_number(top["control_dt"], "control_dt", above=0.0),
        episode_seconds=_number(top["episode_seconds"], "episode_seconds", above=0.0),
        observation=observation,
        action=action,
        description=_text(top.get("description", ""), "description"),
        task=None if top.get("task") is None else _text(top["task"], "task"),
        sensors=tuple(_added_sensor(item, i) for i, item in enumerate(_list(top.get("sensors", []), "sensors"))),
        joint_limits=_joint_limits(top.get("joint_limits", {})),
        default_pose=tuple(
            (name, _number(value, f"default_pose.{name}"))
            for name, value in _any_mapping(top.get("default_pose", {}), "default_pose")
        ),
        overrides=_overrides(top.get("overrides", {})),
        reset=_reset(top.get("reset", {})),
    )


def _observation_term(item: object, i: int) -> ObservationTerm:
    where = f"observation[{i}]"
    legal = ["name", "unit", "offset", "scale", "transform", *CHANNEL_SOURCES]
    term = _mapping(item, where, legal, ["name", "unit"])
    where = f"observation term {term['name']!r}"
    sources = [source for source in CHANNEL_SOURCES if source in term]
    if len(sources) != 1:
        raise RobotSpecError(f"{where}: needs exactly one of {', '.join(CHANNEL_SOURCES)}; it has {sources or 'none'}")
    channels = tuple(
        f"{sources[0]}/{name}"
        for entry in _list(term[sources[0]], f"{where}.{sources[0]}")
        for name in _elements(_text(entry, f"{where}.{sources[0]}"))
    )
    if not channels:
        raise RobotSpecError(f"{where}: {sources[0]} names nothing")
    transform = term.get("transform", "identity")
    if transform not in TRANSFORMS:
        raise RobotSpecError(f"{where}: transform {transform!r}; legal are {', '.join(TRANSFORMS)}")
    return ObservationTerm(
        name=_text(term["name"], where),
        channels=channels,
        unit=_text(term["unit"], f"{where}.unit"),
        offset=_per_channel(term.get("offset", 0.0), len(channels), f"{where}.offset"),
        scale=_per_channel(term.get("scale", 1.0), len(channels), f"{where}.scale"),
        transform=transform,
    )


def _elements(entry: str) -> list[str]:
    """Expands "gyro[0:3]" to its elements; a bare name is one scalar."""
    match = _SLICE.match(entry)
    if match is None:
        return [entry]
    return [f"{match['name']}[{k}]" for k in range(int(match["start"]), int(match["stop"]))]


def _action_term(item: object, i: int) -> ActionTerm:
    legal = [f.name for f in dataclasses.fields(ActionTerm)]
    term = _mapping(item, f"action[{i}]", legal, ["actuator", "kind", "unit", "scale"])
    where = f"action {term['actuator']!r}"
    if term["kind"] not in ACTION_KINDS:
        raise RobotSpecError(f"{where}: kind {term['kind']!r}; legal are {', '.join(ACTION_KINDS)}")
    scale = _number(term["scale"], f"{where}.scale")
    if scale == 0.0:
        raise RobotSpecError(f"{where}: scale is 0, so the action could do nothing")
    offset = _number(term.get("offset", 0.0), f"{where}.offset")
    reach = abs(scale)
    lower = _number(term.get("lower", offset - reach), f"{where}.lower")
    upper = _number(term.get("upper", offset + reach), f"{where}.upper")
    if not lower < upper:
        raise RobotSpecError(f"{where}: lower {lower:g} is not below upper {upper:g}")
    optional = {
        key: None if term.get(key) is None else _number(term[key], f"{where}.{key}", above=0.0)
        for key in ("slew", "kp", "kd")
    }
    return ActionTerm(
        actuator=_text(term["actuator"], where), kind=term["kind"], unit=_text(term["unit"], f"{where}.unit"),
        scale=scale, offset=offset, lower=lower, upper=upper, **optional,
    )  # fmt: skip


def _added_sensor(item: object, i: int) -> AddedSensor:
    legal = [f.name for f in dataclasses.fields(AddedSensor)]
    sensor = _mapping(item, f"sensors[{i}]", legal, ["name", "type", "object_type", "object_name"])
    return AddedSensor(**{key: _text(value, f"sensors[{i}].{key}") for key, value in sensor.items()})


def _joint_limits(data: object) -> tuple[JointLimit, ...]:
    limits = []
    for joint, item in _any_mapping(data, "joint_limits"):
        where = f"joint_limits.{joint}"
        limit = _mapping(item, where, ["lower", "upper", "velocity"], ["lower", "upper"])
        lower, upper = (_number(limit[key], f"{where}.{key}") for key in ("lower", "upper"))
        if not lower < upper:
            raise RobotSpecError(f"{where}: lower {lower:g} is not below upper {upper:g}")
        velocity = limit.get("velocity")
        limits.append(
            JointLimit(
                joint, lower, upper, None if velocity is None else _number(velocity, f"{where}.velocity", above=0.0)
            )
        )
    return tuple(limits)


def _overrides(data: object) -> tuple[tuple[str, str, tuple[float, ...]], ...]:
    result = []
    for field_name, elements in _any_mapping(data, "overrides"):
        for name, values in _any_mapping(elements, f"overrides.{field_name}"):
            where = f"overrides.{field_name}.{name}"
            entries = values if isinstance(values, list) else [values]
            result.append((field_name, name, tuple(_number(value, where) for value in entries)))
    return tuple(result)


def _reset(data: object) -> ResetSpec:
    legal = [f.name for f in dataclasses.fields(ResetSpec)]
    reset = _mapping(data, "reset", legal, [])
    contact = reset.get("contact", "any")
    if contact not in ("any", "reject", "lift"):
        raise RobotSpecError(f"reset.contact {contact!r}; legal are any, reject, lift")
    if not isinstance(reset.get("random_joints", False), bool):
        raise RobotSpecError(f"reset.random_joints {reset['random_joints']!r}; legal are true and false")
    return ResetSpec(
        joint_pos=_distributions(reset.get("joint_pos", {}), "reset.joint_pos"),
        joint_vel=_distributions(reset.get("joint_vel", {}), "reset.joint_vel"),
        random_joints=reset.get("random_joints", False),
        settle_seconds=_number(reset.get("settle_seconds", 0.0), "reset.settle_seconds", least=0.0),
        contact=contact,
        world=tuple(_placement(item, i) for i, item in enumerate(_list(reset.get("world", []), "reset.world"))),
    )


def _distributions(data: object, where: str) -> tuple[tuple[str, Distribution], ...]:
    """Reads `joint: 0.3 | limits | rotation | {uniform: [lo, hi]} | {normal: [mean, std]}`."""
    result = []
    for joint, item in _any_mapping(data, where):
        here = f"{where}.{joint}"
        if item in ("limits", "rotation"):
            result.append((joint, Distribution(str(item))))
        elif isinstance(item, Mapping):
            given = _mapping(item, here, ["uniform", "normal"], [])
            if len(given) != 1:
                raise RobotSpecError(f"{here}: needs exactly one of uniform, normal")
            ((kind, pair),) = given.items()
            if not isinstance(pair, list) or len(pair) != 2:
                raise RobotSpecError(f"{here}.{kind}: expected two numbers, got {pair!r}")
            result.append((joint, Distribution(kind, _number(pair[0], here), _number(pair[1], here))))
        else:
            result.append((joint, Distribution("fixed", _number(item, here))))
    return tuple(result)


def _placement(item: object, i: int) -> WorldPlacement:
    where = f"reset.world[{i}]"
    place = _mapping(item, where, ["field", "name", "annulus", "box"], ["field", "name"])
    kinds = [kind for kind in ("annulus", "box") if kind in place]
    if len(kinds) != 1:
        raise RobotSpecError(f"{where}: needs exactly one of annulus, box")
    bounds = _mapping(place[kinds[0]], f"{where}.{kinds[0]}", ["lower", "upper"], ["lower", "upper"])
    size = 1 if kinds[0] == "annulus" else 3
    return WorldPlacement(
        field=_text(place["field"], f"{where}.field"), name=_text(place["name"], f"{where}.name"), kind=kinds[0],
        lower=_per_channel(bounds["lower"], size, f"{where}.lower"),
        upper=_per_channel(bounds["upper"], size, f"{where}.upper"),
    )  # fmt: skip


def _mapping(data: object, where: str, legal: Collection[str], required: Collection[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise RobotSpecError(f"{where}: expected a mapping with the keys {', '.join(legal)}, got {type(data).__name__}")
    for key in data:
        if key not in legal:
            raise RobotSpecError(
                f"{where}: unknown key {key!r}{_did_you_mean(str(key), legal)}; legal are {', '.join(legal)}"
            )
    missing = [key for key in required if key not in data]
    if missing:
        raise RobotSpecError(f"{where}: missing {', '.join(missing)}")
    return dict(data)


def _any_mapping(data: object, where: str) -> list[tuple[str, Any]]:
    if not isinstance(data, Mapping):
        raise RobotSpecError(f"{where}: expected a mapping, got {type(data).__name__}")
    return [(str(key), value) for key, value in data.items()]


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise RobotSpecError(f"{where}: expected a list, got {type(data).__name__}")
    return data


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RobotSpecError(f"{where}: expected text, got {value!r}")
    return value


def _number(value: object, where: str, above: float | None = None, least: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RobotSpecError(f"{where}: expected a finite number, got {value!r}")
    if above is not None and value <= above:
        raise RobotSpecError(f"{where}: {value!r} must be above {above:g}")
    if least is not None and value < least:
        raise RobotSpecError(f"{where}: {value!r} must be at least {least:g}")
    return float(value)


def _per_channel(value: object, count: int, where: str) -> tuple[float, ...]:
    if isinstance(value, list):
        if len(value) != count:
            raise RobotSpecError(f"{where}: {len(value)} numbers for {count} elements")
        return tuple(_number(entry, where) for entry in value)
    return (_number(value, where),) * count


def _did_you_mean(word: str, legal: Collection[str]) -> str:
    close = difflib.get_close_matches(word, legal, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
