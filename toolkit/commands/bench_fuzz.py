"""`gcl bench fuzz`: hostile packets to the drivers, and an oracle that says what may come of each."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from robots.spec import RobotSpec

DRIVERS = ("socket", "dds", "rtps")
_ROUND = 1000  # packets of one target before the next has its turn
_KEY = b"a key of the fuzzer, as good as any"


class Target(Protocol):
    """Something that hostile packets are thrown at."""

    counts: Counter[str]

    def some(self, count: int) -> tuple[int, int]:
        """Throws at least `count` packets; returns how many, and how many were legal or accepted."""
        ...


@click.command()
@click.option("--driver", "drivers", type=click.Choice(DRIVERS), multiple=True, help="Which.  [default: socket, dds]")
@click.option("--packets", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="To each driver.")
@click.option("--robot", default="cheetah", show_default=True, help="A robot all of whose channels are joints'.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed makes the same packets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fuzz(drivers: tuple[str, ...], packets: int, robot: str, seed: int, as_json: bool) -> None:
    """Throw hostile packets at the drivers; exit 1 if one of them did what it must not.

    socket: datagrams to the robot's end and to the controller's, with a checksum and with a key. dds: joint states of
    ROS 2. rtps: raw bytes to the UDP ports of a ROS 2 driver that runs meanwhile, in a process of its own.

    \b
    Examples:
      gcl bench fuzz --packets 10000000
      gcl bench fuzz --driver rtps --packets 200000
    """
    from robots.robot_yaml import load_robot
    from toolkit.fuzzing.datagram_oracle import ViolationError

    spec = load_robot(robot)
    result: dict[str, Any] = {"seed": seed}
    failed = False
    for driver in drivers or ("socket", "dds"):
        started = time.perf_counter()
        tally = Counter[str]()
        row: dict[str, Any] = {"violation": None}
        targets: list[Target] = []
        try:
            # A target that ends badly says more than the packet that found it dead
            try:
                targets = _targets(driver, spec, seed)
                _throw(driver, targets, packets, tally, quiet=as_json)
            finally:
                _end(targets)
        except ViolationError as violation:
            row["violation"], failed = str(violation), True
        seconds = time.perf_counter() - started
        counts = sum((target.counts for target in targets), Counter[str]())
        row |= {**tally, "packets_per_s": tally["packets"] / seconds, "seconds": seconds, "counts": dict(counts)}
        result[driver] = row
        if not as_json:
            _print(driver, row)
    if as_json:
        click.echo(json.dumps(result))
    sys.exit(1 if failed else 0)


def _targets(driver: str, spec: RobotSpec, seed: int) -> list[Target]:
    if driver == "dds":
        from toolkit.fuzzing.joint_states import JointStateTarget

        return [JointStateTarget(spec, seed)]
    if driver == "rtps":
        try:
            from toolkit.fuzzing.rtps_target import RtpsTarget
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error.name} is not installed: pip install 'gcl-toolkit[ros2]'") from error
        return [RtpsTarget(spec, seed)]
    from toolkit.fuzzing.socket_target import ControllerTarget, ServerTarget

    keys = (b"", _KEY)
    servers = [ServerTarget(spec, seed + i, key) for i, key in enumerate(keys)]
    waits = [(key, real_time) for key in keys for real_time in (False, True)]
    return [*servers, *(ControllerTarget(spec, seed + i, key, wait) for i, (key, wait) in enumerate(waits))]


def _throw(driver: str, targets: list[Target], packets: int, tally: Counter[str], quiet: bool) -> None:
    """Lets all targets have their turns until `packets` were thrown."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet) as progress:
        task = progress.add_task(driver, total=packets, now="")
        started = time.perf_counter()
        while tally["packets"] < packets:
            for target in targets:
                thrown, accepted = target.some(min(_ROUND, packets - tally["packets"]))
                tally.update(packets=thrown, accepted=accepted, refused=thrown - accepted)
                if tally["packets"] >= packets:
                    break
            rate = tally["packets"] / (time.perf_counter() - started)
            now = f"{rate:,.0f}/s, accepted {tally['accepted']:,}, refused {tally['refused']:,}"
            progress.update(task, completed=min(tally["packets"], packets), now=now)


def _end(targets: list[Target]) -> None:
    for target in targets:
        close = getattr(target, "close", None)
        if close is not None:
            close()


def _print(driver: str, row: dict[str, Any]) -> None:
    click.echo(
        f"{driver}: {row.get('packets', 0):,} packets in {row['seconds']:.0f} s ({row['packets_per_s']:,.0f}/s), "
        f"accepted {row.get('accepted', 0):,}, refused {row.get('refused', 0):,}"
    )
    for what, count in sorted(row["counts"].items()):
        click.echo(f"  {what}: {count:,}")
    click.echo(f"  VIOLATION: {row['violation']}" if row["violation"] else "  nothing that must not happen happened")
