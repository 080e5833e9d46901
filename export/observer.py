"""The observer: `python -m export.observer --fd N --log PATH`, a process that watches a controller's black box.

It writes flight logs, also when the controller was killed, and serves the page and the metrics (`--web`). It ends when
its standard input closes, which the death of the controller does, too. Nothing it does makes the controller wait.

It prints one JSON line when it is ready and one when it ends. Exit code 1: a log that was due could not be written.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from export.black_box import BlackBox
from export.flight_watch import FlightWatch, WatchReport
from export.flight_writer import FlightWriter
from export.live_feed import LiveFeed
from export.web_server import WebServer
from robots.spec import ToolkitError

_PERIOD_NS = 100_000_000
_NICE = 5  # the controller comes first, also where it may not ask for real-time scheduling


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Of the command line; None for this process's.

    Returns:
        0; 1 if a log could not be written; 2 if there was nothing to watch or the page cannot be served.
    """
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the controller, whose last words it still has to write
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    try:
        box = BlackBox.attach(options.fd)
        writer = FlightWriter(options.log)
        watch = FlightWatch(box, writer, options.keep, options.lost_seconds)
        feed = server = None
        if options.web is not None:
            feed = LiveFeed(box, writer)
            server = WebServer(options.web, box, feed, allow_remote=options.allow_remote, names=options.name)
    except ToolkitError as error:
        print(f"observer: {error}", file=sys.stderr)
        return 2
    _say({"ready": True, "pid": os.getpid(), "web": server.url if server else None, "log": str(options.log)})
    report = _watch(box, watch, feed)
    if server is not None:
        server.close()
    _say(dataclasses.asdict(report))
    return 1 if report.errors else 0


def _watch(box: BlackBox, watch: FlightWatch, feed: LiveFeed | None) -> WatchReport:
    """Looks ten times a second until standard input closes; whatever goes wrong meanwhile is kept, never raised."""
    problems: list[str] = []
    deadline = time.monotonic_ns()
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(0, selectors.EVENT_READ)
        except OSError:  # a plain file, which has ended before it began
            return _finished(box, watch, problems)
        while not _closed(selector, (deadline - time.monotonic_ns()) * 1e-9):
            now_ns = time.monotonic_ns()
            if now_ns < deadline:
                continue
            deadline = max(deadline + _PERIOD_NS, now_ns)
            try:
                box.observer_alive(now_ns)
                status = box.status()
                watch.poll(status, now_ns)
                if feed is not None:  # what nobody is shown is not worked out either
                    feed.poll(status, watch.lost, problems, now_ns)
            except Exception as error:  # watching goes on, and the page and the last line tell of it
                problems[:] = [*problems, f"observer: {type(error).__name__}: {error}"][-5:]
    return _finished(box, watch, problems)


def _finished(box: BlackBox, watch: FlightWatch, problems: list[str]) -> WatchReport:
    try:
        report = watch.finish(box.status())
    except Exception as error:  # such as no memory for the copy of a great ring
        report = WatchReport("unknown", (), (f"observer: {type(error).__name__}: {error}",))
    return dataclasses.replace(report, errors=report.errors + tuple(problems))


def _closed(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Waits, at most that long [s]; whether standard input has closed. What comes in on it is read and forgotten."""
    if not selector.select(max(seconds, 0.0)):
        return False
    try:
        return os.read(0, 4096) == b""
    except OSError:
        return True


def _say(facts: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the controller may be gone
        print(json.dumps(facts), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.observer", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited descriptor of the black box")
    parser.add_argument("--log", type=Path, required=True, help="flight log, written when the run ends badly")
    parser.add_argument("--keep", action="store_true", help="write it also when the run ends well")
    parser.add_argument("--lost-seconds", type=float, default=1.0, help="without a heartbeat: the controller is lost")
    parser.add_argument("--web", metavar="[HOST:]PORT", help="serve the page and the metrics")
    parser.add_argument("--allow-remote", action="store_true", help="let --web listen beyond this machine")
    parser.add_argument("--name", action="append", default=[], help="another name browsers know this machine by")
    return parser


if __name__ == "__main__":
    sys.exit(main())
