"""Gets a LeRobot `Robot` object: from LeRobot's own registry of types, or from a callable that the user names."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from robots.backend import BackendError
from robots.checked_yaml import did_you_mean
from robots.lerobot_options import LerobotOptions

_NEEDED = ("observation_features", "action_features", "connect", "get_observation", "send_action", "disconnect")


def load_lerobot(options: LerobotOptions) -> Any:
    """Makes the Robot object; it is not connected.

    Args:
        options: Which one, and its config.

    Returns:
        The object, with the methods of LeRobot's contract.

    Raises:
        BackendError: LeRobot, the type, or the callable is not there, or what came of it is no Robot.
    """
    robot = (
        _of_object(options.object, options.config) if options.object else _of_type(str(options.type), options.config)
    )
    missing = [name for name in _NEEDED if not hasattr(robot, name)]
    if missing:
        raise BackendError(f"{type(robot).__name__} is no LeRobot Robot: it lacks {', '.join(missing)}")
    return robot


def _of_object(name: str, config: Mapping[str, Any]) -> Any:
    module, _, callable_name = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), callable_name)
    except (ImportError, AttributeError) as error:
        raise BackendError(f"lerobot.object {name}: {error}") from error
    try:
        return make(**config)
    except Exception as error:  # someone else's code: whatever it is, the robot cannot be driven
        raise BackendError(f"lerobot.object {name} failed: {_say(error)}") from error


def _of_type(name: str, config: Mapping[str, Any]) -> Any:
    try:
        robots = importlib.import_module("lerobot.robots")
        decode = importlib.import_module("draccus").decode
    except ImportError as error:
        raise BackendError(
            f"LeRobot does not import here ({error}): run this in the environment that LeRobot is installed in"
        ) from error
    choices, failures = _known_types(robots, name)
    if name not in choices:
        broken = f"; these parts of LeRobot did not import: {', '.join(failures)}" if failures else ""
        raise BackendError(
            f"lerobot.type {name!r}{did_you_mean(name, choices)}; LeRobot knows {', '.join(sorted(choices))}{broken}"
        )
    try:
        return robots.make_robot_from_config(decode(robots.RobotConfig, {"type": name, **config}))
    except Exception as error:  # as above
        raise BackendError(f"LeRobot could not make a {name} of {dict(config)}: {_say(error)}") from error


def _known_types(robots: Any, name: str) -> tuple[Mapping[str, Any], list[str]]:
    """LeRobot's types, importing its robots until the wanted one has registered itself, and what did not import."""
    known, failures = robots.RobotConfig.get_known_choices, []
    try:
        importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    except (ImportError, AttributeError) as error:  # older than its plugins
        failures.append(f"plugins ({error})")
    for module in pkgutil.iter_modules(robots.__path__, "lerobot.robots."):
        if name in known():
            break
        if module.ispkg:
            try:
                importlib.import_module(module.name)
            except Exception as error:  # a robot whose own SDK is not installed must not hide the others
                failures.append(f"{module.name} ({_say(error)})")
    return known(), failures


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
