"""The section `safety` of `robot.yaml`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from robots.checked_yaml import did_you_mean, mapping, number, sequence, text
from robots.safety_spec import FAULT_RESPONSES, MONITOR_RESPONSES, MonitorSpec, SafetySpec, Tilt, Watch
from robots.spec import RobotSpecError


def parse_safety(data: object, channels: Collection[str], actuators: Collection[str]) -> SafetySpec:
    """Reads the section `safety`.

    Args:
        data: What YAML gave.
        channels: What the robot measures; only that can be watched.
        actuators: What it drives.

    Returns:
        The checked record.

    Raises:
        RobotSpecError: A key or value that is not legal, named with what is.
    """
    given = mapping(data, "safety", [f.name for f in fields(SafetySpec)], [])
    seconds = {
        key: number(value, f"safety.{key}", least=0.0) for key, value in given.items() if key.endswith("_seconds")
    }
    if seconds.get("watchdog_seconds") == 0.0:
        raise RobotSpecError("safety.watchdog_seconds: 0 would be no time at all; there is no way to switch it off")
    tracking = given.get("tracking")
    return SafetySpec(
        **seconds,
        on_fault=_one_of(given.get("on_fault", "hold"), FAULT_RESPONSES, "safety.on_fault"),
        tracking=None if tracking is None else number(tracking, "safety.tracking", above=0.0),
        watch=tuple(
            _watch(item, i, channels) for i, item in enumerate(sequence(given.get("watch", []), "safety.watch"))
        ),
        tilt=_tilt(given["tilt"], channels) if "tilt" in given else None,
        unmeasured=tuple(
            _one_of(name, actuators, "safety.unmeasured")
            for name in sequence(given.get("unmeasured", []), "safety.unmeasured")
        ),
        monitor=_monitor(given.get("monitor", {})),
    )


def _watch(item: object, i: int, channels: Collection[str]) -> Watch:
    where = f"safety.watch[{i}]"
    given = mapping(item, where, [f.name for f in fields(Watch)], ["channel"])
    bounds = {key: number(given[key], f"{where}.{key}") for key in ("lower", "upper") if key in given}
    if not bounds:
        raise RobotSpecError(f"{where}: needs lower, upper or both, or it watches nothing")
    if len(bounds) == 2 and not bounds["lower"] < bounds["upper"]:
        raise RobotSpecError(f"{where}: lower {bounds['lower']:g} is not below upper {bounds['upper']:g}")
    reason = text(given.get("reason", Watch.reason), f"{where}.reason")
    return Watch(_channel(given["channel"], channels, f"{where}.channel"), **bounds, reason=reason)


def _tilt(data: object, channels: Collection[str]) -> Tilt:
    given = mapping(data, "safety.tilt", ["quaternion", "most"], ["quaternion", "most"])
    four = sequence(given["quaternion"], "safety.tilt.quaternion")
    if len(four) != 4:
        raise RobotSpecError(f"safety.tilt.quaternion: expected the channels of w, x, y, z, got {len(four)}")
    return Tilt(
        tuple(_channel(item, channels, "safety.tilt.quaternion") for item in four),
        number(given["most"], "safety.tilt.most", above=0.0),
    )


def _monitor(data: object) -> MonitorSpec:
    given = mapping(data, "safety.monitor", [f.name for f in fields(MonitorSpec)], [])
    where = "safety.monitor"
    if "window_seconds" in given:
        given["window_seconds"] = number(given["window_seconds"], f"{where}.window_seconds", above=0.0)
    if "patience_seconds" in given:
        given["patience_seconds"] = number(given["patience_seconds"], f"{where}.patience_seconds", least=0.0)
    if "quantile" in given:
        given["quantile"] = str(number(given["quantile"], f"{where}.quantile", above=0.0))
    if "response" in given:
        given["response"] = _one_of(given["response"], MONITOR_RESPONSES, f"{where}.response")
    return MonitorSpec(**given)


def _channel(value: object, channels: Collection[str], where: str) -> str:
    if value not in channels:
        hint = did_you_mean(str(value), channels)
        raise RobotSpecError(f"{where}: {value!r} is not measured{hint}; the channels are {', '.join(channels)}")
    return str(value)


def _one_of(value: object, legal: Collection[str], where: str) -> str:
    if value not in legal:
        raise RobotSpecError(f"{where} {value!r}; legal are {', '.join(legal)}")
    return str(value)
