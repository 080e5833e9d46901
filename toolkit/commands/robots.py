"""`gcl robots`: list, show and check robot descriptions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robots.robot_yaml import load_robot, robot_names

if TYPE_CHECKING:
    from robots.spec import RobotSpec

_BEGINNINGS = 16  # that are tried
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """List, show and check robot descriptions.

    A robot is one robot.yaml: a model file, what is measured, what is commanded, how episodes begin.

    \b
    Examples:
      gcl robots list
      gcl robots show cheetah
      gcl robots check my_robot/robot.yaml
    """


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """List the robots that ship with gcl.

    \b
    Example:
      gcl robots list
    """
    specs = [load_robot(name) for name in robot_names()]
    rows = [
        {
            "name": spec.name,
            "obs_dim": spec.obs_dim,
            "act_dim": spec.act_dim,
            "control_hz": round(1.0 / spec.control_dt, 6),
            "episode_seconds": spec.episode_seconds,
            "task": spec.task,
            "description": spec.description,
        }
        for spec in specs
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("robot", box=None, pad_edge=False)
    for column in ("observation", "action", "rate [Hz]", "episode [s]"):
        table.add_column(column, justify="right")
    table.add_column("what it is")
    for row in rows:
        table.add_row(
            row["name"], str(row["obs_dim"]), str(row["act_dim"]), f"{row['control_hz']:g}",
            f"{row['episode_seconds']:g}", row["description"],
        )  # fmt: skip
    Console().print(table)


@command.command()
@click.argument("robot")
@_JSON
def show(robot: str, as_json: bool) -> None:
    """Show what ROBOT, a name or a path, measures and takes.

    \b
    Examples:
      gcl robots show cheetah
      gcl robots show my_robot/robot.yaml --json
    """
    spec = load_robot(robot)
    if as_json:
        click.echo(json.dumps(spec.to_dict() | {"sha256": spec.sha256}))
        return
    _print(spec, _facts(spec))


@command.command()
@click.argument("path")
@_JSON
def check(path: str, as_json: bool) -> None:
    """Check the robot at PATH, or of that name, against its model: compile it and look up every name.

    Exit code 2, and one line that says what is wrong and what is legal, if it does not fit.

    \b
    Examples:
      gcl robots check my_robot/robot.yaml
      gcl robots check cheetah --json
    """
    from robots.channels import unsaid_joints
    from robots.endless_joints import endless_angles
    from robots.model import compile_model, substeps

    spec = load_robot(path)
    model = compile_model(spec)
    facts = _facts(spec) | {
        "bodies": model.nbody - 1,
        "joints": model.njnt,
        "physics_dt": model.opt.timestep,
        "substeps": substeps(spec, model),
        "beginnings": _try_resets(spec),
    }
    endless, unsaid = endless_angles(spec, model), unsaid_joints(spec, model)
    if as_json:
        click.echo(json.dumps({"ok": True, "endless_angles": endless, "unsaid_joints": unsaid} | facts))
        return
    _print(spec, facts)
    click.echo(f"{spec.name}: every name is in the model, and episodes can begin")
    for name in endless:
        click.echo(
            f"note: {name} is the angle of a joint without limits, which counts turns; if it can turn round, observe "
            "it with transform: cos and transform: sin",
            err=True,
        )
    for actuator, joint in unsaid.items():
        click.echo(
            f"note: {actuator} moves the joint {joint}: say so, `joint: {joint}`, or the safety layer does not know "
            "where that drive stands",
            err=True,
        )


def _try_resets(spec: RobotSpec) -> int:
    """Draws a few beginnings, so that a reset that cannot work is found now and not in a training run."""
    from robots.batch import BatchSim

    BatchSim(spec, 1, num_threads=1, reset_pool=_BEGINNINGS).close()
    return _BEGINNINGS


def _facts(spec: RobotSpec) -> dict[str, Any]:
    return {
        "robot": spec.name,
        "description": spec.description,
        "sha256": spec.sha256,
        "model": spec.mjcf if spec.directory is None or ":" in spec.mjcf else str(Path(spec.directory) / spec.mjcf),
        "task": spec.task,
        "control_dt": spec.control_dt,
        "episode_seconds": spec.episode_seconds,
        "episode_steps": spec.episode_steps,
        "practice_steps": spec.practice_steps,
        "terminate": ", ".join(map(str, spec.terminate)) or "never",
        "obs_dim": spec.obs_dim,
        "act_dim": spec.act_dim,
    }


def _print(spec: RobotSpec, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for key, value in facts.items():
        # Not a table: it would cut the hash to the width of the terminal.
        click.echo(f"{key:<16}{f'{value:g}' if isinstance(value, float) else value}")
    observation = Table("observation", "unit", "from", title_justify="left", box=None, pad_edge=False)
    for term in spec.observation:
        how = "" if term.transform == "identity" else f"{term.transform} of "
        observation.add_row(escape(term.name), escape(term.unit), escape(how + ", ".join(term.channels)))
    console.print()
    console.print(observation)
    action = Table("actuator", "takes", "unit", box=None, pad_edge=False)
    for column in ("least", "greatest"):
        action.add_column(column, justify="right")
    for term in spec.action:
        row = dataclasses.asdict(term)
        action.add_row(
            *(escape(str(row[key])) for key in ("actuator", "kind", "unit")), f"{term.lower:g}", f"{term.upper:g}"
        )
    console.print()
    console.print(action)
