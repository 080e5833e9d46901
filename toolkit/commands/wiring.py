"""The live wiring check: shows what every channel measures while a person moves the robot, and moves nothing itself."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from robots.backend import Backend, BackendError
from robots.hardware import HardwareSpec, channel_sources
from robots.spec import RobotSpec
from toolkit.wiring_check import ChannelState, WiringCheck

if TYPE_CHECKING:
    from rich.table import Table

_SHOW_SECONDS = 0.1  # [s] between two pictures of the table
_BAR = 13  # characters
_COLOURS = {"OK": "green", "FROZEN": "red", "NaN": "red", "OUT OF LIMITS": "yellow"}
_WAYS = {1: "moved, first up", -1: "moved, first down", 0: "-"}


def show_wiring(
    backend: Backend, spec: RobotSpec, hardware: HardwareSpec | None, seconds: float | None, as_json: bool
) -> int:
    """Watches a robot that is not driven, until the time is up or Ctrl-C.

    Args:
        backend: The robot; only `measure` is called.
        spec: The robot as the bundle knows it.
        hardware: Its wiring; None for a robot without one, such as a simulator.
        seconds: [s] to watch; None for until Ctrl-C.
        as_json: Print only the summary, as one JSON object.

    Returns:
        Exit status: 0 if every channel was sound all the time and every joint was seen to move, else 1.

    Raises:
        BackendError: Nothing at all can be measured.
    """
    sources = ("-",) * len(spec.channels) if hardware is None else channel_sources(spec, hardware)
    check = WiringCheck(spec)
    begin = time.monotonic_ns()
    check.add(backend.measure(), time.monotonic_ns())
    try:
        if as_json:
            _watch(backend, check, seconds, _show_nothing)
        else:
            _watch_live(backend, check, seconds, sources)
    except KeyboardInterrupt:
        pass  # the person is done moving joints; what was seen till then is told
    now = time.monotonic_ns()
    problems = check.problems()
    if as_json:
        click.echo(json.dumps(_summary(check, sources, (now - begin) * 1e-9, now)))
    else:
        for problem in problems:
            click.echo(f"gcl: {problem}", err=True)
        if not problems:
            click.echo(f"every channel of {spec.name} is sound, and every joint moved; compare the directions above")
    return 1 if problems else 0


def _watch(backend: Backend, check: WiringCheck, seconds: float | None, show: Callable[[], None]) -> None:
    period = check.spec.control_dt
    begin = time.monotonic()
    wake = begin
    while seconds is None or time.monotonic() - begin < seconds:
        # Deadlines a period apart; after a slow answer from now on, for nobody is driven here
        wake = max(wake + period, time.monotonic())
        time.sleep(max(wake - time.monotonic(), 0.0))
        try:
            check.add(backend.measure(), time.monotonic_ns())
        except BackendError as error:
            check.failed(str(error))
            check.tick(time.monotonic_ns())
        show()


def _watch_live(backend: Backend, check: WiringCheck, seconds: float | None, sources: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    with Live(_table(check, sources), console=console, auto_refresh=False) as live:
        shown = time.monotonic()

        def show() -> None:
            nonlocal shown
            if time.monotonic() - shown >= _SHOW_SECONDS:
                live.update(_table(check, sources), refresh=True)
                shown = time.monotonic()

        try:
            _watch(backend, check, seconds, show)
        finally:
            live.update(_table(check, sources), refresh=True)
    if not console.is_terminal:
        console.print()  # where nothing is live, the table ends without a line break


def _show_nothing() -> None:
    pass


def _table(check: WiringCheck, sources: tuple[str, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    now = time.monotonic_ns()
    spec = check.spec
    table = Table(
        title=Text(
            f"{spec.name}: {check.rate_hz(now):.1f} readings/s of {1 / spec.control_dt:.1f}, "
            f"the newest {check.age_seconds(now) * 1e3:.0f} ms old"
        ),
        caption="Nothing is driven. Move each joint by hand, first in its positive direction; Ctrl-C ends.",
    )
    for heading in ("channel", "source", "unit"):
        table.add_column(heading, no_wrap=True)
    for heading in ("value", "least", "most"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=8)
    for heading in ("within its limits", "moved", "state"):
        table.add_column(heading, no_wrap=True)
    for source, state in zip(sources, check.states(), strict=True):
        table.add_row(
            Text(state.channel), Text(source), Text(state.unit),
            *(f"{number:+.3f}" for number in (state.value, state.low, state.high)),
            _bar(state), _WAYS[state.direction], Text(state.state, style=_COLOURS[state.state]),
        )  # fmt: skip
    for error in check.errors[-1:]:
        table.add_row(Text("lost", style="red"), Text(error, style="red"))
    return table


def _bar(state: ChannelState) -> str:
    """Where the value lies between its ends: "---o------"."""
    if state.lower is None or state.upper is None or not math.isfinite(state.value):
        return ""
    share = (state.value - state.lower) / (state.upper - state.lower)
    place = round(min(max(share, 0.0), 1.0) * (_BAR - 1))
    return "-" * place + "o" + "-" * (_BAR - 1 - place)


def _summary(check: WiringCheck, sources: tuple[str, ...], seconds: float, now: int) -> dict[str, object]:
    problems = check.problems()
    return {
        "robot": check.spec.name,
        "spec_sha256": check.spec.sha256,
        "ok": not problems,
        "seconds": seconds,
        "readings": check.readings,
        "rate_hz": check.rate_hz(now),
        "channels": [
            {
                "channel": state.channel, "source": source, "unit": state.unit, "value": _finite(state.value),
                "least": _finite(state.low), "most": _finite(state.high), "state": state.state,
                "moved": state.direction != 0, "first_direction": {1: "+", -1: "-", 0: None}[state.direction],
            }
            for source, state in zip(sources, check.states(), strict=True)
        ],
        "problems": problems,
    }  # fmt: skip


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None  # JSON has no NaN
