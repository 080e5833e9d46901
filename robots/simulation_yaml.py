"""Sections of `robot.yaml`: how simulated episodes begin and how wrong a simulator may be, and where a task is over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from robots.checked_yaml import any_mapping, mapping, number, per_element, sequence, text
from robots.spec import (
    Distribution,
    Randomization,
    ResetSpec,
    RobotSpec,
    RobotSpecError,
    TerminationLimit,
    ToolPose,
    WorldPlacement,
)


def parse_reset(data: object) -> ResetSpec:
    """Reads the section `reset`.

    Args:
        data: What YAML gave.

    Returns:
        The checked record.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    legal = [f.name for f in dataclasses.fields(ResetSpec)]
    reset = mapping(data, "reset", legal, [])
    contact = reset.get("contact", "any")
    if contact not in ("any", "reject", "lift"):
        raise RobotSpecError(f"reset.contact {contact!r}; legal are any, reject, lift")
    if not isinstance(reset.get("random_joints", False), bool):
        raise RobotSpecError(f"reset.random_joints {reset['random_joints']!r}; legal are true and false")
    return ResetSpec(
        joint_pos=_distributions(reset.get("joint_pos", {}), "reset.joint_pos"),
        joint_vel=_distributions(reset.get("joint_vel", {}), "reset.joint_vel"),
        random_joints=reset.get("random_joints", False),
        settle_seconds=number(reset.get("settle_seconds", 0.0), "reset.settle_seconds", least=0.0),
        contact=contact,
        world=tuple(_placement(item, i) for i, item in enumerate(sequence(reset.get("world", []), "reset.world"))),
        tool=_tool(reset["tool"]) if "tool" in reset else None,
    )


def parse_randomize(data: object, terms: list[str]) -> Randomization:
    """Reads the section `randomize`.

    Args:
        data: What YAML gave.
        terms: Names of the observation terms, which may be noisy.

    Returns:
        The checked record.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    given = mapping(data, "randomize", [f.name for f in dataclasses.fields(Randomization)], [])
    scales = {
        key: _range(given[key], f"randomize.{key}", above=0.0) for key in ("mass", "friction", "gains") if key in given
    }
    low, high = _range(given.get("delay", [0, 0]), "randomize.delay", least=0.0)
    if not (low.is_integer() and high.is_integer()):
        raise RobotSpecError(f"randomize.delay: whole control steps, got {given['delay']}")
    noise = given.get("noise", {})
    stds = mapping(noise, "randomize.noise", terms, []) if isinstance(noise, Mapping) else dict.fromkeys(terms, noise)
    return Randomization(
        **scales,
        delay=(int(low), int(high)),
        noise=tuple((term, number(std, f"randomize.noise.{term}", least=0.0)) for term, std in stds.items()),
    )


def parse_terminate(data: object, spec: RobotSpec) -> tuple[TerminationLimit, ...]:
    """Reads the section `terminate`.

    Args:
        data: What YAML gave.
        spec: The robot, for what it observes.

    Returns:
        The checked limits.

    Raises:
        RobotSpecError: A name that is not observed, or limits that are none or exclude all values.
    """
    limits = []
    for name, item in any_mapping(data, "terminate"):
        where = f"terminate.{name}"
        if not spec.elements(name):
            raise RobotSpecError(f"{where}: not observed; {spec.observes}")
        given = mapping(item, where, ["lower", "upper"], [])
        lower, upper = (number(given[key], f"{where}.{key}") if key in given else None for key in ("lower", "upper"))
        if lower is None and upper is None:
            raise RobotSpecError(f"{where}: needs lower, upper or both")
        if lower is not None and upper is not None and not lower < upper:
            raise RobotSpecError(f"{where}: lower {lower:g} is not below upper {upper:g}")
        limits.append(TerminationLimit(name, lower, upper))
    return tuple(limits)


def _range(pair: object, where: str, above: float | None = None, least: float | None = None) -> tuple[float, float]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise RobotSpecError(f"{where}: expected two numbers, got {pair!r}")
    low, high = (number(entry, where, above, least) for entry in pair)
    if low > high:
        raise RobotSpecError(f"{where}: {low:g} is above {high:g}")
    return low, high


def _distributions(data: object, where: str) -> tuple[tuple[str, Distribution], ...]:
    """Reads `joint: 0.3 | limits | rotation | {uniform: [lo, hi]} | {normal: [mean, std]}`."""
    result = []
    for joint, item in any_mapping(data, where):
        here = f"{where}.{joint}"
        if item in ("limits", "rotation"):
            result.append((joint, Distribution(str(item))))
        elif isinstance(item, Mapping):
            given = mapping(item, here, ["uniform", "normal"], [])
            if len(given) != 1:
                raise RobotSpecError(f"{here}: needs exactly one of uniform, normal")
            ((kind, pair),) = given.items()
            if not isinstance(pair, list) or len(pair) != 2:
                raise RobotSpecError(f"{here}.{kind}: expected two numbers, got {pair!r}")
            result.append((joint, Distribution(kind, number(pair[0], here), number(pair[1], here))))
        else:
            result.append((joint, Distribution("fixed", number(item, here))))
    return tuple(result)


def _tool(data: object) -> ToolPose:
    keys = [f.name for f in dataclasses.fields(ToolPose) if f.name not in ("lower", "upper")] + ["box"]
    tool = mapping(data, "reset.tool", keys, keys)
    box = mapping(tool["box"], "reset.tool.box", ["lower", "upper"], ["lower", "upper"])
    quaternion = per_element(tool["quaternion"], 4, "reset.tool.quaternion")
    norm = math.hypot(*quaternion)
    if norm == 0.0:
        raise RobotSpecError("reset.tool.quaternion: all zero; (w, x, y, z) of the site's rotation in the world")
    joints = sequence(tool["joints"], "reset.tool.joints")
    return ToolPose(
        site=text(tool["site"], "reset.tool.site"),
        joints=tuple(text(joint, f"reset.tool.joints[{i}]") for i, joint in enumerate(joints)),
        lower=per_element(box["lower"], 3, "reset.tool.box.lower"),
        upper=per_element(box["upper"], 3, "reset.tool.box.upper"),
        quaternion=tuple(part / norm for part in quaternion),
    )


def _placement(item: object, i: int) -> WorldPlacement:
    where = f"reset.world[{i}]"
    place = mapping(item, where, ["field", "name", "annulus", "box"], ["field", "name"])
    kinds = [kind for kind in ("annulus", "box") if kind in place]
    if len(kinds) != 1:
        raise RobotSpecError(f"{where}: needs exactly one of annulus, box")
    bounds = mapping(place[kinds[0]], f"{where}.{kinds[0]}", ["lower", "upper"], ["lower", "upper"])
    size = 1 if kinds[0] == "annulus" else 3
    return WorldPlacement(
        field=text(place["field"], f"{where}.field"), name=text(place["name"], f"{where}.name"), kind=kinds[0],
        lower=per_element(bounds["lower"], size, f"{where}.lower"),
        upper=per_element(bounds["upper"], size, f"{where}.upper"),
    )  # fmt: skip
