"""A loop that does nothing but keep time, to know what the machine itself does to one: `clock_nanosleep` and no more.

    python -m export.bare_loop --hz 500 --seconds 600 [--realtime [--cpu 3]]

prints one JSON line. Without --realtime it asks the system for nothing. A miss is what it is for that one, too: a
period that had ended before its work had.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import time

from export.clock import LatencyHistogram, LatencySummary
from export.real_time import RealTimeOptions, left_alone, privileged

_CLOCK_MONOTONIC, _TIMER_ABSTIME = 1, 1


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


@dataclasses.dataclass(frozen=True)
class BareReport:
    """What the machine did to a loop without work."""

    ticks: int
    misses: int  # wake-ups later than a whole period
    skipped: int  # whole periods in which it was not awake
    wake: LatencySummary  # deadline -> awake


def keep_time(hz: float, seconds: float, options: RealTimeOptions | None = None) -> BareReport:
    """Sleeps to absolute deadlines, again and again.

    Args:
        hz: [1/s] rate.
        seconds: [s] how long.
        options: What to ask the system for; None for nothing at all.

    Returns:
        How well it went.

    Raises:
        OSError: The system has no `clock_nanosleep`, or it fails.
    """
    sleep = ctypes.CDLL(None, use_errno=True).clock_nanosleep
    period = round(1e9 / hz)
    wake, misses, lost, ticks = LatencyHistogram(), 0, 0, 0
    until = _Timespec()
    gc.collect()
    gc.disable()
    with contextlib.nullcontext() if options is None else left_alone(options):
        start = time.monotonic_ns()
        end = start + round(seconds * 1e9)
        deadline = start + period
        while deadline < end:
            until.tv_sec, until.tv_nsec = divmod(deadline, 1_000_000_000)
            error = sleep(_CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(until), None)
            if error:
                raise OSError(error, os.strerror(error))
            late = time.monotonic_ns() - deadline
            wake.add(late)
            ticks += 1
            skipped = late // period
            misses += skipped > 0
            lost += skipped
            deadline += (1 + skipped) * period
    gc.enable()
    return BareReport(ticks, misses, lost, wake.summary())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m export.bare_loop", description="Keeps time and does nothing.")
    parser.add_argument("--hz", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument(
        "--realtime", action="store_true", help="ask for SCHED_FIFO, locked memory, a core that is awake"
    )
    parser.add_argument("--cpu", type=int, help="which core; without it the last")
    chosen = parser.parse_args()
    if chosen.cpu is not None and not chosen.realtime:
        parser.error("--cpu goes with --realtime: without, it asks for nothing")
    options = privileged(chosen.cpu) if chosen.realtime else None
    print(json.dumps(dataclasses.asdict(keep_time(chosen.hz, chosen.seconds, options))), flush=True)


if __name__ == "__main__":
    main()
