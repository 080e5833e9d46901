"""`gcl bench start`: how soon after it is called `gcl deploy` moves the robot."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

_DEADLINE = 60.0  # [s]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="How often to start it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def start(bundle: Path, runs: int, as_json: bool) -> None:
    """Seconds from calling `gcl deploy` to the first command that reaches a robot.

    The robot is a mock in this process, at the other end of a UDP cable. Hashes, parity vectors and inference are
    checked on the way as always.

    \b
    Example:
      gcl bench start first.bundle
    """
    from export.bundle import read_bundle

    spec = read_bundle(bundle).spec
    seconds = [_first_command(bundle, spec) for _ in range(runs)]
    result = {"seconds": seconds, "median": statistics.median(seconds), "most": max(seconds)}
    if as_json:
        click.echo(json.dumps(result))
    else:
        each = ", ".join(f"{value:.2f}" for value in seconds)
        click.echo(f"first command after {result['median']:.2f} s (median of {runs}: {each})")


def _first_command(bundle: Path, spec: object) -> float:
    from robots.datagram import COMMAND, decode, spec_mark
    from robots.mock import MockBackend
    from robots.server import RobotServer
    from robots.spec import RobotSpec, ToolkitError

    assert isinstance(spec, RobotSpec)
    server, mark = RobotServer(MockBackend(spec)), spec_mark(spec)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.2)
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        called = time.monotonic()
        process = subprocess.Popen(
            [
                sys.executable, "-c", "from toolkit.cli import main; main()", "deploy", str(bundle), "--backend", "udp",
                "--address", address, "--seconds", "0.1",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        first = None
        while process.poll() is None and time.monotonic() - called < _DEADLINE:
            try:
                datagram, peer = sock.recvfrom(65_535)
            except TimeoutError:
                continue
            message = decode(datagram, mark)
            if first is None and message is not None and message.kind == COMMAND:
                first = time.monotonic() - called
            answer = server.answer(datagram, peer)
            if answer is not None:
                sock.sendto(answer, peer)
        process.kill()
        process.wait()
    if first is None:
        raise ToolkitError(f"gcl deploy {bundle} sent no command; try it by hand")
    return first
