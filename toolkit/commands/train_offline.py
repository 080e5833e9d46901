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


def train_offline(config: TrainConfig, stores: dict[str, Any], out: Path | None, resume: bool, quiet: bool) -> None:
    """Learns the reward, with a bar, and prints what came out.

    Args:
        config: Settings, objective "offline".
        stores: "demos" and "background" paths, and "robot" or None for the one the demos are of.
        out: Run folder, or None for a fresh one.
        resume: Go on from its checkpoint.
        quiet: JSON and no bar.

    Raises:
        ToolkitError: Anything the user can mend. An overlap that collapsed while learning is raised after the run is
            saved; such a run can be looked at, not exported.
    """
    from toolkit.overlap import OverlapError

    if not quiet:
        click.echo("fitting the densities of demos and background ...", err=True)
    run, learner = prepare_offline(config, stores, out)
    if resume:
        run.resume()
    if not quiet:
        overlap = learner.overlap
        click.echo(
            f"overlap: {overlap.support:.0%} of demo segments in the background's support, ESS {overlap.ess:.1%}"
        )
    last = _train_with_progress(run, learner, quiet)
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
    if learner.refused is not None:
        raise OverlapError(f"{run.folder}: {learner.refused}")
    if run.interrupted:
        raise SystemExit(130)


def prepare_offline(config: TrainConfig, stores: dict[str, Any], out: Path | None) -> tuple[Run, OfflineLearner]:
    """Opens the stores, fits the densities and measures the overlap.

    Args:
        config: Settings.
        stores: As in `train_offline`.
        out: Run folder, or None for a fresh one.

    Returns:
        The run, not started, and the learner in it.

    Raises:
        ToolkitError: A store that is missing, of another robot, or given twice; too little overlap.
    """
    from demos.store import DemoStore
    from robots.robot_yaml import load_robot
    from toolkit.offline import OfflineError, OfflineLearner
    from toolkit.run import Run, new_folder

    for what in ("demos", "background"):
        if stores[what] is None:
            raise OfflineError(f"--offline needs --{what}: a store of {_MEANING[what]}")
    wanted = load_robot(stores["robot"]) if stores["robot"] is not None else None
    demos = DemoStore.open(stores["demos"], wanted)
    background = DemoStore.open(stores["background"], demos.spec)
    if demos.chain_sha256 == background.chain_sha256:
        raise OfflineError(
            f"{stores['background']}: the same episodes as the demos; background is {_MEANING['background']}"
        )
    spec, episodes = wanted or demos.spec, demos.episodes()
    learner = OfflineLearner(spec, config, episodes, background.episodes())
    identity = {
        **demos.identity(),
        "path": str(stores["demos"]),
        "background": {**background.identity(), "path": str(stores["background"])},
    }
    return Run(out or new_folder(f"{spec.name}-offline"), learner, identity, episodes), learner


_MEANING = {
    "demos": "an expert's episodes",
    "background": "what others did, such as `gcl record --operator policy --noise 0.3` makes",
}


def _train_with_progress(run: Run, learner: OfflineLearner, quiet: bool) -> dict[str, float]:
    """Trains; returns the metrics of the last iteration, none if there was none left to do."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("offline"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} gradient steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    ]
    last: dict[str, float] = {}
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

        run.train(on_progress, 0, 0)
    return last
