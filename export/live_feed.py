"""What the page is told ten times a second: how things stand, and the rows since the last time, as ready JSON.

Many rows become a few with the least and the greatest of each column, so that a spike of one tick is still seen.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import threading
from collections import deque
from typing import Any

import numpy as np

from export.black_box import BlackBox
from export.black_box_layout import HISTOGRAMS
from export.flight_snapshot import FlightSnapshot, Status
from export.flight_writer import FlightWriter
from robots.spec import RobotSpec

HISTORY = 300  # events that a page which comes later is shown: 30 s
_BUCKETS = 2  # of rows in one event
_LATENCY_EVERY = 5  # events
_FRESH_NS = 3_000_000_000  # [ns] how old a heartbeat of page or 3D view may be
_BINS_PER_DECADE = 8
_DECADES = 5  # 1 us to 100 ms
_MEASURED = {"position": "joint_pos", "velocity": "joint_vel"}  # what a drive of this kind is told, a joint measures


class LiveFeed:
    """Events for pages: one thread makes them, any number wait for them."""

    def __init__(self, box: BlackBox, writer: FlightWriter) -> None:
        """Prepares the first event, which says what the robot is.

        Args:
            box: What to show.
            writer: Whose logs and errors to tell of.
        """
        self.introduction = json.dumps(_introduction(box))
        self.rate_hz = float("nan")  # [1/s] at which ticks began in the last second
        self.reward = float("nan")  # of the last row
        self.lost: str | None = None
        self._box, self._writer = box, writer
        self._events: deque[tuple[int, str]] = deque(maxlen=HISTORY)
        self._changed = threading.Condition()
        self._number, self._last_row = 0, -1
        self._latency: dict[str, Any] = {}
        self._edges = np.unique(np.logspace(0, _DECADES, _DECADES * _BINS_PER_DECADE + 1).round().astype(int))

    def poll(self, status: Status, lost: str | None, problems: list[str], now_ns: int) -> None:
        """Makes the next event.

        Args:
            status: The box's words.
            lost: Why the controller counts as lost, if it does.
            problems: What went wrong with the watching itself.
            now_ns: [ns] monotonic clock.
        """
        recent = self._box.snapshot(seconds=1.0)
        self.lost, self.rate_hz = lost, _rate(recent)
        if len(recent):
            self.reward = float(recent.reward[-1])
        if self._number % _LATENCY_EVERY == 0:
            self._latency = {name: self._latencies(name) for name in HISTOGRAMS}
        event = {
            "now": now_ns / 1e9,
            "status": self._status(status, problems, now_ns),
            "rows": self._rows(),
            "latency": self._latency if self._number % _LATENCY_EVERY == 0 else None,
        }
        with self._changed:
            self._number += 1
            self._events.append((self._number, json.dumps(event)))
            self._changed.notify_all()

    def after(self, number: int, seconds: float) -> list[tuple[int, str]]:
        """Waits for events.

        Args:
            number: Of the last one known, 0 for none.
            seconds: [s] to wait at most.

        Returns:
            (number, JSON) of all that are kept and newer, oldest first; empty if none came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, seconds)
            return [event for event in self._events if event[0] > number]

    def _status(self, status: Status, problems: list[str], now_ns: int) -> dict[str, Any]:
        fault = status.fault
        ghost = 0 < now_ns - status.ghost_heartbeat_ns < _FRESH_NS
        return {
            "state": status.state.text,
            "lost": self.lost,
            "fault": None if fault is None else {"reason": fault.reason, "detail": fault.detail,
                                                 "seconds_ago": max(0.0, (now_ns - fault.timestamp_ns) / 1e9)},
            "heartbeat_age": (now_ns - status.heartbeat_ns) / 1e9 if status.heartbeat_ns else None,
            "ticks": status.ticks, "misses": status.misses, "skipped": status.skipped,
            "stale_readings": status.stale_readings, "blend": _number(status.blend), "rate_hz": _number(self.rate_hz),
            "reward": _number(self.reward), "reward_window_mean": _number(status.reward_window_mean),
            "stop_request": int(status.stop_request),
            "watched": 0 < now_ns - status.operator_heartbeat_ns < _FRESH_NS,
            "logs": [str(path) for path in self._writer.written], "saving": self._writer.busy,
            "errors": [*self._writer.errors, *problems][-5:],
            "ghost_port": status.ghost_port if ghost else None,
        }  # fmt: skip

    def _rows(self) -> dict[str, Any]:
        snapshot = self._box.snapshot(after=self._last_row)
        if not len(snapshot):
            return {"t": [], "low": [], "high": []}
        self._last_row = snapshot.first + len(snapshot) - 1
        table = np.column_stack((snapshot.command, snapshot.wanted, snapshot.values, snapshot.reward))
        buckets = np.array_split(np.arange(len(table)), min(_BUCKETS, len(table)))
        return {
            "t": [round(float(snapshot.begin_ns[bucket[-1]]) / 1e9, 4) for bucket in buckets],
            "low": [_numbers(np.fmin.reduce(table[bucket])) for bucket in buckets],
            "high": [_numbers(np.fmax.reduce(table[bucket])) for bucket in buckets],
        }

    def _latencies(self, name: str) -> dict[str, Any]:
        histogram = self._box.latency(name)
        summary = histogram.summary()
        edges, counts = histogram.counts_below(self._edges)
        return {
            "quantiles": [_number(v) for v in (summary.p50_us, summary.p99_us, summary.p999_us, summary.max_us)],
            "edges": edges.tolist(),
            "counts": np.diff(counts, prepend=0, append=summary.count).tolist(),
        }


def _introduction(box: BlackBox) -> dict[str, Any]:
    spec = box.spec
    return {
        "robot": spec.name, "description": spec.description, "about": box.about, "control_dt": spec.control_dt,
        "pid": box.status().controller_pid, "kept_seconds": (box.rows - 1) * spec.control_dt,
        "version": importlib.metadata.version("gcl-toolkit"), "traces": traces(spec),
        "reward_column": 2 * spec.act_dim + len(spec.channels),
    }  # fmt: skip


def traces(spec: RobotSpec) -> list[dict[str, Any]]:
    """Which columns of the rows are drawn together.

    Args:
        spec: The robot.

    Returns:
        For each picture: group ("commands", "joints", "sensors"), title, unit, and lines of (what, column).
    """
    column = {channel: 2 * spec.act_dim + i for i, channel in enumerate(spec.channels)}
    pictures, drawn = [], set()
    for i, term in enumerate(spec.action):
        lines: list[tuple[str, int]] = [("wanted", spec.act_dim + i), ("commanded", i)]
        channel = f"{_MEASURED.get(term.kind, '')}/{term.actuator}"
        if channel in column:
            lines.append(("measured", column[channel]))
            drawn.add(channel)
        pictures.append({"group": "commands", "title": term.actuator, "unit": term.unit, "lines": lines})
    for channel, unit in zip(spec.channels, spec.channel_units, strict=True):
        if channel not in drawn:
            group = "joints" if channel.startswith(("joint_pos/", "joint_vel/")) else "sensors"
            title = channel.removeprefix("sensor/")
            pictures.append({"group": group, "title": title, "unit": unit, "lines": [("measured", column[channel])]})
    return pictures


def _rate(recent: FlightSnapshot) -> float:
    seconds = float(recent.begin_ns[-1] - recent.begin_ns[0]) * 1e-9 if len(recent) > 1 else 0.0
    return (len(recent) - 1) / seconds if seconds > 0 else float("nan")


def _numbers(row: np.ndarray) -> list[float | None]:
    return [_number(value) for value in row.tolist()]


def _number(value: float) -> float | None:
    """NaN and infinity are not JSON; more digits than anybody sees are only traffic."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
