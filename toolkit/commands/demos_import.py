"""`gcl demos import`: an exported store, or what a robot did under a policy, becomes a demo store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.commands.recovery import tell_recovery

if TYPE_CHECKING:
    from demos.flight import FlightEpisode
    from demos.store import DemoStore, Entry
    from robots.spec import RobotSpec


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The store, as an option instead of an argument.")
@click.option("--robot", help="The robot.yaml of a robot of your own, so that a new store finds its model.")
@click.option("--exclude/--include", default=None, help="Learn from a flight or not; default: not after a fault.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(
    file: Path, store: Path | None, out: Path | None, robot: str | None, exclude: bool | None, as_json: bool
) -> None:
    """Make a store of an .npz file that `export` wrote, or add a flight log to one.

    A flight log is what a robot did under a policy, as `gcl deploy` wrote it. It becomes one episode of a store of that
    robot, which is made if it is not there: its longest stretch without a gap. What the store has already is not added
    again; --exclude and --include then say whether it is learned from.

    \b
    Examples:
      gcl demos import my_demos.npz copy.zarr
      gcl demos import runs/flight/flight.npz --out flights.zarr
      gcl demos import flight.npz flights.zarr --robot my_arm/robot.yaml
    """
    from demos.flight import is_flight
    from robots.robot_yaml import load_robot

    if (store is None) == (out is None):
        raise click.UsageError("say once into which store: gcl demos import FILE STORE")
    target = store or out
    assert target is not None
    known = None if robot is None else load_robot(robot)
    if is_flight(file):
        about = _import_flight(file, target, known, exclude)
    elif exclude is not None:
        raise click.UsageError("--exclude and --include are for flight logs; an export knows what it excludes")
    else:
        about = _import_export(file, target, known)
    if as_json:
        click.echo(json.dumps(about))
        return
    for remark in about.get("remarks", []):
        click.echo(f"{file}: {remark}", err=True)
    click.echo(f"{target}: {about['n_episodes']} episodes" + _told(about))


def _import_export(file: Path, store: Path, robot: RobotSpec | None) -> dict[str, Any]:
    from demos.convert import import_npz

    with import_npz(file, store, robot) as made:
        return {"store": str(store), **made.identity()}


def _import_flight(file: Path, store: Path, robot: RobotSpec | None, exclude: bool | None) -> dict[str, Any]:
    from demos.flight import flight_episode, read_flight
    from demos.schema import with_model_of
    from demos.store import DemoStore, Entry

    flight = read_flight(file)
    found: FlightEpisode = flight_episode(flight, file.name)
    entry = Entry(found.episode, exclude, found.note)
    spec = flight.spec if robot is None else with_model_of(file, flight.spec, robot)
    remarks = list(found.remarks)
    new = not store.exists()
    target = DemoStore.create(store, spec, "import:flight", [entry]) if new else DemoStore.open(store, spec, mode="a")
    with target:
        tell_recovery(target)
        if robot is not None and not new and target.spec.directory is None:
            remarks.append(f"{store} was made without --robot and goes on without a way to the model")
        index = 0 if new else _put(target, entry, remarks)
        excluded = index in target.identity()["excluded"]
        return {
            "store": str(store), **target.identity(), "index": index, "length": found.episode.length,
            "ended_by": found.episode.ended_by, "excluded_this": excluded, "note": found.note,
            "remarks": remarks,
        }  # fmt: skip


def _put(store: DemoStore, entry: Entry, remarks: list[str]) -> int:
    """Adds a flight unless the store has it; returns where it is."""
    digests, digest = store.digests(), entry.episode.sha256
    if digest not in digests:
        return store.append(entry.episode, entry.excluded, entry.note)
    index = digests.index(digest)
    remarks.append(f"{store.path} has this flight already, as episode {index}: nothing was added")
    if entry.excluded is not None:
        store.exclude([index], entry.excluded)
    return index


def _told(about: dict[str, Any]) -> str:
    if "index" not in about:
        return ""
    kept = "excluded; --include learns from it" if about["excluded_this"] else "to be learned from"
    fault = f", fault {about['note']['fault']}" if about["note"]["fault"] else ""
    return f"; episode {about['index']}: {about['length']} steps{fault}, {kept}"
