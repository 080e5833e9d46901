"""`gcl train --offline`: the reward from demos and recorded background, and no simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolkit.config import TrainConfig
    from toolkit.offline import OfflineLearner
    from toolkit.run import Run

POLICY_NOTE = "a clone of the demos, not improved: without a simulator there is nothing to try a better one on"
_SHOWN = ("reward/loss", "reward/ess", "reward/ess_exact", "held_out/gap", "held_out/auc")


def train_offline(
    demos: Path | None, robot: str | None, out: Path | None, resume: bool, options: dict[str, Any]
) -> None:
    """Learns the reward, with a bar, and prints what came out.

    Args:
        demos: The expert's store.
        robot: Robot that it must fit, or None for its own.
        out: Run folder, or None for a fresh one.
        resume: Go on from its checkpoint.
        options: The remaining options of `gcl train` by name; "background" is the other store.

    Raises:
        ToolkitError: Anything the user can mend. An overlap that collapsed while learning is raised after the run is
            saved; such a run can be looked at, not exported.
    """
    from toolkit.overlap import OverlapError

    quiet = options["as_json"]
    if not quiet:
        click.echo("fitting the densities of demos and background ...", err=True)
    run = prepare_offline(demos, robot, out, options)
    learner = run.trainer
    if resume:
        run.resume()
    if not quiet:
        overlap = learner.overlap
        click.echo(
            f"overlap: {overlap.support:.0%} of demo segments in the background's support, ESS {overlap.ess:.1%}"
        )
    last = _train_with_progress(run, quiet, options["seconds"])
    result = {
        "run": str(run.folder),
        "iterations": learner.iteration,
        "steps": learner.steps,
        "seconds": run.seconds,
        "overlap": {"support": learner.overlap.support, "ess": learner.overlap.ess},
        **{name.replace("/", "_"): last.get(name) for name in _SHOWN},
        "policy": POLICY_NOTE,
        "interrupted": run.interrupted,
    }
    if quiet:
        click.echo(json.dumps(result))
    else:
        ended = "stopped and saved" if run.interrupted else "done"
        click.echo(f"{ended}: {run.folder} ({learner.steps:,} gradient steps in {run.seconds:.0f} s)")
        click.echo(f"the run's policy is {POLICY_NOTE}")
    if run.interrupted:
        raise SystemExit(130)
    if (refused := learner.refused()) is not None:
        raise OverlapError(f"{run.folder}: {refused}")


def prepare_offline(
    demos: Path | None, robot: str | None, out: Path | None, options: dict[str, Any]
) -> Run[OfflineLearner]:
    """Opens the stores, fits the densities and measures the overlap.

    Args:
        demos: As in `train_offline`.
        robot: As in `train_offline`.
        out: As in `train_offline`.
        options: As in `train_offline`.

    Returns:
        The run, not started.

    Raises:
        ToolkitError: A store that is missing, of another robot, or given twice; an option that makes no sense without a
            simulator; too little overlap.
    """
    from robots.robot_yaml import load_robot
    from toolkit.commands.prepare import open_demos
    from toolkit.offline import OfflineError, OfflineLearner
    from toolkit.run import Run, new_folder

    config, background = _config(options), options["background"]
    for what, store in (("demos", demos), ("background", background)):
        if store is None:
            raise OfflineError(f"--offline needs --{what}: a store of {_MEANING[what]}")
    assert demos is not None
    wanted = load_robot(robot) if robot is not None else None
    spec, episodes, identity = open_demos(demos, wanted, options["count"])
    _, others, other_identity = open_demos(background, spec, None)
    if identity["chain_sha256"] == other_identity["chain_sha256"]:
        raise OfflineError(f"{background}: the same episodes as the demos; background is {_MEANING['background']}")
    learner = OfflineLearner(spec, config, episodes, others)
    identity["background"] = other_identity
    return Run(out or new_folder(f"{spec.name}-offline"), learner, identity, episodes)


def _config(options: dict[str, Any]) -> TrainConfig:
    """The settings; refuses what an offline run cannot obey."""
    from toolkit.commands.prepare import config_from_options
    from toolkit.settings import ConfigError

    for name, value, instead in (
        ("--eval-every", options["eval_every"], "measure the cloned policy with gcl eval"),
        ("--start", options["start"], "its policy is cloned from the demos"),
        ("--generator", options["generator"], "it improves no policy"),
        ("--reward", options["reward_file"], "it learns a reward"),
        ("--randomize", options["randomize"] or None, "nothing is left to vary"),
        ("--guide", options["guide"] or None, "no policy there tries what its reward says"),
    ):
        if value is not None:
            raise ConfigError(f"{name}: --offline simulates nothing; {instead}")
    config = config_from_options(options, ["objective=offline"])
    if config.objective != "offline":
        raise ConfigError(f"objective {config.objective!r} with --offline")
    return config


_MEANING = {
    "demos": "an expert's episodes",
    "background": "what others did, such as `gcl record --operator policy --noise 0.3` makes",
}


def _train_with_progress(run: Run[OfflineLearner], quiet: bool, seconds: float | None) -> dict[str, float]:
    """Trains; returns the metrics of the last iteration, none if there was none left to do."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("offline"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} gradient steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    ]
    learner, last = run.trainer, dict[str, float]()
    with Progress(*columns, disable=quiet) as progress:
        total = learner.iterations * learner.steps_per_iteration
        task = progress.add_task("offline", total=total, completed=learner.steps, shown="")

        def on_progress(_: Any, metrics: dict[str, float], __: Any) -> None:
            last.update(metrics)
            shown = f"loss {metrics['reward/loss']:.3f}  ESS {metrics['reward/ess']:.0%}"
            shown += f" (exact {metrics['reward/ess_exact']:.1%})"
            if "held_out/gap" in metrics:
                shown += f"  held-out gap {metrics['held_out/gap']:.2f}"
            progress.update(task, completed=learner.steps, shown=shown)

        run.train(on_progress, 0, 0, seconds)
    return last
