"""The black box: the last minutes of a run in shared memory, which outlives the controller.

The control loop writes a row a tick and a few words, and nothing else: no file, no lock, no allocation. Another process
reads it (`observer.py`), also after the controller was killed. It is an anonymous file, handed on by its descriptor;
nothing of it is in the file system.

A row is complete before the counter of rows is advanced. A reader copies first and looks at the counter again after:
rows that the writer may have begun to overwrite meanwhile are dropped. Writer and reader never wait for each other.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import time
from typing import Any

import numpy as np

from export.anonymous_memory import anonymous_memory
from export.black_box_layout import (
    FAULT_TEXTS,
    HISTOGRAM_BINS,
    HISTOGRAMS,
    MAGIC,
    PAGE,
    BlackBoxError,
    Layout,
    State,
    StopRequest,
    Word,
    describe,
    read_description,
    read_layout,
)  # fmt: skip
from export.clock import LatencyHistogram
from export.flight_snapshot import FlightSnapshot, Status, read_fault, read_status, split_rows
from export.safety import Fault
from robots.backend import SensorReading
from robots.spec import RobotSpec

__all__ = ["BlackBox", "BlackBoxError", "State", "StopRequest"]

_STAMPS = struct.Struct("=d6q")  # reward, begin, sequence, timestamp, tick, lateness, flags
_SNAPSHOT_ATTEMPTS = 20
# Plain numbers: an IntEnum's member costs a look-up and a conversion at every use
_COUNT, _HEARTBEAT, _TICKS, _MISSES, _SKIPPED, _STALE, _BLEND, _WINDOW = (
    int(word)
    for word in (
        Word.COUNT, Word.HEARTBEAT_NS, Word.TICKS, Word.MISSES, Word.SKIPPED, Word.STALE_READINGS, Word.BLEND,
        Word.REWARD_WINDOW_MEAN,
    )
)  # fmt: skip
_STOP, _SAVE, _OBSERVER, _OPERATOR = (
    int(word) for word in (Word.STOP_REQUEST, Word.SAVE_REQUEST, Word.OBSERVER_HEARTBEAT_NS, Word.OPERATOR_HEARTBEAT_NS)
)


class BlackBox:
    """One run's ring and words. Made by `create` in the controller and by `attach` in whoever watches it."""

    def __init__(self, fd: int, layout: Layout, spec: RobotSpec, about: dict[str, Any]) -> None:
        """Maps what is there; use `create` or `attach`."""
        self.fd = fd  # hand it to a child with `pass_fds`
        self.spec = spec
        self.about = about  # JSON-ready facts about the run
        self.rows = layout.rows
        self._layout = layout
        self._map = mmap.mmap(fd, layout.total_bytes)
        header = memoryview(self._map)[:PAGE]
        self._header, self.words, self._floats = header, header.cast("q"), header.cast("d")
        cells = np.frombuffer(self._map, np.int64, layout.cells * len(HISTOGRAMS), layout.histograms_at)
        self._cells: dict[str, np.ndarray] = dict(
            zip(HISTOGRAMS, cells.reshape(len(HISTOGRAMS), layout.cells), strict=True)
        )
        ring = np.frombuffer(self._map, np.float64, layout.rows * layout.width, layout.rows_at)
        self._ring = ring.reshape(layout.rows, layout.width)
        ends = np.cumsum([layout.channels, layout.obs_dim, layout.act_dim, layout.act_dim]).tolist()
        self._values_end, self._observation_end, self._wanted_end, self._command_end = ends
        self._row_bytes, self._stamps_at = 8 * layout.width, layout.rows_at + 8 * ends[-1]
        self._fence = threading.Lock()
        self._fence.acquire()

    @classmethod
    def create(cls, spec: RobotSpec, seconds: float = 120.0, about: dict[str, Any] | None = None) -> BlackBox:
        """Reserves and touches all of the memory, so that the loop meets no page for the first time.

        Args:
            spec: The robot.
            seconds: [s] how much of the end of a run is kept.
            about: JSON-ready facts about the run; `bundle` and `reward_threshold` are shown where there are any.

        Returns:
            The box, with this process as its controller.

        Raises:
            BlackBoxError: Too large, or the system would not give it.
        """
        if not 0.0 < seconds < float("inf"):
            raise BlackBoxError(f"black box: seconds {seconds!r}; legal is a positive number")
        description = describe(spec, about or {})
        rows = max(2, round(seconds / spec.control_dt))
        layout = Layout(len(description), rows, len(spec.channels), spec.obs_dim, spec.act_dim, HISTOGRAM_BINS)
        try:
            fd = anonymous_memory(layout.total_bytes)
            box = cls(fd, layout, spec, dict(about or {}))
        except (OSError, ValueError) as error:
            raise BlackBoxError(f"black box: no shared memory for {layout.total_bytes} bytes: {error}") from error
        box._ring.fill(0.0)
        for cells in box._cells.values():
            cells.fill(0)
        box._map[PAGE : PAGE + len(description)] = description
        words = box.words
        words[Word.DESCRIPTION_BYTES], words[Word.ROWS], words[Word.BINS] = len(description), rows, layout.bins
        words[Word.CHANNELS], words[Word.OBS_DIM], words[Word.ACT_DIM] = layout.channels, spec.obs_dim, spec.act_dim
        words[Word.CREATED_NS], words[Word.CREATED_UNIX_NS] = time.monotonic_ns(), time.time_ns()
        words[Word.CONTROLLER_PID] = os.getpid()
        box._floats[_WINDOW] = float("nan")
        box._order()
        words[Word.MAGIC] = MAGIC
        return box

    @classmethod
    def attach(cls, fd: int) -> BlackBox:
        """Opens the box behind an inherited descriptor.

        Args:
            fd: The descriptor, which belongs to the box from now on.

        Returns:
            The box; all that is needed to read it was in it.

        Raises:
            BlackBoxError: No descriptor, no black box, or a damaged one.
        """
        try:
            size = os.fstat(fd).st_size
            if size < PAGE:
                raise BlackBoxError(f"descriptor {fd}: {size} bytes are no black box")
            with mmap.mmap(fd, PAGE) as header, memoryview(header) as view, view.cast("q") as words:
                layout = read_layout(words, size)
                rows = words[_COUNT]
            description = os.pread(fd, layout.description_bytes, PAGE)
            spec, about = read_description(description, layout)
            if rows < 0:
                raise BlackBoxError(f"damaged black box: it tells of {rows} rows")
            return cls(fd, layout, spec, about)
        except (OSError, ValueError) as error:
            raise BlackBoxError(f"descriptor {fd}: no black box: {error}") from error

    def close(self) -> None:
        """Lets go of the memory; it lives on for whoever else has it. Closing twice is allowed."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        for view in (self.words, self._floats, self._header):
            view.release()
        self._cells, self._ring = {}, np.empty((0, 0))
        with contextlib.suppress(BufferError):  # a histogram still counts in it: then it goes with that one
            self._map.close()

    # What the controller writes

    def record(
        self, reading: SensorReading, observation: np.ndarray, wanted: np.ndarray, command: np.ndarray,
        reward: float, tick_ns: int, lateness_ns: int, flags: int,
    ) -> None:  # fmt: skip
        """Keeps one tick. It belongs to the heartbeat that `beat` gave last.

        Args:
            reading: What the command was computed from; values of a wrong shape are kept as NaN.
            observation: (obs_dim,)
            wanted: (act_dim,) [unit] what the policy wanted.
            command: (act_dim,) [unit] what was sent.
            reward: The learned reward, NaN if not scored.
            tick_ns: [ns] how long the tick took until now.
            lateness_ns: [ns] of the wake-up before it.
            flags: Bits of `Flag`.
        """
        words = self.words
        count = words[_COUNT]
        i = count % self.rows
        row, values = self._ring[i], reading.values
        row[: self._values_end] = values if values.shape == (self._values_end,) else np.nan
        row[self._values_end : self._observation_end] = observation
        row[self._observation_end : self._wanted_end] = wanted
        row[self._wanted_end : self._command_end] = command
        at, begin_ns = self._stamps_at + i * self._row_bytes, words[_HEARTBEAT]
        try:
            _STAMPS.pack_into(
                self._map, at, reward, begin_ns, reading.sequence, reading.timestamp_ns, tick_ns, lateness_ns, flags
            )
        except struct.error:  # a reading may come from the network, with numbers of more than 63 bits
            _STAMPS.pack_into(self._map, at, reward, begin_ns, -1, 0, tick_ns, lateness_ns, flags)
        self._order()
        words[_COUNT] = count + 1

    def beat(
        self, now_ns: int, ticks: int, misses: int, skipped: int, stale_readings: int, blend: float,
        reward_window_mean: float = float("nan"),
    ) -> None:  # fmt: skip
        """Says that a tick begins, and how things stand.

        Args:
            now_ns: [ns] monotonic clock.
            ticks: Begun before this one.
            misses: Ticks that ended after their deadline.
            skipped: Whole periods in which no tick began.
            stale_readings: That repeated one already seen.
            blend: 0 for the hold command to 1 for the policy's.
            reward_window_mean: Of the reward monitor.
        """
        words, floats = self.words, self._floats
        words[_HEARTBEAT], words[_TICKS], words[_MISSES], words[_SKIPPED] = now_ns, ticks, misses, skipped
        words[_STALE], floats[_BLEND], floats[_WINDOW] = stale_readings, blend, reward_window_mean

    def set_state(self, state: State) -> None:
        """Says what the controller is doing now.

        Args:
            state: ENDED last of all: without it, the end of the controller counts as its loss.
        """
        self.words[Word.STATE] = state

    def latch_fault(self, reason: str, detail: str, timestamp_ns: int) -> None:
        """Keeps the first fault; later ones are consequences.

        Args:
            reason: A short name.
            detail: One line for a person. Both are cut to the room there is.
            timestamp_ns: [ns] monotonic clock.
        """
        words = self.words
        if words[Word.FAULT_SET]:
            return
        for text, (at, room, length) in zip((reason, detail), FAULT_TEXTS, strict=True):
            data = text.encode(errors="replace")[:room]
            self._map[at : at + len(data)] = data
            words[length] = len(data)
        words[Word.FAULT_NS] = timestamp_ns
        self._order()
        words[Word.FAULT_SET] = 1

    def histogram(self, name: str) -> LatencyHistogram:
        """A histogram that counts in the box, where everybody sees it.

        Args:
            name: "compute", "tick" or "wake".

        Returns:
            The histogram, for the controller to add to.
        """
        return LatencyHistogram(cells=self._cells[name])

    # What the controller reads

    @property
    def stop_request(self) -> int:
        """0 none, 1 soft stop, 2 emergency stop."""
        return self.words[_STOP]

    @property
    def observer_heartbeat_ns(self) -> int:
        """[ns] monotonic clock, when the observer last said that it is there; 0 = never."""
        return self.words[_OBSERVER]

    @property
    def operator_heartbeat_ns(self) -> int:
        """[ns] monotonic clock, when a page that somebody watches last said so; 0 = never."""
        return self.words[_OPERATOR]

    # What the observer writes and reads; one process, whose threads must not write the same word at once

    def request_stop(self, request: StopRequest) -> None:
        """Asks the controller to stop; a lesser wish never takes back a greater one.

        Args:
            request: SOFT or EMERGENCY.
        """
        self.words[_STOP] = max(self.words[_STOP], request)

    def request_save(self) -> None:
        """Asks for a flight log."""
        self.words[_SAVE] += 1

    def observer_alive(self, now_ns: int) -> None:
        """Says that the observer is there; `now_ns` [ns] by the monotonic clock."""
        self.words[_OBSERVER] = now_ns

    def operator_alive(self, now_ns: int) -> None:
        """Says that somebody watches; `now_ns` [ns] by the monotonic clock."""
        self.words[_OPERATOR] = now_ns

    def status(self) -> Status:
        """All words of the header, none of them torn."""
        return read_status(self.words, self._floats, self._fault())

    def latency(self, name: str) -> LatencyHistogram:
        """A copy of a histogram as it is now.

        Args:
            name: "compute", "tick" or "wake".
        """
        return LatencyHistogram(cells=self._cells[name].copy())

    def snapshot(self, seconds: float | None = None, after: int = -1) -> FlightSnapshot:
        """Copies the newest rows, while the controller goes on.

        Args:
            seconds: [s] in whole control periods, None for all there are.
            after: Only rows with a greater number than this.

        Returns:
            The rows that were surely whole, oldest first.
        """
        wanted = self.rows if seconds is None else max(1, round(seconds / self.spec.control_dt))
        first, rows = 0, np.empty((0, self._layout.width))
        for _ in range(_SNAPSHOT_ATTEMPTS):
            end = max(self.words[_COUNT], 0)
            # The oldest row but one: the oldest may be half overwritten already
            first = max(end - min(wanted, self.rows - 1), after + 1, 0)
            self._order()
            rows = self._ring.take(np.arange(first, end) % self.rows, axis=0)
            self._order()
            overwritten = self.words[_COUNT] - self.rows + 1 - first
            if overwritten > 0:
                first, rows = first + overwritten, rows[overwritten:]
            if len(rows) or end <= after + 1:
                break
        return self._as_snapshot(first, rows)

    def _as_snapshot(self, first: int, rows: np.ndarray) -> FlightSnapshot:
        return FlightSnapshot(
            spec=self.spec, about=self.about, fault=self._fault(), first=first,
            unix_minus_monotonic_ns=self.words[Word.CREATED_UNIX_NS] - self.words[Word.CREATED_NS],
            **split_rows(rows, (self._values_end, self._observation_end, self._wanted_end, self._command_end)),
        )  # fmt: skip

    def _fault(self) -> Fault | None:
        return read_fault(self.words, self._map)

    def _order(self) -> None:
        """A barrier: what was stored before is seen before, also by a processor that reorders (ARM does)."""
        self._fence.release()
        self._fence.acquire()
