"""The flight recorder: the last seconds of a run, written as npz when something went wrong."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from export.flight_snapshot import FlightSnapshot
from robots.spec import ToolkitError


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
