"""How `gcl deploy` has itself watched: an observer process with the black box writes flight logs and serves pages."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.black_box import BlackBox
from export.web_guard import parse_listen
from robots.spec import ToolkitError

_START_SECONDS = 20.0  # [s]
_END_SECONDS = 120.0  # [s] a slow disk may take over a flight log


class ObserverError(ToolkitError):
    """An observer that does not begin to watch: the robot is not driven unseen."""


@dataclass
class Observer:
    """An observer process; what it wrote is known when its context has ended."""

    process: subprocess.Popen[bytes]
    flights: list[Path] = field(default_factory=list)  # flight logs, newest last
    errors: list[str] = field(default_factory=list)  # why logs that were due are not there

    def ready(self) -> str | None:
        """Waits until it watches; called once, before the robot moves.

        Returns:
            The URL of the page, where one is served.

        Raises:
            ObserverError: It does not begin.
        """
        stdout, stderr = self.process.stdout, self.process.stderr
        assert stdout is not None and stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            line = stdout.readline() if selector.select(_START_SECONDS) else b""
        try:
            return json.loads(line)["web"]
        except (ValueError, KeyError, TypeError) as error:
            self.process.kill()
            said = stderr.read().decode(errors="replace").strip().splitlines()
            raise ObserverError(f"the observer did not start: {said[-1] if said else f'it said {line!r}'}") from error


@contextlib.contextmanager
def observed(
    box: BlackBox,
    log: Path,
    *,
    keep: bool = False,
    web: str | None = None,
    names: Sequence[str] = (),
    allow_remote: bool = False,
) -> Iterator[Observer]:
    """Has a run watched by another process, which starts beside whatever else has to.

    Args:
        box: Of the run.
        log: The flight log, written when the run ends badly.
        keep: Write it also when the run ends well.
        web: [HOST:]PORT to serve the page and the metrics on; None for none.
        names: Other names by which browsers know this machine.
        allow_remote: Whether the page may be reached from other machines.

    Yields:
        The observer; ask whether it is `ready` before anything moves.
    """
    arguments = ["--fd", str(box.fd), "--log", str(log), *(["--keep"] if keep else [])]
    arguments += [] if web is None else ["--web", web]
    arguments += ["--allow-remote"] if allow_remote else []
    arguments += [word for name in names for word in ("--name", name)]
    process = subprocess.Popen(
        [sys.executable, "-m", "export.observer", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[box.fd],
        start_new_session=True,
    )  # fmt: skip
    observer = Observer(process)
    try:
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


@contextlib.contextmanager
def ghosted(box: BlackBox, directory: Path | None, web: str, allow_remote: bool = False) -> Iterator[None]:
    """Has the robot's pose shown in 3D by another process, which the page links to once it is there.

    Args:
        box: Of the run.
        directory: Where the robot's model files lie.
        web: [HOST:]PORT of the page; the 3D view is reached where the page is, at a port of its own.
        allow_remote: Whether that may be reached from other machines.

    Raises:
        ToolkitError: What it needs is not installed, or the page's address is not legal.
    """
    for module in ("mujoco", "viser", "mjviser"):
        if importlib.util.find_spec(module) is None:
            raise ObserverError(f"--ghost needs {module}: pip install 'gcl-toolkit[train,web]'")
    host, _ = parse_listen(web, allow_remote)
    arguments = ["--fd", str(box.fd), "--web", f"[{host}]:0" if ":" in host else f"{host}:0"]
    arguments += ["--allow-remote"] if allow_remote else []
    arguments += [] if directory is None else ["--directory", str(directory)]
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.ghost", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[box.fd],
        start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5.0)
        process.kill()
        process.wait()
