"""The flight recorder: the last seconds of a run, written as npz when something went wrong."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from export.flight_snapshot import FlightSnapshot
from export.safety import Fault
from robots.backend import SensorReading
from robots.spec import RobotSpec, ToolkitError


class FlightLogError(ToolkitError):
    """A flight log that cannot be written where it was asked for."""


FLIGHT_FORMAT = 1
ROW_FIELDS = (
    "values", "observation", "wanted", "command", "reward", "begin_ns", "sequence", "timestamp_ns", "tick_ns",
    "lateness_ns", "flags",
)  # fmt: skip


def save_flight(path: str | Path, snapshot: FlightSnapshot, reason: str) -> Path:
    """Writes what was read from a black box, whole or not at all, and on the disk when it returns.

    Args:
        path: The npz file, replaced if it is there.
        snapshot: The rows.
        reason: Why it is written: "stale_reading: newest is 300 ms old", "controller_lost: ...", "asked for".

    Returns:
        The path.

    Raises:
        FlightLogError: It cannot be written there.
    """
    spec, fault = snapshot.spec, snapshot.fault
    arrays: dict[str, Any] = {name: getattr(snapshot, name) for name in ROW_FIELDS}
    facts = {
        "format": FLIGHT_FORMAT, "robot": spec.name, "spec_sha256": spec.sha256, "spec": json.dumps(spec.to_dict()),
        "about": json.dumps(snapshot.about), "channels": np.array(spec.channels),
        "action_names": np.array(spec.action_names), "control_dt": spec.control_dt, "reason": reason,
        "fault_reason": fault.reason if fault else "", "fault_detail": fault.detail if fault else "",
        "fault_ns": fault.timestamp_ns if fault else 0, "first": snapshot.first,
        "unix_minus_monotonic_ns": snapshot.unix_minus_monotonic_ns,
    }  # fmt: skip
    return _write(Path(path), facts | arrays)


def _write(path: Path, arrays: dict[str, Any]) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise FlightLogError(f"{path}: flight log cannot be written: {error.strerror or error}") from error
    return path


class FlightLog:
    """One row a tick, the oldest overwritten; recording allocates nothing."""

    def __init__(self, spec: RobotSpec, seconds: float = 30.0) -> None:
        """Allocates the rings.

        Args:
            spec: The robot.
            seconds: [s] how much of the end of a run is kept.
        """
        self._spec = spec
        self._rows = max(1, round(seconds / spec.control_dt))
        self._count = 0
        self._rings = {
            "values": np.zeros((self._rows, len(spec.channels))),
            "observation": np.zeros((self._rows, spec.obs_dim)),
            "wanted": np.zeros((self._rows, spec.act_dim)),
            "command": np.zeros((self._rows, spec.act_dim)),
            "reward": np.zeros(self._rows),
            "sequence": np.zeros(self._rows, dtype=np.int64),
            "timestamp_ns": np.zeros(self._rows, dtype=np.int64),
        }

    def record(
        self, reading: SensorReading, observation: np.ndarray, wanted: np.ndarray, command: np.ndarray, reward: float
    ) -> None:
        """Keeps one tick.

        Args:
            reading: What the command was computed from; values of a wrong shape are kept as NaN.
            observation: (obs_dim,)
            wanted: (act_dim,) [unit] what the policy wanted.
            command: (act_dim,) [unit] what was sent.
            reward: The learned reward, NaN if not scored.
        """
        i, rings = self._count % self._rows, self._rings
        rings["values"][i] = reading.values if reading.values.shape == rings["values"].shape[1:] else np.nan
        rings["observation"][i] = observation
        rings["wanted"][i] = wanted
        rings["command"][i] = command
        rings["reward"][i] = reward
        rings["sequence"][i] = reading.sequence
        rings["timestamp_ns"][i] = reading.timestamp_ns
        self._count += 1

    def save(self, path: str | Path, fault: Fault | None = None) -> Path:
        """Writes the ring in order of time, whole or not at all.

        Args:
            path: The npz file, replaced if it is there.
            fault: Why, if there was one.

        Returns:
            The path.

        Raises:
            FlightLogError: It cannot be written there.
        """
        path = Path(path)
        start = self._count % self._rows if self._count > self._rows else 0
        kept = min(self._count, self._rows)
        arrays = {name: np.roll(ring, -start, axis=0)[:kept] for name, ring in self._rings.items()}
        reason = "" if fault is None else f"{fault.reason}: {fault.detail}"
        return _write(
            path,
            {
                "robot": self._spec.name, "spec_sha256": self._spec.sha256, "channels": np.array(self._spec.channels),
                "action_names": np.array(self._spec.action_names), "control_dt": self._spec.control_dt,
                "reason": reason, **arrays,
            },
        )  # fmt: skip
