"""`gcl estop`: be the emergency stop of a robot that runs."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from pathlib import Path

import click

_PERIOD = 0.05  # [s] between heartbeats
_PRESSED_SECONDS = 1.0  # [s] for which a press is repeated: datagrams get lost


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), help="File of 16 to 64 bytes that the robot has."
)
def command(address: str, key: Path) -> None:
    """Be the emergency stop of a robot that runs.

    Says twenty times a second that all is well, to a `gcl deploy --estop HOST:PORT --key FILE`. Enter, Ctrl-C, closing
    the terminal, or losing the network stops the robot; it stays stopped until it is started anew.

    \b
    Example:
      head -c 32 /dev/urandom > robot.key
      gcl estop 127.0.0.1:9880 --key robot.key
    """
    from export.estop import heartbeat
    from robots.address import parse_address
    from robots.spec import ToolkitError

    try:
        secret = key.read_bytes()
    except OSError as error:
        raise ToolkitError(f"{key}: cannot be read: {error.strerror or error}") from error
    if not 16 <= len(secret) <= 64:
        raise ToolkitError(f"{key}: {len(secret)} bytes; legal are 16 to 64")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(parse_address(address))
        click.echo(f"all is well, says this to {address}; press Enter to stop the robot")
        try:
            _until_pressed(sock, secret)
        finally:
            end = time.monotonic() + _PRESSED_SECONDS
            while time.monotonic() < end:
                _send(sock, heartbeat(time.time_ns(), True, secret))
                time.sleep(_PERIOD)
            click.echo("stopped")


def _until_pressed(sock: socket.socket, key: bytes) -> None:
    from export.estop import heartbeat

    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        try:
            while not selector.select(_PERIOD):
                _send(sock, heartbeat(time.time_ns(), False, key))
        except KeyboardInterrupt:
            return
        os.read(sys.stdin.fileno(), 4096)  # a line, or the end of the terminal: both mean stop


def _send(sock: socket.socket, datagram: bytes) -> None:
    try:
        sock.send(datagram)
    except ConnectionRefusedError:
        return  # the robot's controller is not there yet, or no more: nobody to stop
