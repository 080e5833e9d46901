"""What one physical robot's wiring says, as frozen records, and the arithmetic between its raw numbers and ours.

The calibration of a unit lies in its `hardware.yaml` (see `hardware_yaml.py`), apart from `robot.yaml`, which is the
same for all units of a type. Between a driver and `Wiring` everything is in rad or m, rad/s or m/s, N m or N; a driver
turns its own units (encoder ticks, degrees) into these and knows nothing of signs, offsets or the order of channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.spec import RobotSpec

DRIVERS = ("serial", "ros2", "lerobot")
EFFORT = "effort/"  # a sensor's source "effort/shoulder" is the effort that the joint named shoulder measures


@dataclass(frozen=True)
class JointWire:
    """Where one joint is measured and driven. position = sign * raw + offset; velocity and effort = sign * raw."""

    joint: str  # name of the joint in robot.yaml, of the actuator of the same name, or of both
    source: str  # the driver's name for it: a servo id, a name in JointState, the stem of a LeRobot key
    sign: int = 1  # 1 or -1
    offset: float = 0.0  # [rad | m] our position where the driver's is 0


@dataclass(frozen=True)
class SensorWire:
    """Where a channel that is no joint's is measured. value = scale * raw + offset."""

    channel: str  # one of spec.channels
    source: str  # the driver's name for it, or "effort/JOINT"
    scale: float = 1.0  # [unit of the channel / unit of the source]
    offset: float = 0.0  # [unit of the channel]


@dataclass(frozen=True)
class HardwareSpec:
    """One physical robot: its driver and how its joints and sensors are wired."""

    robot: str  # name in robot.yaml
    driver: str  # one of DRIVERS
    options: Mapping[str, Any]  # the driver's own section as YAML gave it; the driver checks it
    joints: tuple[JointWire, ...]
    sensors: tuple[SensorWire, ...] = ()


class Wiring:
    """A HardwareSpec as index arrays. The driver's joint order is `sources`; no joint is ever found by its place."""

    def __init__(self, spec: RobotSpec, hardware: HardwareSpec) -> None:
        """Looks everything up.

        Args:
            spec: The robot.
            hardware: Its wiring, as `read_hardware` checked it.
        """
        wires = {wire.joint: wire for wire in hardware.joints}
        place = {channel: i for i, channel in enumerate(spec.channels)}
        # (n_sources,) what the driver's arrays of position, velocity and effort are ordered by
        self.sources = tuple(dict.fromkeys(wire.source for wire in hardware.joints))
        # (n_sensors,) what the driver's array of sensors is ordered by
        self.sensor_sources = tuple(wire.source for wire in hardware.sensors if not wire.source.startswith(EFFORT))
        # (act_dim,) the source that takes each element of a command
        self.target_sources = tuple(wires[name].source for name in spec.action_names)
        self.num_channels = len(spec.channels)
        measured = [(wires.get(channel.partition("/")[2]), channel) for channel in spec.channels]
        positions = [(w, place[c]) for w, c in measured if w is not None and c.startswith("joint_pos/")]
        velocities = [(w, place[c]) for w, c in measured if w is not None and c.startswith("joint_vel/")]
        self._position = _JointColumns(positions, self.sources)
        self._velocity = _JointColumns(velocities, self.sources)
        efforts = [wire for wire in hardware.sensors if wire.source.startswith(EFFORT)]
        plain = [wire for wire in hardware.sensors if not wire.source.startswith(EFFORT)]
        effort_wires = [wires[wire.source.removeprefix(EFFORT)] for wire in efforts]
        pairs = [(w, place[wire.channel]) for w, wire in zip(effort_wires, efforts, strict=True)]
        self._effort = _JointColumns(pairs, self.sources)
        self._effort_scale, self._effort_offset = _scale_and_offset(efforts)
        self._sensor_channels = np.array([place[wire.channel] for wire in plain], dtype=np.intp)
        self._sensor_scale, self._sensor_offset = _scale_and_offset(plain)
        # What the driver has to measure at the least; it refuses to start where it cannot
        self.position_sources = tuple(dict.fromkeys(wire.source for wire, _ in positions))
        self.velocity_sources = tuple(dict.fromkeys(wire.source for wire, _ in velocities))
        self.effort_sources = tuple(dict.fromkeys(wire.source for wire in effort_wires))
        driven = [wires[name] for name in spec.action_names]
        self._target_sign = np.array([wire.sign for wire in driven], dtype=np.float64)
        self._target_offset = np.array(
            [w.offset if term.kind == "position" else 0.0 for w, term in zip(driven, spec.action, strict=True)]
        )

    def values(
        self,
        position: np.ndarray,
        velocity: np.ndarray,
        effort: np.ndarray,
        sensors: np.ndarray,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The values of a SensorReading.

        Args:
            position: (n_sources,) [rad | m] as the driver measures, in the order of `sources`. Only the elements of
                `position_sources` are used, and likewise below.
            velocity: (n_sources,) [rad/s | m/s].
            effort: (n_sources,) [N m | N].
            sensors: (n_sensors,) in the order of `sensor_sources`.
            out: (num_channels,) float64 to fill, or None for a new one.

        Returns:
            (num_channels,) float64 in the order and units of `spec.channels`; `out` if it was given.
        """
        if out is None:
            out = np.empty(self.num_channels)
        at = self._position
        out[at.channels] = at.sign * position[at.index] + at.offset
        at = self._velocity
        out[at.channels] = at.sign * velocity[at.index]
        if self._effort.channels.size:
            at = self._effort
            out[at.channels] = self._effort_scale * (at.sign * effort[at.index]) + self._effort_offset
        if self._sensor_channels.size:
            out[self._sensor_channels] = self._sensor_scale * sensors + self._sensor_offset
        return out

    def targets(self, command: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """What the driver has to tell its drives: the inverse of sign and offset.

        Args:
            command: (act_dim,) SI units, as in `spec.action`.
            out: (act_dim,) float64 to fill, or None for a new one.

        Returns:
            (act_dim,) in the driver's raw SI units: element i goes to `target_sources[i]`; `out` if it was given.
        """
        out = np.subtract(command, self._target_offset, out=out)
        out *= self._target_sign
        return out

    def commands(self, targets: np.ndarray) -> np.ndarray:
        """The commands that targets mean, the inverse of `targets`: what a driver really sent.

        Args:
            targets: (act_dim,) in the driver's raw SI units, in the order of `target_sources`.

        Returns:
            (act_dim,) SI units, as in `spec.action`.
        """
        return self._target_sign * targets + self._target_offset


class _JointColumns:
    """Channels that joints give: where they go, where they come from, and with which sign and offset."""

    def __init__(self, pairs: list[tuple[JointWire, int]], sources: tuple[str, ...]) -> None:
        self.channels = np.array([channel for _, channel in pairs], dtype=np.intp)
        self.index = np.array([sources.index(wire.source) for wire, _ in pairs], dtype=np.intp)
        self.sign = np.array([wire.sign for wire, _ in pairs], dtype=np.float64)
        self.offset = np.array([wire.offset for wire, _ in pairs], dtype=np.float64)


def channel_sources(spec: RobotSpec, hardware: HardwareSpec) -> tuple[str, ...]:
    """What each channel is wired to, for people: "position of 3", "velocity of 3", "imu/x".

    Args:
        spec: The robot.
        hardware: Its wiring.

    Returns:
        (len(spec.channels),) in the order of `spec.channels`.
    """
    what = {"joint_pos": "position", "joint_vel": "velocity"}
    named = {wire.channel: wire.source for wire in hardware.sensors}
    wires = {wire.joint: wire.source for wire in hardware.joints}
    shown = []
    for channel in spec.channels:
        kind, _, joint = channel.partition("/")
        shown.append(named[channel] if channel in named else f"{what[kind]} of {wires[joint]}")
    return tuple(shown)


def _scale_and_offset(wires: list[SensorWire]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([wire.scale for wire in wires]), np.array([wire.offset for wire in wires])
