"""`gcl train`: learn the reward and the policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolkit.run import Run

_EVALUATIONS = 20  # per run, unless told otherwise


@click.command()
@click.option("--demos", type=click.Path(path_type=Path), help="Demo store to learn from.")
@click.option("--robot", help="Robot, for --objective task-reward; otherwise the store says which.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. Default: runs/<robot>-<time>.")
@click.option("--objective", help="gan-gcl (default), or task-reward to train an expert on the true reward.")
@click.option("--generator", help="ppo (default), or sac to need fewer steps of experience.")
@click.option("--segment", help="Steps per scored segment, or 'episode' for whole episodes.")
@click.option("--steps", type=int, help="Control steps of experience in total.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--device", help="cpu (default) or cuda.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="YAML with settings; unknown keys are errors."
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One setting, such as reward.alpha=0.03.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option(
    "--eval-every", type=int, help="Iterations between evaluations in dm_control; 0 for none. Default: 20 in all."
)
@click.option("--eval-episodes", type=int, default=3, show_default=True, help="Episodes of each evaluation.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and no progress bar.")
def command(demos: Path | None, robot: str | None, out: Path | None, resume: bool, **options: Any) -> None:
    """Learn the reward and the policy from demonstrations.

    Ctrl-C saves and stops; --resume goes on with the same numbers as if it had never stopped.

    \b
    Examples:
      gcl train --demos my_demos.zarr
      gcl train --demos my_demos.zarr --out runs/first --resume
      gcl train --objective task-reward --robot cheetah --out runs/expert
    """
    _check_folder(out, resume)
    run = prepare(demos, robot, out, options)
    if resume:
        run.resume()
    eval_every, eval_episodes = options["eval_every"], options["eval_episodes"]
    if run.trainer.spec.task is None:
        eval_every = 0
    elif eval_every is None:
        eval_every = max(1, run.trainer.iterations // _EVALUATIONS)
    evaluations = train_with_progress(run, eval_every, eval_episodes, quiet=options["as_json"])
    if len(evaluations) > 1:
        from toolkit.plot import plot_run

        plot_run(run.folder)
    result = {
        "run": str(run.folder),
        "iterations": run.trainer.iteration,
        "steps": run.trainer.steps,
        "seconds": run.seconds,
        "return": evaluations[-1]["mean"] if evaluations else None,
        "interrupted": run.interrupted,
    }
    if options["as_json"]:
        click.echo(json.dumps(result))
    else:
        ended = "stopped and saved" if run.interrupted else "done"
        click.echo(f"{ended}: {run.folder} ({run.trainer.steps:,} steps in {run.seconds:.0f} s)")
    if run.interrupted:
        raise SystemExit(130)


def prepare(demos: Path | None, robot: str | None, out: Path | None, options: dict[str, Any]) -> Run:
    """Turns command-line options into a Run.

    Args:
        demos: Demo store, or None to train an expert.
        robot: Robot name or path, for experts.
        out: Run folder, or None for a fresh one.
        options: The remaining options by name: config_file, settings, objective, generator, segment, steps, seed,
            device.

    Returns:
        The run, not started.

    Raises:
        ToolkitError: Anything the user can mend.
    """
    from demos.store import DemoStore
    from robots.robot_yaml import load_robot
    from toolkit.run import Run, new_folder
    from toolkit.trainer import Trainer, TrainingError

    config = _config(options)
    identity: dict[str, Any] = {}
    if config.objective == "task-reward":
        if robot is None or demos is not None:
            raise TrainingError("--objective task-reward needs --robot and takes no --demos")
        from robots.task import TaskReward

        spec = load_robot(robot)
        trainer = Trainer(spec, config, [], TaskReward(spec))
        episodes = []
    else:
        if demos is None:
            raise TrainingError(f"--objective {config.objective} needs --demos, the store to learn from")
        wanted = load_robot(robot) if robot is not None else None
        store = DemoStore.open(demos, wanted)
        spec, episodes = wanted or store.spec, store.episodes()
        identity = {**store.identity(), "path": str(demos)}
        trainer = Trainer(spec, config, episodes)
    return Run(out or new_folder(spec.name), trainer, identity, episodes)


def train_with_progress(run: Run, eval_every: int, eval_episodes: int, quiet: bool = False) -> list[dict[str, float]]:
    """Trains with a progress bar that shows the numbers that matter.

    Args:
        run: What to train.
        eval_every: Iterations between evaluations; 0 for none.
        eval_episodes: Episodes of each.
        quiet: No bar.

    Returns:
        Rows of `evaluations.csv`.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    trainer = run.trainer
    columns = [
        TextColumn("train"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    ]
    with Progress(*columns, disable=quiet) as progress:
        task = progress.add_task("train", total=trainer.iterations * trainer.steps_per_iteration, shown="")
        returned = ""

        def on_progress(trainer: Any, metrics: dict[str, float], evaluation: Any) -> None:
            nonlocal returned
            seconds = sum(value for name, value in metrics.items() if name.startswith("time/"))
            shown = f"{trainer.steps_per_iteration / seconds:,.0f}/s"
            if "reward/accuracy" in metrics:
                shown += f"  D {metrics['reward/accuracy']:.2f}"
            if "held_out/accuracy" in metrics:
                shown += f" held out {metrics['held_out/accuracy']:.2f}"
            shown += f"  std {metrics['policy/std']:.2f}"
            if evaluation is not None:
                returned = f"  return {evaluation.mean:.0f}"
                if not progress.console.is_terminal and not quiet:
                    click.echo(f"{trainer.steps:>10,} steps {run.seconds:6.0f} s {shown}{returned}")
            progress.update(task, completed=trainer.steps, shown=shown + returned)

        return run.train(on_progress, eval_every, eval_episodes)


def _check_folder(out: Path | None, resume: bool) -> None:
    """Refuses before the work of preparing a run begins."""
    from toolkit.checkpoint import FILE_NAME
    from toolkit.trainer import TrainingError

    there = out is not None and (out / FILE_NAME).exists()
    if resume and not there:
        raise TrainingError(
            f"--resume: {out or 'no --out given'}: no checkpoint there; --out must name the run to go on with"
        )
    if there and not resume:
        raise TrainingError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")


def _config(options: dict[str, Any]) -> Any:
    import yaml

    from toolkit.config import ConfigError, config_from_dict, with_settings

    data: Any = {}
    if options["config_file"] is not None:
        try:
            data = yaml.safe_load(options["config_file"].read_text()) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{options['config_file']}: not readable as YAML: {' '.join(str(error).split())}"
            ) from error
    config = config_from_dict(data)
    named = {
        "objective": options["objective"],
        "generator": options["generator"],
        "total_steps": options["steps"],
        "seed": options["seed"],
        "device": options["device"],
    }
    settings = [f"{name}={value}" for name, value in named.items() if value is not None]
    if options["segment"] is not None:
        settings.append(f"reward.segment={0 if options['segment'] == 'episode' else options['segment']}")
    return with_settings(config, [*settings, *options["settings"]])
