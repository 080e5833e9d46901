"""`gcl train`: learn the reward and the policy."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robots.spec import ToolkitError
from toolkit.commands.verdict import show_verdict

if TYPE_CHECKING:
    from toolkit.config import TrainConfig
    from toolkit.run import Run
    from toolkit.trainer import Trainer

_EVALUATIONS = 20  # per run, unless told otherwise


@click.command()
@click.option("--demos", type=click.Path(path_type=Path), help="Demo store to learn from.")
@click.option("--count", type=click.IntRange(min=1), help="Learn from the first so many demos that are not excluded.")
@click.option("--offline", is_flag=True, help="Learn the reward from --demos and --background alone; simulate nothing.")
@click.option("--background", type=click.Path(path_type=Path), help="Store of what others did, for --offline.")
@click.option("--robot", help="Name or robot.yaml. Default: as the demos say; without demos it is needed.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. Default: runs/<robot>-<time>.")
@click.option("--objective", help="gan-gcl (default), gcl, gail, airl, bc, constant; reward or task-reward: no demos.")
@click.option("--generator", help="ppo (default), or sac to need fewer steps of experience.")
@click.option(
    "--reward",
    "reward_file",
    type=click.Path(path_type=Path),
    help="Frozen reward to learn a policy from: .onnx, bundle or run.",
)
@click.option(
    "--start", type=click.Path(path_type=Path), help="Run or checkpoint whose policy and value to start from."
)
@click.option(
    "--guide", is_flag=True, help="Learn a reward that can lead new policies, beginning with random actions: 9 M steps."
)
@click.option("--segment", help="Steps per scored segment, or 'episode' for whole episodes.")
@click.option("--steps", type=int, help="Control steps of experience in total; gradient steps with --offline.")
@click.option("--seconds", type=click.FloatRange(min=0.0, min_open=True), help="Stop after so much training [s].")
@click.option("--randomize", is_flag=True, help="Vary masses, friction, gains, delay and noise as robot.yaml says.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--device", help="cpu (default) or cuda.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="YAML with settings; unknown keys are errors."
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One setting, such as reward.alpha=0.03.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option(
    "--eval-every",
    type=click.IntRange(min=0),
    help="Iterations between evaluations in dm_control; 0 for none. Default: 20 in all.",
)
@click.option(
    "--eval-episodes", type=click.IntRange(min=1), default=3, show_default=True, help="Episodes of each evaluation."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and no progress bar.")
def command(demos: Path | None, robot: str | None, out: Path | None, resume: bool, **options: Any) -> None:
    """Learn the reward and the policy from demonstrations.

    Ctrl-C saves and stops; --resume goes on with the same numbers as if it had never stopped.

    \b
    Examples:
      gcl train --demos my_demos.zarr
      gcl train --demos my_demos.zarr --out runs/first --resume
      gcl train --demos my_demos.zarr --objective airl --set reward.inputs=state
      gcl train --demos my_demos.zarr --guide --out runs/guide
      gcl train --reward cheetah.bundle/reward.onnx --robot cheetah-weak
      gcl train --objective task-reward --robot cheetah --out runs/expert
      gcl train --offline --demos my_demos.zarr --background others.zarr
    """
    options["resumed"] = _check_folder(out, resume)
    if options["offline"]:
        from toolkit.commands.train_offline import train_offline

        return train_offline(demos, robot, out, resume, options)
    from toolkit.commands.prepare import prepare

    run = prepare(demos, robot, out, options)
    start = copy.deepcopy(run.trainer.policy)  # before a resumed run puts its own in place
    if resume:
        run.resume()
    eval_every, eval_episodes = _eval_every(run.trainer, options["eval_every"]), options["eval_episodes"]
    evaluations = train_with_progress(run, eval_every, eval_episodes, options["as_json"], options["seconds"])
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
    verdict = None
    if run.episodes and not run.interrupted:
        from toolkit.metrics import read_metrics
        from toolkit.verdict import judge, learned_episodes, write_verdict

        verdict = judge(run.trainer, run.episodes, start, read_metrics(run.folder / "metrics.csv"))
        judged_by = {**run.demos, "episodes": learned_episodes(run.demos), "learned_from": True}
        write_verdict(run.folder, verdict, judged_by)
        result["verdict"] = verdict.to_dict()
    if options["as_json"]:
        click.echo(json.dumps(result))
    else:
        _show_end(run)
        if verdict is not None:
            show_verdict(verdict)
    if run.interrupted:
        raise SystemExit(130)


def _eval_every(trainer: Trainer, asked: int | None) -> int:
    """Iterations between evaluations; 0 for none."""
    if trainer.spec.task is not None:
        return max(1, trainer.iterations // _EVALUATIONS) if asked is None else asked
    if asked:
        raise ToolkitError(f"--eval-every: {trainer.spec.name} has no dm_control `task` to be measured in")
    return 0


def _show_end(run: Run[Trainer]) -> None:
    ended = "stopped and saved" if run.interrupted else "done"
    click.echo(f"{ended}: {run.folder} ({run.trainer.steps:,} steps in {run.seconds:.0f} s)")


def train_with_progress(
    run: Run[Trainer], eval_every: int, eval_episodes: int, quiet: bool = False, seconds: float | None = None
) -> list[dict[str, float]]:
    """Trains with a progress bar that shows the numbers that matter.

    They are steps a second, the discriminator's accuracy (on what it learns from / on held-out demos), the policy's
    noise, and the last return in dm_control.

    Args:
        run: What to train.
        eval_every: Iterations between evaluations; 0 for none.
        eval_episodes: Episodes of each.
        quiet: No bar.
        seconds: Stop after so many seconds of training; None for all steps.

    Returns:
        Rows of `evaluations.csv`.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    trainer = run.trainer
    columns = [
        TextColumn("train"),
        BarColumn(bar_width=12),  # the numbers must fit beside it on 80 columns
        TextColumn("{task.fields[steps]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    ]
    with Progress(*columns, disable=quiet) as progress:
        total = trainer.iterations * trainer.steps_per_iteration
        task = progress.add_task("train", total=total, steps="", shown="")
        returned = ""

        def on_progress(trainer: Any, metrics: dict[str, float], evaluation: Any) -> None:
            nonlocal returned
            seconds = sum(value for name, value in metrics.items() if name.startswith("time/"))
            shown = f"{trainer.steps_per_iteration / seconds:,.0f}/s"
            if "reward/accuracy" in metrics:
                shown += f" D {metrics['reward/accuracy']:.2f}"
            if "held_out/accuracy" in metrics:
                shown += f"/{metrics['held_out/accuracy']:.2f}"
            shown += f" std {metrics['policy/std']:.2f}"
            if evaluation is not None:
                returned = f" return {evaluation.mean:.0f}"
                if not progress.console.is_terminal and not quiet:
                    click.echo(f"{trainer.steps:>10,} steps {run.seconds:6.0f} s {shown}{returned}")
            steps = f"{trainer.steps / 1e6:.2f}/{total / 1e6:.2f} M"
            progress.update(task, completed=trainer.steps, steps=steps, shown=shown + returned)

        return run.train(on_progress, eval_every, eval_episodes, seconds)


def _check_folder(out: Path | None, resume: bool) -> TrainConfig | None:
    """Refuses before the work of preparing a run begins; returns the settings of the run to go on with."""
    from toolkit.checkpoint import FILE_NAME, load
    from toolkit.trainer import TrainingError

    if out is not None and out.exists() and not out.is_dir():
        raise TrainingError(f"--out: {out} is a file; a run is a folder")
    there = out is not None and (out / FILE_NAME).exists()
    if resume and not there:
        raise TrainingError(
            f"--resume: {out or 'no --out given'}: no checkpoint there; --out must name the run to go on with"
        )
    if there and not resume:
        raise TrainingError(f"{out} already holds a run: add --resume to go on with it, or choose another --out")
    return load(out).config if resume and out is not None else None
