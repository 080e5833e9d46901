"""What a robot's owner decided about its safety: patience, gentleness, and what measured values mean danger.

Like the rest of `robot.yaml` it is plain data; `export/safety.py` obeys it. It is no part of the robot's identity:
to become more careful with a robot must not orphan its recordings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

FAULT_RESPONSES = ("hold", "damp")
MONITOR_RESPONSES = ("warn", "fault")


@dataclass(frozen=True)
class Watch:
    """A measured channel that must stay within bounds: a force, a temperature, the height of a torso."""

    channel: str  # one of the robot's channels
    lower: float | None = None  # [unit of the channel] None = unbounded
    upper: float | None = None  # [unit of the channel]
    reason: str = "limit_violation"  # how the fault is named: "fall", "overload"


@dataclass(frozen=True)
class Tilt:
    """How far the body may lean: the angle between its z axis and the world's."""

    quaternion: tuple[str, ...]  # four channels, w x y z, body to world
    most: float  # [rad] beyond it the robot is falling


@dataclass(frozen=True)
class MonitorSpec:
    """When the learned reward says that this is not what the demos showed, and what comes of it."""

    window_seconds: float = 1.0  # [s] over which the reward is averaged
    patience_seconds: float = 1.0  # [s] the average must stay below the threshold
    quantile: str = "0.01"  # which quantile of the demos' per-step reward is the threshold
    response: str = "warn"  # "warn": counted and reported | "fault": the safety layer trips


@dataclass(frozen=True)
class SafetySpec:
    """How patient and how gentle the safety layer is."""

    stale_seconds: float = 0.25  # [s] without a new reading before it is a fault, and never under three control periods
    soft_start_seconds: float = 1.0  # [s] over which the policy's command is blended in from the hold command
    soft_stop_seconds: float = 0.5  # [s] over which it is blended out again
    watchdog_seconds: float = 0.1  # [s] without a command before the robot's own side holds or damps it by itself
    fault_seconds: float = 1.0  # [s] the robot is held or damped after a fault before the loop ends
    miss_seconds: float = 0.5  # [s] of nothing but missed deadlines before that is a fault
    on_fault: str = "hold"  # "hold": positions as last sent, speeds and efforts zero | "damp": efforts -kd * velocity
    tracking: float | None = None  # [rad | m] a position drive may be this far from where it was sent
    tracking_seconds: float = 0.5  # [s] for which it must be farther before it is a fault: jammed, loose, or reversed
    watch: tuple[Watch, ...] = ()
    tilt: Tilt | None = None
    unmeasured: tuple[str, ...] = ()  # position drives that begin at their offset: nothing measures where they stand
    monitor: MonitorSpec = field(default_factory=MonitorSpec)


def safety_from_dict(data: dict[str, Any] | None) -> SafetySpec:
    """Rebuilds the record from `dataclasses.asdict` data, as read back from JSON.

    Args:
        data: The data; None, as in bundles from before there was such a record, gives the defaults.

    Returns:
        The record.

    Raises:
        KeyError, TypeError, ValueError: Fields are missing, unknown, or of a wrong type.
    """
    if data is None:
        return SafetySpec()
    unknown = set(data) - {f.name for f in fields(SafetySpec)}
    if unknown:
        raise ValueError(f"safety: unknown {sorted(unknown)}")
    tilt = data["tilt"]
    return SafetySpec(
        **{
            **data,
            "watch": tuple(Watch(**item) for item in data["watch"]),
            "unmeasured": tuple(data.get("unmeasured", ())),
            "tilt": None if tilt is None else Tilt(tuple(tilt["quaternion"]), tilt["most"]),
            "monitor": MonitorSpec(**data["monitor"]),
        }
    )
