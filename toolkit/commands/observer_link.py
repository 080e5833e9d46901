"""How `gcl deploy` has itself watched: an observer process with the black box writes flight logs and serves pages."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from export.black_box import BlackBox
from robots.spec import ToolkitError

_START_SECONDS = 20.0  # [s]
_END_SECONDS = 120.0  # [s] a slow disk may take over a flight log


class ObserverError(ToolkitError):
    """An observer that does not begin to watch: the robot is not driven unseen."""


@dataclass
class Observer:
    """A running observer; what it wrote is known when its context has ended."""

    url: str | None  # of the page, where one is served
    flights: list[Path] = field(default_factory=list)  # flight logs, newest last
    errors: list[str] = field(default_factory=list)  # why logs that were due are not there


@contextlib.contextmanager
def observed(
    box: BlackBox, log: Path, *, keep: bool = False, web: str | None = None, allow_remote: bool = False
) -> Iterator[Observer]:
    """Has a run watched by another process.

    Args:
        box: Of the run.
        log: The flight log, written when the run ends badly.
        keep: Write it also when the run ends well.
        web: [HOST:]PORT to serve the page and the metrics on; None for none.
        allow_remote: Whether that may be reached from other machines.

    Yields:
        The observer.

    Raises:
        ObserverError: It does not begin.
    """
    arguments = ["--fd", str(box.fd), "--log", str(log), *(["--keep"] if keep else [])]
    arguments += [] if web is None else ["--web", web]
    arguments += ["--allow-remote"] if allow_remote else []
    process = subprocess.Popen(
        [sys.executable, "-m", "export.observer", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[box.fd],
        start_new_session=True,
    )  # fmt: skip
    observer = Observer(None)
    try:
        observer.url = _ready(process)
        yield observer
    finally:
        try:
            stdout, _ = process.communicate(timeout=_END_SECONDS)
            last = json.loads(stdout.splitlines()[-1])
            observer.flights += [Path(path) for path in last["logs"]]
            observer.errors += last["errors"]
        except (subprocess.TimeoutExpired, ValueError, KeyError, IndexError, OSError) as error:
            process.kill()
            process.wait()
            observer.errors.append(f"the observer did not end in order: {type(error).__name__}")


def _ready(process: subprocess.Popen[bytes]) -> str | None:
    """The page's URL, once it watches."""
    assert process.stdout is not None and process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(_START_SECONDS) else b""
    try:
        return json.loads(line)["web"]
    except (ValueError, KeyError, TypeError) as error:
        process.kill()
        said = process.stderr.read().decode(errors="replace").strip().splitlines()
        raise ObserverError(f"the observer did not start: {said[-1] if said else f'it said {line!r}'}") from error
