"""The section `lerobot` of a `hardware.yaml`: which Robot object, and what its numbers mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.checked_yaml import any_mapping, did_you_mean, mapping, number, sequence, text
from robots.spec import RobotSpecError

UNITS = ("deg", "rad", "normalized")
ON_CLOSE = ("hold", "release")
VELOCITIES = ("measured", "difference")
_LEGAL = ("type", "object", "config", "unit", "spans", "keys", "velocity", "on_close", "repeats", "tolerance")
_KEYS = {"position": "pos", "velocity": "vel", "effort": "torque"}
_OBJECT = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Span:
    """The way of a joint that LeRobot gives as a share: -100 to 100, or 0 to 100 for a gripper."""

    raw: tuple[float, float]  # LeRobot's numbers at the two ends
    position: tuple[float, float]  # [rad | m] what they are


@dataclass(frozen=True)
class LerobotOptions:
    """How to get the Robot object and how to read it."""

    type: str | None  # a type of LeRobot's registry, such as "so101_follower"; None where `object` says which
    object: str | None  # "module:callable" that returns a Robot
    config: Mapping[str, Any]  # what the type's config, or the callable, is given
    unit: str  # one of UNITS: of all joints without a span
    spans: Mapping[str, Span]  # by source
    keys: Mapping[str, str]  # endings of the feature names, by "position", "velocity", "effort"
    velocity: str = "measured"  # "difference": of two readings, for robots that measure none
    on_close: str | None = None  # one of ON_CLOSE; None: hold, where the robot can be told
    repeats: int = 3  # how many readings in a row may be repetitions before it is an error
    tolerance: float = 0.01  # [rad | m] by which what was sent may differ from what was asked

    def scales(self, sources: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """What turns LeRobot's numbers into SI: position = scale * number + shift, velocity = scale * number.

        Args:
            sources: (n,) joints, by the stems of their keys.

        Returns:
            scale (n,) and shift (n,).
        """
        plain = (math.pi / 180.0 if self.unit == "deg" else 1.0), 0.0
        pairs = [_linear(self.spans[source]) if source in self.spans else plain for source in sources]
        return np.array([scale for scale, _ in pairs]), np.array([shift for _, shift in pairs])


def parse_lerobot(data: Mapping[str, Any], sources: tuple[str, ...]) -> LerobotOptions:
    """Checks the section.

    Args:
        data: What YAML gave.
        sources: (n,) the joints that the wiring names, by the stems of their keys.

    Returns:
        The options.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    given = mapping(data, "lerobot", _LEGAL, ["unit"])
    if ("type" in given) == ("object" in given):
        raise RobotSpecError("lerobot: needs exactly one of type (of LeRobot's registry) and object (module:callable)")
    unit = _choice(given["unit"], "lerobot.unit", UNITS)
    spans = {name: _span(name, item) for name, item in any_mapping(given.get("spans", {}), "lerobot.spans")}
    unknown = [name for name in spans if name not in sources]
    if unknown:
        raise RobotSpecError(
            f"lerobot.spans: no joint has the source {unknown[0]!r}{did_you_mean(unknown[0], sources)}; "
            f"legal are {', '.join(sources)}"
        )
    bare = [name for name in sources if name not in spans]
    if unit == "normalized" and bare:
        raise RobotSpecError(
            f"lerobot.unit is normalized, so lerobot.spans must say what the ends are in rad for {', '.join(bare)}"
        )
    keys = mapping(given.get("keys", {}), "lerobot.keys", _KEYS, [])
    repeats = number(given.get("repeats", 3), "lerobot.repeats", least=0)
    if not repeats.is_integer():
        raise RobotSpecError(f"lerobot.repeats: expected a whole number, got {repeats:g}")
    return LerobotOptions(
        type=text(given["type"], "lerobot.type") if "type" in given else None,
        object=_object(given["object"]) if "object" in given else None,
        config=dict(any_mapping(given.get("config", {}), "lerobot.config")),
        unit=unit,
        spans=spans,
        keys={what: text(keys.get(what, ending), f"lerobot.keys.{what}") for what, ending in _KEYS.items()},
        velocity=_choice(given.get("velocity", "measured"), "lerobot.velocity", VELOCITIES),
        on_close=_choice(given["on_close"], "lerobot.on_close", ON_CLOSE) if "on_close" in given else None,
        repeats=int(repeats),
        tolerance=number(given.get("tolerance", 0.01), "lerobot.tolerance", above=0.0),
    )


def _linear(span: Span) -> tuple[float, float]:
    scale = (span.position[1] - span.position[0]) / (span.raw[1] - span.raw[0])
    return scale, span.position[0] - scale * span.raw[0]


def _span(name: str, item: object) -> Span:
    where = f"lerobot.spans.{name}"
    ends = mapping(item, where, ["raw", "position"], ["raw", "position"])
    raw, position = (_pair(ends[key], f"{where}.{key}") for key in ("raw", "position"))
    return Span(raw, position)


def _pair(value: object, where: str) -> tuple[float, float]:
    ends = [number(entry, where) for entry in sequence(value, where)]
    if len(ends) != 2 or ends[0] == ends[1]:
        raise RobotSpecError(f"{where}: expected two different numbers, the two ends; got {ends}")
    return ends[0], ends[1]


def _object(value: object) -> str:
    name = text(value, "lerobot.object")
    if not _OBJECT.match(name):
        raise RobotSpecError(f"lerobot.object: {name!r}; expected module:callable, such as my_robot:make")
    return name


def _choice(value: object, where: str, legal: tuple[str, ...]) -> str:
    word = text(value, where)
    if word not in legal:
        raise RobotSpecError(f"{where}: {word!r}{did_you_mean(word, legal)}; legal are {', '.join(legal)}")
    return word
