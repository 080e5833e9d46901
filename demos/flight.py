"""A flight log becomes an episode: what a policy did on a robot, in the terms of what an expert did.

The rows of a log are ticks of a controller, some of which may lack what a step of an episode needs: a reading that
never came, values that are no numbers, a period that was skipped. The longest stretch without these is the episode.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demos.episode import Episode
from robots.command import CommandMap
from robots.observation import ObservationMap
from robots.spec import RobotSpec, RobotSpecError, ToolkitError, spec_from_dict

FLIGHT_FORMAT = 1
OPERATOR = "policy"
_LATE = 1.5  # control periods between two readings from which one between them is missing
# What numpy, zipfile and zlib raise for bytes that are not what they should be
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, NotImplementedError, RecursionError,
    RobotSpecError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class FlightError(ToolkitError):
    """A file that is no flight log, or one that holds nothing to learn from."""


@dataclass(frozen=True, eq=False, repr=False)
class Flight:
    """N ticks of a controller, oldest first, as its flight log has them."""

    spec: RobotSpec
    reason: str  # why the log was written
    fault: str  # "reason: detail" of what was latched, empty if nothing was
    about: dict[str, Any]  # what the controller said of the run: bundle, ...
    first: int  # number of the first row since the run began
    unix_minus_monotonic_ns: int  # [ns] add to a timestamp for the time since the Unix epoch
    values: np.ndarray  # (N, channels) float64 what was measured
    command: np.ndarray  # (N, act_dim) float64 [unit] what was sent
    sequence: np.ndarray  # (N,) int64 of the readings
    timestamp_ns: np.ndarray  # (N,) int64 [ns] monotonic clock, of the readings


@dataclass(frozen=True, eq=False)
class FlightEpisode:
    """An episode, and how it came out of its log."""

    episode: Episode
    rows: tuple[int, int]  # first row and row after the last, counted from the first in the log
    note: dict[str, Any]  # JSON-ready: file, reason, fault, bundle, rows, gaps
    remarks: tuple[str, ...]  # for people: what was cut off and why


def is_flight(path: Path) -> bool:
    """Whether a file looks like a flight log rather than like anything else.

    Args:
        path: Any file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return isinstance(file, np.lib.npyio.NpzFile) and {"timestamp_ns", "command", "reason"} <= set(file.files)
    except _DAMAGE:
        return False


def read_flight(path: Path) -> Flight:
    """Reads a flight log.

    Args:
        path: The `.npz` file that a controller's observer wrote.

    Returns:
        The flight.

    Raises:
        FlightError: No flight log, damaged, or of a newer version of gcl.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if "spec" not in file.files:
                raise FlightError(f"{path}: no flight log that knows its robot; this version of gcl writes such logs")
            if int(file["format"]) != FLIGHT_FORMAT:
                version = int(file["format"])
                raise FlightError(f"{path}: flight log of format {version}; this version of gcl reads {FLIGHT_FORMAT}")
            spec, about = spec_from_dict(json.loads(str(file["spec"]))), json.loads(str(file["about"]))
            texts = {name: str(file[name]) for name in ("reason", "fault_reason", "fault_detail", "spec_sha256")}
            first, epoch_ns = int(file["first"]), int(file["unix_minus_monotonic_ns"])
            arrays = {name: np.asarray(file[name]) for name in ("values", "command", "sequence", "timestamp_ns")}
    except _DAMAGE as error:
        raise FlightError(f"{path}: not a whole flight log: {' '.join(str(error).split())}") from error
    _check(path, spec, about, texts["spec_sha256"], arrays)
    fault = f"{texts['fault_reason']}: {texts['fault_detail']}" if texts["fault_reason"] else ""
    return Flight(spec, texts["reason"], fault, about, first, epoch_ns, **arrays)


def flight_episode(flight: Flight, name: str = "") -> FlightEpisode:
    """The longest stretch of a flight that is whole.

    Observations are made anew from what was measured: while a controller cannot use a reading it keeps the last one.

    Args:
        flight: The flight.
        name: Of its file, for the note.

    Returns:
        The episode: actions are what was really sent, timestamps when it was measured. It was interrupted if a fault or
        the loss of the controller ended it, else a time limit did.

    Raises:
        FlightError: Not even one step is whole.
    """
    gaps = _gaps(flight)
    start, stop = _longest(gaps)
    if stop - start < 2:
        raise FlightError(f"{name or 'flight'}: no two rows in succession are whole: {_counted(gaps) or 'it is empty'}")
    stretch = slice(start, stop)
    timestamp_ns = flight.timestamp_ns[stretch]
    start_ns = int(timestamp_ns[0]) + flight.unix_minus_monotonic_ns
    to_the_end, ended_well = stop == len(gaps), not flight.fault and not flight.reason.startswith("controller_lost")
    episode = Episode(
        observations=ObservationMap(flight.spec)(flight.values[stretch]).astype(np.float32),
        actions=CommandMap(flight.spec).action(flight.command[stretch][:-1]).astype(np.float32),
        timestamps=(timestamp_ns - timestamp_ns[0]) * 1e-9,
        ended_by="truncation" if ended_well or not to_the_end else "interrupted",
        operator=OPERATOR,
        task=flight.spec.task or "",
        start_time_ns=start_ns if 0 < start_ns < 2**63 else 0,
    )
    note = {
        "flight": name, "reason": flight.reason, "fault": flight.fault, "bundle": str(flight.about.get("bundle", "")),
        "rows": [flight.first + start, flight.first + stop], "gaps": _counted(gaps),
    }  # fmt: skip
    return FlightEpisode(episode, (start, stop), note, _remarks(flight, gaps, start, stop))


def _check(path: Path, spec: RobotSpec, about: object, sha256: str, arrays: dict[str, np.ndarray]) -> None:
    if spec.sha256 != sha256 or not isinstance(about, dict):
        raise FlightError(f"{path}: damaged: the robot in it is not the one it was written for (its SHA-256 differs)")
    rows = len(arrays["sequence"]) if arrays["sequence"].ndim == 1 else -1
    for name, shape, dtype in (
        ("values", (rows, len(spec.channels)), "float64"),
        ("command", (rows, spec.act_dim), "float64"),
        ("sequence", (rows,), "int64"),
        ("timestamp_ns", (rows,), "int64"),
    ):
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise FlightError(f"{path}: damaged: {name} is {array.shape} {array.dtype}; expected {shape} {dtype}")


def _gaps(flight: Flight) -> np.ndarray:
    """(N,) str: why no step leads from the row before to this one, empty where one does; the first has none before."""
    rows = len(flight.sequence)
    gaps = np.full(rows, "", dtype=object)
    if not rows:
        return gaps
    # Python's integers: a damaged log may hold differences that int64 does not
    times, numbers = flight.timestamp_ns.tolist(), flight.sequence.tolist()
    for i in range(1, rows):
        if numbers[i] <= numbers[i - 1] or times[i] <= times[i - 1]:
            gaps[i] = "repeated readings"
        elif times[i] - times[i - 1] > _LATE * flight.spec.control_dt * 1e9:
            gaps[i] = "readings missing between"
    whole = np.all(np.isfinite(np.hstack((flight.values, flight.command))), axis=1)
    gaps[~whole] = "values that are no numbers"
    gaps[1:][~whole[:-1] & (gaps[1:] == "")] = "after values that are no numbers"
    return gaps


def _longest(gaps: np.ndarray) -> tuple[int, int]:
    """First row, and row after the last, of the longest stretch without a gap inside."""
    borders = [0, *(i for i in range(1, len(gaps)) if gaps[i]), len(gaps)]
    start, stop = max(zip(borders, borders[1:], strict=False), key=lambda stretch: stretch[1] - stretch[0])
    return start, stop


def _counted(gaps: np.ndarray) -> dict[str, int]:
    kinds = [kind for kind in gaps.tolist() if kind and not kind.startswith("after")]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _remarks(flight: Flight, gaps: np.ndarray, start: int, stop: int) -> tuple[str, ...]:
    remarks = []
    if stop - start < len(gaps):
        found = ", ".join(f"{count} x {kind}" for kind, count in _counted(gaps).items())
        remarks.append(f"kept rows {start} to {stop - 1} of {len(gaps)}, the longest without a gap; gaps: {found}")
    if flight.first > 0:
        remarks.append(f"the log begins with row {flight.first} of the run: what was before had been overwritten")
    if flight.fault and stop < len(gaps):
        remarks.append("the fault is in none of the rows kept")
    return tuple(remarks)
