"""`gcl quickstart`: the whole pipeline on shipped demonstrations."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolkit.evaluate import Act
    from toolkit.run import Run
    from toolkit.trainer import Trainer

_EVALUATION_EPISODES = 10


@click.command()
@click.option("--demos", type=click.Path(path_type=Path), help="Demo store. Default: the shipped cheetah demos.")
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="Demos to learn from.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the artefacts go. Default: runs/quickstart-<time>.")
@click.option("--steps", type=int, help="Control steps of training. Default: enough for the shipped demos.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training run.")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="How long the controller runs [s].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON too.")
def command(
    demos: Path | None, count: int, out: Path | None, steps: int | None, seed: int, seconds: float, as_json: bool
) -> None:
    """Take shipped demonstrations all the way to a deployed policy.

    Learns reward and policy from the demos, exports both as ONNX, runs them in a real-time controller against a
    simulated robot in another process, and measures everything. Takes under ten minutes on two cores.

    \b
    Example:
      gcl quickstart
    """
    from toolkit.run import new_folder

    started = time.perf_counter()
    folder = out or new_folder("quickstart")
    say = _Teller()
    run, expert = _prepare(demos or shipped_demos("cheetah"), count, folder, steps, seed)
    say(f"1/4 learning reward and policy of {run.trainer.spec.name} from {count} demos (return {expert['mean']:.0f})")
    from toolkit.checkpoint import DeterministicPolicy
    from toolkit.commands.train import train_with_progress

    returns = {"expert": expert, "cloned": _measured(run, DeterministicPolicy(run.trainer.policy).act)}
    train_with_progress(run, max(1, run.trainer.iterations // 10), eval_episodes=3)
    if run.interrupted:
        raise SystemExit(130)
    bundle = folder / f"{run.trainer.spec.name}.bundle"
    say(f"2/4 exporting to {bundle}")
    parity = _export(folder, bundle)
    say(f"3/4 deploying: controller and simulated robot in processes of their own, {seconds:.0f} s in real time")
    deployed = _deploy(bundle, seconds)
    say(f"4/4 measuring in dm_control, {_EVALUATION_EPISODES} episodes each")
    returns |= _measure(run, bundle)
    result = {
        "return": returns,
        "ratio": returns["learned"]["mean"] / expert["mean"],
        "training": {
            "steps": run.trainer.steps,
            "seconds": run.seconds,
            "steps_per_s": run.trainer.steps / run.seconds,
        },
        "parity": parity,
        "deploy": deployed,
        "artefacts": _artefacts(run, bundle, expert["mean"], returns["random"]["mean"]),
        "seconds": time.perf_counter() - started,
    }
    (folder / "quickstart.json").write_text(json.dumps(result, indent=2) + "\n")
    _show(result)
    if as_json:
        click.echo(json.dumps(result))


def shipped_demos(robot: str) -> Path:
    """Path of the demo store that ships for a robot.

    Args:
        robot: Its name.

    Returns:
        The store's folder.

    Raises:
        ToolkitError: None ships for it.
    """
    from robots.spec import ToolkitError

    data = Path(__file__).parents[2] / "demos" / "data"
    path = data / f"{robot}.zarr"
    if not path.is_dir():
        have = sorted(p.stem for p in data.glob("*.zarr"))
        raise ToolkitError(f"no demos ship for {robot!r}; there are some for {', '.join(have) or 'no robot'}")
    return path


class _Teller:
    """Says which stage begins, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def __call__(self, text: str) -> None:
        click.secho(f"[{time.perf_counter() - self._started:5.0f} s] {text}", bold=True)


def _prepare(
    demos: Path, count: int, folder: Path, steps: int | None, seed: int
) -> tuple[Run[Trainer], dict[str, Any]]:
    """The run, and the demos' own return."""
    import numpy as np

    from toolkit.commands.prepare import open_demos
    from toolkit.config import TrainConfig, with_settings
    from toolkit.run import Run
    from toolkit.trainer import Trainer

    spec, episodes, identity = open_demos(demos, None, count)
    settings = [f"seed={seed}"] + ([] if steps is None else [f"total_steps={steps}"])
    trainer = Trainer(spec, with_settings(TrainConfig(), settings), episodes)
    returns = [float(np.sum(e.rewards)) for e in episodes if e.rewards is not None]
    expert = {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "episodes": count}
    return Run(folder, trainer, identity, episodes), expert


def _export(folder: Path, bundle: Path) -> dict[str, float]:
    from export.to_onnx import write_bundle
    from toolkit.export_parts import load_for_export

    report = write_bundle(bundle, load_for_export(folder))
    return {"policy": report.max_abs_policy, "reward": report.max_abs_reward}


def _deploy(bundle: Path, seconds: float) -> dict[str, Any]:
    """Runs `gcl deploy` as its own process: it must not borrow this one's torch."""
    from robots.spec import ToolkitError

    arguments = ["deploy", str(bundle), "--backend", "sim", "--seconds", str(seconds), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from toolkit.cli import main; main()", *arguments],
        capture_output=True, text=True, timeout=60.0 + 2.0 * seconds,
    )  # fmt: skip
    if done.returncode != 0:
        raise ToolkitError(f"gcl deploy ended with exit code {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure(run: Run[Trainer], bundle: Path) -> dict[str, dict[str, float]]:
    from toolkit.commands.eval import load_act
    from toolkit.evaluate import random_policy

    _, learned = load_act(bundle)
    return {"learned": _measured(run, learned), "random": _measured(run, random_policy(run.trainer.spec))}


def _measured(run: Run[Trainer], act: Act) -> dict[str, float]:
    from toolkit.commands.eval import measure

    measured = measure(run.trainer.spec, act, _EVALUATION_EPISODES)
    return {"mean": measured.mean, "std": measured.std, "episodes": _EVALUATION_EPISODES}


def _artefacts(run: Run[Trainer], bundle: Path, expert: float, random: float) -> dict[str, str]:
    from toolkit.plot import plot_run
    from toolkit.video import VideoError, record_video

    artefacts = {
        "run": str(run.folder),
        "bundle": str(bundle),
        "learning curve": str(plot_run(run.folder, expert, random)),
    }
    try:
        artefacts["video"] = str(record_video(bundle, run.folder / "policy.mp4", seconds=5.0))
    except VideoError as error:
        artefacts["video"] = str(error)
    return artefacts


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    returns, deploy = result["return"], result["deploy"]
    table = Table(title="gcl quickstart", show_header=False)
    for name, label in (
        ("expert", "expert (the demos)"),
        ("learned", "learned policy (ONNX)"),
        ("cloned", "its start (cloned)"),
        ("random", "random actions"),
    ):
        table.add_row(f"return, {label}", f"{returns[name]['mean']:.0f} +- {returns[name]['std']:.0f}")
    table.add_row("learned / expert", f"{result['ratio']:.3f}")
    table.add_row("training", f"{result['training']['steps']:,} steps, {result['training']['steps_per_s']:,.0f}/s")
    errors = result["parity"]
    table.add_row("ONNX against torch", f"policy {errors['policy']:.1e}, reward {errors['reward']:.1e}")
    table.add_row(
        "control loop", f"{deploy['rate_hz']:.1f} Hz, {deploy['misses']} of {deploy['ticks']} deadlines missed"
    )
    for name, label in (("compute", "reading to command"), ("tick", "whole tick")):
        latency = deploy[name]
        numbers = " / ".join(f"{latency[key]:.0f}" for key in ("p50_us", "p99_us", "p999_us"))
        table.add_row(f"{label}, p50/p99/p99.9", f"{numbers} us")
    table.add_row("all of it took", f"{result['seconds']:.0f} s")
    Console().print(table)
    for name, path in result["artefacts"].items():
        click.echo(f"{name + ':':<15} {path}")  # not in the table, which would cut a long path short
