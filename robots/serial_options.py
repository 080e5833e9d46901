"""The section `serial` of a `hardware.yaml`: which port, which servos, and how patient and how careful to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robots.checked_yaml import did_you_mean, mapping, number, text
from robots.spec import RobotSpecError

PROTOCOLS = ("feetech", "dynamixel")
ON_CLOSE = ("hold", "release")
_LEGAL = (
    "port",
    "protocol",
    "baudrate",
    "answer_seconds",
    "repeats",
    "on_close",
    "watchdog_seconds",
    "effort_per_unit",
)


@dataclass(frozen=True)
class SerialOptions:
    """How to speak to the servos."""

    port: str  # "/dev/ttyACM0"
    protocol: str  # one of PROTOCOLS
    baudrate: int = 1_000_000  # [bit/s]
    answer_seconds: float = 0.02  # [s] how long an answer may take beyond its bytes' time on the wire
    repeats: int = 3  # how many readings in a row may be repetitions before it is an error
    on_close: str = "hold"  # "hold": torque stays on | "release": the arm goes limp
    watchdog_seconds: float | None = None  # [s] silence after which the servos stop by themselves, None = never
    effort_per_unit: float | None = None  # [N m] what one unit of the servo's current register means


def parse_serial(data: Mapping[str, Any]) -> SerialOptions:
    """Checks the section.

    Args:
        data: What YAML gave.

    Returns:
        The options.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    given = mapping(data, "serial", _LEGAL, ["port", "protocol"])
    checked: dict[str, Any] = {"port": text(given["port"], "serial.port")}
    for key, legal in (("protocol", PROTOCOLS), ("on_close", ON_CLOSE)):
        if key in given:
            checked[key] = _choice(given[key], f"serial.{key}", legal)
    for key, least in (("baudrate", 1), ("repeats", 0)):
        if key in given:
            value = number(given[key], f"serial.{key}", least=least)
            if not value.is_integer():
                raise RobotSpecError(f"serial.{key}: expected a whole number, got {value:g}")
            checked[key] = int(value)
    for key in ("answer_seconds", "watchdog_seconds"):
        if key in given:
            checked[key] = number(given[key], f"serial.{key}", above=0.0)
    if "effort_per_unit" in given:
        checked["effort_per_unit"] = number(given["effort_per_unit"], "serial.effort_per_unit")
    if "watchdog_seconds" in given and checked["protocol"] == "feetech":
        raise RobotSpecError("serial.watchdog_seconds: Feetech servos have no watchdog; legal with protocol dynamixel")
    if not 0.02 <= checked.get("watchdog_seconds", 0.02) <= 2.54:
        raise RobotSpecError("serial.watchdog_seconds: a Dynamixel's Bus Watchdog takes 0.02 to 2.54 s")
    return SerialOptions(**checked)


def _choice(value: object, where: str, legal: tuple[str, ...]) -> str:
    word = text(value, where)
    if word not in legal:
        raise RobotSpecError(f"{where}: {word!r}{did_you_mean(word, legal)}; legal are {', '.join(legal)}")
    return word
