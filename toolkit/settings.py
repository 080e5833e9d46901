"""Frozen dataclasses of settings from plain data: an unknown name or a value of the wrong type is an error."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection
from typing import Any

from robots.spec import ToolkitError


class ConfigError(ToolkitError):
    """A setting that does not exist or has an impossible value."""


def build(cls: type, data: object, where: str) -> Any:
    """Makes a frozen dataclass of settings, and those inside it, from a nested mapping.

    Args:
        cls: The dataclass.
        data: Nested mapping; keys left out keep their defaults.
        where: Dotted name of the group, with a dot at its end, for messages; "" for the outermost.

    Returns:
        One of `cls`.

    Raises:
        ConfigError: Unknown key, or a value of the wrong type or out of range.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where or 'settings'}: expected a mapping, got {data!r}")
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"unknown setting {where}{key}{hint}; legal are {', '.join(hints)}")
        values[key] = _convert(hints[key], value, f"{where}{key}")
    return cls(**values)


def put(data: dict[str, Any], setting: str) -> None:
    """Puts one "--set" argument such as "reward.alpha=0.03" into nested plain data.

    Args:
        data: Changed in place.
        setting: "dotted.name=value", the value in YAML notation.

    Raises:
        ConfigError: Not of that form, or no such group.
    """
    import yaml

    name, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"setting {setting!r}: expected name=value, such as reward.alpha=0.03")
    *parents, leaf = name.split(".")
    node = data
    for parent in parents:
        node = node.get(parent)
        if not isinstance(node, dict):
            raise ConfigError(f"setting {name!r}: no group {parent!r}")
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"setting {name!r}: {text!r} is not a value in YAML notation") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, f"{where}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    if typing.get_origin(kind) is tuple:
        return _list(typing.get_args(kind)[0], value, where)
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # text too: YAML reads 1e-3, without a point, as text
        except ValueError:
            raise ConfigError(f"{where}: expected float, got {value!r}") from None
    if kind is not float and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")


def _list(kind: type, value: Any, where: str) -> tuple[Any, ...]:
    """Names, or positive whole numbers."""
    if not isinstance(value, (list, tuple)):
        fits = False
    elif kind is str:
        fits = all(isinstance(v, str) and v for v in value)
    else:
        fits = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
    if not fits:
        expected = "names" if kind is str else "positive whole numbers"
        raise ConfigError(f"{where}: expected a list of {expected}, got {value!r}")
    return tuple(value)


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with `message` unless `condition`."""
    if not condition:
        raise ConfigError(message)


def one_of(name: str, value: str, legal: Collection[str]) -> None:
    """Raises ConfigError unless the setting `name` is among `legal`."""
    require(value in legal, f"{name} {value!r}; legal are {', '.join(legal)}")


def at_least_1(name: str, value: int | None) -> None:
    """Raises ConfigError if the setting `name` is a number below 1."""
    require(value is None or value >= 1, f"{name} {value}; must be at least 1")


def above_0(name: str, value: float) -> None:
    """Raises ConfigError unless the setting `name` is positive; infinity is, where it means no bound."""
    require(value > 0.0, f"{name} {value}; must be positive")


def at_least_0(name: str, value: float) -> None:
    """Raises ConfigError unless the setting `name` is 0 or a positive, finite number."""
    require(0.0 <= value < math.inf, f"{name} {value}; must be >= 0")
