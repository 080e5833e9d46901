"""What lies where in a black box: the header's words, each with one writer, and the sizes that the rest follows from.

One block of shared memory: header (words, then the fault's text), description (JSON), latency histograms, ring of rows.
Everything is in 8-byte words, so that a word is read whole or not at all, whoever is writing it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from robots.spec import RobotSpec, RobotSpecError, ToolkitError, spec_from_dict

MAGIC = int.from_bytes(b"gclbbox1", "little")
HISTOGRAMS = ("compute", "tick", "wake")
HISTOGRAM_BINS = 100_000  # of 1 us
ROW_STAMPS = 7  # reward, begin, sequence, timestamp, tick, lateness, flags
PAGE = 4096  # [bytes] of the header: 128 words, then texts
_DESCRIPTION_BYTES = 8 << 20
_TOTAL_BYTES = 4 << 30
_ROWS = 1 << 28


class BlackBoxError(ToolkitError):
    """Shared memory that is no black box, is damaged, or cannot be had."""


class Word(IntEnum):
    """Places of the header's words. Each has one writer; a float is kept as the bits of a float64."""

    # Written once, by whoever makes the box
    MAGIC = 0
    DESCRIPTION_BYTES = 1
    ROWS = 2
    CHANNELS = 3
    OBS_DIM = 4
    ACT_DIM = 5
    BINS = 6
    CREATED_NS = 7  # [ns] monotonic clock
    CREATED_UNIX_NS = 8  # [ns] since the Unix epoch, at the same instant
    CONTROLLER_PID = 9
    # Written by the controller; on cache lines of their own
    COUNT = 16  # rows that are complete
    HEARTBEAT_NS = 17  # [ns] monotonic clock
    STATE = 18  # one of State
    TICKS = 19
    MISSES = 20
    SKIPPED = 21
    STALE_READINGS = 22
    BLEND = 23  # float
    REWARD_WINDOW_MEAN = 24  # float
    FAULT_NS = 32  # [ns] monotonic clock
    REASON_LENGTH = 33
    DETAIL_LENGTH = 34
    FAULT_SET = 35  # 1 once all of the fault is written
    # Written by the observer
    STOP_REQUEST = 48  # one of StopRequest
    SAVE_REQUEST = 49  # counts the wishes for a flight log
    OBSERVER_HEARTBEAT_NS = 50  # [ns] monotonic clock
    OPERATOR_HEARTBEAT_NS = 51  # [ns] when a page that somebody watches last said so, 0 = never
    # Written by the 3D view
    GHOST_PORT = 56  # where its page is
    GHOST_HEARTBEAT_NS = 57  # [ns] monotonic clock, 0 = never


# Reason and detail of the fault: [bytes] where, [bytes] how much room, the word with the length
FAULT_TEXTS = ((1024, 64, Word.REASON_LENGTH), (1088, 512, Word.DETAIL_LENGTH))


class State(IntEnum):
    """What the controller is doing."""

    NOT_ARMED = 0
    ARMED = 1
    SOFT_START = 2
    RUNNING = 3
    STOPPING = 4
    FAULT = 5
    ENDED = 6

    @property
    def text(self) -> str:
        """For people and metrics: "soft start"."""
        return self.name.lower().replace("_", " ")


class StopRequest(IntEnum):
    """What an operator asks of the controller. It only ever grows."""

    NONE = 0
    SOFT = 1  # blend the policy out, as after SIGINT
    EMERGENCY = 2  # trip at once


class Flag(IntEnum):
    """Bits of a row's `flags`."""

    STALE = 1  # the reading repeated one already seen
    SCORED = 2  # the reward of this step counts
    STOPPING = 4
    FAULT = 8  # a fault was latched when the command was made
    MISSED = 16  # the tick before ended after its deadline


@dataclass(frozen=True)
class Layout:
    """The sizes of one box, and the places that follow from them."""

    description_bytes: int
    rows: int
    channels: int
    obs_dim: int
    act_dim: int
    bins: int

    def __post_init__(self) -> None:
        """Refuses sizes that no robot has, before anything is reserved or mapped for them."""
        limits = {
            "description_bytes": _DESCRIPTION_BYTES, "rows": _ROWS, "channels": 1 << 16, "obs_dim": 1 << 16,
            "act_dim": 1 << 16, "bins": 1 << 24,
        }  # fmt: skip
        for name, most in limits.items():
            if not 0 < getattr(self, name) <= most:
                raise BlackBoxError(f"black box: {name} {getattr(self, name)}; legal are 1 to {most}")
        if self.total_bytes > _TOTAL_BYTES:
            size, most = self.total_bytes >> 20, _TOTAL_BYTES >> 20
            raise BlackBoxError(f"black box of {size} MiB; at most {most} MiB: keep fewer seconds")

    @property
    def width(self) -> int:
        """Words in a row: channel values, observation, what was wanted, what was sent, stamps."""
        return self.channels + self.obs_dim + 2 * self.act_dim + ROW_STAMPS

    @property
    def cells(self) -> int:
        """Words in a histogram: its bins, one for longer durations, the greatest duration."""
        return self.bins + 2

    @property
    def histograms_at(self) -> int:
        """[bytes] where the histograms begin."""
        return PAGE + -(-self.description_bytes // PAGE) * PAGE

    @property
    def rows_at(self) -> int:
        """[bytes] where the ring begins."""
        return self.histograms_at + 8 * self.cells * len(HISTOGRAMS)

    @property
    def total_bytes(self) -> int:
        """[bytes] of all of it."""
        return self.rows_at + 8 * self.rows * self.width


def read_layout(words: memoryview, size: int) -> Layout:
    """The layout that a header tells.

    Args:
        words: (128,) int64 the header's words.
        size: [bytes] of the shared memory.

    Returns:
        The layout, which fits the size.

    Raises:
        BlackBoxError: Not a black box, or its sizes contradict each other.
    """
    if words[Word.MAGIC] != MAGIC:
        raise BlackBoxError("not a black box of this version of gcl: its first word is another")
    layout = Layout(
        *(
            words[word]
            for word in (Word.DESCRIPTION_BYTES, Word.ROWS, Word.CHANNELS, Word.OBS_DIM, Word.ACT_DIM, Word.BINS)
        )
    )
    if layout.total_bytes != size:
        raise BlackBoxError(f"damaged black box: {size} bytes; its header tells of {layout.total_bytes}")
    return layout


def describe(spec: RobotSpec, about: dict[str, Any]) -> bytes:
    """The description a box carries.

    Args:
        spec: The robot.
        about: JSON-ready facts.

    Returns:
        UTF-8 JSON.

    Raises:
        BlackBoxError: `about` cannot be written as JSON.
    """
    try:
        return json.dumps({"robot": spec.to_dict(), "about": about}).encode()
    except (TypeError, ValueError) as error:
        raise BlackBoxError(f"black box: `about` must be JSON: {error}") from error


def read_description(data: bytes, layout: Layout) -> tuple[RobotSpec, dict[str, Any]]:
    """The inverse of `describe`, checked against the layout.

    Args:
        data: What `describe` returned.
        layout: Of the box it lies in.

    Returns:
        The robot, and the facts.

    Raises:
        BlackBoxError: Damaged, or of a robot of other sizes.
    """
    try:
        description = json.loads(data)
        spec, about = spec_from_dict(description["robot"]), description["about"]
        sizes = (len(spec.channels), spec.obs_dim, spec.act_dim)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RobotSpecError) as error:
        raise BlackBoxError(f"damaged black box: its description cannot be read: {error}") from error
    if not isinstance(about, dict) or sizes != (layout.channels, layout.obs_dim, layout.act_dim):
        raise BlackBoxError("damaged black box: its description is of another robot than its rows")
    return spec, about
