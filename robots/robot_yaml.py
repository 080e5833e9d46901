"""Reads `robot.yaml` into a RobotSpec: strict, so that a typing mistake is an error and never a silent default."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from robots.checked_yaml import any_mapping, did_you_mean, mapping, number, per_element, sequence, text
from robots.safety_yaml import parse_safety
from robots.simulation_yaml import parse_randomize, parse_reset, parse_terminate
from robots.spec import (
    ACTION_KINDS,
    CHANNEL_SOURCES,
    SPEC_FORMAT_VERSION,
    TRANSFORMS,
    ActionTerm,
    AddedSensor,
    JointLimit,
    ObservationTerm,
    RobotSpec,
    RobotSpecError,
    spec_from_dict,
)

_TOP_KEYS = [f.name for f in dataclasses.fields(RobotSpec) if f.name != "directory"]
# What a variant may say; what it observes, its time step and its model file are the original's
VARIANT_KEYS = (
    "name",
    "variant_of",
    "description",
    "stretch",
    "overrides",
    "action",
    "joint_limits",
    "default_pose",
    "reset",
    "safety",
    "terminate",
)
_SLICE = re.compile(r"^(?P<name>[^\[\]]+)\[(?P<start>\d+):(?P<stop>\d+)\]$")


def robot_names() -> list[str]:
    """Names of the robots that ship with gcl, variants included, sorted."""
    return sorted(_shipped())


def _shipped() -> dict[str, Path]:
    here = Path(__file__).parent
    originals = {path.parent.name: path for path in here.glob("*/robot.yaml")}
    return originals | {path.stem: path for path in here.glob("variants/*.yaml")}


def load_robot(name_or_path: str | Path) -> RobotSpec:
    """Loads a robot by the name of a shipped one, or by the path of a `robot.yaml` or the folder that holds it.

    A file with the key `variant_of` starts from another robot's and names only what differs: a key that it gives
    replaces the original's whole key. It may not change what is observed, nor the actuators and their order, so that a
    policy and a reward learned on one robot can be tried on the other.

    Args:
        name_or_path: "cheetah", "cheetah-weak", "my_robot/robot.yaml" or "my_robot/".

    Returns:
        The checked spec. Names of joints and sensors are checked against the model by `model.compile_model`.

    Raises:
        RobotSpecError: Nothing there, not YAML, or a key or value that is not legal.
    """
    path = _find(name_or_path, Path())
    data = _read(path)
    try:
        if isinstance(data, Mapping) and "variant_of" in data:
            return _load_variant(data, path)
        return dataclasses.replace(parse_robot(data), directory=path.parent.resolve())
    except RobotSpecError as error:
        raise RobotSpecError(f"{path}: {error}") from error


def read_spec(robot: str, directory: Path | None) -> RobotSpec:
    """A robot by name, by path, or from the JSON that a bundle carries.

    Args:
        robot: Name, path of a robot.yaml, or path of a .json file with `RobotSpec.to_dict()` data, as in a bundle.
        directory: For a .json file, where its model file lies; None for the folder of the .json.

    Returns:
        The spec.

    Raises:
        RobotSpecError: Not found or not legal.
    """
    if not robot.endswith(".json"):
        return load_robot(robot)
    path = Path(robot)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RobotSpecError(f"{path}: not readable as JSON: {error}") from error
    return dataclasses.replace(spec_from_dict(data), directory=(directory or path.parent).resolve())


def _load_variant(data: object, path: Path) -> RobotSpec:
    given = mapping(data, "a variant", VARIANT_KEYS, ["name", "variant_of"])
    original = _find(text(given.pop("variant_of"), "variant_of"), path.parent)
    whole = _read(original)
    if not isinstance(whole, Mapping) or "variant_of" in whole:
        raise RobotSpecError(f"variant_of {original}: it must be a robot of its own and not a variant")
    base, spec = parse_robot(whole), parse_robot({**whole, **given})
    if spec.action_names != base.action_names:
        raise RobotSpecError(
            f"action: a variant of {base.name} has its actuators in its order, {', '.join(base.action_names)};"
            f" this has {', '.join(spec.action_names)}"
        )
    return dataclasses.replace(spec, directory=original.parent.resolve())


def _find(name_or_path: str | Path, folder: Path) -> Path:
    """The file of a robot; a path is looked up from `folder`."""
    path = folder / name_or_path
    if path.is_dir():
        path = path / "robot.yaml"
    if path.is_file():
        return path
    shipped = _shipped()
    if str(name_or_path) not in shipped:
        hint = did_you_mean(str(name_or_path), shipped)
        raise RobotSpecError(
            f"no robot {str(name_or_path)!r}{hint}: give the path of a robot.yaml or one of {', '.join(robot_names())}"
        )
    return shipped[str(name_or_path)]


def _read(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RobotSpecError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error


def parse_robot(data: object) -> RobotSpec:
    """Builds a RobotSpec from the mapping a `robot.yaml` holds.

    Args:
        data: What YAML gave.

    Returns:
        The checked spec, without `directory`.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    top = mapping(
        data, "the file", _TOP_KEYS, ["name", "mjcf", "control_dt", "episode_seconds", "observation", "action"]
    )
    if top.get("format", SPEC_FORMAT_VERSION) != SPEC_FORMAT_VERSION:
        raise RobotSpecError(f"format {top['format']!r}; this version of gcl reads format {SPEC_FORMAT_VERSION}")
    observation = tuple(
        _observation_term(item, i) for i, item in enumerate(sequence(top["observation"], "observation"))
    )
    action = tuple(_action_term(item, i) for i, item in enumerate(sequence(top["action"], "action")))
    for what, names in (
        ("observation term", [term.name for term in observation]),
        ("actuator", [term.actuator for term in action]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RobotSpecError(f"{what} named twice: {', '.join(twice)}")
    terms = [term.name for term in observation]
    drives = [term.actuator for term in action]
    safety = parse_safety(top.get("safety", {}), _channel_units(observation), drives)
    spec = RobotSpec(
        name=text(top["name"], "name"),
        mjcf=text(top["mjcf"], "mjcf"),
        control_dt=number(top["control_dt"], "control_dt", above=0.0),
        episode_seconds=number(top["episode_seconds"], "episode_seconds", above=0.0),
        observation=observation,
        action=action,
        description=text(top.get("description", ""), "description"),
        task=None if top.get("task") is None else text(top["task"], "task"),
        sensors=tuple(_added_sensor(item, i) for i, item in enumerate(sequence(top.get("sensors", []), "sensors"))),
        joint_limits=_joint_limits(top.get("joint_limits", {})),
        default_pose=tuple(
            (name, number(value, f"default_pose.{name}"))
            for name, value in any_mapping(top.get("default_pose", {}), "default_pose")
        ),
        overrides=_overrides(top.get("overrides", {})),
        stretch=tuple(
            (body, number(factor, f"stretch.{body}", above=0.0))
            for body, factor in any_mapping(top.get("stretch", {}), "stretch")
        ),
        reset=parse_reset(top.get("reset", {})),
        safety=safety,
        randomize=parse_randomize(top["randomize"], terms) if "randomize" in top else None,
        practice_seconds=_practice(top),
    )
    return dataclasses.replace(spec, terminate=parse_terminate(top.get("terminate", {}), spec))


def _practice(top: Mapping[str, object]) -> float | None:
    """[s] of an episode of training, which is no longer than a whole one; None if nothing is said."""
    if "practice_seconds" not in top:
        return None
    whole = number(top["episode_seconds"], "episode_seconds")
    seconds = number(top["practice_seconds"], "practice_seconds", above=0.0)
    if seconds > whole:
        raise RobotSpecError(f"practice_seconds {seconds:g}: longer than the episode_seconds, {whole:g}")
    return seconds


def _channel_units(observation: tuple[ObservationTerm, ...]) -> dict[str, str]:
    """The unit of each channel, which must be the same wherever it is observed."""
    units: dict[str, str] = {}
    for term in observation:
        for channel in term.channels:
            if units.setdefault(channel, term.unit) != term.unit:
                raise RobotSpecError(
                    f"channel {channel} is in {units[channel]!r} in one term and in {term.unit!r} in {term.name}"
                )
    return units


def _observation_term(item: object, i: int) -> ObservationTerm:
    where = f"observation[{i}]"
    legal = ["name", "unit", "offset", "scale", "transform", *CHANNEL_SOURCES]
    term = mapping(item, where, legal, ["name", "unit"])
    where = f"observation term {term['name']!r}"
    sources = [source for source in CHANNEL_SOURCES if source in term]
    if len(sources) != 1:
        raise RobotSpecError(f"{where}: needs exactly one of {', '.join(CHANNEL_SOURCES)}; it has {sources or 'none'}")
    channels = tuple(
        f"{sources[0]}/{name}"
        for entry in sequence(term[sources[0]], f"{where}.{sources[0]}")
        for name in _elements(text(entry, f"{where}.{sources[0]}"))
    )
    if not channels:
        raise RobotSpecError(f"{where}: {sources[0]} names nothing")
    transform = term.get("transform", "identity")
    if transform not in TRANSFORMS:
        raise RobotSpecError(f"{where}: transform {transform!r}; legal are {', '.join(TRANSFORMS)}")
    return ObservationTerm(
        name=text(term["name"], where),
        channels=channels,
        unit=text(term["unit"], f"{where}.unit"),
        offset=per_element(term.get("offset", 0.0), len(channels), f"{where}.offset"),
        scale=per_element(term.get("scale", 1.0), len(channels), f"{where}.scale"),
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
    term = mapping(item, f"action[{i}]", legal, ["actuator", "kind", "unit", "scale"])
    where = f"action {term['actuator']!r}"
    if term["kind"] not in ACTION_KINDS:
        raise RobotSpecError(f"{where}: kind {term['kind']!r}; legal are {', '.join(ACTION_KINDS)}")
    scale = number(term["scale"], f"{where}.scale")
    if scale == 0.0:
        raise RobotSpecError(f"{where}: scale is 0, so the action could do nothing")
    offset = number(term.get("offset", 0.0), f"{where}.offset")
    reach = abs(scale)
    lower = number(term.get("lower", offset - reach), f"{where}.lower")
    upper = number(term.get("upper", offset + reach), f"{where}.upper")
    if not lower < upper:
        raise RobotSpecError(f"{where}: lower {lower:g} is not below upper {upper:g}")
    optional = {
        key: None if term.get(key) is None else number(term[key], f"{where}.{key}", above=0.0)
        for key in ("slew", "kp", "kd")
    }
    return ActionTerm(
        actuator=text(term["actuator"], where), kind=term["kind"], unit=text(term["unit"], f"{where}.unit"),
        scale=scale, offset=offset, lower=lower, upper=upper, **optional,
        joint=None if term.get("joint") is None else text(term["joint"], f"{where}.joint"),
    )  # fmt: skip


def _added_sensor(item: object, i: int) -> AddedSensor:
    legal = [f.name for f in dataclasses.fields(AddedSensor)]
    sensor = mapping(item, f"sensors[{i}]", legal, ["name", "type", "object_type", "object_name"])
    return AddedSensor(**{key: text(value, f"sensors[{i}].{key}") for key, value in sensor.items()})


def _joint_limits(data: object) -> tuple[JointLimit, ...]:
    limits = []
    for joint, item in any_mapping(data, "joint_limits"):
        where = f"joint_limits.{joint}"
        limit = mapping(item, where, ["lower", "upper", "velocity"], ["lower", "upper"])
        lower, upper = (number(limit[key], f"{where}.{key}") for key in ("lower", "upper"))
        if not lower < upper:
            raise RobotSpecError(f"{where}: lower {lower:g} is not below upper {upper:g}")
        velocity = limit.get("velocity")
        limits.append(
            JointLimit(
                joint, lower, upper, None if velocity is None else number(velocity, f"{where}.velocity", above=0.0)
            )
        )
    return tuple(limits)


def _overrides(data: object) -> tuple[tuple[str, str, tuple[float, ...]], ...]:
    result = []
    for field_name, elements in any_mapping(data, "overrides"):
        for name, values in any_mapping(elements, f"overrides.{field_name}"):
            where = f"overrides.{field_name}.{name}"
            entries = values if isinstance(values, list) else [values]
            result.append((field_name, name, tuple(number(value, where) for value in entries)))
    return tuple(result)
