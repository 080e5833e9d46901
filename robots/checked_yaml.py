"""Checks on what YAML gave: each takes a value and where it stood, and returns it in its type or says what is legal."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any

from robots.spec import RobotSpecError


def mapping(data: object, where: str, legal: Collection[str], required: Collection[str]) -> dict[str, Any]:
    """A mapping with no key that is not legal and none missing that is required.

    Raises:
        RobotSpecError: It is none, or its keys are wrong.
    """
    if not isinstance(data, Mapping):
        raise RobotSpecError(f"{where}: expected a mapping with the keys {', '.join(legal)}, got {type(data).__name__}")
    for key in data:
        if key not in legal:
            raise RobotSpecError(
                f"{where}: unknown key {key!r}{did_you_mean(str(key), legal)}; legal are {', '.join(legal)}"
            )
    missing = [key for key in required if key not in data]
    if missing:
        raise RobotSpecError(f"{where}: missing {', '.join(missing)}")
    return dict(data)


def any_mapping(data: object, where: str) -> list[tuple[str, Any]]:
    """The pairs of a mapping whose keys are the user's.

    Raises:
        RobotSpecError: It is no mapping.
    """
    if not isinstance(data, Mapping):
        raise RobotSpecError(f"{where}: expected a mapping, got {type(data).__name__}")
    return [(str(key), value) for key, value in data.items()]


def sequence(data: object, where: str) -> list[Any]:
    """A list.

    Raises:
        RobotSpecError: It is none.
    """
    if not isinstance(data, list):
        raise RobotSpecError(f"{where}: expected a list, got {type(data).__name__}")
    return data


def text(value: object, where: str) -> str:
    """A text.

    Raises:
        RobotSpecError: It is none.
    """
    if not isinstance(value, str):
        raise RobotSpecError(f"{where}: expected text, got {value!r}")
    return value


def number(value: object, where: str, above: float | None = None, least: float | None = None) -> float:
    """A finite number, greater than `above` and not less than `least`.

    Raises:
        RobotSpecError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RobotSpecError(f"{where}: expected a finite number, got {value!r}")
    if above is not None and value <= above:
        raise RobotSpecError(f"{where}: {value!r} must be above {above:g}")
    if least is not None and value < least:
        raise RobotSpecError(f"{where}: {value!r} must be at least {least:g}")
    return float(value)


def per_element(value: object, count: int, where: str) -> tuple[float, ...]:
    """`count` numbers: a list of as many, or one number for all.

    Raises:
        RobotSpecError: Another length, or not numbers.
    """
    if isinstance(value, list):
        if len(value) != count:
            raise RobotSpecError(f"{where}: {len(value)} numbers for {count} elements")
        return tuple(number(entry, where) for entry in value)
    return (number(value, where),) * count


def did_you_mean(word: str, legal: Collection[str]) -> str:
    """A hint at the nearest legal word, or nothing."""
    close = difflib.get_close_matches(word, legal, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
