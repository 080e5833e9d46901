"""How `gcl deploy` gets at a robot: through a guardian process that owns it, or over the network to one elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import robots
from robots.backend import Backend, BackendError
from robots.spec import RobotSpec

_START_SECONDS = 60.0  # [s] a simulator may take to compile its model on a slow machine
_MOST_LINES = 20  # of what a guardian said that are told, the last ones


@dataclass(frozen=True)
class LinkOptions:
    """Which robot, and how to reach it."""

    backend: str  # "udp", or one of `robots.open_backend.BACKENDS`
    address: str | None  # HOST:PORT, for udp
    allow_remote: bool
    key: bytes  # shared with the robot's side over udp; empty for none
    hardware: Path | None  # the file that says how this very robot is wired
    driver_python: Path | None  # interpreter that runs the driver; None for this one
    directory: Path | None  # where the robot's model files lie
    seed: int  # how a simulated robot's or the mock's episode begins
    events: Path  # what made the guardian act is written here
    realtime: bool
    controller_cpu: int | None  # core that the controller keeps to and its guardian leaves to it
    read_only: bool = False  # the guardian passes no command on


@contextlib.contextmanager
def open_link(spec: RobotSpec, options: LinkOptions, failures: list[str] | None = None) -> Iterator[Backend]:
    """Reaches the robot; it is let go of, and a guardian that was started has ended, when the context ends.

    What the guardian said meanwhile is told then, on standard error.

    Args:
        spec: The robot.
        options: Which and how.
        failures: Gets a line when the guardian did not end well.

    Yields:
        The robot, for a loop in real time.

    Raises:
        BackendError: The options contradict each other, or the robot cannot be reached.
    """
    from robots.udp import UdpBackend

    if (options.backend == "udp") != (options.address is not None):
        raise BackendError(
            "--address HOST:PORT is needed for --backend udp"
            if options.backend == "udp"
            else "--address is for --backend udp"
        )
    if options.address is not None:
        if options.allow_remote and not options.key:
            raise BackendError("--allow-remote needs --key FILE, which the robot's side has too: anyone could drive it")
        with UdpBackend(
            spec, options.address, allow_remote=options.allow_remote, key=options.key, real_time=True
        ) as backend:
            yield backend
    elif options.backend == "mock":
        from robots.mock import MockBackend

        with MockBackend(spec, options.seed) as backend:
            yield backend
    else:
        key = secrets.token_bytes(32)
        with (
            _guardian(spec, options, key, failures if failures is not None else []) as address,
            UdpBackend(spec, address, key=key, real_time=True) as backend,
        ):
            yield backend


@contextlib.contextmanager
def _guardian(spec: RobotSpec, options: LinkOptions, key: bytes, failures: list[str]) -> Iterator[str]:
    """A guardian with the robot, as a process of its own; yields its address. It ends when its input closes."""
    if options.backend == "sim":
        if importlib.util.find_spec("mujoco") is None:
            raise ModuleNotFoundError("mujoco is not installed", name="mujoco")
        if options.directory is None and ":" not in spec.mjcf:
            raise BackendError(
                f"the model file {spec.mjcf} of {spec.name} is not in the bundle: tell where with --robot robot.yaml"
            )
    with tempfile.TemporaryDirectory(prefix="gcl-deploy-") as folder:
        description, errors = Path(folder) / "robot.json", Path(folder) / "stderr.txt"
        description.write_text(json.dumps(spec.to_dict()), encoding="utf-8")
        arguments = [
            "--robot", str(description), "--directory", str(options.directory or folder), "--backend", options.backend,
            "--seed", str(options.seed), "--events", str(options.events.absolute()), "--key-on-stdin",
            *([] if options.hardware is None else ["--hardware", str(options.hardware.absolute())]),
            *(["--realtime"] if options.realtime else []), *(["--read-only"] if options.read_only else []),
            *([] if options.controller_cpu is None else ["--leave-cpu", str(options.controller_cpu)]),
        ]  # fmt: skip
        with open(errors, "wb") as stderr:
            # Its own session: Ctrl-C is for the controller, which still needs the robot while it stops softly.
            process = subprocess.Popen(
                [str(options.driver_python or sys.executable), "-m", "export.guardian", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
                env={**os.environ, "PYTHONPATH": _python_path()},
            )  # fmt: skip
        address = ""
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended already; what it said is told below
                process.stdin.write(key.hex().encode() + b"\n")
                process.stdin.flush()
            address = _address(process, errors)
            yield address
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.communicate()
            if address:  # else why it did not start is told by that error
                _tell_end(process.returncode, errors, failures)


def _tell_end(code: int, errors: Path, failures: list[str]) -> None:
    """Tells what the guardian said, such as what its driver noticed, and how it ended if that was not well."""
    lines = _lines(errors)
    if code != 0:
        why = lines.pop() if lines else "it did not say why"
        failures.append(f"the guardian ended with exit code {code}: {why}")
    for line in lines[-_MOST_LINES:]:
        click.echo(f"gcl: guardian: {line.removeprefix('guardian: ')}", err=True)
    for failure in failures:
        click.echo(f"gcl: {failure}", err=True)


def _python_path() -> str:
    """Where another interpreter finds our packages, before whatever it was told already."""
    ours = str(Path(robots.__file__).parents[1])
    return os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])


def _address(process: subprocess.Popen[bytes], errors: Path) -> str:
    """HOST:PORT, once the guardian is ready."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(_START_SECONDS) else b""
    try:
        ready = json.loads(line)
        return f"{ready['host']}:{ready['port']}"
    except (ValueError, KeyError, TypeError) as error:
        process.kill()
        process.wait()
        raise BackendError(
            f"the robot's guardian did not start: {(_lines(errors) or [f'it said {line!r}'])[-1]}"
        ) from error


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
