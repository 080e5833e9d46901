"""What was read out of a black box at one instant: the rows in order of time, and how the controller was."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.black_box_layout import FAULT_TEXTS, State, StopRequest, Word
from export.safety import Fault
from robots.spec import RobotSpec


@dataclass(frozen=True)
class Status:
    """The header's words at one instant."""

    controller_pid: int
    heartbeat_ns: int  # [ns] monotonic clock, when the last tick began; 0 = none did
    state: State
    ticks: int
    misses: int  # ticks that ended after their deadline
    skipped: int  # whole periods in which no tick began
    stale_readings: int  # that repeated one already seen
    blend: float  # 0: hold command, 1: the policy's
    reward_window_mean: float  # NaN until the monitor's window filled
    fault: Fault | None
    stop_request: StopRequest
    save_request: int  # wishes for a flight log so far
    observer_heartbeat_ns: int  # [ns] monotonic clock, 0 = never
    operator_heartbeat_ns: int  # [ns] monotonic clock, 0 = nobody watched yet
    ghost_port: int  # of the 3D view's page
    ghost_heartbeat_ns: int  # [ns] monotonic clock, 0 = there is no 3D view


@dataclass(frozen=True, eq=False, repr=False)
class FlightSnapshot:
    """N rows, one a tick, oldest first. The arrays are copies: nothing changes them any more."""

    spec: RobotSpec
    about: dict[str, Any]  # what the controller said of the run: bundle, reward threshold, ...
    fault: Fault | None
    unix_minus_monotonic_ns: int  # [ns] add to a monotonic time for the time since the Unix epoch
    first: int  # number of the first row since the run began; 0 = nothing was overwritten before it
    values: np.ndarray  # (N, channels) float64 what was measured; NaN if it came in a wrong shape
    observation: np.ndarray  # (N, obs_dim) float64
    wanted: np.ndarray  # (N, act_dim) float64 [unit] what the policy wanted
    command: np.ndarray  # (N, act_dim) float64 [unit] what was sent
    reward: np.ndarray  # (N,) float64, NaN if not scored
    begin_ns: np.ndarray  # (N,) int64 [ns] monotonic clock, begin of the tick
    sequence: np.ndarray  # (N,) int64 of the reading
    timestamp_ns: np.ndarray  # (N,) int64 [ns] monotonic clock, of the reading
    tick_ns: np.ndarray  # (N,) int64 [ns] how long the tick took until it was recorded
    lateness_ns: np.ndarray  # (N,) int64 [ns] of the wake-up before the tick
    flags: np.ndarray  # (N,) int64, bits of `Flag`

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.reward)

    def __repr__(self) -> str:
        """Sizes instead of numbers."""
        return f"FlightSnapshot({self.spec.name!r}, rows={len(self)}, first={self.first}, fault={self.fault})"


def read_status(words: memoryview, floats: memoryview[float], fault: Fault | None) -> Status:
    """Reads the words of a header; numbers that mean nothing are taken for what is safest.

    Args:
        words: (128,) int64
        floats: (128,) float64, the same memory.
        fault: Read already.

    Returns:
        The words; each is whole, though one may be a tick newer than another.
    """
    state, stop = words[Word.STATE], words[Word.STOP_REQUEST]
    return Status(
        controller_pid=words[Word.CONTROLLER_PID],
        heartbeat_ns=words[Word.HEARTBEAT_NS],
        state=State(state) if 0 <= state < len(State) else State.NOT_ARMED,
        ticks=words[Word.TICKS],
        misses=words[Word.MISSES],
        skipped=words[Word.SKIPPED],
        stale_readings=words[Word.STALE_READINGS],
        blend=floats[Word.BLEND],
        reward_window_mean=floats[Word.REWARD_WINDOW_MEAN],
        fault=fault,
        stop_request=StopRequest(stop) if 0 <= stop < len(StopRequest) else StopRequest.EMERGENCY,
        save_request=words[Word.SAVE_REQUEST],
        observer_heartbeat_ns=words[Word.OBSERVER_HEARTBEAT_NS],
        operator_heartbeat_ns=words[Word.OPERATOR_HEARTBEAT_NS],
        ghost_port=words[Word.GHOST_PORT],
        ghost_heartbeat_ns=words[Word.GHOST_HEARTBEAT_NS],
    )


def read_fault(words: memoryview, memory: mmap.mmap) -> Fault | None:
    """Reads the fault of a header, if one was written whole.

    Args:
        words: (128,) int64
        memory: The same memory, as bytes.

    Returns:
        The fault, with its texts cut to their room.
    """
    if not words[Word.FAULT_SET]:
        return None
    reason, detail = (
        memory[at : at + min(max(words[length], 0), room)].decode(errors="ignore") for at, room, length in FAULT_TEXTS
    )
    return Fault(reason, detail, words[Word.FAULT_NS])


def split_rows(rows: np.ndarray, ends: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    """Takes rows of a ring apart.

    Args:
        rows: (N, words) float64, the last of them holding integers' bits.
        ends: Where values, observation, wanted and command end.

    Returns:
        The arrays of a `FlightSnapshot`, by name.
    """
    values, observation, wanted, command, stamps = np.split(rows, ends, axis=1)
    numbers = np.ascontiguousarray(stamps[:, 1:]).view(np.int64)
    names = ("begin_ns", "sequence", "timestamp_ns", "tick_ns", "lateness_ns", "flags")
    return {
        "values": values, "observation": observation, "wanted": wanted, "command": command, "reward": stamps[:, 0],
        **{name: numbers[:, i] for i, name in enumerate(names)},
    }  # fmt: skip
