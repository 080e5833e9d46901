"""`gcl estop`: be the emergency stop of a robot that runs."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from export.estop import EStopButton

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
    from export.estop import EStopButton, EStopError
    from toolkit.commands.deploy_choices import read_key

    try:
        opened = EStopButton(address, read_key(key))
    except EStopError as error:
        raise EStopError(f"{key}: {error}") from error
    with contextlib.closing(opened) as button:
        click.echo(f"all is well, says this to {address}; press Enter to stop the robot")
        try:
            _until_pressed(button)
        finally:
            end = time.monotonic() + _PRESSED_SECONDS
            while time.monotonic() < end:
                button.listen()
                button.say(pressed=True)
                time.sleep(_PERIOD)
            click.echo("stopped")


def _until_pressed(button: EStopButton) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(button, selectors.EVENT_READ)
        due = time.monotonic()
        try:
            while True:
                ready = selector.select(max(due - time.monotonic(), 0.0))
                if any(key.fileobj is not button for key, _ in ready):
                    break
                # A robot that has just begun to listen told its nonce: it waits for a heartbeat with that
                if button.listen() or time.monotonic() >= due:
                    button.say(pressed=False)
                    due = time.monotonic() + _PERIOD
        except KeyboardInterrupt:
            return
        os.read(sys.stdin.fileno(), 4096)  # a line, or the end of the terminal: both mean stop
