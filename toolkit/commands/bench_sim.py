"""`gcl bench sim`: batched simulation beside bare mujoco.rollout and EnvPool, in alternating rounds of one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from robots.batch import BatchSim

Round = Callable[[], float]  # runs once, returns its seconds


@click.command()
@click.option("--robots", default="cheetah", show_default=True, help="Names or paths, separated by commas.")
@click.option("--envs", type=click.IntRange(min=1), default=256, show_default=True, help="Environments side by side.")
@click.option("--steps", type=click.IntRange(min=1), default=100, show_default=True, help="Control steps of a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of each.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=None, help="Of each.  [default: all this process may use]"
)
@click.option("--rival", type=click.Choice(["envpool"]), default=None, help="Installed into runs/rivals/ on first use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sim(robots: str, envs: int, steps: int, rounds: int, threads: int | None, rival: str | None, as_json: bool) -> None:
    """Batched simulation, with observations and resets, against bare mujoco.rollout and EnvPool.

    They run in turn. A ratio is the median over rounds of adjacent ones, since a machine has faster and slower minutes;
    a rate is that of the fastest round.

    \b
    Examples:
      gcl bench sim --robots cheetah,walker,humanoid
      gcl bench sim --robots cheetah,walker,humanoid --rival envpool
    """
    from robots.processors import available_cpus

    threads = threads or available_cpus()
    rows = [_compare(robot, envs, steps, rounds, threads, rival) for robot in robots.split(",")]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _print(rows)


def _compare(robot: str, envs: int, steps: int, rounds: int, threads: int, rival: str | None) -> dict[str, Any]:
    """Rates and ratios of one robot."""
    import numpy as np

    from robots.batch import BatchSim
    from robots.robot_yaml import load_robot

    spec = load_robot(robot)
    batch = BatchSim(spec, envs, seed=0, num_threads=threads, reset_pool=256)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (steps, envs, spec.act_dim))
    with ExitStack() as stack:
        stack.callback(batch.close)
        sides: dict[str, Round] = {"gcl": lambda: our_round(batch, actions)}
        sides["rollout"] = lambda: bare_round(batch, actions, threads)
        if rival is not None:
            from toolkit.commands.rival_envpool import EnvPoolRival

            sides[rival] = stack.enter_context(EnvPoolRival(spec, envs, steps, threads)).round
        seconds = alternate(sides, rounds)
    result: dict[str, Any] = {"robot": spec.name, "envs": envs, "threads": threads, "steps_per_s": {}, "ratio": {}}
    for name, times in seconds.items():
        result["steps_per_s"][name] = envs * steps / min(times)
        if name != "gcl":
            result["ratio"][name] = median_ratio(seconds["gcl"], times)
    return result


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    rivals = list(rows[0]["ratio"])
    table = Table("robot", box=None, pad_edge=False)
    for column in ("environments", "threads", "control steps/s", *(f"of {name}" for name in rivals)):
        table.add_column(column, justify="right")
    for row in rows:
        beside = [f"{row['ratio'][name]:.2f} ({row['steps_per_s'][name]:,.0f}/s)" for name in rivals]
        table.add_row(row["robot"], str(row["envs"]), str(row["threads"]), f"{row['steps_per_s']['gcl']:,.0f}", *beside)
    Console().print(table)


def alternate(sides: dict[str, Round], rounds: int) -> dict[str, list[float]]:
    """Runs all sides in turn, `rounds` times, after one round of each that does not count.

    Args:
        sides: Name and what to run.
        rounds: How many counted rounds.

    Returns:
        Name and [rounds] seconds; entry i of all sides were measured next to one another.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, run in sides.items():
            taken = run()
            if i:
                seconds[name].append(taken)
    return seconds


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times as fast as theirs ours is: the median of theirs / ours, round by round.

    Args:
        ours: [rounds] seconds.
        theirs: [rounds] seconds of the adjacent rounds.

    Returns:
        The ratio; above 1 ours is faster.
    """
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def our_round(batch: BatchSim, actions: np.ndarray) -> float:
    """Seconds of stepping with observations and automatic resets.

    Args:
        batch: The simulator; reset first, which is not counted.
        actions: [T, B, act_dim].

    Returns:
        Seconds of T steps.
    """
    batch.reset()
    started = time.perf_counter()
    for action in actions:
        batch.step(action)
    return time.perf_counter() - started


def bare_round(batch: BatchSim, actions: np.ndarray, threads: int) -> float:
    """Seconds that mujoco.rollout takes for as many steps with nothing around it, neither observation nor reset.

    Args:
        batch: Whose model and whose beginnings; reset first.
        actions: [T, B, act_dim], taken as ctrl, which they are in range and number for dm_control's robots.
        threads: Of the rollout.

    Returns:
        Seconds of T steps.
    """
    import mujoco
    import numpy as np
    from mujoco import rollout

    batch.reset()
    model, count, now = batch.model, batch.num_envs, batch.physics_state.copy()
    data = [mujoco.MjData(model) for _ in range(threads)]
    control = np.zeros((count, batch.n_substeps, model.nu))
    trajectory = np.empty((count, batch.n_substeps, now.shape[1]))
    models = [model] * count
    with rollout.Rollout(nthread=threads if threads > 1 else 0) as pool:
        started = time.perf_counter()
        for action in actions:
            control[:, :, : action.shape[1]] = action[:, None]
            pool.rollout(models, data, now, control, skip_checks=True, nstep=batch.n_substeps, state=trajectory)
            now = trajectory[:, -1].copy()
        return time.perf_counter() - started
