"""`gcl demos`: list, show, check, replay, exclude, copy, export and import recorded demonstrations."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robots.spec import ToolkitError
from toolkit.commands.demos_check import check
from toolkit.commands.demos_import import import_
from toolkit.commands.recovery import tell_recovery
from toolkit.console import print_facts, print_rows, shown

if TYPE_CHECKING:
    from demos.episode import Episode
    from demos.replay import Replay
    from demos.store import DemoStore
    from demos.store_reader import EpisodeInfo
    from robots.spec import RobotSpec

_SAME_START = 1e-6  # a replay that begins further off began elsewhere
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_STORE = click.argument("store", type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """List, show, check and replay recorded demonstrations.

    \b
    Examples:
      gcl demos list my_demos.zarr
      gcl demos check my_demos.zarr
    """


@command.command("list")
@click.argument("path", type=click.Path(path_type=Path), default=".")
@_JSON
def list_(path: Path, as_json: bool) -> None:
    """List the stores under a folder, or the episodes of one store.

    \b
    Example:
      gcl demos list my_demos.zarr
    """
    from demos.store import DemoStore

    # Anything with a root key was meant as a store, and not being one is worth an error
    if path.suffix == ".zarr" or (path / "zarr.json").exists():
        rows = [_episode_row(info, as_json) for info in DemoStore.open(path).table()]
    elif path.is_dir():
        found = sorted(file.parent for file in path.rglob("*.zarr/zarr.json"))
        rows = [_store_row(folder) for folder in found]
    else:
        raise ToolkitError(f"{path}: neither a store nor a folder with stores in it")
    print_rows(rows, as_json, empty=f"{path}: nothing recorded there yet")


@command.command()
@_STORE
@click.option("--plot", type=click.Path(path_type=Path), help="Draw actions and rewards into this .png.")
@_JSON
def show(store: Path, plot: Path | None, as_json: bool) -> None:
    """Show what a store holds: robot, origin, sizes, ranges.

    \b
    Example:
      gcl demos show my_demos.zarr --plot my_demos.png
    """
    from demos.store import DemoStore

    opened = DemoStore.open(store)
    about = _about(opened)
    if plot is not None:
        from toolkit.plot_demos import plot_demos

        about["plot"] = str(plot_demos(opened, plot))
    if as_json:
        click.echo(json.dumps(about))
    else:
        print_facts(about)


@command.command()
@_STORE
@click.argument("episode", type=int)
@click.option("--tolerance", type=float, default=1e-3, show_default=True, help="Deviation to report the first step of.")
@_JSON
@click.pass_context
def replay(ctx: click.Context, store: Path, episode: int, tolerance: float, as_json: bool) -> None:
    """Take an episode's actions again in the simulator, from its seed.

    Exit code 1 if the simulator does not even begin where the recording did. A deviation that grows from nothing is
    chaos: contacts magnify the last bit, in which two machines or two versions may differ.

    \b
    Example:
      gcl demos replay my_demos.zarr 0
    """
    from demos.store import DemoStore

    opened = DemoStore.open(store)
    recorded = opened.select([episode])[0]
    kind, result = _replayed(recorded, opened.spec)
    same_start = bool(result.deviation[0] <= _SAME_START)
    row = {
        "episode": episode,
        "simulator": kind,
        "steps": len(result.deviation) - 1,
        "recorded_steps": recorded.length,
        "same_start": same_start,
        "deviation_at_start": float(result.deviation[0]),
        "deviation_at_most": float(result.deviation.max()),
        "worst_element": opened.spec.observation_names[result.worst_element],
        "first_step_beyond": result.first_beyond(tolerance),
        "tolerance": tolerance,
        "return": _number(result.return_),
        "recorded_return": _number(result.recorded_return),
    }
    if as_json:
        click.echo(json.dumps(row))
    else:
        print_facts(row)
        if not same_start:
            click.echo(f"seed {recorded.seed} begins elsewhere: recorded on something else than {kind}", err=True)
    ctx.exit(0 if same_start else 1)


@command.command()
@_STORE
@click.argument("episodes", type=int, nargs=-1, required=True)
@click.option("--include", is_flag=True, help="Let them back in.")
@_JSON
def exclude(store: Path, episodes: tuple[int, ...], include: bool, as_json: bool) -> None:
    """Keep episodes from being learned from. Nothing is deleted.

    \b
    Example:
      gcl demos exclude my_demos.zarr 3 7
      gcl demos exclude my_demos.zarr 3 --include
    """
    from demos.store import DemoStore

    with DemoStore.open(store, mode="a") as opened:
        tell_recovery(opened)
        opened.exclude(episodes, excluded=not include)
        excluded, count = opened.identity()["excluded"], opened.n_episodes
    if as_json:
        click.echo(json.dumps({"store": str(store), "excluded": excluded}))
    else:
        click.echo(f"{store}: {len(excluded)} of {count} episodes excluded: {shown(excluded)}")


@command.command()
@_STORE
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format", "kind", type=click.Choice(["npz", "zarr2"]), help="Default: npz for a name ending so, else zarr2."
)
@_JSON
def export(store: Path, out: Path, kind: str | None, as_json: bool) -> None:
    """Write a store in another format: one .npz file, or Zarr format 2.

    \b
    Example:
      gcl demos export my_demos.zarr my_demos.npz
    """
    from demos.convert import export_npz, export_zarr2
    from demos.store import DemoStore

    kind = kind or ("npz" if out.suffix == ".npz" else "zarr2")
    {"npz": export_npz, "zarr2": export_zarr2}[kind](DemoStore.open(store), out)
    click.echo(json.dumps({"store": str(store), "out": str(out), "format": kind}) if as_json else f"{out}: written")


@command.command()
@_STORE
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("episodes", type=int, nargs=-1)
@click.option("--without-actions", is_flag=True, help="Keep observations only, as if nobody knew the actions.")
@click.option(
    "--trim", is_flag=True, help="Cut off the ends in which nothing happened: `gcl demos check` tells of them."
)
@_JSON
def copy(store: Path, out: Path, episodes: tuple[int, ...], without_actions: bool, trim: bool, as_json: bool) -> None:
    """Copy episodes, all or those named, into another store of the same robot, which is made if it is not there.

    What is in a store already, by its digest, is not added again. Excluded episodes stay so, and notes go along. What
    --trim shortens has no true rewards any more: they would be those of another task.

    \b
    Examples:
      gcl demos copy my_demos.zarr mixed.zarr 0 1 2
      gcl demos copy my_demos.zarr trimmed.zarr --trim
    """
    from demos.convert import copy_episodes
    from demos.store import DemoStore

    opened = DemoStore.open(store)
    chosen = episodes or range(opened.n_episodes)
    copied = copy_episodes(opened, out, chosen, not without_actions, trim)
    with copied.store as made:
        tell_recovery(made)
        identity = made.identity()
    there, shortened = copied.there, copied.shortened
    if as_json:
        kept = {str(i): list(part) for i, part in shortened.items()}
        click.echo(json.dumps({"store": str(out), **identity, "skipped": there, "shortened": kept}))
        return
    were_there = f"; {len(there)} of {len(chosen)} were in it already: {shown(there)}" if there else ""
    click.echo(f"{out}: {identity['n_episodes']} episodes{were_there}")
    for i, (start, stop) in shortened.items():
        click.echo(f"  of episode {i} steps {start}-{stop - 1} are left")
    if trim and not shortened:
        click.echo("  nothing to cut: no episode is idle at its ends")


command.add_command(check)
command.add_command(import_)


def _replayed(episode: Episode, spec: RobotSpec) -> tuple[str, Replay]:
    """Replays in the simulators the robot has, and takes the one that begins where the recording did."""
    from demos.replay import replay as run
    from robots.sim import MujocoBackend

    if episode.seed < 0:
        raise ToolkitError("the episode has no seed: it was not recorded in a simulator, or its beginning was cut off")
    results: list[tuple[str, Replay]] = []
    if spec.task is not None:
        from robots.task import TaskEnv

        results.append((f"dm_control's own ({spec.task})", run(TaskEnv(spec, episode.seed), episode, spec)))
    if not results or results[0][1].deviation[0] > _SAME_START:
        with contextlib.closing(MujocoBackend(spec, episode.seed)) as backend:
            results.append(("the robot's simulator", run(backend, episode, spec)))
    return min(results, key=lambda result: result[1].deviation[0])


def _about(store: DemoStore) -> dict[str, Any]:
    rows, attributes = store.table(), store.attributes
    learned = [info for info in rows if not info.excluded]
    returns = [info.return_ for info in learned if not math.isnan(info.return_)]
    return {
        "store": str(store.path),
        "robot": store.spec.name,
        "task": attributes["tasks"],
        "operators": attributes["operators"],
        "source": attributes["source"],
        "control_dt": store.spec.control_dt,
        "episodes": store.n_episodes,
        "excluded": [info.index for info in rows if info.excluded],
        "steps": store.n_steps,
        "seconds": round(store.n_steps * store.spec.control_dt, 6),
        "mean_return": sum(returns) / len(returns) if returns else None,
        "created_utc": attributes["created_utc"],
        "schema_version": attributes["schema_version"],
        "toolkit_version": attributes["toolkit_version"],
        "spec_sha256": store.spec_sha256,
        "chain_sha256": store.chain_sha256,
        **({"notes": attributes["notes"]} if "notes" in attributes else {}),
    }


def _episode_row(info: EpisodeInfo, complete: bool) -> dict[str, Any]:
    """What there is to know, or what fits on a line."""
    started = datetime.datetime.fromtimestamp(info.start_time_ns * 1e-9, datetime.UTC)
    row: dict[str, Any] = dataclasses.asdict(info) | {"started_utc": started.isoformat(timespec="seconds")}
    row["return"] = _number(info.return_)
    del row["return_"]
    columns = ("index", "length", "return", "seed", "operator", "ended_by", "success", "excluded", "started_utc")
    return row if complete else {name: row[name] for name in columns}


def _store_row(path: Path) -> dict[str, Any]:
    from demos.store import DemoStore

    try:
        about = _about(DemoStore.open(path))
    except ToolkitError as error:
        return {
            "store": str(path),
            "robot": None,
            "episodes": None,
            "steps": None,
            "mean_return": None,
            "problem": str(error),
        }
    return {key: about[key] for key in ("store", "robot", "episodes", "steps", "mean_return")} | {"problem": None}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
